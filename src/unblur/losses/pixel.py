"""Losses that compare pixel with pixel. All take (B, 3, H, W) in [0, 1], not clamped, and return a scalar."""

import torch
from torch import Tensor


def mse(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return the mean squared error."""
    return _error(restored, sharp).square().mean()


def l1(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return the mean absolute error."""
    return _error(restored, sharp).abs().mean()


def charbonnier(restored: Tensor, sharp: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Return the mean of sqrt(error² + epsilon²): L1 that is smooth at 0 (Charbonnier et al. 1994; MPRNet, equation
    4; document A, equation 7). A perfect picture costs `epsilon`.
    """
    return (_error(restored, sharp).square() + epsilon**2).sqrt().mean()


def psnr(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return minus the PSNR in dB, peak 1, averaged over the pictures (document B; NAFNet adds the same 1e-8).

    Its gradient grows as a picture's error falls, so that in a mixture of blurs the nearly sharp pictures drown the
    rest.
    """
    error = _error(restored, sharp).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(error + 1e-8).mean()


def bce(restored: Tensor, sharp: Tensor, epsilon: float = 2**-20) -> Tensor:
    """Return the binary cross-entropy, each sharp value taken as the probability of white (document B, for the VAE).

    Its mean over all values; a perfect picture costs its own entropy, not 0. For networks that end in a sigmoid: values
    nearer to 0 or 1 than `epsilon` (which float32 holds exactly at both ends), or beyond, are moved to that distance
    and get no gradient.
    """
    check_same_shape(restored, sharp)
    white = restored.clamp(epsilon, 1 - epsilon)
    return -(sharp * white.log() + (1 - sharp) * (1 - white).log()).mean()


def check_same_shape(restored: Tensor, sharp: Tensor, what: tuple[str, str] = ("restored", "sharp")) -> None:
    """Raise `ValueError` where two tensors would be stretched to each other's shape (broadcast) to be compared."""
    if restored.shape != sharp.shape:
        first, second = what
        raise ValueError(
            f"{first} is {tuple(restored.shape)} and {second} is {tuple(sharp.shape)}; only equal shapes are compared."
        )


def _error(restored: Tensor, sharp: Tensor) -> Tensor:
    check_same_shape(restored, sharp)
    return restored - sharp
