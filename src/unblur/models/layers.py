"""The few modules that several networks use identically."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of each pixel, (B, C, H, W) -> (B, C, H, W), biased variance, affine.

    Runs on a permuted view: with channels-last tensors that is no copy, and trains 1.5 times as fast on a CPU as mean
    and variance by hand.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with mean 0 and variance 1 over the channels of each pixel, scaled and shifted by channel."""
        pixels = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        return F.layer_norm(pixels, self.weight.shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


def pad_to_multiple(images: Tensor, multiple: int, padding: Literal["zeros", "reflect", "replicate"]) -> Tensor:
    """Return the images (B, C, H, W), continued on the right and at the bottom to a multiple of `multiple`.

    `reflect` does not repeat the edge; where a picture is too small to be reflected that far, the rest is replicated.
    Crop the network's output with `[..., :H, :W]`.
    """
    height, width = images.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not (bottom or right):
        return images
    if padding == "zeros":
        return F.pad(images, (0, right, 0, bottom))
    if padding == "reflect":
        reflected = (min(right, width - 1), min(bottom, height - 1))
        images = F.pad(images, (0, reflected[0], 0, reflected[1]), mode="reflect")
        bottom, right = bottom - reflected[1], right - reflected[0]
    return F.pad(images, (0, right, 0, bottom), mode="replicate")
