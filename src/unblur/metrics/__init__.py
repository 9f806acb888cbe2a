"""How good a restored picture is: PSNR, SSIM, perceptual distances, naturalness; the protocol in the name.

Numbers of two papers are comparable only where they were computed alike, and "PSNR" and "SSIM" each name several
things (the SSIM of one pair lies at 0.87 or 0.93, by the code that is asked). So each function here is one
protocol, its docstring says which, and `docs/metrics.md` says what the numbers mean and who uses them. What a benchmark
asks for beside that (which metrics, which of its pictures) is in `protocols.py`.

All functions take `(restored, sharp, *, data_range=1.0)`, as `pictures.py` says. A single picture gives a float, a
batch a (B,) float64 tensor with one value a picture, because a mean is taken of scores, never of errors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from unblur.errors import UnknownName
from unblur.metrics.dists import dists, dists_network
from unblur.metrics.fidelity import (
    IDENTICAL_DB,
    mae,
    mse,
    psnr,
    psnr_float,
    ssim_matlab3d,
    ssim_uniform,
    ssim_wang,
    strongest_channel,
)
from unblur.metrics.lpips import lpips_alex, lpips_network, lpips_vgg
from unblur.metrics.niqe import niqe_unblur
from unblur.metrics.pictures import Picture
from unblur.metrics.realblur import psnr_realblur, realblur_scores, ssim_realblur

__all__ = [
    "DEFAULT_METRICS",
    "IDENTICAL_DB",
    "METRICS",
    "Metric",
    "Picture",
    "dists",
    "find_metric",
    "lpips_alex",
    "lpips_vgg",
    "mae",
    "mse",
    "niqe_unblur",
    "psnr",
    "psnr_float",
    "psnr_realblur",
    "score_pair",
    "ssim_matlab3d",
    "ssim_realblur",
    "ssim_uniform",
    "ssim_wang",
    "strongest_channel",
]


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
    ready: Callable[[], object] = lambda: None
    """Raises `WeightsError` where a file is missing without which the metric cannot be computed."""


METRICS = {
    metric.name: metric
    for metric in (
        Metric("psnr", psnr, "PSNR in dB over RGB, rounded to 8 bit, per picture; identical pictures count 100 dB"),
        Metric(
            "psnr-float", psnr_float, "PSNR in dB over RGB, not rounded, per picture; identical pictures count 100 dB"
        ),
        Metric(
            "psnr-realblur",
            psnr_realblur,
            "PSNR in dB over RGB after matching intensity and aligning by homography (ECC), where the pictures overlap",
        ),
        Metric("ssim-wang", ssim_wang, "SSIM per RGB channel, Gaussian 11x11 sigma 1.5, valid region (Wang 2004)"),
        Metric("ssim-matlab3d", ssim_matlab3d, "SSIM as Matlab's ssim() on HxWx3: Gaussian 11x11x11, edges replicated"),
        Metric("ssim-uniform", ssim_uniform, "SSIM per RGB channel, uniform 7x7, sample covariance (scikit-image)"),
        Metric(
            "ssim-realblur",
            ssim_realblur,
            "SSIM as ssim-wang, after matching intensity and aligning by homography (ECC), where the pictures overlap",
        ),
        Metric("mse", mse, "mean squared error of RGB values in [0, 1]", higher_is_better=False),
        Metric("mae", mae, "mean absolute error of RGB values in [0, 1]", higher_is_better=False),
        Metric(
            "strongest-channel", strongest_channel, "share of pixels whose strongest colour is the same (ties: R, G, B)"
        ),
        Metric(
            "lpips-alex",
            lpips_alex,
            "LPIPS 0.1 with AlexNet (Zhang 2018)",
            higher_is_better=False,
            ready=lambda: lpips_network("alex"),
        ),
        Metric(
            "lpips-vgg",
            lpips_vgg,
            "LPIPS 0.1 with VGG16 (Zhang 2018)",
            higher_is_better=False,
            ready=lambda: lpips_network("vgg"),
        ),
        Metric("dists", dists, "DISTS at full size (Ding 2020)", higher_is_better=False, ready=lambda: dists_network()),
        Metric(
            "niqe-unblur",
            niqe_unblur,
            "NIQE (Mittal 2013) with a model of our own, without looking at the sharp picture; not comparable with "
            "NIQE of other models",
            higher_is_better=False,
        ),
    )
}

DEFAULT_METRICS = ("psnr", "ssim-wang")


def find_metric(name: str) -> Metric:
    """Return the metric of that name; raises `UnknownName` with the nearest one."""
    if name not in METRICS:
        raise UnknownName("metric", name, METRICS)
    return METRICS[name]


def score_pair(restored: Picture, sharp: Picture, names: Sequence[str], *, data_range: float = 1.0) -> dict[str, float]:
    """Return the scores of a single picture by metric; what several of them need is computed once."""
    together = (
        realblur_scores(restored, sharp, data_range=data_range) if {"psnr-realblur", "ssim-realblur"} & {*names} else {}
    )
    return {
        name: together[name]
        if name in together
        else float(find_metric(name).function(restored, sharp, data_range=data_range))
        for name in names
    }
