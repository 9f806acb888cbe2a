"""Restormer, a U-Net of transformer blocks whose attention is between channels, not between pixels.

Zamir, Arora, Khan, Hayat, Khan, Yang: "Restormer: Efficient Transformer for High-Resolution Image Restoration",
CVPR 2022 (arXiv 2111.09881), figure 2. Written from the paper; keys of the state dict are the authors', so that their
checkpoints load without renaming. Equal to the authors' outputs in the goldens (tests/test_restormer.py).

Attention between channels costs as much per pixel in a large picture as in a small one, but looks at all of the
picture it is given: tiles are restored a little differently from the whole.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import LayerNorm2d, pad_to_multiple

Norm = Literal["full", "scale-only"]


class Restormer(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape, any size; the output is not clamped.

    `width` channels at full size, doubled at each of three halvings. `blocks` and `heads` number the transformer
    blocks and the heads of their attention, of the four levels from full size to an eighth; encoder and decoder have
    as many. `refinement_blocks` follow at full size. `expansion` is how much wider than its input a feed-forward part
    is inside. `norm` is the authors' "WithBias" (full) or "BiasFree" (scale-only); `conv_bias` gives a bias to all
    convolutions but the first one and those that halve and double.
    """

    def __init__(
        self,
        width: int,
        blocks: Sequence[int],
        heads: Sequence[int],
        refinement_blocks: int,
        expansion: float,
        norm: Norm,
        conv_bias: bool,
    ) -> None:
        super().__init__()
        if len(blocks) != 4 or len(heads) != 4:
            raise ValueError(f"there are four levels: blocks {list(blocks)} and heads {list(heads)} must be four each")
        if norm not in ("full", "scale-only"):
            raise ValueError(f"norm is full or scale-only, not {norm!r}")

        def stack(count: int, channels: int, num_heads: int) -> nn.Sequential:
            return nn.Sequential(
                *(TransformerBlock(channels, num_heads, expansion, norm, conv_bias) for _ in range(count))
            )

        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(3, width, 3, padding=1, bias=False)))
        self.encoder_level1 = stack(blocks[0], width, heads[0])
        self.down1_2 = _halving(width)
        self.encoder_level2 = stack(blocks[1], 2 * width, heads[1])
        self.down2_3 = _halving(2 * width)
        self.encoder_level3 = stack(blocks[2], 4 * width, heads[2])
        self.down3_4 = _halving(4 * width)
        self.latent = stack(blocks[3], 8 * width, heads[3])
        self.up4_3 = _doubling(8 * width)
        self.reduce_chan_level3 = nn.Conv2d(8 * width, 4 * width, 1, bias=conv_bias)
        self.decoder_level3 = stack(blocks[2], 4 * width, heads[2])
        self.up3_2 = _doubling(4 * width)
        self.reduce_chan_level2 = nn.Conv2d(4 * width, 2 * width, 1, bias=conv_bias)
        self.decoder_level2 = stack(blocks[1], 2 * width, heads[1])
        self.up2_1 = _doubling(2 * width)
        self.decoder_level1 = stack(blocks[0], 2 * width, heads[0])
        self.refinement = stack(refinement_blocks, 2 * width, heads[0])
        self.output = nn.Conv2d(2 * width, 3, 3, padding=1, bias=conv_bias)

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        height, width = blurred.shape[-2:]
        padded = pad_to_multiple(blurred, 8, "reflect")
        full = self.encoder_level1(self.patch_embed(padded))  # (B, C, H, W)
        half = self.encoder_level2(self.down1_2(full))  # (B, 2C, H/2, W/2)
        quarter = self.encoder_level3(self.down2_3(half))  # (B, 4C, H/4, W/4)
        x = self.latent(self.down3_4(quarter))  # (B, 8C, H/8, W/8)
        x = self.reduce_chan_level3(torch.cat([self.up4_3(x), quarter], dim=1))  # (B, 4C, H/4, W/4)
        x = self.decoder_level3(x)
        x = self.reduce_chan_level2(torch.cat([self.up3_2(x), half], dim=1))  # (B, 2C, H/2, W/2)
        x = self.decoder_level2(x)
        x = torch.cat([self.up2_1(x), full], dim=1)  # (B, 2C, H, W): not reduced, so full size keeps twice the channels
        x = self.refinement(self.decoder_level1(x))
        restored = padded + self.output(x)
        return restored[:, :, :height, :width]


class TransformerBlock(nn.Module):
    """Attention between channels, then a gated feed-forward part; each is added to its input."""

    def __init__(self, channels: int, heads: int, expansion: float, norm: Norm, conv_bias: bool) -> None:
        super().__init__()
        self.norm1 = _norm(channels, norm)
        self.attn = ChannelAttention(channels, heads, conv_bias)
        self.norm2 = _norm(channels, norm)
        self.ffn = GatedFeedForward(channels, int(channels * expansion), conv_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's result, of the shape of `x`."""
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class ChannelAttention(nn.Module):
    """Mixes the channels of each head by how alike their pictures are (MDTA: figure 2a, equation 1).

    Queries, keys and values see their 3x3 neighbourhood. The likeness of two channels is the cosine between them over
    all pixels, times a learned number per head.
    """

    def __init__(self, channels: int, heads: int, conv_bias: bool) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be shared evenly by {heads} heads")
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=conv_bias)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=conv_bias)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=conv_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed channels, of the shape of `x`."""
        qkv = self.qkv_dwconv(self.qkv(x))  # (B, 3C, H, W)
        q, k, v = (part.flatten(2).unflatten(1, (self.heads, -1)) for part in qkv.chunk(3, dim=1))
        likeness = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)  # (B, heads, C/heads, C/heads)
        mixed = (likeness * self.temperature).softmax(dim=-1) @ v  # (B, heads, C/heads, H*W)
        return self.project_out(mixed.flatten(1, 2).unflatten(2, x.shape[-2:]))  # (B, C, H, W)


class GatedFeedForward(nn.Module):
    """Two wider views of each 3x3 neighbourhood, one gating the other (GDFN: figure 2b, equation 2)."""

    def __init__(self, channels: int, hidden: int, conv_bias: bool) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=conv_bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=conv_bias)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=conv_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the part's result, of the shape of `x`."""
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)  # each (B, hidden, H, W)
        return self.project_out(F.gelu(gate) * value)


class ScaleNorm2d(nn.Module):
    """Divides each pixel by the standard deviation over its channels, and scales by channel; the mean stays in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled pixels, (B, C, H, W) like `x`; float32 also where autocast hands in less."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        variance = x.var(dim=1, correction=0, keepdim=True)  # (B, 1, H, W)
        return x * torch.rsqrt(variance + 1e-5) * self.weight[:, None, None]


# The authors' keys have a level more than there is to say: `norm1.body.weight`, `down1_2.body.0.weight`.


def _norm(channels: int, norm: Norm) -> nn.Sequential:
    body = LayerNorm2d(channels, eps=1e-5) if norm == "full" else ScaleNorm2d(channels)
    return nn.Sequential(OrderedDict(body=body))


def _halving(channels: int) -> nn.Sequential:
    """Return (B, C, H, W) -> (B, 2C, H/2, W/2)."""
    conv = nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False)
    return nn.Sequential(OrderedDict(body=nn.Sequential(conv, nn.PixelUnshuffle(2))))


def _doubling(channels: int) -> nn.Sequential:
    """Return (B, C, H, W) -> (B, C/2, 2H, 2W)."""
    conv = nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False)
    return nn.Sequential(OrderedDict(body=nn.Sequential(conv, nn.PixelShuffle(2))))


MOTION = {
    "width": 48,
    "blocks": [4, 6, 6, 8],
    "heads": [1, 2, 4, 8],
    "refinement_blocks": 4,
    "expansion": 2.66,
    "norm": "full",
    "conv_bias": False,
}

ARCH = Arch(
    name="restormer",
    build=Restormer,
    options=MOTION,
    tiny={"width": 4, "blocks": [1, 1, 1, 1], "heads": [1, 2, 2, 4], "refinement_blocks": 1},
    size_multiple=8,
    padding="reflect",
    overlap_px=32,
    origin="S. W. Zamir, A. Arora, S. Khan, M. Hayat, F. S. Khan, M.-H. Yang",
    paper="Restormer: Efficient Transformer for High-Resolution Image Restoration, CVPR 2022, arXiv 2111.09881",
    published={"motion_deblurring": MOTION},
)
