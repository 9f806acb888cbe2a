"""The SRNDeblur of document D for CIFAR-10: half the size first, then the whole, with an LSTM's state handed on.

After Tao et al., "Scale-recurrent Network for Deep Image Deblurring" (`srn`), changed as the document says: two scales,
batch normalisation, LeakyReLU, a sigmoid at the end, filters from 32, and in place of the ConvLSTM the chain reshape,
LSTM of 32 units, dense layer, reshape. The dense layer has as many units as the features have numbers, so the network
knows pictures of 32×32 only: `forward` brings any other to that size and back. With `lstm` off it takes every size.

Where the document is silent: 5×5 kernels, three ResBlocks a level and skips by addition, as in the paper; LeakyReLU
of slope 0.2; the features of a scale are one time step of the LSTM, whose recurrent weights both scales share, while
those for its input, of another length at each scale, and its dense layer cannot be; the small picture is made by area.
"""

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import pad_to_multiple, resized

SIDE = 32
"""Height and width of CIFAR-10's pictures, in pixels."""

SCALES = {"half": 2, "full": 1}
"""Each pass of the network and by how much it reduces the picture, in their order."""

LEVELS = 3
SLOPE = 0.2


class SRNDeblurCIFAR(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape; the output lies within (0, 1).

    The three levels have `width`, twice and four times as many filters of `kernel_px`, each with `blocks` ResBlocks on
    the way down and on the way up. With `lstm`, sizes other than 32×32 are resized to it and back; it has
    `lstm_units` at each scale.
    """

    def __init__(self, width: int, blocks: int, kernel_px: int, lstm: bool, lstm_units: int) -> None:
        super().__init__()
        if kernel_px % 2 == 0:
            raise ValueError(f"kernel_px is odd, not {kernel_px}")
        self.fixed_size = (SIDE, SIDE) if lstm else None
        self.size_multiple = 1 if lstm else 2**LEVELS
        filters = [width * 2**level for level in range(LEVELS)]
        self.encoders, self.decoders = nn.ModuleList(), nn.ModuleList()
        for level, count in enumerate(filters):
            first = _layer(filters[level - 1], count, kernel_px, stride=2) if level else _layer(6, count, kernel_px)
            self.encoders.append(nn.Sequential(first, *(ResBlock(count, kernel_px) for _ in range(blocks))))
        for level in reversed(range(LEVELS)):
            last = _doubling(filters[level], filters[level - 1]) if level else _last(width, kernel_px)
            self.decoders.append(nn.Sequential(*(ResBlock(filters[level], kernel_px) for _ in range(blocks)), last))
        sides = [SIDE // step // 2 ** (LEVELS - 1) for step in SCALES.values()]  # 4 and 8 px
        shapes = [(filters[-1], side, side) for side in sides]
        self.memory = Memory(shapes, lstm_units) if lstm else None

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        return self.training_outputs(blurred)["full"]

    def training_outputs(self, blurred: Tensor) -> dict[str, Tensor]:
        """Return the results `half` (B, 3, H/2, W/2), rounded up, and `full` (B, 3, H, W) of the two scales."""
        picture = resized(blurred, SIDE, SIDE) if self.memory else pad_to_multiple(blurred, 2**LEVELS, "reflect")
        outputs, before, state = {}, None, None
        for number, (scale, step) in enumerate(SCALES.items()):
            here = F.avg_pool2d(picture, step) if step > 1 else picture
            before = here if before is None else F.interpolate(before, scale_factor=2, mode="bilinear")
            before, state = self._restore(torch.cat([here, before], dim=1), number, state)
            outputs[scale] = self._as_given(before, -(-blurred.shape[-2] // step), -(-blurred.shape[-1] // step))
        return outputs

    def _restore(self, x: Tensor, scale: int, state: "State | None") -> tuple[Tensor, "State | None"]:
        """Return the result of one scale and the LSTM's state, if any, from that of the scale before."""
        skips = []
        for encoder in self.encoders:
            x = encoder(x)  # (B, width * 2^level, H, W), H and W halved at levels 1 and 2
            skips.append(x)
        if self.memory is not None:
            x, state = self.memory(x, scale, state)
        for level, decoder in enumerate(self.decoders):
            x = decoder(x if level == 0 else x + skips[LEVELS - 1 - level])
        return x, state  # x: (B, 3, H, W)

    def _as_given(self, output: Tensor, height: int, width: int) -> Tensor:
        return resized(output, height, width) if self.memory else output[:, :, :height, :width]


State = tuple[Tensor, Tensor]
"""The cell and the hidden numbers of an LSTM, each (B, units)."""


class Memory(nn.Module):
    """Reshape, LSTM, dense, reshape: replaces the features of a scale (B, C, H, W) by what the LSTM makes of them.

    `shapes` are (C, H, W) of each scale, and a scale is known by its number.
    """

    def __init__(self, shapes: list[tuple[int, int, int]], units: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Linear(prod(shape), 4 * units) for shape in shapes)
        self.recurrent = nn.Linear(units, 4 * units, bias=False)
        self.dense = nn.ModuleList(nn.Linear(units, prod(shape)) for shape in shapes)

    def forward(self, x: Tensor, scale: int, state: State | None) -> tuple[Tensor, State]:
        """Return the new features (B, C, H, W) and state, from the state of the scale before, if any."""
        gates = self.gates[scale](x.flatten(1))  # (B, 4 * units)
        if state is not None:
            gates = gates + self.recurrent(state[1])
        let_in, candidate, keep, show = gates.chunk(4, dim=1)  # each (B, units)
        cell = let_in.sigmoid() * candidate.tanh()
        if state is not None:
            cell = cell + (keep + 1).sigmoid() * state[0]  # by the 1 it begins with keeping, as Keras' does
        hidden = show.sigmoid() * cell.tanh()
        return self.dense[scale](hidden).reshape(x.shape), (cell, hidden)


class ResBlock(nn.Module):
    """Two convolutions whose result is added to their input, (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, kernel_px: int) -> None:
        super().__init__()
        second = nn.Conv2d(channels, channels, kernel_px, padding=kernel_px // 2, bias=False)
        self.layers = nn.Sequential(_layer(channels, channels, kernel_px), second, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        return x + self.layers(x)


def _layer(inputs: int, outputs: int, kernel_px: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel_px, stride, padding=kernel_px // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(SLOPE))


def _doubling(inputs: int, outputs: int) -> nn.Sequential:
    transposed = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(transposed, nn.BatchNorm2d(outputs), nn.LeakyReLU(SLOPE))


def _last(inputs: int, kernel_px: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, 3, kernel_px, padding=kernel_px // 2), nn.Sigmoid())


ARCH = Arch(
    name="srn_deblur_cifar",
    build=SRNDeblurCIFAR,
    options={"width": 32, "blocks": 3, "kernel_px": 5, "lstm": True, "lstm_units": 32},
    tiny={"width": 4, "blocks": 1, "kernel_px": 3, "lstm_units": 4},
    size_multiple=1,
    padding="none",
    overlap_px=8,
    fixed_size=(SIDE, SIDE),
    origin="document D (a course report), after X. Tao, H. Gao, X. Shen, J. Wang, J. Jia",
    paper="Deep Learning report for deblurring project, section 4 'SRNDeblur'; Scale-recurrent Network for Deep Image "
    "Deblurring, CVPR 2018, arXiv 1802.01770",
    stages=2,
    published={"with LSTM": {}, "without LSTM": {"lstm": False}},
)
