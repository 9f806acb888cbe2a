"""SRN-DeblurNet: one network restores a quarter of the size, then half, then the whole, each from the one before.

Tao, Gao, Shen, Wang, Jia: "Scale-recurrent Network for Deep Image Deblurring", CVPR 2018 (arXiv 1802.01770).
Written from the paper. The parameters bear the names of the authors' TensorFlow variables, slashes
included, so that a converted checkpoint loads as it is; weights are in torch's layout, which for convolutions and
transposed ones alike is TensorFlow's permuted by (3, 2, 0, 1). Equal to the authors' outputs in the goldens
(tests/test_srn.py), for which TensorFlow 1's ways are kept: its padding of strided convolutions, and bilinear
resizing without half-pixel centres.

The authors shrink pictures larger than 720x1280; we do not.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import pad_to_multiple

SCALES = {"quarter": 4, "half": 2, "full": 1}
"""Each pass of the network and how many pixels it steps over, in their order."""

LEVELS = (1, 2, 3)


class SRN(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape, any size; the output is not clamped.

    `planes` is 1 where each colour is restored as a grey picture of its own (then a grey picture, (B, 1, H, W), will do
    as well), or 3. The levels have `width`, twice and
    four times as many channels, each with `blocks` ResBlocks on the way down and on the way up. `convlstm` carries
    features from scale to scale. The ablations of the paper switch parts off: `residual`, without which
    a ResBlock is just its two convolutions, and `halving`, without which all levels work at full size and there is no
    way around them.
    """

    def __init__(
        self, planes: int, width: int, blocks: int, kernel_px: int, convlstm: bool, residual: bool, halving: bool
    ) -> None:
        super().__init__()
        if planes not in (1, 3):
            raise ValueError(f"planes is 1 (each colour by itself) or 3 (RGB), not {planes}")
        if kernel_px % 2 == 0:
            raise ValueError(f"kernel_px is odd, not {kernel_px}")
        self.planes, self.blocks, self.kernel_px = planes, blocks, kernel_px
        self.convlstm, self.residual, self.halving = convlstm, residual, halving
        self.size_multiple = 16 if halving else 4
        channels = {level: width * 2 ** (level - 1) for level in LEVELS}
        inputs = 2 * planes
        for level in LEVELS:
            self._add(f"enc{level}_1", inputs, channels[level], kernel_px)
            inputs = channels[level]
            for number in self._encoder_blocks():
                self._add_block(f"enc{level}_{number}", inputs)
        if convlstm:
            self._add("convLSTM/LSTM_conv", 2 * inputs, 4 * inputs, 3)
        for level in reversed(LEVELS):
            if level < LEVELS[-1]:
                self._add(f"dec{level}_{blocks + 1}", inputs, channels[level], 4 if halving else kernel_px, halving)
            inputs = channels[level]
            for number in self._decoder_blocks():
                self._add_block(f"dec{level}_{number}", inputs)
        self._add("dec1_0", inputs, planes, kernel_px)

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        return self.training_outputs(blurred)["full"]

    def training_outputs(self, blurred: Tensor) -> dict[str, Tensor]:
        """Return the results `quarter`, `half` and `full` of the three scales, (B, 3, H/4, W/4) to (B, 3, H, W).

        The coarser ones are to equal `sharp[..., ::4, ::4]` and `sharp[..., ::2, ::2]` and are of their sizes,
        whatever H and W. No gradient goes back through a result into the scale before, as with the authors.
        """
        height, width = blurred.shape[-2:]
        padded = pad_to_multiple(blurred, self.size_multiple, "replicate")
        planes = padded.reshape(-1, self.planes, *padded.shape[-2:])  # (3B, 1, H, W) or (B, 3, H, W)
        outputs, before, state = {}, None, None
        for scale, step in SCALES.items():
            here = planes[:, :, ::step, ::step]
            before = here if before is None else double(before.detach())
            before, state = self._restore(torch.cat([here, before], dim=1), None if state is None else double(state))
            restored = before.reshape(*blurred.shape[:2], *before.shape[-2:])  # (B, 3, H/step, W/step)
            outputs[scale] = restored[:, :, : -(-height // step), : -(-width // step)]
        return outputs

    def _restore(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the result of one scale and the state of the ConvLSTM, if any, from that of the scale before."""
        skips = {}
        for level in LEVELS:
            halving = self.halving and level > 1
            x = self._halve(x, f"enc{level}_1") if halving else self._conv(x, f"enc{level}_1").relu()
            for number in self._encoder_blocks():
                x = self._block(x, f"enc{level}_{number}")
            skips[level] = x  # (B, width * 2^(level-1), H, W), H and W halved at levels 2 and 3
        if self.convlstm:
            x, state = self._remember(x, state)
        for level in reversed(LEVELS):
            if level < LEVELS[-1]:
                layer = f"dec{level}_{self.blocks + 1}"
                x = self._double(x, layer) + skips[level] if self.halving else self._conv(x, layer).relu()
            for number in self._decoder_blocks():
                x = self._block(x, f"dec{level}_{number}")
        return self._conv(x, "dec1_0"), state

    def _remember(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the features mixed with those of the coarser scales, and the state (B, 2C, H, W): cell, hidden."""
        cell, hidden = state.chunk(2, dim=1) if state is not None else (torch.zeros_like(x), torch.zeros_like(x))
        gates = self._conv(torch.cat([x, hidden], dim=1), "convLSTM/LSTM_conv")
        let_in, candidate, keep, show = gates.chunk(4, dim=1)  # each (B, C, H, W)
        cell = cell * (keep + 1).sigmoid() + let_in.sigmoid() * candidate.tanh()
        hidden = cell.tanh() * show.sigmoid()
        return hidden, torch.cat([cell, hidden], dim=1)

    def _block(self, x: Tensor, layer: str) -> Tensor:
        y = self._conv(self._conv(x, f"{layer}/conv1").relu(), f"{layer}/conv2")
        return x + y if self.residual else y.relu()

    def _conv(self, x: Tensor, layer: str) -> Tensor:
        weights, biases = self._of(layer)
        return F.conv2d(x, weights, biases, padding=weights.shape[-1] // 2)

    def _halve(self, x: Tensor, layer: str) -> Tensor:
        """Return the strided convolution with ReLU, (B, C, H, W) -> (B, 2C, H/2, W/2).

        TensorFlow pads even sizes by one pixel less on the left and on top (5x5: by 1 and 2). Two more there,
        and the same elsewhere, only add a first row and column, which are dropped.
        """
        weights, biases = self._of(layer)
        return F.conv2d(x, weights, biases, stride=2, padding=(weights.shape[-1] + 1) // 2)[:, :, 1:, 1:].relu()

    def _double(self, x: Tensor, layer: str) -> Tensor:
        """Return the transposed convolution with ReLU, (B, 2C, H, W) -> (B, C, 2H, 2W)."""
        return F.conv_transpose2d(x, *self._of(layer), stride=2, padding=1).relu()

    def _encoder_blocks(self) -> range:
        return range(2, self.blocks + 2)

    def _decoder_blocks(self) -> range:
        return range(self.blocks, 0, -1)

    def _of(self, layer: str) -> tuple[Tensor, Tensor]:
        return self.get_parameter(f"g_net/{layer}/weights"), self.get_parameter(f"g_net/{layer}/biases")

    def _add_block(self, layer: str, channels: int) -> None:
        self._add(f"{layer}/conv1", channels, channels, self.kernel_px)
        self._add(f"{layer}/conv2", channels, channels, self.kernel_px)

    def _add(self, layer: str, inputs: int, outputs: int, kernel_px: int, transposed: bool = False) -> None:
        """Make the parameters of a layer. They are all of this module, for a child's name would end in a dot."""
        channels = (inputs, outputs) if transposed else (outputs, inputs)
        weights = nn.init.xavier_uniform_(torch.empty(*channels, kernel_px, kernel_px))
        self.register_parameter(f"g_net/{layer}/weights", nn.Parameter(weights))
        self.register_parameter(f"g_net/{layer}/biases", nn.Parameter(torch.zeros(outputs)))


def double(x: Tensor) -> Tensor:
    """Return TensorFlow 1's bilinear enlargement, (B, C, H, W) -> (B, C, 2H, 2W).

    Each pixel stays, followed by the mean of itself and the next; the last one is repeated.
    """
    for dim in (2, 3):
        following = torch.cat([x.narrow(dim, 1, x.shape[dim] - 1), x.narrow(dim, -1, 1)], dim)
        x = torch.stack([x, (x + following) / 2], dim + 1).flatten(dim, dim + 1)
    return x


# The ablations are ours by description. That they have 3x3 kernels follows from the paper's numbers of parameters,
# which these give with a ConvLSTM (2.21, 2.99 and 3.76 million for 1, 2 and 3 blocks).
ABLATION = {"kernel_px": 3, "convlstm": False}

ARCH = Arch(
    name="srn",
    build=SRN,
    options={
        "planes": 1,
        "width": 32,
        "blocks": 3,
        "kernel_px": 5,
        "convlstm": True,
        "residual": True,
        "halving": True,
    },
    tiny={"width": 4, "blocks": 1, "kernel_px": 3},
    size_multiple=16,
    padding="replicate",
    overlap_px=64,
    origin="X. Tao, H. Gao, X. Shen, J. Wang, J. Jia",
    paper="Scale-recurrent Network for Deep Image Deblurring, CVPR 2018, arXiv 1802.01770",
    stages=3,
    published={
        "lstm": {},
        "gray": {"convlstm": False},
        "color": {"convlstm": False, "planes": 3},
        "SR-Flat": {**ABLATION, "residual": False, "halving": False},
        "SR-RB": {**ABLATION, "halving": False},
        "SR-ED": {**ABLATION, "residual": False},
        "SR-EDRB1": {**ABLATION, "blocks": 1},
        "SR-EDRB2": {**ABLATION, "blocks": 2},
        "SR-EDRB3": {**ABLATION, "blocks": 3},
    },
)
