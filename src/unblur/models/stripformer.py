"""Stripformer, attention within and between the rows and columns of a picture.

Tsai, Peng, Lin, Tsai, Lin: "Stripformer: Strip Transformer for Fast Image Deblurring", ECCV 2022 (arXiv 2204.04627).
Written from the paper; keys of the state dict are the authors', so that their checkpoints load without renaming. Equal
to the authors' outputs in the goldens (tests/test_stripformer.py).

Blur is a streak: strips that lie along it or across it see all of it at once, at far less cost than attention between
all pixels. The scale of the attention between strips depends on the size of the picture, as in the authors' code.

Document A's "modified" Stripformer of 14.96 million parameters is this one with `bottleneck_blocks` 8. Ours beyond the
paper: sizes as options, and a last layer that starts at zero.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import LayerNorm2d, pad_to_multiple


class Stripformer(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape, any size; the output is not clamped.

    `widths` are the channels at full, half and quarter size on the way down, `decoder_width` those at half size on the
    way up. `bottleneck_blocks` strip blocks work at quarter, `decoder_blocks` at half size; blocks alternate between
    attention within strips, which comes first, and between strips.
    """

    def __init__(
        self,
        widths: Sequence[int],
        decoder_width: int,
        bottleneck_blocks: int,
        bottleneck_heads: int,
        decoder_blocks: int,
        decoder_heads: int,
    ) -> None:
        super().__init__()
        if len(widths) != 3:
            raise ValueError(f"widths are three, at full, half and quarter size, not {len(widths)}")
        self.encoder = Encoder(widths)
        self.bottleneck_blocks = bottleneck_blocks
        for number in range(1, bottleneck_blocks + 1):  # the authors number them; they lie beside encoder and decoder
            block = StripBlock(widths[2], bottleneck_heads, between=number % 2 == 0)
            self.add_module(f"Trans_block_{number}", block)
        self.decoder = Decoder(widths, decoder_width, decoder_blocks, decoder_heads)

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        height, width = blurred.shape[-2:]
        padded = pad_to_multiple(blurred, 8, "reflect")  # a multiple of 4 would do; the authors' RealBlur test takes 8
        full, half, x = self.encoder(padded - 0.5)  # the authors' range is [-0.5, 0.5]
        for number in range(1, self.bottleneck_blocks + 1):
            x = getattr(self, f"Trans_block_{number}")(x)
        restored = padded + self.decoder(x, half, full)
        return restored[:, :, :height, :width]


class Encoder(nn.Module):
    """The two feature embedding blocks: convolutions and residual blocks at full and at half size."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        full, half, quarter = widths
        self.en_layer1_1 = nn.Sequential(nn.Conv2d(3, full, 3, padding=1))
        self.en_layer1_2, self.en_layer1_3, self.en_layer1_4 = (_two_convs(full, full, 3) for _ in range(3))
        self.en_layer2_1 = nn.Sequential(nn.Conv2d(full, half, 3, stride=2, padding=1))
        self.en_layer2_2, self.en_layer2_3, self.en_layer2_4 = (_two_convs(half, half, 3) for _ in range(3))
        self.en_layer3_1 = nn.Sequential(nn.Conv2d(half, quarter, 3, stride=2, padding=1))

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features at full, half and quarter size."""
        full = leaky(self.en_layer1_1(picture))  # (B, C1, H, W)
        for convs in (self.en_layer1_2, self.en_layer1_3, self.en_layer1_4):
            full = leaky(convs(full) + full)
        half = leaky(self.en_layer2_1(full))  # (B, C2, H/2, W/2)
        for convs in (self.en_layer2_2, self.en_layer2_3, self.en_layer2_4):
            half = leaky(convs(half) + half)
        return full, half, leaky(self.en_layer3_1(half))  # the last: (B, C3, H/4, W/4)


class Decoder(nn.Module):
    """From quarter to full size, with strip blocks at half size; what comes out is added to the picture."""

    def __init__(self, widths: Sequence[int], width: int, num_blocks: int, heads: int) -> None:
        super().__init__()
        full, half, quarter = widths
        self.num_blocks = num_blocks
        self.de_layer3_1 = nn.Sequential(nn.ConvTranspose2d(quarter, width, 4, stride=2, padding=1))
        self.de_layer2_2 = nn.Sequential(nn.Conv2d(width + half, width, 1))
        for number in range(1, num_blocks + 1):
            self.add_module(f"de_block_{number}", StripBlock(width, heads, between=number % 2 == 0))
        self.de_layer2_1 = nn.Sequential(nn.ConvTranspose2d(width, full, 4, stride=2, padding=1))
        self.de_layer1_3 = _two_convs(2 * full, full, 1)
        self.de_layer1_2 = _two_convs(full, full, 3)
        self.de_layer1_1 = nn.Sequential(nn.Conv2d(full, 3, 3, padding=1))
        for parameter in self.de_layer1_1.parameters():  # a fresh network returns its input
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, half: Tensor, full: Tensor) -> Tensor:
        """Return (B, 3, H, W) from the features at quarter size and what the encoder had at half and full size."""
        x = leaky(self.de_layer3_1(x))  # (B, C, H/2, W/2)
        x = leaky(self.de_layer2_2(torch.cat((x, half), dim=1)))
        for number in range(1, self.num_blocks + 1):
            x = getattr(self, f"de_block_{number}")(x)
        x = leaky(self.de_layer2_1(x))  # (B, C1, H, W)
        x = leaky(self.de_layer1_3(torch.cat((x, full), dim=1)) + x)
        x = leaky(self.de_layer1_2(x) + x)
        return leaky(self.de_layer1_1(x))  # the authors activate the last layer too: what it takes away shrinks


class StripBlock(nn.Module):
    """Attention along rows with half of the channels and along columns with the other, then a feed-forward part.

    Within strips each pixel of a row attends to the pixels of its row; `between` strips each row attends to the rows
    of the picture. At the end a depth-wise convolution tells the pixels where they are.
    """

    def __init__(self, channels: int, heads: int, between: bool) -> None:
        super().__init__()
        if channels % (2 * heads):
            raise ValueError(f"a strip block of {channels} channels cannot have {heads} heads in each half of them")
        half = channels // 2
        self.heads, self.between = heads, between
        self.attention_norm = LayerNorm2d(channels, eps=1e-5)
        self.conv_input = nn.Conv2d(channels, channels, 1)
        if between:
            self.conv_h, self.conv_v = nn.Conv2d(half, 3 * half, 1), nn.Conv2d(half, 3 * half, 1)
        else:
            self.qkv_local_h, self.qkv_local_v = nn.Linear(half, 3 * half), nn.Linear(half, 3 * half)
        self.fuse_out = nn.Conv2d(channels, channels, 1)
        self.ffn_norm = nn.LayerNorm(channels)
        self.ffn = nn.Sequential(
            OrderedDict(fc1=nn.Linear(channels, 4 * channels), act=nn.GELU(), fc2=nn.Linear(4 * channels, channels))
        )
        self.PEG = nn.Sequential(OrderedDict(PEG=nn.Conv2d(channels, channels, 3, padding=1, groups=channels)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's result, of the shape of `x`, (B, C, H, W)."""
        horizontal, vertical = self.conv_input(self.attention_norm(x)).chunk(2, dim=1)  # each (B, C/2, H, W)
        if self.between:
            rows = attend_between_rows(self.conv_h(horizontal), self.heads)
            columns = attend_between_rows(self.conv_v(vertical).transpose(2, 3), self.heads).transpose(2, 3)
        else:
            rows = attend_within_rows(self.qkv_local_h(horizontal.permute(0, 2, 3, 1)), self.heads)
            columns = attend_within_rows(self.qkv_local_v(vertical.permute(0, 3, 2, 1)), self.heads).transpose(2, 3)
        x = x + self.fuse_out(torch.cat((rows, columns), dim=1))
        pixels = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        x = (pixels + self.ffn(self.ffn_norm(pixels))).permute(0, 3, 1, 2)
        return x + self.PEG(x)


def attend_within_rows(qkv: Tensor, heads: int) -> Tensor:
    """Return what each pixel gathers from its row, (B, C, H, W), from queries, keys and values (B, H, W, 3C)."""
    batch, height, width, planes = qkv.shape
    q, k, v = (
        part.reshape(batch * height, width, heads, -1).transpose(1, 2)  # (B*H, heads, W, C/heads)
        for part in qkv.chunk(3, dim=-1)
    )
    gathered = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)  # (B*H, W, heads, C/heads)
    return gathered.reshape(batch, height, width, planes // 3).permute(0, 3, 1, 2)


def attend_between_rows(qkv: Tensor, heads: int) -> Tensor:
    """Return what each row gathers from all rows, (B, C, H, W), from queries, keys and values (B, 3C, H, W)."""
    batch, planes, height, width = qkv.shape
    q, k, v = (
        part.reshape(batch, heads, -1, height, width).transpose(2, 3).flatten(3)  # (B, heads, H, C/heads*W)
        for part in qkv.chunk(3, dim=1)
    )
    gathered = F.scaled_dot_product_attention(q, k, v)
    return gathered.reshape(batch, heads, height, -1, width).transpose(2, 3).reshape(batch, planes // 3, height, width)


def leaky(x: Tensor) -> Tensor:
    """Return `x`, its negative values times 0.2."""
    return F.leaky_relu(x, 0.2)


def _two_convs(inputs: int, outputs: int, first_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, first_size, padding=first_size // 2),
        nn.LeakyReLU(0.2),
        nn.Conv2d(outputs, outputs, 3, padding=1),
    )


ARCH = Arch(
    name="stripformer",
    build=Stripformer,
    options={
        "widths": [64, 128, 320],
        "decoder_width": 192,
        "bottleneck_blocks": 12,
        "bottleneck_heads": 5,
        "decoder_blocks": 6,
        "decoder_heads": 3,
    },
    tiny={
        "widths": [8, 8, 16],
        "decoder_width": 12,
        "bottleneck_blocks": 3,
        "bottleneck_heads": 2,
        "decoder_blocks": 2,
        "decoder_heads": 3,
    },
    size_multiple=8,
    padding="reflect",
    overlap_px=64,
    origin="F.-J. Tsai, Y.-T. Peng, Y.-Y. Lin, C.-C. Tsai, C.-W. Lin",
    paper="Stripformer: Strip Transformer for Fast Image Deblurring, ECCV 2022, arXiv 2204.04627",
    published={
        "Stripformer_gopro": {"bottleneck_blocks": 12},
        "Stripformer_realblur_J": {"bottleneck_blocks": 12},
        "Stripformer_realblur_R": {"bottleneck_blocks": 12},
        "Stripformer-document-A": {"bottleneck_blocks": 8},
    },
)
