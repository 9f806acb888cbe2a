"""What a camera does to the light it has gathered: response curve, saturation, noise, rounding, JPEG.

All functions take and return batches (B, 3, H, W) of RGB in [0, 1], work on the batch's own device, and leave the
drawing of random settings to `recipes.py`. A setting is a number or a tensor of shape (B,).
"""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from unblur.blur.kernels import Number

WHITE = 250 / 255
"""From this value on a picture is taken to be clipped; JPEG moves clipped places by a few values."""


def to_linear_light(images: Tensor, gamma: Number = 2.2) -> Tensor:
    """Return the light that made the picture, the inverse of the response curve v = light^(1/gamma); gamma
    broadcasts.
    """
    return images.clamp_min(0) ** gamma


def from_linear_light(light: Tensor, gamma: Number = 2.2) -> Tensor:
    """Return the picture of `light`; light above 1 saturates."""
    return light.clamp(0, 1) ** (1 / gamma)


def beyond_white(light: Tensor, images: Tensor, gain: Number) -> Tensor:
    """Return the light of `images` with that of clipped places multiplied by `gain`, which broadcasts over pictures.

    A file cannot say how bright a lamp or the sky was: 255 means "at least that much". Blurred with a larger gain,
    lamps draw streaks and skies eat into the branches before them, as in real photographs; without blur, nothing shows
    but that values from WHITE on become white. A gain of 1 changes nothing.
    """
    clipped = ((images - WHITE) / (1 - WHITE)).clamp(0, 1)
    return light * (1 + (_per_image(gain, light) - 1) * clipped)


def average_frames(frames: Iterable[Tensor], response: Number = 2.2) -> Tensor:
    """Return the picture (3, H, W) of one exposure as long as all the frames, each (3, H, W): the mean of their light.

    `response` is the gamma of the camera, or its measured curve (256,): the light that makes each 8-bit value, strictly
    rising from 0 to 1. The result is not rounded. One frame after the other is taken, so that they need not be in
    memory together. Where things move far from frame to frame, the mean shows them several times ("ghosts") instead of
    one smear.
    """
    total, count = torch.zeros(()), 0
    curve = response if isinstance(response, Tensor) and response.ndim == 1 else None
    for count, frame in enumerate(frames, start=1):
        light = to_linear_light(frame, response) if curve is None else _to_light(frame, curve)
        total = light if count == 1 else total + light
    if count == 0:
        raise ValueError("no frames, no mean")
    mean = total / count
    return from_linear_light(mean, response) if curve is None else _from_light(mean, curve)


def add_noise(images: Tensor, read: Number, shot: Number, noise: Tensor) -> Tensor:
    """Return the images with sensor noise of variance read² + shot · signal, not clamped.

    `noise` is standard normal with the shape of `images`. `read` and `shot` are relative to full white: read 0.01 is a
    standard deviation of 2.55 grey values of 255.
    """
    read, shot = (_per_image(value, images) for value in (read, shot))
    return images + noise * (read**2 + shot * images.clamp(0, 1)).sqrt()


def round_to_8bit(images: Tensor) -> Tensor:
    """Return the images clamped to [0, 1] and rounded to the 256 values that a file can hold."""
    return images.clamp(0, 1).mul_(255).round_().div_(255)


def jpeg(images: Tensor, quality: Number) -> Tensor:
    """Return the images as they come back from a JPEG file: baseline, chroma halved (4:2:0), standard tables.

    A lower `quality` (1 to 100, libjpeg's scale) destroys more. The colour conversion is JFIF's (BT.601, full range),
    the tables are those of ITU-T T.81, annex K. The output is in [0, 1].
    """
    height, width = images.shape[-2:]
    scale = torch.as_tensor(quality, dtype=torch.float32, device=images.device).expand(images.shape[0])
    scale = torch.where(scale < 50, (5000 / scale).floor(), 200 - 2 * scale)
    padded = F.pad(images, (0, -width % 16, 0, -height % 16), mode="replicate")
    planes = torch.einsum("pc,bchw->bphw", _to_ycc(images), padded * 255)  # Y in 0..255, Cb and Cr in -128..128
    luma = _quantised(planes[:, :1] - 128, _LUMA_TABLE, scale) + 128
    chroma = _quantised(F.avg_pool2d(planes[:, 1:], 2), _CHROMA_TABLE, scale)
    chroma = F.interpolate(chroma, scale_factor=2.0, mode="bilinear", align_corners=False)
    planes = torch.cat([luma, chroma], dim=1)
    rgb = torch.einsum("cp,bphw->bchw", torch.linalg.inv(_to_ycc(images)), planes)
    return round_to_8bit(rgb[:, :, :height, :width] / 255)


def _to_light(images: Tensor, curve: Tensor) -> Tensor:
    """Return curve(images), interpolated between the 256 values."""
    place = images.clamp(0, 1) * (len(curve) - 1)
    below = place.floor().clamp_max(len(curve) - 2)
    low, high = curve[below.long()], curve[below.long() + 1]
    return low + (high - low) * (place - below)


def _from_light(light: Tensor, curve: Tensor) -> Tensor:
    """Return the images in [0, 1] whose light this is, the inverse of `_to_light`."""
    above = torch.searchsorted(curve, light.contiguous()).clamp(1, len(curve) - 1)
    low, high = curve[above - 1], curve[above]
    return ((above - 1 + (light - low) / (high - low)) / (len(curve) - 1)).clamp(0, 1)


def _quantised(planes: Tensor, table: tuple[int, ...], scale: Tensor) -> Tensor:
    """Return planes (B, C, H, W), centred on 0, after a discrete cosine transform of 8×8 blocks with rounded values."""
    batch, channels, height, width = planes.shape
    steps = torch.tensor(table, dtype=torch.float32, device=planes.device)
    steps = ((steps * scale[:, None] + 50) / 100).floor().clamp(1, 255)[:, None, None]  # (B, 1, 1, 64)
    blocks = planes.reshape(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)  # (B, C, H/8, W/8, 8, 8)
    transform = torch.kron(*[_dct_matrix(planes)] * 2)  # of the 64 values of a block, along both directions at once
    values = (blocks.reshape(batch, channels, -1, 64) @ transform.T / steps).round() * steps
    return (values @ transform).reshape(blocks.shape).transpose(3, 4).reshape(planes.shape)


def _dct_matrix(like: Tensor) -> Tensor:
    k = torch.arange(8, device=like.device, dtype=torch.float32)
    matrix = torch.cos(math.pi * (2 * k[None, :] + 1) * k[:, None] / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix.to(like.dtype)


def _to_ycc(like: Tensor) -> Tensor:
    """Return the matrix from RGB to Y, Cb, Cr, the last two centred on 0."""
    rows = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    return torch.tensor(rows, device=like.device, dtype=like.dtype)


def _per_image(value: Number, images: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=images.dtype, device=images.device).reshape(-1, 1, 1, 1)


_LUMA_TABLE = (
    16, 11, 10, 16, 24, 40, 51, 61,
    12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77,
    24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip

_CHROMA_TABLE = (
    17, 18, 24, 47, 99, 99, 99, 99,
    18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
)  # fmt: skip
