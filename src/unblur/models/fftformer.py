"""FFTformer, a U-Net of transformer blocks that compare and filter small patches by their spectra.

Kong, Dong, Ge, Li, Pan: "Efficient Frequency Domain-based Transformers for High-Quality Image Deblurring", CVPR 2023
(arXiv 2211.12250), figure 2. Written from the paper; keys of the state dict are the authors', so that their
checkpoints load without renaming. Equal to the authors' outputs in the goldens (tests/test_fftformer.py).

Where the paper correlates queries and keys (one spectrum conjugated), the authors' network multiplies the spectra as
they are, which is a cyclic convolution; ours does the same.

With its 54 blocks the full network makes much of little: at the weights of the goldens float32 is 3e-5 away from
float64, and any other order of rounding as far again (torch's fused layer norm, a mean of 2x2 pixels for the bilinear
halving). So norm and halving are written out plainly, which makes the small golden come out bit by bit on a CPU.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import pad_to_multiple

PATCH_PX = 8
FUSE_EXPANSION = 2.66
"""How much wider than its input the feed-forward part of a fusion is inside, whatever that of the other blocks is."""


class FFTformer(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape, any size; the output is not clamped.

    `width` channels at full size, doubled at both halvings. `blocks` numbers the blocks of the three levels, from full
    size to a quarter; encoder and decoder have as many, but only the decoder's have attention. `refinement_blocks`
    follow at full size. `expansion` is how much wider than its input a feed-forward part is inside.
    """

    def __init__(self, width: int, blocks: Sequence[int], refinement_blocks: int, expansion: float) -> None:
        super().__init__()
        if len(blocks) != 3:
            raise ValueError(f"there are three levels, so blocks has three numbers, not {list(blocks)}")

        def filters(count: int, channels: int) -> nn.Sequential:
            return nn.Sequential(*(FilterBlock(channels, expansion) for _ in range(count)))

        def attention(count: int, channels: int) -> nn.Sequential:
            return nn.Sequential(*(AttentionBlock(channels, expansion) for _ in range(count)))

        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(3, width, 3, padding=1, bias=False)))
        self.encoder_level1 = filters(blocks[0], width)
        self.down1_2 = _halving(width)
        self.encoder_level2 = filters(blocks[1], 2 * width)
        self.down2_3 = _halving(2 * width)
        self.encoder_level3 = filters(blocks[2], 4 * width)
        self.decoder_level3 = attention(blocks[2], 4 * width)
        self.up3_2 = _doubling(4 * width)
        self.reduce_chan_level2 = nn.Conv2d(4 * width, 2 * width, 1, bias=False)  # in the authors' files, never used
        self.decoder_level2 = attention(blocks[1], 2 * width)
        self.up2_1 = _doubling(2 * width)
        self.decoder_level1 = attention(blocks[0], width)
        self.refinement = attention(refinement_blocks, width)
        self.fuse2 = Fuse(2 * width)
        self.fuse1 = Fuse(width)
        self.output = nn.Conv2d(width, 3, 3, padding=1, bias=False)

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        height, width = blurred.shape[-2:]
        padded = pad_to_multiple(blurred, 4 * PATCH_PX, "reflect")  # whole patches at a quarter of the size
        full = self.encoder_level1(self.patch_embed(padded))  # (B, C, H, W)
        half = self.encoder_level2(self.down1_2(full))  # (B, 2C, H/2, W/2)
        x = self.encoder_level3(self.down2_3(half))  # (B, 4C, H/4, W/4)
        x = self.decoder_level3(x)
        x = self.decoder_level2(self.fuse2(self.up3_2(x), half))  # (B, 2C, H/2, W/2)
        x = self.decoder_level1(self.fuse1(self.up2_1(x), full))  # (B, C, H, W)
        restored = padded + self.output(self.refinement(x))
        return restored[:, :, :height, :width]


class AttentionBlock(nn.Module):
    """Attention between queries and keys of a patch, then a filtering feed-forward part; each is added to its input."""

    def __init__(self, channels: int, expansion: float) -> None:
        super().__init__()
        self.norm1 = _norm(channels)
        self.attn = SpectralAttention(channels)
        self.norm2 = _norm(channels)
        self.ffn = FilterFeedForward(channels, int(channels * expansion))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's result, of the shape of `x`."""
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class FilterBlock(nn.Module):
    """A filtering feed-forward part, added to its input."""

    def __init__(self, channels: int, expansion: float) -> None:
        super().__init__()
        self.norm2 = _norm(channels)
        self.ffn = FilterFeedForward(channels, int(channels * expansion))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's result, of the shape of `x`."""
        return x + self.ffn(self.norm2(x))


class SpectralAttention(nn.Module):
    """Weighs the values, pixel by pixel, with the product of the spectra of queries and keys (FSAS, section 3.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_hidden = nn.Conv2d(channels, 6 * channels, 1, bias=False)
        self.to_hidden_dw = nn.Conv2d(6 * channels, 6 * channels, 3, padding=1, groups=6 * channels, bias=False)
        self.project_out = nn.Conv2d(2 * channels, channels, 1, bias=False)
        self.norm = _norm(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighed values, of the shape of `x`."""
        q, k, v = self.to_hidden_dw(self.to_hidden(x)).chunk(3, dim=1)  # each (B, 2C, H, W)
        weights = from_spectra(spectra(q) * spectra(k))  # (B, 2C, H, W)
        return self.project_out(self.norm(weights) * v)


class FilterFeedForward(nn.Module):
    """Widens the channels, filters each patch of each by a learned spectrum, and gates (DFFN, section 3.2)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fft = nn.Parameter(torch.ones(2 * hidden, 1, 1, PATCH_PX, PATCH_PX // 2 + 1))  # ones change nothing
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the part's result, of the shape of `x`."""
        filtered = from_spectra(spectra(self.project_in(x)) * self.fft)  # (B, 2*hidden, H, W)
        gate, value = self.dwconv(filtered).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


class Fuse(nn.Module):
    """Joins what the decoder has with what the encoder kept, both (B, C, H, W), to one of that shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.att_channel = FilterBlock(2 * channels, FUSE_EXPANSION)
        self.conv = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.conv2 = nn.Conv2d(2 * channels, 2 * channels, 1)

    def forward(self, decoded: Tensor, encoded: Tensor) -> Tensor:
        """Return both, mixed and added up."""
        both = self.conv(torch.cat([decoded, encoded], dim=1))  # (B, 2C, H, W)
        first, second = self.conv2(self.att_channel(both)).chunk(2, dim=1)
        return first + second


def spectra(x: Tensor) -> Tensor:
    """Return the spectrum of every 8x8 patch: (B, C, H, W) -> complex (B, C, H/8, W/8, 8, 5).

    In float32 also where autocast hands in less, for which there are no Fourier transforms.
    """
    batch, channels, height, width = x.shape
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    x = x.reshape(batch, channels, height // PATCH_PX, PATCH_PX, width // PATCH_PX, PATCH_PX)
    return torch.fft.rfft2(x.transpose(3, 4))


def from_spectra(spectrum: Tensor) -> Tensor:
    """Return the patches with these spectra, laid side by side: complex (B, C, H/8, W/8, 8, 5) -> (B, C, H, W)."""
    patches = torch.fft.irfft2(spectrum, s=(PATCH_PX, PATCH_PX))  # (B, C, H/8, W/8, 8, 8)
    return patches.transpose(3, 4).flatten(4, 5).flatten(2, 3)


class PlainLayerNorm(nn.Module):
    """Layer normalisation over the channels of each pixel; unfused, for the reason given at the top.

    Costs the whole network a tenth to a fifth of its time on a CPU.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, (B, C, H, W), with mean 0 and variance 1 over each pixel's channels, scaled and shifted."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        mean, variance = x.mean(dim=1, keepdim=True), x.var(dim=1, correction=0, keepdim=True)  # each (B, 1, H, W)
        return (x - mean) / torch.sqrt(variance + 1e-5) * self.weight[:, None, None] + self.bias[:, None, None]


# The authors' keys have a level more than there is to say: `norm1.body.weight`, `down1_2.body.1.weight`.


def _norm(channels: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(body=PlainLayerNorm(channels)))


def _halving(channels: int) -> nn.Sequential:
    """Return (B, C, H, W) -> (B, 2C, H/2, W/2)."""
    conv = nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False)
    smaller = nn.Upsample(scale_factor=0.5, mode="bilinear", align_corners=False)
    return nn.Sequential(OrderedDict(body=nn.Sequential(smaller, conv)))


def _doubling(channels: int) -> nn.Sequential:
    """Return (B, C, H, W) -> (B, C/2, 2H, 2W)."""
    conv = nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False)
    larger = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    return nn.Sequential(OrderedDict(body=nn.Sequential(larger, conv)))


GOPRO = {"width": 48, "blocks": [6, 6, 12], "refinement_blocks": 4, "expansion": 3}

ARCH = Arch(
    name="fftformer",
    build=FFTformer,
    options=GOPRO,
    tiny={"width": 4, "blocks": [1, 1, 1], "refinement_blocks": 1},
    size_multiple=32,
    padding="reflect",
    overlap_px=32,
    origin="L. Kong, J. Dong, J. Ge, M. Li, J. Pan",
    paper="Efficient Frequency Domain-based Transformers for High-Quality Image Deblurring, CVPR 2023, "
    "arXiv 2211.12250",
    unused=("reduce_chan_level2.",),
    published={"fftformer_GoPro": GOPRO},
)
