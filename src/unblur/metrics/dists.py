"""DISTS (Ding et al. 2020, "Image quality assessment: unifying structure and texture similarity").

Texture is compared by the means of VGG16's features, structure by their covariance, both over the whole picture; the
picture itself is the first of six stages. Pooling is L2 with a Hanning window in place of the maximum. Weights: VGG16's
ImageNet file, and the authors' `weights.pt` (`alpha` and `beta`, one number for each of the 1,475 channels). Whether
values agree with the authors' to the last digit could not be checked without those files: what is tested is structure,
layout of the files, and properties. Pictures are compared at their full size; the authors' script first reduces larger
ones to 256 px on the shorter side.
"""

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unblur import weights
from unblur.errors import PhotoError, WeightsError
from unblur.metrics.backbones import IMAGENET_MEAN, IMAGENET_STD, VGG16, VGG16_FILE, fill, local_tensors
from unblur.metrics.pictures import Picture, scores

WEIGHTS_FILE = "dists/weights.pt"
SMALLEST_PX = 16


def dists(restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> float | Tensor:
    """Return DISTS, 0 for identical pictures, smaller is better; the two may change places.

    Raises `WeightsError` without the files, `PhotoError` below 16 px a side.
    """
    return scores(_distance, restored, sharp, data_range)


def dists_network() -> "DISTS":
    """Return the network with the weights of the local files, loaded once. Raises `WeightsError` without them."""
    return _loaded(weights.home())


class DISTS(nn.Module):
    """The distance of two batches of pictures in [0, 1]; `alpha` weighs texture, `beta` structure, by channel."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.net = VGG16(pool=L2Pool)
        self.channels = (3, *VGG16.CHANNELS)
        self.alpha = nn.Parameter(torch.rand(1, sum(self.channels), 1, 1))
        self.beta = nn.Parameter(torch.rand(1, sum(self.channels), 1, 1))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, restored: Tensor, sharp: Tensor) -> Tensor:
        """Return the distances (B,) of two batches (B, 3, H, W), RGB in [0, 1]."""
        in_all = self.alpha.sum() + self.beta.sum()
        alphas, betas = (torch.split(numbers, list(self.channels), 1) for numbers in (self.alpha, self.beta))
        similar = restored.new_zeros(len(restored))
        for x, y, alpha, beta in zip(self._features(restored), self._features(sharp), alphas, betas, strict=True):
            texture, structure = _similarities(x, y)  # each (B, C, 1, 1)
            similar = similar + (alpha * texture + beta * structure).sum((1, 2, 3)) / in_all
        return 1 - similar

    def _features(self, pictures: Tensor) -> list[Tensor]:
        return [pictures, *self.net.stages((pictures - self.mean) / self.std)]


class L2Pool(nn.Module):
    """Half the size by the root of the local mean of squares, in a window that falls off as a Hanning window does."""

    window: Tensor

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride
        line = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("window", line[:, None] * line[None, :], persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        channels = features.shape[1]
        window = self.window.expand(channels, 1, 3, 3)
        return (F.conv2d(features.square(), window, stride=self.stride, padding=1, groups=channels) + 1e-12).sqrt()


def _similarities(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return l(x, y) and s(x, y) of the paper's equations 3 and 4, by channel."""
    steady = 1e-6  # c1 = c2 in the authors' code
    mean_x, mean_y = x.mean((2, 3), keepdim=True), y.mean((2, 3), keepdim=True)
    texture = (2 * mean_x * mean_y + steady) / (mean_x.square() + mean_y.square() + steady)
    variance_x = (x - mean_x).square().mean((2, 3), keepdim=True)
    variance_y = (y - mean_y).square().mean((2, 3), keepdim=True)
    covariance = (x * y).mean((2, 3), keepdim=True) - mean_x * mean_y
    return texture, (2 * covariance + steady) / (variance_x + variance_y + steady)


@cache
def _loaded(home: Path) -> DISTS:
    network = DISTS()
    tensors = local_tensors(VGG16_FILE, "the ImageNet weights of VGG16, as PyTorch distributes them")
    fill(network.net, tensors, home / VGG16_FILE)
    numbers = local_tensors(WEIGHTS_FILE, "alpha and beta of DISTS, weights.pt of github.com/dingkeyan93/DISTS")
    if not all(key in numbers and numbers[key].numel() == network.alpha.numel() for key in ("alpha", "beta")):
        raise WeightsError(f"{home / WEIGHTS_FILE} does not fit: alpha and beta have 1,475 numbers each.")
    with torch.no_grad():
        network.alpha.copy_(numbers["alpha"].reshape(network.alpha.shape))
        network.beta.copy_(numbers["beta"].reshape(network.beta.shape))
    return network.eval().requires_grad_(False)


def _distance(restored: Tensor, sharp: Tensor, white: float) -> float:
    height, width = sharp.shape[1:]
    if min(height, width) < SMALLEST_PX:
        raise PhotoError(f"DISTS needs pictures of at least {SMALLEST_PX} px a side, not {width}x{height}.")
    pair = (picture.float().div(white).expand(3, -1, -1)[None] for picture in (restored, sharp))
    with torch.inference_mode():
        return float(dists_network()(*pair))
