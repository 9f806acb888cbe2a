"""NAFNet, a U-Net without activation functions.

Chen, Chu, Zhang, Sun: "Simple Baselines for Image Restoration", ECCV 2022 (arXiv 2204.04676), figures 2, 3 and 4.
Written from the paper; keys of the state dict are the authors', so that their checkpoints load without renaming.
Equal to the authors' outputs in the goldens (tests/test_nafnet.py).

Ours beyond the paper: `unshuffle`, which folds squares of pixels into channels before the first convolution (a factor
of 2 makes everything four times as cheap, for weights that must run on a CPU), `padding`, and a last layer that
starts at zero.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import LayerNorm2d, pad_to_multiple


class NAFNet(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape, any size; the output is not clamped.

    `width` channels at full size, doubled at each halving; `encoder_blocks` and `decoder_blocks` number the blocks of
    each level, outermost first in the encoder, innermost first in the decoder (the authors' order).
    """

    def __init__(
        self,
        width: int,
        encoder_blocks: Sequence[int],
        middle_blocks: int,
        decoder_blocks: Sequence[int],
        unshuffle: int,
        padding: Literal["zeros", "reflect"],
    ) -> None:
        super().__init__()
        if len(encoder_blocks) != len(decoder_blocks):
            raise ValueError(
                f"{len(encoder_blocks)} encoder levels need as many in the decoder, not {len(decoder_blocks)}"
            )
        if padding not in ("zeros", "reflect"):
            raise ValueError(f"padding is zeros or reflect, not {padding!r}")
        planes = 3 * unshuffle**2
        self.unshuffle, self.padding = unshuffle, padding
        self.size_multiple = unshuffle * 2 ** len(encoder_blocks)
        self.intro = nn.Conv2d(planes, width, 3, padding=1)
        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        self.ups, self.decoders = nn.ModuleList(), nn.ModuleList()
        channels = width
        for count in encoder_blocks:
            self.encoders.append(_blocks(channels, count))
            self.downs.append(nn.Conv2d(channels, 2 * channels, 2, stride=2))
            channels *= 2
        self.middle_blks = _blocks(channels, middle_blocks)
        for count in decoder_blocks:
            self.ups.append(nn.Sequential(nn.Conv2d(channels, 2 * channels, 1, bias=False), nn.PixelShuffle(2)))
            channels //= 2
            self.decoders.append(_blocks(channels, count))
        self.ending = nn.Conv2d(width, planes, 3, padding=1)
        for parameter in self.ending.parameters():  # a fresh network returns its input: training begins at "do nothing"
            nn.init.zeros_(parameter)

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        height, width = blurred.shape[-2:]
        padded = pad_to_multiple(blurred, self.size_multiple, self.padding)
        x = self.intro(F.pixel_unshuffle(padded, self.unshuffle))  # (B, C, H/u, W/u)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)  # (B, 2C, H/2, W/2)
        x = self.middle_blks(x)
        for up, decoder, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            x = decoder(up(x) + skip)
        restored = padded + F.pixel_shuffle(self.ending(x), self.unshuffle)
        return restored[:, :, :height, :width]


class NAFBlock(nn.Module):
    """A gated depth-wise convolution with channel attention, then a gated feed-forward part (figure 3c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv2 = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.norm2 = LayerNorm2d(channels)
        self.conv4 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's result, of the shape of `x`; a fresh block returns `x` itself."""
        y = simple_gate(self.conv2(self.conv1(self.norm1(x))))
        y = x + _scaled(self.conv3, self.beta, self.sca(y) * y)
        return y + _scaled(self.conv5, self.gamma, simple_gate(self.conv4(self.norm2(y))))


def simple_gate(x: Tensor) -> Tensor:
    """Return the first half of the channels times the second: (B, 2C, H, W) -> (B, C, H, W)."""
    first, second = x.chunk(2, dim=1)
    return first * second


def _scaled(conv: nn.Conv2d, scale: Tensor, x: Tensor) -> Tensor:
    """Return `scale` times the convolution of 1×1, by scaling its few weights in place of its many results."""
    assert conv.bias is not None
    return F.conv2d(x, conv.weight * scale.reshape(-1, 1, 1, 1), conv.bias * scale.flatten())


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(NAFBlock(channels) for _ in range(count)))


GOPRO = {"encoder_blocks": [1, 1, 1, 28], "middle_blocks": 1, "decoder_blocks": [1, 1, 1, 1]}
SIDD = {"encoder_blocks": [2, 2, 4, 8], "middle_blocks": 12, "decoder_blocks": [2, 2, 2, 2]}

ARCH = Arch(
    name="nafnet",
    build=NAFNet,
    options={"width": 32, **GOPRO, "unshuffle": 1, "padding": "zeros"},
    tiny={"width": 8, "encoder_blocks": [1, 1], "middle_blocks": 1, "decoder_blocks": [1, 1]},
    size_multiple=16,
    padding="zeros",
    overlap_px=32,
    local_pooling_px=256,
    origin="L. Chen, X. Chu, X. Zhang, J. Sun",
    paper="Simple Baselines for Image Restoration, ECCV 2022, arXiv 2204.04676",
    published={
        "NAFNet-GoPro-width32": {"width": 32, **GOPRO},
        "NAFNet-GoPro-width64": {"width": 64, **GOPRO},
        "NAFNet-REDS-width64": {"width": 64, **GOPRO},
        "NAFNet-SIDD-width32": {"width": 32, **SIDD},
        "NAFNet-SIDD-width64": {"width": 64, **SIDD},
    },
)
