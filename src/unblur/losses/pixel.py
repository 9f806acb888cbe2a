"""Losses that compare pixel with pixel. All take (B, 3, H, W) in [0, 1], not clamped, and return a scalar."""

import torch
from torch import Tensor


def mse(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return the mean squared error."""
    return (restored - sharp).square().mean()


def l1(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return the mean absolute error."""
    return (restored - sharp).abs().mean()


def charbonnier(restored: Tensor, sharp: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Return the mean of sqrt(error² + epsilon²): L1 that is smooth at 0 (Charbonnier et al. 1994; MPRNet, equation
    4).
    """
    return ((restored - sharp).square() + epsilon**2).sqrt().mean()


def psnr(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return minus the PSNR in dB, peak 1, averaged over the pictures (document B; NAFNet adds the same 1e-8).

    Its gradient grows as a picture's error falls, so that in a mixture of blurs the nearly sharp pictures drown the
    rest.
    """
    error = (restored - sharp).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(error + 1e-8).mean()
