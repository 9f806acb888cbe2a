"""Uformer, a U-Net of transformer blocks that attend within windows.

Wang, Cun, Bao, Zhou, Liu, Li: "Uformer: A General U-Shaped Transformer for Image Restoration", CVPR 2022
(arXiv 2106.03106). Written from the paper; keys of the state dict are the authors', so that their checkpoints load
without renaming. Equal to the authors' outputs in the goldens (tests/test_uformer.py).

Two habits of the authors' code, which decide what their weights return:

* A network for training on 256 pixels shifts the windows of its bottleneck, one for 128 pixels does not. Theirs were
  trained as the former, and their test script runs the same weights as the latter: `shift_middle` false.
* Pictures are padded with zeros to a square of a multiple of 128 pixels, centred, and the network is not told what is
  padding. A picture twice as wide as high thus costs twice what it need; the blocks themselves take any rectangle.

Ours beyond the paper: a last layer that starts at zero.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unblur.models.arch import Arch


class Uformer(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape, any size; the output is not clamped.

    `width` channels at full size, doubled at each halving, twice as many in the decoder; a head of attention has
    `width` channels everywhere. `encoder_blocks` and `decoder_blocks` number the blocks of each level, outermost first
    in the encoder, innermost first in the decoder. Windows are `window` × `window` pixels of their level, and every
    second block of a level shifts them by half, in the bottleneck only with `shift_middle`. In training, blocks are
    skipped at random, the more often the deeper they lie: the first and the last never, those of the bottleneck with
    probability `stochastic_depth`.
    """

    def __init__(
        self,
        width: int,
        encoder_blocks: Sequence[int],
        middle_blocks: int,
        decoder_blocks: Sequence[int],
        window: int,
        shift_middle: bool,
        stochastic_depth: float,
    ) -> None:
        super().__init__()
        levels = len(encoder_blocks)
        if len(decoder_blocks) != levels:
            raise ValueError(f"{levels} encoder levels need as many in the decoder, not {len(decoder_blocks)}")
        if not 0 <= stochastic_depth < 1:
            raise ValueError(f"stochastic_depth is a probability below 1, not {stochastic_depth}")
        self.levels, self.size_multiple = levels, window * 2**levels
        down_drops = _rising(stochastic_depth, encoder_blocks)
        up_drops = [drops[::-1] for drops in _rising(stochastic_depth, decoder_blocks[::-1])[::-1]]

        self.input_proj = _named("proj", nn.Conv2d(3, width, 3, padding=1), nn.LeakyReLU())
        for level in range(levels):
            channels = width * 2**level
            self.add_module(f"encoderlayer_{level}", Level(channels, width, window, down_drops[level]))
            # "dowsample" is the authors' spelling
            self.add_module(f"dowsample_{level}", _named("conv", nn.Conv2d(channels, 2 * channels, 4, 2, padding=1)))
        middle_drops = [stochastic_depth] * middle_blocks
        channels = width * 2**levels
        self.conv = Level(channels, width, window, middle_drops, shifted=shift_middle)
        for step in range(levels):
            skipped = width * 2 ** (levels - 1 - step)
            self.add_module(f"upsample_{step}", _named("deconv", nn.ConvTranspose2d(channels, skipped, 2, 2)))
            channels = 2 * skipped
            self.add_module(f"decoderlayer_{step}", Level(channels, width, window, up_drops[step], modulated=True))
        self.output_proj = _named("proj", nn.Conv2d(channels, 3, 3, padding=1))
        for parameter in self.output_proj.parameters():  # a fresh network returns its input
            nn.init.zeros_(parameter)

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        height, width = blurred.shape[-2:]
        padded, top, left = pad_to_centred_square(blurred, self.size_multiple)
        x = self.input_proj(padded)  # (B, C, S, S), S the side of the square
        skips = []
        for level in range(self.levels):
            x = getattr(self, f"encoderlayer_{level}")(x)
            skips.append(x)
            x = getattr(self, f"dowsample_{level}")(x)  # (B, 2C, S/2, S/2)
        x = self.conv(x)
        for step in range(self.levels):
            x = getattr(self, f"upsample_{step}")(x)  # as wide and as large as the skip
            x = getattr(self, f"decoderlayer_{step}")(torch.cat((x, skips.pop()), dim=1))
        restored = padded + self.output_proj(x)
        return restored[:, :, top : top + height, left : left + width]


class Level(nn.Module):
    """The blocks at one size, (B, C, H, W) -> (B, C, H, W); one for each probability in `drops`."""

    def __init__(
        self,
        channels: int,
        head_channels: int,
        window: int,
        drops: Sequence[float],
        *,
        shifted: bool = True,
        modulated: bool = False,
    ) -> None:
        super().__init__()
        self.window, self.shift = window, window // 2 if shifted and len(drops) > 1 else 0
        self.blocks = nn.ModuleList(
            Block(channels, head_channels, window, self.shift if index % 2 else 0, modulated, drop)
            for index, drop in enumerate(drops)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the features after all blocks."""
        height, width = x.shape[-2:]
        mask = shift_mask(height, width, self.window, self.shift, x.device) if self.shift else None
        x = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        for block in self.blocks:
            x = block(x, mask)
        return x.permute(0, 3, 1, 2)


class Block(nn.Module):
    """Attention within windows, shifted by `shift` pixels, then a feed-forward part that sees neighbours (LeWin).

    `modulated`: a learned value for each place in a window and channel is added before the attention. In training each
    of the two parts is left out with probability `drop`, picture by picture.
    """

    def __init__(
        self, channels: int, head_channels: int, window: int, shift: int, modulated: bool, drop: float
    ) -> None:
        super().__init__()
        self.window, self.shift, self.drop = window, shift, drop
        self.modulator = nn.Embedding(window**2, channels) if modulated else None
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, head_channels, window)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = LocalFeedForward(channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the block's result, of the shape of `x`, (B, H, W, C); `mask` is that of shifted windows."""
        size = x.shape[1:3]
        y = self.norm1(x)
        if self.shift:
            y = y.roll((-self.shift, -self.shift), dims=(1, 2))
        y = split_windows(y, self.window)  # (B, windows, w*w, C)
        if self.modulator is not None:
            y = y + self.modulator.weight
        y = self.attn(y, mask if self.shift else None)
        y = join_windows(y, *size)
        if self.shift:
            y = y.roll((self.shift, self.shift), dims=(1, 2))
        x = x + self._sometimes(y)
        return x + self._sometimes(self.mlp(self.norm2(x)))

    def _sometimes(self, x: Tensor) -> Tensor:
        if not self.training or self.drop == 0:
            return x
        kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop
        return x * kept / (1 - self.drop)


class WindowAttention(nn.Module):
    """Attention between the pixels of a window, with a learned bias for each distance between two of them."""

    relative_position_index: Tensor

    def __init__(self, channels: int, head_channels: int, window: int) -> None:
        super().__init__()
        self.heads = channels // head_channels
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, self.heads))
        self.register_buffer("relative_position_index", distance_index(window))  # the authors keep it in their files
        self.qkv = nn.ModuleDict({"to_q": nn.Linear(channels, channels), "to_kv": nn.Linear(channels, 2 * channels)})
        self.proj = nn.Linear(channels, channels)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return what each pixel gathers, (B, N, P, C) from the P pixels of N windows; `mask` (N, P, P) is added."""
        batch, windows, pixels, channels = x.shape
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)[
            None
        ]  # (1, heads, P, P)
        if mask is not None:
            bias = bias + mask[:, None]  # (N, heads, P, P)
        # Fused kernels want four dimensions: the heads of all windows with a bias of their own stand side by side.
        side_by_side = len(bias) * self.heads

        def by_heads(values: Tensor) -> Tensor:
            values = values.reshape(batch, windows, pixels, self.heads, -1).transpose(2, 3)  # (B, N, heads, P, C/heads)
            return values.reshape(-1, side_by_side, pixels, channels // self.heads)

        key, value = self.qkv["to_kv"](x).chunk(2, dim=-1)
        gathered = F.scaled_dot_product_attention(
            by_heads(self.qkv["to_q"](x)),
            by_heads(key),
            by_heads(value),
            attn_mask=bias.reshape(1, side_by_side, pixels, pixels),
        )
        gathered = gathered.reshape(batch, windows, self.heads, pixels, -1).transpose(2, 3)
        return self.proj(gathered.reshape(x.shape))


class LocalFeedForward(nn.Module):
    """Four times the channels for a depth-wise convolution between two linear layers (LeFF)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = 4 * channels
        self.linear1 = nn.Sequential(nn.Linear(channels, inner), nn.GELU())
        self.dwconv = nn.Sequential(nn.Conv2d(inner, inner, 3, padding=1, groups=inner), nn.GELU())
        self.linear2 = nn.Sequential(nn.Linear(inner, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the result, of the shape of `x`, (B, H, W, C)."""
        inner = self.dwconv(self.linear1(x).permute(0, 3, 1, 2))  # (B, 4C, H, W)
        return self.linear2(inner.permute(0, 2, 3, 1))


def split_windows(x: Tensor, window: int) -> Tensor:
    """Return the pixels by windows, row by row: (B, H, W, C) -> (B, H*W/w², w², C)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // window, window, width // window, window, channels)
    return x.transpose(2, 3).reshape(batch, -1, window**2, channels)


def join_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """Return the picture that `split_windows` took apart, (B, H, W, C)."""
    batch, _, pixels, channels = windows.shape
    window = int(pixels**0.5)
    x = windows.reshape(batch, height // window, width // window, window, window, channels)
    return x.transpose(2, 3).reshape(batch, height, width, channels)


def shift_mask(height: int, width: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Return what keeps pixels apart that only the roll brought into one window: (windows, w², w²), 0 or -100."""
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    part = 2 * (rows >= height - shift)[:, None] + (columns >= width - shift)  # of the picture, 0 to 3, (H, W)
    part = split_windows(part[None, :, :, None], window)[0, :, :, 0]  # (windows, w²)
    return (part[:, :, None] != part[:, None, :]) * -100.0


def distance_index(window: int) -> Tensor:
    """Return the row of the table of biases for each two pixels of a window, (w², w²) int64."""
    place = torch.arange(window)
    distance = place[:, None] - place + window - 1  # (w, w), from 0 to 2w - 2
    index = distance[:, None, :, None] * (2 * window - 1) + distance[None, :, None, :]  # row, column, row, column
    return index.reshape(window**2, window**2)


def pad_to_centred_square(images: Tensor, multiple: int) -> tuple[Tensor, int, int]:
    """Return the images amid zeros, in the smallest square whose side is a multiple; and where they begin in it.

    Crop the network's output with `[..., top:top + H, left:left + W]`.
    """
    height, width = images.shape[-2:]
    side = -(-max(height, width) // multiple) * multiple
    top, left = (side - height) // 2, (side - width) // 2
    if height == width == side:
        return images, 0, 0
    return F.pad(images, (left, side - width - left, top, side - height - top)), top, left


def _rising(last: float, counts: Sequence[int]) -> list[list[float]]:
    """Return a number for each block of each level, rising evenly from 0 to `last`."""
    total, numbers = sum(counts), iter(range(sum(counts)))
    return [[last * next(numbers) / max(total - 1, 1) for _ in range(count)] for count in counts]


def _named(name: str, *layers: nn.Module) -> nn.Module:
    """Return the layers one after the other, with keys that begin with `name`."""
    return nn.Sequential(OrderedDict([(name, nn.Sequential(*layers))]))


TWO_EACH = {"encoder_blocks": [2, 2, 2, 2], "middle_blocks": 2, "decoder_blocks": [2, 2, 2, 2]}
BASE = {"encoder_blocks": [1, 2, 8, 8], "middle_blocks": 2, "decoder_blocks": [8, 8, 2, 1]}

ARCH = Arch(
    name="uformer",
    build=Uformer,
    options={"width": 32, **BASE, "window": 8, "shift_middle": True, "stochastic_depth": 0.1},
    tiny={"width": 4, "encoder_blocks": [1, 2], "middle_blocks": 2, "decoder_blocks": [2, 1], "window": 4},
    size_multiple=128,
    padding="square",
    overlap_px=64,
    onnx="one size",
    origin="Z. Wang, X. Cun, J. Bao, W. Zhou, J. Liu, H. Li",
    paper="Uformer: A General U-Shaped Transformer for Image Restoration, CVPR 2022, arXiv 2106.03106",
    published={
        "Uformer_T": {"width": 16, **TWO_EACH},
        "Uformer_S": {"width": 32, **TWO_EACH},
        "Uformer_B": {"width": 32, **BASE},
    },
)
