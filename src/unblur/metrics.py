"""How close a restored picture comes to the sharp one: PSNR, SSIM and plain errors, the protocol in the name.

Numbers of two papers are comparable only where they were computed alike, and "PSNR" and "SSIM" each name several
things (the SSIM of one pair lies at 0.87 or 0.93, by the code that is asked). So each function here is one
protocol, its docstring says which, and `docs/metrics.md` says what the numbers mean and who uses them.

All functions take `(restored, sharp, *, data_range=1.0)`: two torch tensors (C, H, W) or (B, C, H, W), or two numpy
arrays (H, W) or (H, W, C); C is 1 or 3; float, uint8 or uint16. A single picture gives a float, a batch a (B,) float64
tensor with one value a picture, because a mean is taken of scores, never of errors. `data_range` is the distance from
black to white: 1 for our tensors, 255 for uint8, 65535 for uint16. Pictures that cannot be meant so are refused
with a `ValueError`: a wrong peak shifts every PSNR by the same amount (48 dB for 255 in place of 1), and nothing
in the result shows it. Everything is computed in float64 on the CPU, so that a score does not depend on the machine, in
strips of rows, so that a large photo costs little memory.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unblur.errors import UnknownName
from unblur.images import to_uint8

Picture = Tensor | np.ndarray[Any, Any]

IDENTICAL_DB = 100.0
"""What identical pictures score, where the formula says infinity; a mean that contains one has to say so."""


def psnr(restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> float | Tensor:
    """Return the PSNR in dB over all RGB values, both pictures rounded to 8 bit first, whatever their range.

    The habit of the field (Matlab's `psnr` on saved PNGs, BasicSR): values outside the range are clipped, halves are
    rounded away from zero. Pictures that are identical after the rounding score exactly 100 dB.
    """
    return _scores(_psnr_8_bit, restored, sharp, data_range)


def psnr_float(restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> float | Tensor:
    """Return the PSNR in dB over all RGB values as they are, neither rounded nor clipped (MIMO-UNet, Uformer, DPDD).

    Identical pictures score exactly 100 dB; nearly identical ones may score more.
    """
    return _scores(lambda a, b, white: _decibels(_mean(_squares, a, b) / white**2), restored, sharp, data_range)


def ssim_wang(restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> float | Tensor:
    """Return the SSIM of Wang et al. 2004: Gaussian window 11x11, sigma 1.5, each channel alone, no padding.

    K1 = 0.01, K2 = 0.03, population covariance, the mean over the places where the whole window fits: the value of
    DeepDeblur-PyTorch, BasicSR and scikit-image (`gaussian_weights=True, use_sample_covariance=False`, map cropped by
    5). Values are taken as they are; `unblur score` and `evaluate` read 8-bit files, as the field does.
    Where a picture is narrower or lower than 11 px, the window is cut to the largest odd square that fits; such a
    value compares with others of the same size only.
    """
    return _scores(_ssim_valid, restored, sharp, data_range)


def ssim_matlab3d(restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> float | Tensor:
    """Return what Matlab's `ssim()` gives for an HxWx3 array: a window of 11x11x11, edges replicated, also across RGB.

    Matlab takes the colour picture for a volume. MPRNet, Restormer, SRN, Stripformer and NAFNet (`_ssim_3d`) report
    this one; on blurred, noisy photos it lies about 0.06 above `ssim_wang`. A grey picture has the usual 2-D window.
    """
    return _scores(_ssim_replicated, restored, sharp, data_range)


def mse(restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> float | Tensor:
    """Return the mean squared error of values in [0, 1] (pictures are divided by `data_range`), not rounded."""
    return _scores(lambda a, b, white: _mean(_squares, a, b) / white**2, restored, sharp, data_range)


def mae(restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> float | Tensor:
    """Return the mean absolute error of values in [0, 1] (pictures are divided by `data_range`), not rounded."""
    return _scores(lambda a, b, white: _mean(_distances, a, b) / white, restored, sharp, data_range)


class MetricFunction(Protocol):
    """The form that all metrics share."""

    def __call__(self, restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> float | Tensor: ...


@dataclass(frozen=True)
class Metric:
    """A metric as the command line and the tables know it; `protocol` is the line printed under a table."""

    name: str
    function: MetricFunction
    protocol: str
    higher_is_better: bool = True


METRICS = {
    metric.name: metric
    for metric in (
        Metric("psnr", psnr, "PSNR in dB over RGB, rounded to 8 bit, per picture; identical pictures count 100 dB"),
        Metric(
            "psnr-float", psnr_float, "PSNR in dB over RGB, not rounded, per picture; identical pictures count 100 dB"
        ),
        Metric("ssim-wang", ssim_wang, "SSIM per RGB channel, Gaussian 11x11 sigma 1.5, valid region (Wang 2004)"),
        Metric("ssim-matlab3d", ssim_matlab3d, "SSIM as Matlab's ssim() on HxWx3: Gaussian 11x11x11, edges replicated"),
        Metric("mse", mse, "mean squared error of RGB values in [0, 1]", higher_is_better=False),
        Metric("mae", mae, "mean absolute error of RGB values in [0, 1]", higher_is_better=False),
    )
}

DEFAULT_METRICS = ("psnr", "ssim-wang")


def find_metric(name: str) -> Metric:
    """Return the metric of that name; raises `UnknownName` with the nearest one."""
    if name not in METRICS:
        raise UnknownName("metric", name, METRICS)
    return METRICS[name]


# -- The formulas, for one picture: (C, H, W) tensors of any dtype, and their white ------------------------------------

Score = Callable[[Tensor, Tensor, float], float]

_STRIP_VALUES = 2**16  # a strip that stays in the processor's cache: SSIM of 720p RGB in 0.1 s, in one piece 0.8 s


def _psnr_8_bit(restored: Tensor, sharp: Tensor, white: float) -> float:
    def squares(a: Tensor, b: Tensor) -> Tensor:
        return _squares(_eight_bit(a, white), _eight_bit(b, white))

    return _decibels(_mean(squares, restored, sharp) / 255**2)


def _eight_bit(values: Tensor, white: float) -> Tensor:
    if values.dtype == torch.uint8:
        return values
    # float32 at range 1 goes in untouched, so that it is rounded exactly as `write_photo` rounds it.
    return to_uint8(values if white == 1 and values.dtype == torch.float32 else values.double() / white)


def _decibels(mean_square: float) -> float:
    return IDENTICAL_DB if mean_square == 0 else -10 * math.log10(mean_square)


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
    _, height, width = restored.shape
    window = _gaussian_window(min(11, (min(height, width) - 1) // 2 * 2 + 1))
    margin = len(window) - 1
    total, count = 0.0, 0
    for channel in range(len(restored)):  # one at a time, for the sake of the cache
        for top, bottom in _strips(height - margin, width):
            x, y = (picture[channel, top : bottom + margin].double() / white for picture in (restored, sharp))
            ssim_map = _ssim_map(x, y, lambda maps: _convolved(_convolved(maps, window, -2), window, -1))
            total, count = total + ssim_map.sum().item(), count + ssim_map.numel()
    return total / count


def _ssim_replicated(restored: Tensor, sharp: Tensor, white: float) -> float:
    channels, height, width = restored.shape
    window = _gaussian_window(11)
    mixing = _replicating_matrix(channels, window)

    def blur(maps: Tensor) -> Tensor:
        maps = _convolved(_convolved(maps, window, -2), window, -1)  # (5, C, rows, W)
        return torch.einsum("dc,mchw->mdhw", mixing, maps)

    def strip(picture: Tensor, top: int, bottom: int) -> Tensor:
        rows = torch.arange(top - 5, bottom + 5).clamp_(0, height - 1)
        return F.pad(picture[:, rows].double() / white, (5, 5, 0, 0), mode="replicate")  # (C, rows + 10, W + 10)

    total = 0.0
    for top, bottom in _strips(height, width * channels):
        total += _ssim_map(strip(restored, top, bottom), strip(sharp, top, bottom), blur).sum().item()
    return total / restored.numel()


def _ssim_map(x: Tensor, y: Tensor, blur: Callable[[Tensor], Tensor]) -> Tensor:
    """Return SSIM at every place (Wang et al. 2004, equation 13) of values in [0, 1]; `blur` takes local means."""
    c1, c2 = 0.01**2, 0.03**2
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = blur(torch.stack([x, y, x * x, y * y, x * y]))
    # In this form x = y gives exactly 1: the three squares and the three variances are the same numbers.
    square_x, square_y, product = mean_x * mean_x, mean_y * mean_y, mean_x * mean_y
    variance_x, variance_y, covariance = mean_xx - square_x, mean_yy - square_y, mean_xy - product
    luminance = (2 * product + c1) / (square_x + square_y + c1)
    ssim: Tensor = luminance * ((2 * covariance + c2) / (variance_x + variance_y + c2))
    return ssim


def _gaussian_window(size: int) -> list[float]:
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


# -- What is taken, and what is refused --------------------------------------------------------------------------------


def _scores(score: Score, restored: Picture, sharp: Picture, data_range: float) -> float | Tensor:
    """Return `score` of each picture, once it is certain that the two can be compared."""
    white = float(data_range)
    if not (math.isfinite(white) and white > 0):
        raise ValueError(
            f"data_range is {data_range}; it is the distance from black to white, such as 1, 255 or 65535."
        )
    restored_kind, sharp_kind = _kind(restored), _kind(sharp)
    if isinstance(restored, Tensor) != isinstance(sharp, Tensor):
        raise ValueError("One picture is a torch tensor, the other is not; give two of the same kind.")
    if tuple(restored.shape) != tuple(sharp.shape):
        raise ValueError(f"The restored picture is {tuple(restored.shape)}, the sharp one {tuple(sharp.shape)}.")
    if restored_kind != sharp_kind:
        raise ValueError(f"The restored picture is {restored.dtype}, the sharp one {sharp.dtype}; convert one of them.")
    restored_batch, sharp_batch = _as_batch(restored), _as_batch(sharp)
    for name, batch in (("restored", restored_batch), ("sharp", sharp_batch)):
        _check_range(name, batch, restored_kind, white)
    values = [score(a, b, white) for a, b in zip(restored_batch, sharp_batch, strict=True)]
    is_batch = isinstance(restored, Tensor) and restored.ndim == 4
    return torch.tensor(values, dtype=torch.float64) if is_batch else values[0]


def _kind(picture: Picture) -> str:
    """Return "uint8", "uint16" or "float"; floats of all widths compare with each other."""
    if isinstance(picture, Tensor):
        kind = "float" if picture.is_floating_point() else str(picture.dtype).removeprefix("torch.")
    elif isinstance(picture, np.ndarray):
        kind = "float" if picture.dtype.kind == "f" else picture.dtype.name
    else:
        raise ValueError(f"A picture is a torch tensor or a numpy array, not {type(picture).__name__}.")
    if kind not in ("float", "uint8", "uint16"):
        raise ValueError(f"A picture holds float, uint8 or uint16 values, not {kind}; convert it first.")
    return kind


def _as_batch(picture: Picture) -> Tensor:
    """Return the picture or batch as (B, C, H, W) on the CPU, without a copy where its dtype allows."""
    shape = tuple(picture.shape)
    if isinstance(picture, Tensor):
        if len(shape) not in (3, 4) or shape[-3] not in (1, 3):
            raise ValueError(f"A tensor is (C, H, W) or (B, C, H, W) with 1 or 3 channels, not {shape}.")
        batch = picture.detach().cpu().reshape(-1 if picture.numel() else 0, *shape[-3:])
    else:
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
            raise ValueError(f"An array is (H, W) or (H, W, C) with 1 or 3 channels, not {shape}.")
        # torch shares memory only with arrays that are contiguous, writable and in the machine's byte order.
        array = np.require(picture, _torch_dtype(picture.dtype), ["C_CONTIGUOUS", "WRITEABLE"])
        batch = torch.from_numpy(array.reshape(1, *shape[:2], -1 if array.size else 1)).permute(0, 3, 1, 2)
    if batch.numel() == 0:
        raise ValueError(f"The pictures are empty: {shape}.")
    return batch.int() if batch.dtype == torch.uint16 else batch  # torch knows hardly any operation on uint16


def _torch_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float64) if dtype.itemsize > 8 else dtype.newbyteorder("=")


def _check_range(name: str, batch: Tensor, kind: str, white: float) -> None:
    """Refuse values that cannot be meant with this white: they would give a score that looks well and is wrong."""
    if kind != "float":
        highest_possible = 255 if kind == "uint8" else 65535
        if white != highest_possible:
            raise ValueError(f"{kind} pictures need data_range={highest_possible}, not {white:g}.")
        return
    low, high = (float(value) for value in torch.aminmax(batch))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"The {name} picture holds values that are not finite (NaN or infinity).")
    if low <= -0.5 * white or high >= 1.5 * white:
        raise ValueError(
            f"The {name} picture has values from {low:g} to {high:g}, far outside [0, {white:g}]. "
            "Give the data_range that is meant, or undo the normalisation first."
        )
    if white >= 255 and low >= 0 and high <= 1 and not torch.equal(batch, batch.round()):
        raise ValueError(
            f"The {name} picture lies within [0, 1] (highest value {high:g}), so data_range={white:g} "
            "would add 48 dB or more that are not there; use data_range=1."
        )
