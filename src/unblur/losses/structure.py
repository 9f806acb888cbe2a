"""Losses that compare neighbourhoods: SSIM, edges, frequencies.

All take (B, C, H, W) in [0, 1], not clamped, and return a scalar. Call them in float32, outside of autocast, as
`LossSum` does: variances and edges are small differences of large numbers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from unblur.losses.pixel import charbonnier, check_same_shape
from unblur.metrics.fidelity import gaussian_window, ssim_map
from unblur.models.layers import reflect

PYRAMID_WEIGHTS = (0.05, 0.25, 0.4, 0.25, 0.05)
"""The generating kernel of Burt and Adelson (1983) with a = 0.4, MPRNet's."""


def ssim(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return 1 - SSIM: 0 for equal pictures, up to 2 (Wang et al. 2004, equation 13; a loss in document B).

    The SSIM of the metric `ssim-wang`: each channel alone, Gaussian window 11×11, sigma 1.5, where it fits; in pictures
    smaller than that, the largest odd window that fits.
    """
    check_same_shape(restored, sharp)
    shortest = min(restored.shape[-2:])
    window = gaussian_window(min(11, (shortest - 1) // 2 * 2 + 1))
    return 1 - ssim_map(restored, sharp, lambda maps: _convolved(maps, window)).mean()


def edge(restored: Tensor, sharp: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Return the Charbonnier loss between the Laplacians of the pictures (MPRNet; document A, equation 8).

    An error that is the same everywhere costs no more than none, which is `epsilon`.
    """
    check_same_shape(restored, sharp)
    return charbonnier(laplacian(restored), laplacian(sharp), epsilon)


def laplacian(pictures: Tensor) -> Tensor:
    """Return the finest level of the Laplacian pyramid (Burt and Adelson 1983): a picture minus what is left of it at
    half the size, (B, C, H, W) -> the same.

    Smoothed by 5×5 weights, every second pixel kept, zeros between them, smoothed again with four times the weights.
    Borders are mirrored about the outermost pixel, which keeps zeros and kept pixels in turn: an even picture has no
    edge there. The equation does not say what happens at borders.
    """
    coarse = torch.zeros_like(pictures)
    coarse[..., ::2, ::2] = 4 * _smoothed(pictures)[..., ::2, ::2]
    return pictures - _smoothed(coarse)


def frequency(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return the mean absolute error of the spectra, over their real and imaginary parts (MIMO-UNet).

    Of the whole two-sided spectrum, not normalised: it grows with the size of the pictures, about as sqrt(H·W) for
    errors without a pattern.
    """
    check_same_shape(restored, sharp)
    return torch.view_as_real(torch.fft.fft2(restored - sharp)).abs().mean()


def _smoothed(pictures: Tensor) -> Tensor:
    return _convolved(reflect(pictures, 2, 2, 2, 2), PYRAMID_WEIGHTS)


def _convolved(maps: Tensor, window: list[float] | tuple[float, ...]) -> Tensor:
    """Return the sums of (..., H, W) weighted by the square that `window` spans, where it fits.

    One group a map: with its backward pass 5 times as fast on a CPU as the metric's way, which serves float64.
    """
    weights = maps.new_tensor(window)
    planes = maps.reshape(1, -1, *maps.shape[-2:])
    count = planes.shape[1]
    planes = F.conv2d(planes, weights[:, None].expand(count, 1, -1, 1), groups=count)
    planes = F.conv2d(planes, weights.expand(count, 1, 1, -1), groups=count)
    return planes.reshape(*maps.shape[:-2], *planes.shape[-2:])
