"""NIQE (Mittal, Soundararajan and Bovik 2013, "Making a completely blind image quality analyzer"), with our own model.

Written from the paper. Grey values are normalised by their surroundings; how the results are distributed, alone and in
products of neighbours, gives 18 numbers a patch at each of two scales. The score is how far the numbers of a picture's
patches lie from those of sharp photographs. The authors' model was fitted on photographs that may not be passed on, so
ours is fitted on free ones (`scripts/fit_niqe.py`; `niqe_unblur.safetensors` says which) and has a name of its
own: values compare with those of this model only. Where the paper leaves something open, we take: BT.601 luma, halving
by an antialiased bicubic, products within a patch, patches from the top left.

Like every measure that does not look at the truth it rewards what looks sharp, ringing and invention included: it
stands beside the others, never alone.
"""

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from unblur.errors import PhotoError
from unblur.images import to_uint8
from unblur.metrics.pictures import Picture, scores

MODEL_FILE = Path(__file__).with_name("niqe_unblur.safetensors")
PATCH_PX = 96
SHARP_ENOUGH = 0.75
"""A model is fitted to those patches whose contrast is above this share of the picture's highest (section II-B)."""


def niqe_unblur(restored: Picture, sharp: Picture | None = None, *, data_range: float = 1.0) -> float | Tensor:
    """Return NIQE of the restored picture, rounded to 8 bit; smaller is more natural. `sharp` is not looked at.

    Raises `PhotoError` below 96 px a side.
    """
    return scores(lambda picture, _, white: _distance(picture, white), restored, restored, data_range)


def patch_features(rgb8: Tensor, *, sharpest: bool = False) -> Tensor:
    """Return the 36 numbers of each patch of 96x96, (N, 36) float64; `rgb8` (C, H, W) from 0 to 255.

    `sharpest` keeps the patches with much contrast, as for fitting a model.
    """
    red, green, blue = rgb8.double().expand(3, -1, -1)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue  # (H, W)
    rows, columns = grey.shape[0] // PATCH_PX, grey.shape[1] // PATCH_PX
    grey = grey[: rows * PATCH_PX, : columns * PATCH_PX]
    half = F.interpolate(grey[None, None], scale_factor=0.5, mode="bicubic", antialias=True, align_corners=False)[0, 0]
    normalised, deviation = _normalised(grey)
    features = [_statistics(_patches(normalised, PATCH_PX))]
    features.append(_statistics(_patches(_normalised(half)[0], PATCH_PX // 2)))
    found = torch.cat(features, 1)  # (N, 36)
    contrast = _patches(deviation, PATCH_PX).mean((1, 2))
    return found[contrast > SHARP_ENOUGH * contrast.max()] if sharpest else found


@cache
def _model() -> tuple[Tensor, Tensor]:
    """Return the mean (36,) and the covariance (36, 36) of the features of sharp photographs."""
    tensors = load_file(MODEL_FILE)
    return tensors["mean"], tensors["covariance"]


def _distance(picture: Tensor, white: float) -> float:
    height, width = picture.shape[1:]
    if min(height, width) < PATCH_PX:
        raise PhotoError(f"NIQE needs pictures of at least {PATCH_PX} px a side, not {width}x{height}.")
    features = patch_features(to_uint8(picture.double() / white))
    mean, covariance = _model()
    away = features.mean(0) - mean
    own = torch.cov(features.T) if len(features) > 1 else torch.zeros_like(covariance)
    return float((away @ torch.linalg.pinv((covariance + own) / 2, hermitian=True) @ away).clamp_min(0).sqrt())


def _normalised(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Return (I - mean) / (deviation + 1) and the deviation in a Gaussian window of 7x7 (equations 1 to 3)."""
    line = torch.exp(-(torch.arange(-3, 4, dtype=torch.float64) ** 2) / (2 * (7 / 6) ** 2))
    window = (line[:, None] * line[None, :] / line.sum() ** 2)[None, None]

    def blur(plane: Tensor) -> Tensor:
        return F.conv2d(F.pad(plane[None, None], (3, 3, 3, 3), mode="replicate"), window)[0, 0]

    mean = blur(grey)
    deviation = (blur(grey * grey) - mean * mean).abs().sqrt()
    return (grey - mean) / (deviation + 1), deviation


def _patches(plane: Tensor, side: int) -> Tensor:
    """Return the plane (rows * side, columns * side) cut into (N, side, side)."""
    return plane.unfold(0, side, side).unfold(1, side, side).reshape(-1, side, side)


def _statistics(patches: Tensor) -> Tensor:
    """Return 18 numbers a patch: shape and variance of its values; four of each product of neighbours."""
    values = patches.flatten(1)
    square = values.square().mean(1)
    shape = exponent_of((values.abs().mean(1).square() + _TINY) / (square + _TINY))
    products = (
        patches[:, :, :-1] * patches[:, :, 1:],
        patches[:, :-1, :] * patches[:, 1:, :],
        patches[:, :-1, :-1] * patches[:, 1:, 1:],
        patches[:, :-1, 1:] * patches[:, 1:, :-1],
    )
    return torch.cat([torch.stack([shape, square], 1), *(_asymmetric(p.flatten(1)) for p in products)], 1)


def _asymmetric(values: Tensor) -> Tensor:
    """Return (shape, mean, left and right deviation) of an asymmetric generalised Gaussian, (N, 4).

    Fitted to (N, n) values by moments (Lasmar, Stitou and Berthoumieu 2009), as the paper does; mean: equation 8.
    """
    left, right = (
        ((values.square() * side).sum(1) / side.sum(1).clamp_min(1)).sqrt() for side in (values < 0, values > 0)
    )
    skew = (left + _TINY) / (right + _TINY)
    moments = (values.abs().mean(1).square() + _TINY) / (values.square().mean(1) + _TINY)
    shape = exponent_of(moments * (skew**3 + 1) * (skew + 1) / (skew.square() + 1).square())
    one, two, three = (torch.lgamma(k / shape) for k in (1, 2, 3))
    mean = (right - left) * torch.exp((one - three) / 2 + two - one)
    return torch.stack([shape, mean, left, right], 1)


def exponent_of(moments: Tensor) -> Tensor:
    """Return the exponents of generalised Gaussians whose (mean |x|)² / mean x² are `moments`, from 0.2 to 10."""
    exponents = torch.arange(200, 10_001, dtype=torch.float64) / 1000
    one, two, three = (torch.lgamma(k / exponents) for k in (1, 2, 3))
    ratios = torch.exp(2 * two - one - three)  # rises with the exponent
    return exponents[torch.searchsorted(ratios, moments).clamp_max(len(exponents) - 1)]


_TINY = 1e-12
