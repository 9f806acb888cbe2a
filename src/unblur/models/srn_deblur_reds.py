"""The SRNDeblur of document D for REDS: half the size first, then the whole, with a ConvLSTM's state handed on.

After Tao et al., "Scale-recurrent Network for Deep Image Deblurring" (`srn`), made small as the document says: two
scales, filters from 8, no batch normalisation, ReLU, nothing after the last layer, and an input layer of two, of 8
filters each, whose outputs are concatenated to 16.

Where the document is silent: one of the two looks at the blurred picture, the other at the enlarged result of the scale
before (at the first scale, at the blurred picture as well); the levels have 16, 32 and 64 filters; 5×5 kernels, a 3×3
ConvLSTM, three ResBlocks a level and skips by addition, as in the paper; the small picture is made by area; gradients
go back through a result into the scale before. A ResBlock's second convolution starts at a tenth, for without
normalisation 18 blocks would otherwise multiply the signal.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import pad_to_multiple

SCALES = {"half": 2, "full": 1}
"""Each pass of the network and by how much it reduces the picture, in their order."""

LEVELS = 3
SIZE_MULTIPLE = 2**LEVELS


class SRNDeblurREDS(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape, any size; the output is not clamped.

    The two input layers have `filters` each; the three levels have twice, four and eight times as many, of `kernel_px`,
    each with `blocks` ResBlocks on the way down and on the way up.
    """

    def __init__(self, filters: int, blocks: int, kernel_px: int) -> None:
        super().__init__()
        if kernel_px % 2 == 0:
            raise ValueError(f"kernel_px is odd, not {kernel_px}")
        widths = [2 * filters * 2**level for level in range(LEVELS)]
        self.look_at_blurred = _looking(filters, kernel_px)
        self.look_at_result = _looking(filters, kernel_px)
        self.encoders, self.decoders = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            first = [_layer(widths[level - 1], width, kernel_px, stride=2)] if level else []
            self.encoders.append(nn.Sequential(*first, *(ResBlock(width, kernel_px) for _ in range(blocks))))
        self.memory = ConvLSTM(widths[-1])
        for level in reversed(range(LEVELS)):
            last = _doubling(widths[level], widths[level - 1]) if level else _last(widths[0], kernel_px)
            self.decoders.append(nn.Sequential(*(ResBlock(widths[level], kernel_px) for _ in range(blocks)), last))

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        return self.training_outputs(blurred)["full"]

    def training_outputs(self, blurred: Tensor) -> dict[str, Tensor]:
        """Return the results `half` (B, 3, H/2, W/2), rounded up, and `full` (B, 3, H, W) of the two scales."""
        height, width = blurred.shape[-2:]
        picture = pad_to_multiple(blurred, SIZE_MULTIPLE, "reflect")
        outputs, before, state = {}, None, None
        for scale, step in SCALES.items():
            here = F.avg_pool2d(picture, step) if step > 1 else picture
            before, state = self._restore(here, here if before is None else _enlarged(before), state)
            outputs[scale] = before[:, :, : -(-height // step), : -(-width // step)]
        return outputs

    def _restore(self, blurred: Tensor, before: Tensor, state: "State | None") -> tuple[Tensor, "State"]:
        """Return the result of one scale and the ConvLSTM's state, from those of the scale before."""
        x = torch.cat([self.look_at_blurred(blurred), self.look_at_result(before)], dim=1)  # (B, 2 * filters, H, W)
        skips = []
        for encoder in self.encoders:
            x = encoder(x)  # H and W halved at levels 1 and 2, channels doubled
            skips.append(x)
        x, state = self.memory(x, None if state is None else (_enlarged(state[0]), _enlarged(state[1])))
        for level, decoder in enumerate(self.decoders):
            x = decoder(x if level == 0 else x + skips[LEVELS - 1 - level])
        return x, state  # x: (B, 3, H, W)


State = tuple[Tensor, Tensor]
"""What the ConvLSTM carries from scale to scale: cell and hidden features, each (B, C, H, W)."""


class ConvLSTM(nn.Module):
    """Mixes features (B, C, H, W) with those of the scale before; 3×3 kernels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 4 * channels, 3, padding=1)
        nn.init.xavier_uniform_(self.gates.weight)

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Return the new features (B, C, H, W) and state, from the state of the scale before, enlarged, if any."""
        cell, hidden = (torch.zeros_like(x), torch.zeros_like(x)) if state is None else state
        let_in, candidate, keep, show = self.gates(torch.cat([x, hidden], dim=1)).chunk(4, dim=1)  # each (B, C, H, W)
        cell = (keep + 1).sigmoid() * cell + let_in.sigmoid() * candidate.tanh()  # by the 1 it begins with keeping
        hidden = show.sigmoid() * cell.tanh()
        return hidden, (cell, hidden)


class ResBlock(nn.Module):
    """Two convolutions, ReLU between them, whose result is added to their input, (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, kernel_px: int) -> None:
        super().__init__()
        second = nn.Conv2d(channels, channels, kernel_px, padding=kernel_px // 2)
        nn.init.normal_(second.weight, std=0.1 / (channels * kernel_px**2) ** 0.5)
        self.layers = nn.Sequential(_layer(channels, channels, kernel_px), second)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        return x + self.layers(x)


def _looking(outputs: int, kernel_px: int) -> nn.Sequential:
    """Return an input layer whose bias puts middle grey at 0: else half its filters would start, and stay, off."""
    conv, relu = _layer(3, outputs, kernel_px)
    conv.bias = nn.Parameter(-0.5 * conv.get_parameter("weight").detach().sum(dim=(1, 2, 3)))
    return nn.Sequential(conv, relu)


def _layer(inputs: int, outputs: int, kernel_px: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel_px, stride, padding=kernel_px // 2)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, nn.ReLU())


def _doubling(inputs: int, outputs: int) -> nn.Sequential:
    transposed = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    nn.init.normal_(transposed.weight, std=(2 / (4 * inputs)) ** 0.5)  # each pixel is made from 2×2 of `inputs`
    return nn.Sequential(transposed, nn.ReLU())


def _last(inputs: int, kernel_px: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, 3, kernel_px, padding=kernel_px // 2)


def _enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")


ARCH = Arch(
    name="srn_deblur_reds",
    build=SRNDeblurREDS,
    options={"filters": 8, "blocks": 3, "kernel_px": 5},
    tiny={"filters": 2, "blocks": 1, "kernel_px": 3},
    size_multiple=SIZE_MULTIPLE,
    padding="reflect",
    overlap_px=64,
    origin="document D (a course report), after X. Tao, H. Gao, X. Shen, J. Wang, J. Jia",
    paper="Deep Learning report for deblurring project, section 4 'SRNDeblur'; Scale-recurrent Network for Deep Image "
    "Deblurring, CVPR 2018, arXiv 1802.01770",
    stages=2,
)
