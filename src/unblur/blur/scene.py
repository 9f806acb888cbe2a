"""Blur that differs from place to place: a camera that turns, and a scene whose parts move each in its own way.

`turned` moves the whole picture along a path and averages what it sees; `composited` blurs layers, each with a kernel
of its own, and lays them over each other as light, nearest last. Both take batches (B, 3, H, W) of light, work on the
batch's own device, and equal `kernels.convolve` where the blur is the same everywhere.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from unblur.blur.kernels import convolve, inside

OUTLINE_WAVES = 6
"""Number of waves that shape the outlines of layers."""


def turned(light: Tensor, path: Tensor, margin_px: int = 0) -> Tensor:
    """Return the mean of what a camera sees that moves and turns during the exposure.

    `path` (B, T, 3) holds for each moment how far the scene has moved (x to the right, y down, in pixels) and how far
    it has turned about the picture's middle (radians, clockwise as seen); each moment gets an even share of the light.
    Between pixels the light is interpolated bilinearly; borders are reflected without repeating the edge. The result is
    without `margin_px` pixels on each side.
    """
    height, width = light.shape[-2:]
    x = torch.arange(margin_px, width - margin_px, device=light.device, dtype=light.dtype) - (width - 1) / 2
    y = torch.arange(margin_px, height - margin_px, device=light.device, dtype=light.dtype)[:, None] - (height - 1) / 2
    half = light.new_tensor([max(width - 1, 1) / 2, max(height - 1, 1) / 2])  # the span of grid_sample's -1 to 1
    grid = light.new_empty(len(light), len(y), len(x), 2)
    seen = torch.zeros_like(inside(light, margin_px))
    for right, down, angle in path.to(light.dtype).permute(1, 2, 0)[..., None, None]:  # each (B, 1, 1)
        cos, sin = angle.cos(), angle.sin()
        torch.add(
            (cos * x - cos * right - sin * down) / half[0], sin / half[0] * y, out=grid[..., 0]
        )  # the point of the scene that is seen at x, y: moved back, then turned back
        torch.add(-sin / half[1] * x, (cos * y + sin * right - cos * down) / half[1], out=grid[..., 1])
        seen += F.grid_sample(light, grid, padding_mode="reflection", align_corners=True)
    return seen / path.shape[1]


def draw_outlines(generator: torch.Generator) -> Tensor:
    """Draw the numbers that shape the layers of one picture, (3, OUTLINE_WAVES): frequency to the right, frequency
    downwards (periods per shorter side of the picture), phase.
    """
    draws = torch.randn(3, OUTLINE_WAVES, generator=generator)
    draws[2] *= 10  # any phase is as likely as any other
    return draws


def layer_masks(draws: Tensor, levels: Tensor, softness_px: Tensor, height: int, width: int) -> Tensor:
    """Return where each layer before the farthest lies, (B, L, H, W) in [0, 1], each within the one before it.

    The layers are where a sum of waves with `draws` (B, 3, OUTLINE_WAVES) is above `levels` (B, L), ascending, in
    standard deviations: at 0 a layer covers about half of a picture, at 1 a sixth. Their edges are
    `softness_px` (B,) wide.
    """
    shorter = min(height, width)
    frequency = draws[:, :2] * 2 * math.pi / shorter  # (B, 2, F), radians a pixel
    x = torch.arange(width, device=draws.device) - (width - 1) / 2
    y = torch.arange(height, device=draws.device) - (height - 1) / 2
    along_x = frequency[:, 0, :, None] * x  # (B, F, W)
    along_y = frequency[:, 1, :, None] * y + draws[:, 2, :, None]  # (B, F, H)
    # cos(a + b), summed over the waves as two products of matrices
    waves = along_y.cos().mT @ along_x.cos() - along_y.sin().mT @ along_x.sin()  # (B, H, W)
    waves = waves / math.sqrt(OUTLINE_WAVES / 2)
    slope = (frequency.square().sum(dim=(1, 2)) / OUTLINE_WAVES).sqrt()  # per pixel, in standard deviations
    ramp = (waves[:, None] - levels[..., None, None]) / (slope * softness_px).clamp_min(1e-9)[:, None, None, None]
    return (ramp + 0.5).clamp(0, 1)


def composited(light: Tensor, masks: Tensor, kernels: Tensor, margin_px: int = 0) -> Tensor:
    """Return the picture of a scene in layers, of which each is blurred by its own kernel.

    `masks` (B, L, H, W) as from `layer_masks`; `kernels` (B, 1 + L, k, k), that of the farthest layer first. A layer is
    opaque: where its blurred mask is m, the light from behind counts 1 - m. What lies hidden behind a nearer layer and
    shows as this moves is guessed: the mean of the visible light around. The result is without `margin_px` pixels on
    each side.
    """
    contents = [*(_continued(light, mask) for mask in masks.unbind(1)), light]
    seen = convolve(contents[0], kernels[:, 0], margin_px)
    for content, mask, kernel in zip(contents[1:], masks.unbind(1), kernels[:, 1:].unbind(1), strict=True):
        layer = torch.cat([content * mask[:, None], mask[:, None]], dim=1)  # (B, 4, H, W)
        blurred = convolve(layer, kernel, margin_px)
        seen = seen * (1 - blurred[:, 3:]) + blurred[:, :3]
    return seen


def _continued(light: Tensor, hidden: Tensor) -> Tensor:
    """Return the light with that of wholly hidden places (where (B, H, W) is 1) replaced by the mean of about 40 × 40
    pixels around, as far as these are visible.
    """
    visible = (hidden < 1).to(light.dtype)[:, None]
    mean = F.avg_pool2d(torch.cat([light * visible, visible], dim=1), 8, ceil_mode=True)  # (B, 4, H/8, W/8)
    mean = F.avg_pool2d(mean, 5, stride=1, padding=2)
    mean = mean + 1e-3 * mean.mean(dim=(2, 3), keepdim=True).clamp_min(1e-6)  # where nothing is visible so near
    filled = F.interpolate(mean[:, :3] / mean[:, 3:], light.shape[-2:], mode="bilinear", align_corners=True)
    return torch.where(visible > 0, light, filled)
