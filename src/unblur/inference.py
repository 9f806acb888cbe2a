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

Precision = Literal["auto", "fp32", "bf16"]

DEFAULT_TILE_PX = 512
"""Largest side of a tile: bounds the memory, and keeps global pooling near what a network saw in training."""


def restore_image(
    model: nn.Module, blurred: Tensor, *, tile_px: int | None = None, precision: Precision = "auto"
) -> Tensor:
    """Return the restored picture, (3, H, W) float32 in [0, 1], on the device of `blurred`.

    `blurred` (3, H, W), RGB in [0, 1], any size from 1×1. A picture larger than `tile_px` on a side goes in
    overlapping tiles of equal size, blended linearly; the network runs on its own device, in eval mode as it is
    given, in bf16 where that is fast (`auto`), always on channels-last memory.
    """
    if blurred.ndim != 3 or blurred.shape[0] != 3:
        raise ValueError(f"a picture has shape (3, H, W), not {tuple(blurred.shape)}")
    height, width = blurred.shape[-2:]
    tiles, (overlap, _) = tiles_for(model, height, width, tile_px), _needs(model)
    device = next(model.parameters(), blurred).device
    if len(tiles) == 1:
        return _run(model, blurred, device, precision).clamp(0, 1).to(blurred.device)
    total = torch.zeros_like(blurred)
    weights = blurred.new_zeros(blurred.shape[-2:])
    for tile in tiles:
        rows, columns = slice(tile.top, tile.bottom), slice(tile.left, tile.right)
        ramp = _ramp(tile, blurred.shape[-2:], overlap).to(blurred.device)
        restored = _run(model, blurred[:, rows, columns], device, precision).to(blurred.device)
        total[:, rows, columns] += restored * ramp
        weights[rows, columns] += ramp
    return total.div_(weights).clamp_(0, 1)


def tiles_for(model: nn.Module, height: int, width: int, tile_px: int | None = None) -> list["Tile"]:
    """Return the tiles in which `restore_image` runs the network on a picture of that size."""
    if tile_px is not None and tile_px < 1:
        raise ValueError(f"a tile has at least 1 pixel a side, not {tile_px}")
    return plan_tiles(height, width, tile_px or DEFAULT_TILE_PX, *_needs(model))


@dataclass(frozen=True)
class Tile:
    """A part of a picture, in pixels, `bottom` and `right` excluded."""

    top: int
    bottom: int
    left: int
    right: int


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


def _needs(model: nn.Module) -> tuple[int, int]:
    """Return by how much tiles of the network overlap, and what their sizes are multiples of."""
    identity = models.identity(model)
    if identity is None:  # not one of ours
        return 32, 1
    arch = models.find(identity[0])
    return arch.overlap_px, int(getattr(model, "size_multiple", arch.size_multiple))


def _run(model: nn.Module, blurred: Tensor, device: torch.device, precision: Precision) -> Tensor:
    batch = blurred[None].to(device).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), autocast(device, precision):
        return model(batch)[0].float()


def _spans(length: int, tile_px: int, overlap_px: int, multiple: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of equal spans that cover `length`."""
    if length <= tile_px:
        yield 0, length
        return
    overlap = min(overlap_px, tile_px // 4)
    count = -(-(length - overlap) // (tile_px - overlap))
    span = -(-(length + (count - 1) * overlap) // count)
    span = min(-(-span // multiple) * multiple, length)
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
