"""How much of a data set's patches is blurred at all: the SSIM between blurred and sharp, patch by patch.

Where the camera stood still, or nothing moved, the two are nearly equal, and a network learns there only to copy. The
patches are random crops as a training takes them, from every picture alike; `patches.py` is the remedy.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unblur.data.pairs import TrainingCrops
from unblur.data.patches import patch_ssim
from unblur.data.sources import Pair
from unblur.errors import DataError, MissingExtra, SettingsError
from unblur.files import written_whole

NEAR_PERFECT = 0.9
"""SSIM from which a patch counts as near-perfect, unless another is asked for."""

BINS = 50
DENSITY_POINTS = 201


@dataclass(frozen=True)
class PatchAnalysis:
    """The SSIM of each patch, and what they come to."""

    name: str
    pictures: int
    patch_px: int
    threshold: float
    seed: int
    ssim: tuple[float, ...]
    """In the order of the patches: `len(ssim) / pictures` of each picture."""

    @property
    def near_perfect(self) -> float:
        """The share of patches with an SSIM of the threshold or more."""
        return float(np.mean(np.asarray(self.ssim) >= self.threshold))

    def histogram(self) -> tuple[list[float], list[int]]:
        """Return (edges, counts) of even bins from the lowest SSIM, rounded down to a tenth, to 1."""
        lowest = np.floor(min(self.ssim) * 10) / 10
        counts, edges = np.histogram(self.ssim, bins=BINS, range=(min(lowest, 0.9), 1.0))
        return edges.tolist(), counts.tolist()

    def density(self) -> tuple[list[float], list[float]]:
        """Return (SSIM, density) of the Gaussian kernel density, bandwidth by Scott's rule; empty for equal values.

        It integrates to 1 over all numbers, so that a little of it lies above 1. Raises `MissingExtra`.
        """
        kernel_density = _scipy_stats().gaussian_kde
        if np.ptp(self.ssim) < 1e-9:
            return [], []
        at = np.linspace(self.histogram()[0][0], 1.0, DENSITY_POINTS)
        return at.tolist(), kernel_density(self.ssim)(at).tolist()

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        edges, counts = self.histogram()
        at, density = self.density()
        values = np.asarray(self.ssim)
        return {
            "name": self.name,
            "pictures": self.pictures,
            "patches": len(self.ssim),
            "patch_px": self.patch_px,
            "seed": self.seed,
            "threshold": self.threshold,
            "near_perfect": self.near_perfect,
            "mean": float(values.mean()),
            "median": float(np.median(values)),
            "quartiles": np.quantile(values, [0.25, 0.75]).tolist(),
            "histogram": {"edges": edges, "counts": counts},
            "density": {"ssim": at, "density": density},
            "ssim": list(self.ssim),
            "protocol": "SSIM per RGB channel, Gaussian 11x11 sigma 1.5, valid region (Wang 2004), mean of the patch",
        }


def analyse(
    name: str,
    pairs: Sequence[Pair],
    *,
    patch_px: int = 256,
    patches_per_picture: int = 2,
    max_pictures: int | None = None,
    threshold: float = NEAR_PERFECT,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> PatchAnalysis:
    """Return the SSIM of random patches of all pairs, or of `max_pictures` spread evenly over them.

    Raises `DataError` where there are no blurred pictures, `MissingExtra` before the work rather than after it.
    """
    _scipy_stats(), _figure_class()
    if not 0 < threshold <= 1:
        raise SettingsError(f"The threshold {threshold:g} is no SSIM; give a number above 0, up to 1.")
    count = min(len(pairs), max_pictures or len(pairs))
    chosen = [pairs[index * len(pairs) // count] for index in range(count)]
    if any(pair.blurred is None for pair in chosen):
        raise DataError(f"'{name}' holds sharp pictures alone; patches are compared with their blurred ones.")
    samples = TrainingCrops(chosen, seed=seed, crop_px=patch_px, crops_per_picture=patches_per_picture)
    total = count * patches_per_picture
    found = []
    for position in range(total):
        sample = samples[position]
        first, second = (sample[side].permute(1, 2, 0).numpy() for side in ("blurred", "sharp"))
        found.append(patch_ssim(first, second))
        if progress:
            progress(position + 1, total)
    return PatchAnalysis(name, count, patch_px, threshold, seed, tuple(found))


def write_json(analysis: PatchAnalysis, path: Path, *, overwrite: bool = False) -> None:
    """Write the analysis as JSON, whole or not at all."""
    with written_whole(path, overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(analysis.to_json(), indent=1), encoding="utf-8", newline="\n")


def write_plot(analysis: PatchAnalysis, path: Path, *, overwrite: bool = False) -> None:
    """Write histogram and kernel density as a PNG, whole or not at all."""
    figure = _figure_class()(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    edges, counts = analysis.histogram()
    width = edges[1] - edges[0]
    axes.bar(
        edges[:-1], np.asarray(counts) / (sum(counts) * width), width, align="edge", color="#9db8d2", label="patches"
    )
    at, density = analysis.density()
    if at:
        axes.plot(at, density, color="#1f3b57", label="kernel density")
    share = f"{100 * analysis.near_perfect:.0f} % at {analysis.threshold:g} or more"
    axes.axvline(analysis.threshold, color="#b5482a", linestyle="--", label=share)
    axes.set_xlabel("SSIM of a blurred patch and its sharp one")
    axes.set_ylabel("density")
    axes.set_title(f"{analysis.name}: {len(analysis.ssim):,} patches of {analysis.patch_px} px")
    axes.legend(loc="upper left")
    with written_whole(path, overwrite=overwrite) as temporary:
        figure.savefig(temporary, format="png")


def _scipy_stats() -> Any:
    try:
        from scipy import stats
    except ImportError:
        raise MissingExtra("The density of patches", "plot") from None
    return stats


def _figure_class() -> Any:
    """Return matplotlib's figure; without pyplot, which would choose a window system for the whole process."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("A plot", "plot") from None
    return Figure
