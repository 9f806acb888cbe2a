"""Run a network on a whole picture: tiles, blending, clamping, precision.

One function is used by restoring, by evaluation and by validation, so that what is measured is what users get.
Nothing here knows of files.
"""

import ctypes
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from unblur import models
from unblur.models.layers import reflect

Precision = Literal["auto", "fp32", "bf16"]

DEFAULT_TILE_PX = 512
"""Largest side of a tile: bounds the memory, and keeps global pooling near what a network saw in training.

A network may have another one, as an attribute `tile_px`.
"""

TOGETHER_PX = 256
"""Side of the square whose area bounds the tiles of a fixed size that go through the network together."""


def restore_image(
    model: nn.Module,
    blurred: Tensor,
    *,
    tile_px: int | None = None,
    precision: Precision = "auto",
    masks: Tensor | None = None,
) -> Tensor:
    """Return the restored picture, (3, H, W) float32 in [0, 1], on the device of `blurred`.

    `blurred` (3, H, W), RGB in [0, 1], any size from 1×1. A picture larger than `tile_px` on a side goes in
    overlapping tiles of equal size, blended linearly; the network runs on its own device, in eval mode as it is
    given, in bf16 where that is fast (`auto`), always on channels-last memory. A network that knows one size only
    gets tiles of exactly that size, whatever `tile_px`, small ones several at once; a smaller picture is reflected on
    the right and below.
    `masks`, for a network that takes them, is the label picture (H, W) that unblur/masks.py makes; it is cut alike.
    """
    if blurred.ndim != 3 or blurred.shape[0] != 3:
        raise ValueError(f"a picture has shape (3, H, W), not {tuple(blurred.shape)}")
    height, width = blurred.shape[-2:]
    if masks is not None and masks.shape != (height, width):
        raise ValueError(f"masks are a label picture of shape ({height}, {width}) here, not {tuple(masks.shape)}")
    tiles, needs = tiles_for(model, height, width, tile_px), _needs(model)
    picture = _continued(blurred, tiles[-1].bottom, tiles[-1].right)  # (3, >= H, >= W)
    labels = None if masks is None else _continued(masks[None].float(), tiles[-1].bottom, tiles[-1].right)[0]
    device = next(model.parameters(), blurred).device
    if len(tiles) == 1:
        whole = None if labels is None else labels[None]
        restored = _run(model, picture[None], whole, device, precision)[0].clamp(0, 1).to(blurred.device)
        return restored[:, :height, :width].contiguous()
    total = torch.zeros_like(picture)
    weights = picture.new_zeros(picture.shape[-2:])
    at_once = _tiles_at_once(needs.fixed_size, tile_px)
    for first in range(0, len(tiles), at_once):
        group = tiles[first : first + at_once]
        batch = torch.stack([picture[:, *tile.place] for tile in group])  # (N, 3, h, w)
        parts = None if labels is None else torch.stack([labels[tile.place] for tile in group])  # (N, h, w)
        for tile, restored in zip(group, _run(model, batch, parts, device, precision).to(blurred.device), strict=True):
            ramp = _ramp(tile, picture.shape[-2:], needs.overlap_px).to(blurred.device)
            total[:, *tile.place] += restored * ramp
            weights[tile.place] += ramp
    return total.div_(weights).clamp_(0, 1)[:, :height, :width].contiguous()


def tiles_for(model: nn.Module, height: int, width: int, tile_px: int | None = None) -> list["Tile"]:
    """Return the tiles in which `restore_image` runs the network on a picture of that size.

    Those of a network that knows one size only reach beyond a smaller picture, on the right and below.
    """
    if tile_px is not None and tile_px < 1:
        raise ValueError(f"a tile has at least 1 pixel a side, not {tile_px}")
    needs = _needs(model)
    if needs.fixed_size is not None:
        return plan_fixed_tiles(height, width, needs.fixed_size, needs.overlap_px)
    return plan_tiles(height, width, tile_px or needs.tile_px, needs.overlap_px, needs.multiple)


@dataclass(frozen=True)
class Tile:
    """A part of a picture, in pixels, `bottom` and `right` excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def place(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def plan_tiles(height: int, width: int, tile_px: int, overlap_px: int, multiple: int = 1) -> list[Tile]:
    """Return tiles that cover the picture evenly: all of one size, at most about `tile_px`, a multiple of `multiple`.

    Neighbours overlap by at least `overlap_px`, or a quarter of `tile_px` where that is less. Even sizes matter: a
    tile of odd size costs up to 2.8 times the time.
    """
    return [
        Tile(top, bottom, left, right)
        for top, bottom in _spans(height, tile_px, overlap_px, multiple)
        for left, right in _spans(width, tile_px, overlap_px, multiple)
    ]


def plan_fixed_tiles(height: int, width: int, size: tuple[int, int], overlap_px: int) -> list[Tile]:
    """Return tiles of exactly `size` (width, height) in pixels that cover the picture evenly.

    Neighbours overlap by at least `overlap_px`, or a quarter of the tile where that is less. Where the picture is
    smaller than a tile, the tile reaches beyond it, on the right and below.
    """
    return [
        Tile(top, bottom, left, right)
        for top, bottom in _fixed_spans(height, size[1], overlap_px)
        for left, right in _fixed_spans(width, size[0], overlap_px)
    ]


def bf16_is_fast(device: torch.device) -> bool:
    """Return whether the device computes in bf16 natively (AVX-512 or AMX on a CPU, Ampere or later)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context in which networks run: bf16 where asked for, or, with `auto`, where it is fast."""
    enabled = precision == "bf16" or (precision == "auto" and bf16_is_fast(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next tensor; nothing happens elsewhere.

    By default it gives large blocks back to the system at once, and page faults then halve the speed of a network
    (2.4 times were measured). For programs of ours, called at their start; a library must not do this behind its
    user's back.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl, Android
        return
    m_mmap_max, m_trim_threshold, m_top_pad = -4, -1, -2
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, -1)
    mallopt(m_top_pad, 64 * 1024**2)


@dataclass(frozen=True)
class _Needs:
    """By how much tiles of a network overlap, and what their sizes are multiples of and are at most, or are."""

    overlap_px: int = 32
    multiple: int = 1
    fixed_size: tuple[int, int] | None = None
    tile_px: int = DEFAULT_TILE_PX


def _needs(model: nn.Module) -> _Needs:
    identity = models.identity(model)
    if identity is None:  # not one of ours
        return _Needs()
    arch = models.find(identity[0])
    multiple = int(getattr(model, "size_multiple", arch.size_multiple))
    fixed_size = getattr(model, "fixed_size", arch.fixed_size)
    return _Needs(arch.overlap_px, multiple, fixed_size, getattr(model, "tile_px", DEFAULT_TILE_PX))


def _tiles_at_once(fixed_size: tuple[int, int] | None, tile_px: int | None) -> int:
    """Return how many tiles go through the network together: several where its one size is small.

    Measured on a CPU, a tile alone and among others: 32×32 (`srn_deblur_cifar`) 50 ms and 25 ms, 224×224
    (`vit_deblur`) 236 ms and 276 ms.
    """
    if fixed_size is None:
        return 1
    return max(1, min(tile_px or TOGETHER_PX, TOGETHER_PX) ** 2 // (fixed_size[0] * fixed_size[1]))


def _continued(picture: Tensor, bottom: int, right: int) -> Tensor:
    """Return the picture (C, H, W), reflected on the right and below up to where the last tile ends."""
    height, width = picture.shape[-2:]
    if (height, width) == (bottom, right):
        return picture
    return reflect(picture[None], 0, right - width, 0, bottom - height)[0]


def _run(
    model: nn.Module, blurred: Tensor, labels: Tensor | None, device: torch.device, precision: Precision
) -> Tensor:
    """Return what the network makes of the pictures (N, 3, h, w) and, where it takes them, their masks (N, h, w)."""
    blurred = blurred.to(device).contiguous(memory_format=torch.channels_last)
    masks = () if labels is None else (labels.to(device),)
    with torch.inference_mode(), autocast(device, precision):
        return model(blurred, *masks).float()


def _spans(length: int, tile_px: int, overlap_px: int, multiple: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of equal spans that cover `length`."""
    if length <= tile_px:
        yield 0, length
        return
    count, overlap = _count(length, tile_px, overlap_px)
    span = -(-(length + (count - 1) * overlap) // count)
    span = min(-(-span // multiple) * multiple, length)
    yield from _spread(length, span, count)


def _fixed_spans(length: int, tile_px: int, overlap_px: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of spans of `tile_px` that cover `length`."""
    if length <= tile_px:
        yield 0, tile_px
        return
    yield from _spread(length, tile_px, _count(length, tile_px, overlap_px)[0])


def _count(length: int, tile_px: int, overlap_px: int) -> tuple[int, int]:
    """Return how many spans of `tile_px`, fewer than `length`, cover it, and by how much they overlap at least."""
    overlap = min(overlap_px, tile_px // 4)
    return -(-(length - overlap) // (tile_px - overlap)), overlap


def _spread(length: int, span: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of `count` spans from 0 to `length`, from 2 on, evenly apart."""
    for index in range(count):
        start = round(index * (length - span) / (count - 1))
        yield start, start + span


def _ramp(tile: Tile, size: torch.Size, overlap_px: int) -> Tensor:
    """Return the weights of a tile, (h, w): 1 in the middle, falling towards those edges that have a neighbour."""

    def line(start: int, end: int, length: int) -> Tensor:
        position = torch.arange(start, end, dtype=torch.float32)
        rising = (position - start + 1) / overlap_px if start > 0 else torch.ones_like(position)
        falling = (end - position) / overlap_px if end < length else torch.ones_like(position)
        return torch.minimum(rising, falling).clamp(max=1)

    return line(tile.top, tile.bottom, size[0])[:, None] * line(tile.left, tile.right, size[1])[None, :]
