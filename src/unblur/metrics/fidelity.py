"""PSNR, SSIM and plain errors: how close a restored picture comes to the sharp one, value by value.

Everything is computed in float64 on the CPU, so that a score does not depend on the machine, in strips of rows, so that
a large photo costs little memory.
"""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from unblur.images import to_uint8
from unblur.metrics.pictures import Picture, scores

IDENTICAL_DB = 100.0
"""What identical pictures score, where the formula says infinity; a mean that contains one has to say so."""


def psnr(restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> float | Tensor:
    """Return the PSNR in dB over all RGB values, both pictures rounded to 8 bit first, whatever their range.

    The habit of the field (Matlab's `psnr` on saved PNGs, BasicSR): values outside the range are clipped, halves are
    rounded away from zero. Pictures that are identical after the rounding score exactly 100 dB.
    """
    return scores(_psnr_8_bit, restored, sharp, data_range)


def psnr_float(restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> float | Tensor:
    """Return the PSNR in dB over all RGB values as they are, neither rounded nor clipped (MIMO-UNet, Uformer, DPDD).

    Identical pictures score exactly 100 dB; nearly identical ones may score more.
    """
    return scores(lambda a, b, white: decibels(_mean(_squares, a, b) / white**2), restored, sharp, data_range)


def ssim_wang(restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> float | Tensor:
    """Return the SSIM of Wang et al. 2004: Gaussian window 11x11, sigma 1.5, each channel alone, no padding.

    K1 = 0.01, K2 = 0.03, population covariance, the mean over the places where the whole window fits: the value of
    DeepDeblur-PyTorch, BasicSR and scikit-image (`gaussian_weights=True, use_sample_covariance=False`, map cropped by
    5). Values are taken as they are; `unblur score` and `evaluate` read 8-bit files, as the field does.
    Where a picture is narrower or lower than 11 px, the window is cut to the largest odd square that fits; such a
    value compares with others of the same size only.
    """
    return scores(_ssim_valid, restored, sharp, data_range)


def ssim_matlab3d(restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> float | Tensor:
    """Return what Matlab's `ssim()` gives for an HxWx3 array: a window of 11x11x11, edges replicated, also across RGB.

    Matlab takes the colour picture for a volume. MPRNet, Restormer, SRN, Stripformer and NAFNet (`_ssim_3d`) report
    this one; on blurred, noisy photos it lies about 0.06 above `ssim_wang`. A grey picture has the usual 2-D window.
    """
    return scores(_ssim_replicated, restored, sharp, data_range)


def ssim_uniform(restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> float | Tensor:
    """Return scikit-image's default SSIM: an even window of 7x7, each channel alone, sample covariance, valid region.

    DPDD's scripts report this one; it lies about 0.01 above `ssim_wang`. In a picture narrower or lower than 7 px the
    window is cut as there.
    """
    return scores(_ssim_even, restored, sharp, data_range)


def mse(restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> float | Tensor:
    """Return the mean squared error of values in [0, 1] (pictures are divided by `data_range`), not rounded."""
    return scores(lambda a, b, white: _mean(_squares, a, b) / white**2, restored, sharp, data_range)


def mae(restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> float | Tensor:
    """Return the mean absolute error of values in [0, 1] (pictures are divided by `data_range`), not rounded."""
    return scores(lambda a, b, white: _mean(_distances, a, b) / white, restored, sharp, data_range)


def strongest_channel(restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> float | Tensor:
    """Return the share of pixels whose strongest colour is the same one; of equal colours the first of R, G, B counts.

    This is Keras' "accuracy" (categorical, over the last axis) of two pictures, which some reports print beside PSNR.
    It says little: a grey picture has 1, and noise on a grey wall has a third. Values are taken as they are.
    """
    return scores(_same_strongest, restored, sharp, data_range)


# -- The formulas, for one picture: (C, H, W) tensors of any dtype, and their white ------------------------------------

_STRIP_VALUES = 2**16  # a strip that stays in the processor's cache: SSIM of 720p RGB in 0.1 s, in one piece 0.8 s


def _psnr_8_bit(restored: Tensor, sharp: Tensor, white: float) -> float:
    def squares(a: Tensor, b: Tensor) -> Tensor:
        return _squares(_eight_bit(a, white), _eight_bit(b, white))

    return decibels(_mean(squares, restored, sharp) / 255**2)


def _eight_bit(values: Tensor, white: float) -> Tensor:
    if values.dtype == torch.uint8:
        return values
    # float32 at range 1 goes in untouched, so that it is rounded exactly as `write_photo` rounds it.
    return to_uint8(values if white == 1 and values.dtype == torch.float32 else values.double() / white)


def decibels(mean_square: float) -> float:
    return IDENTICAL_DB if mean_square == 0 else -10 * math.log10(mean_square)


def _same_strongest(restored: Tensor, sharp: Tensor, white: float) -> float:
    return (restored.argmax(0) == sharp.argmax(0)).double().mean().item()


def _squares(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() - b.double()).square_()


def _distances(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() - b.double()).abs_()


def _mean(error: Callable[[Tensor, Tensor], Tensor], restored: Tensor, sharp: Tensor) -> float:
    total = 0.0
    for top, bottom in _strips(restored.shape[1], restored.shape[2] * len(restored)):
        total += error(restored[:, top:bottom], sharp[:, top:bottom]).sum().item()
    return total / restored.numel()


def _strips(num_rows: int, values_per_row: int) -> Iterator[tuple[int, int]]:
    """Yield (top, bottom) of strips of rows which together cover `num_rows`."""
    step = max(16, _STRIP_VALUES // values_per_row)
    for top in range(0, num_rows, step):
        yield top, min(top + step, num_rows)


def _ssim_valid(restored: Tensor, sharp: Tensor, white: float) -> float:
    return _mean_over_windows(restored, sharp, white, gaussian_window(_odd_window(restored, 11)))


def _ssim_even(restored: Tensor, sharp: Tensor, white: float) -> float:
    side = _odd_window(restored, 7)
    window, counted = [1 / side] * side, side * side
    sampled = counted / max(counted - 1, 1)  # n / (n - 1): an estimate for the scene, not for these pixels
    return _mean_over_windows(restored, sharp, white, window, sampled)


def _mean_over_windows(
    restored: Tensor, sharp: Tensor, white: float, window: list[float], sampled: float = 1.0
) -> float:
    """Return the mean SSIM over the places where the whole window fits, of all channels."""
    _, height, width = restored.shape
    margin = len(window) - 1
    total, count = 0.0, 0
    for channel in range(len(restored)):  # one at a time, for the sake of the cache
        for top, bottom in _strips(height - margin, width):
            x, y = (picture[channel, top : bottom + margin].double() / white for picture in (restored, sharp))
            ssim = ssim_map(x, y, lambda maps: separable(maps, window), sampled)
            total, count = total + ssim.sum().item(), count + ssim.numel()
    return total / count


def _odd_window(picture: Tensor, side: int) -> int:
    return min(side, (min(picture.shape[1:]) - 1) // 2 * 2 + 1)


def separable(maps: Tensor, window: list[float]) -> Tensor:
    """Return the sums of (..., H, W) weighted by the square that `window` spans, where it fits."""
    return _convolved(_convolved(maps, window, -2), window, -1)


def _ssim_replicated(restored: Tensor, sharp: Tensor, white: float) -> float:
    channels, height, width = restored.shape
    window = gaussian_window(11)
    mixing = _replicating_matrix(channels, window)

    def blur(maps: Tensor) -> Tensor:
        return torch.einsum("dc,mchw->mdhw", mixing, separable(maps, window))  # (5, C, rows, W)

    def strip(picture: Tensor, top: int, bottom: int) -> Tensor:
        rows = torch.arange(top - 5, bottom + 5).clamp_(0, height - 1)
        return F.pad(picture[:, rows].double() / white, (5, 5, 0, 0), mode="replicate")  # (C, rows + 10, W + 10)

    total = 0.0
    for top, bottom in _strips(height, width * channels):
        total += ssim_map(strip(restored, top, bottom), strip(sharp, top, bottom), blur).sum().item()
    return total / restored.numel()


def ssim_map(x: Tensor, y: Tensor, blur: Callable[[Tensor], Tensor], sampled: float = 1.0) -> Tensor:
    """Return SSIM at every place (Wang et al. 2004, equation 13) of values in [0, 1]; `blur` takes local means.

    Variances and covariance are multiplied by `sampled`.
    """
    c1, c2 = 0.01**2, 0.03**2
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = blur(torch.stack([x, y, x * x, y * y, x * y]))
    # In this form x = y gives exactly 1: the three squares and the three variances are the same numbers.
    square_x, square_y, product = mean_x * mean_x, mean_y * mean_y, mean_x * mean_y
    variance_x, variance_y, covariance = mean_xx - square_x, mean_yy - square_y, mean_xy - product
    luminance = (2 * product + c1) / (square_x + square_y + c1)
    ssim: Tensor = luminance * ((2 * covariance * sampled + c2) / ((variance_x + variance_y) * sampled + c2))
    return ssim


def gaussian_window(size: int) -> list[float]:
    weights = [math.exp(-((i - size // 2) ** 2) / (2 * 1.5**2)) for i in range(size)]
    return [weight / math.fsum(weights) for weight in weights]


def _convolved(maps: Tensor, window: list[float], dim: int) -> Tensor:
    """Return the weighted sums along `dim`, where the window fits; 10 times as fast as torch's conv2d in float64."""
    size = maps.shape[dim] - len(window) + 1
    result = maps.narrow(dim, 0, size) * window[0]
    for offset, weight in enumerate(window[1:], start=1):
        result.add_(maps.narrow(dim, offset, size), alpha=weight)
    return result


def _replicating_matrix(channels: int, window: list[float]) -> Tensor:
    """Return the (C, C) matrix that averages over channels with the window, the outer ones repeated beyond the ends."""
    mixing = torch.zeros(channels, channels, dtype=torch.float64)
    for channel in range(channels):
        for offset, weight in enumerate(window, start=-(len(window) // 2)):
            mixing[channel, min(max(channel + offset, 0), channels - 1)] += weight
    return mixing
