"""What an evaluation found: the scores of each picture, and what they come to."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unblur.data.sources import FilePicture, Picture
from unblur.evaluation.cost import Cost
from unblur.metrics import IDENTICAL_DB, find_metric
from unblur.metrics.protocols import PLAIN, find_protocol
from unblur.provenance import versions

WORST_SHARE = 0.05
HARM_DB = (0.5, 3.0)
"""A picture counts as made worse where its PSNR fell by more than this; 3 dB is SAM-Deblur's mode collapse rate."""

BAND_EDGES_DB = (20, 25, 30, 35, 40)
"""PSNR of the blurred input by which pictures are put together: how a model does on much blur and on little."""


@dataclass(frozen=True)
class PictureScore:
    """The scores of one picture, by metric; `level` is the label of its blur, or of the benchmark's part it is in, and
    `scene` says which pictures show the same.
    """

    name: str
    values: Mapping[str, float]
    level: str | None = None
    scene: str | None = None


@dataclass(frozen=True)
class Scores:
    """The scores of several pictures, and what they come to; `model` is the row of an evaluation."""

    images: tuple[PictureScore, ...]
    metrics: tuple[str, ...]
    shift_px: int = 0
    model: str | None = None
    protocol: str = PLAIN.name
    cost: Cost | None = None

    @property
    def n(self) -> int:
        """How many pictures were scored; a picture counts once at each level."""
        return len(self.images)

    @property
    def mean(self) -> dict[str, float]:
        """The mean of the pictures' scores, by metric."""
        return self._each(statistics.fmean)

    @property
    def median(self) -> dict[str, float]:
        """The median, which a few pictures with very high scores do not move."""
        return self._each(statistics.median)

    @property
    def std(self) -> dict[str, float]:
        """The standard deviation over the pictures (of these, not an estimate for others)."""
        return self._each(statistics.pstdev)

    @property
    def min(self) -> dict[str, float]:
        """The smallest score."""
        return self._each(min)

    @property
    def worst_5_percent(self) -> dict[str, float]:
        """The mean of the worst twentieth of the pictures, one at least; worst is highest where smaller is better."""
        return {name: _mean_of_first(self.worst_first(name)) for name in self.metrics}

    @property
    def identical(self) -> int:
        """How many pictures are identical to the sharp one, as far as a PSNR among the metrics tells."""
        of_psnr = [name for name in self.metrics if name.startswith("psnr")]
        return sum(any(image.values[name] == IDENTICAL_DB for name in of_psnr) for image in self.images)

    @property
    def levels(self) -> dict[str, "Scores"]:
        """The scores of each level alone, by its label; empty where there are no levels."""
        labels = dict.fromkeys(image.level for image in self.images if image.level is not None)
        return {label: self._of(image for image in self.images if image.level == label) for label in labels}

    @property
    def scenes(self) -> dict[str, "Scores"]:
        """The scores of each scene alone, by its label; empty where scenes are not known."""
        labels = dict.fromkeys(image.scene for image in self.images if image.scene is not None)
        return {label: self._of(image for image in self.images if image.scene == label) for label in labels}

    def worst_first(self, metric: str) -> list[float]:
        """Return the scores by a metric, from the worst to the best."""
        return sorted((image.values[metric] for image in self.images), reverse=not find_metric(metric).higher_is_better)

    def summary(self) -> dict[str, Any]:
        """Return n, mean, median, std, min, the worst and the number of identical pictures, as plain data."""
        return {
            "n": self.n,
            "mean": self.mean,
            "median": self.median,
            "std": self.std,
            "min": self.min,
            "worst_5_percent": self.worst_5_percent,
            "identical": self.identical,
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data: the summary, one entry a picture, protocol and versions."""
        return {
            **self.summary(),
            "images": [_image_to_json(image) for image in self.images],
            "protocol_name": self.protocol,
            "protocol": protocol_lines(self.protocol, self.metrics, self.shift_px),
            "versions": versions(),
        }

    def gained_over(self, blurred: "Scores") -> dict[str, Any]:
        """Return what a model gained in PSNR over the blurred input, in dB; empty where no PSNR is among the metrics.

        `gain`: the mean over the pictures. `worst_5_percent_gain`: the mean over the twentieth of the pictures, one at
        least, that gained least. `made_worse`: the share of pictures whose PSNR fell by more than so many dB.
        """
        gains = self._gains(blurred)
        if not gains:
            return {}
        return {
            "gain": statistics.fmean(gains),
            "worst_5_percent_gain": _mean_of_first(sorted(gains)),
            "made_worse": {f"{limit:g} dB": sum(gain < -limit for gain in gains) / self.n for limit in HARM_DB},
        }

    def compared_with(self, blurred: "Scores") -> dict[str, Any]:
        """Return what a model did to the blurred input, as plain data; empty where no PSNR is among the metrics.

        What `gained_over` gives. `by_scene`, where scenes are known: n and gain of each, and their mean, in which a
        scene counts once however many of its pictures there are. `worst_ten`: the pictures with the lowest scores, and
        what was gained on them. `by_blur`: means over the pictures whose blurred input has a PSNR in a band of 5 dB.
        """
        judge = psnr_among(self.metrics)
        if judge is None:
            return {}
        gains = self._gains(blurred)
        before = [image.values[judge] for image in blurred.images]
        order = sorted(range(self.n), key=lambda i: self.images[i].values[judge])
        bands = []
        for low, high in zip((-math.inf, *BAND_EDGES_DB), (*BAND_EDGES_DB, math.inf), strict=True):
            within = [i for i, psnr in enumerate(before) if low <= psnr < high]
            if within:
                rows = (scores._of(scores.images[i] for i in within) for scores in (blurred, self))
                means = dict(zip(("blurred", "mean"), (row.mean for row in rows), strict=True))
                bands.append({"blurred_psnr": _band(low, high), "n": len(within), **means})
        return {
            **self.gained_over(blurred),
            **self._by_scene(blurred),
            "worst_ten": [
                {**_named(self.images[i]), judge: self.images[i].values[judge], "gain": gains[i]} for i in order[:10]
            ],
            "by_blur": bands,
        }

    def _gains(self, blurred: "Scores") -> list[float]:
        """Return the PSNR that each picture gained; none where no PSNR is among the metrics."""
        judge = psnr_among(self.metrics)
        if judge is None:
            return []
        rows = zip(self.images, blurred.images, strict=True)
        return [after.values[judge] - before.values[judge] for after, before in rows]

    def _by_scene(self, blurred: "Scores") -> dict[str, Any]:
        before = blurred.scenes
        scenes = {
            label: {"n": scene.n, "gain": statistics.fmean(scene._gains(before[label]))}
            for label, scene in self.scenes.items()
        }
        if not scenes:
            return {}
        gains = [scene["gain"] for scene in scenes.values()]
        return {"by_scene": {"gain": statistics.fmean(gains), "worst_gain": min(gains), "scenes": scenes}}

    def _each(self, statistic: Callable[[list[float]], float]) -> dict[str, float]:
        return {name: statistic([image.values[name] for image in self.images]) for name in self.metrics}

    def _of(self, images: Any) -> "Scores":
        return replace(self, images=tuple(images))


@dataclass(frozen=True)
class Pictures:
    """Where the pictures of an evaluation lie, in the order of its scores, for whoever looks at them once more."""

    home: Path
    sharp: tuple[Picture, ...]
    rows: tuple[tuple[FilePicture, ...], ...]
    """The blurred pictures, then those that each model restored; files below `home`."""


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found: the row of the blurred input first, then one for each model, in the order given."""

    rows: tuple[Scores, ...]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    pictures: Pictures | None = None
    """None where they were not to be kept."""

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data: at the top the scores of the first model, under "rows" all of them."""
        rows = [
            {
                "model": row.model,
                **row.summary(),
                "levels": self._levels_of(row),
                **(row.compared_with(self.rows[0]) if row is not self.rows[0] else {}),
                **({"cost": row.cost.to_json()} if row.cost else {}),
                "images": [_image_to_json(image) for image in row.images],
            }
            for row in self.rows
        ]
        name = self.rows[0].protocol
        return {
            **rows[1],
            "rows": rows,
            "protocol_name": name,
            "protocol": protocol_lines(name, self.rows[0].metrics, self.rows[0].shift_px),
            "settings": dict(self.settings),
            "versions": dict(self.versions),
        }

    def _levels_of(self, row: Scores) -> dict[str, Any]:
        blurred = self.rows[0].levels
        return {
            label: {**level.summary(), **(level.gained_over(blurred[label]) if row is not self.rows[0] else {})}
            for label, level in row.levels.items()
        }


def psnr_among(metrics: Sequence[str]) -> str | None:
    """Return the first metric that is a PSNR: what decides where one number has to."""
    return next((name for name in metrics if name.startswith("psnr")), None)


def protocol_lines(name: str, metrics: Sequence[str], shift_px: int = 0) -> dict[str, str]:
    """Return one line for each metric that says how it was computed.

    And one for a protocol other than `plain` (key "benchmark"), one for the shift search if there is one ("shift").
    """
    lines = {metric: find_metric(metric).protocol for metric in metrics}
    if name != PLAIN.name:
        lines["benchmark"] = f"{name}: {find_protocol(name).about}"
    if shift_px:
        lines["shift"] = f"each picture at its best whole-pixel offset within {shift_px} px, by psnr"
    return lines


def _mean_of_first(numbers: Sequence[float]) -> float:
    """Return the mean of the first twentieth of the numbers, one at least."""
    return statistics.fmean(numbers[: math.ceil(WORST_SHARE * len(numbers))])


def _named(image: PictureScore) -> dict[str, Any]:
    return {"name": image.name, **({"level": image.level} if image.level is not None else {})}


def _image_to_json(image: PictureScore) -> dict[str, Any]:
    return {**_named(image), **image.values}


def _band(low: float, high: float) -> str:
    if math.isinf(low):
        return f"below {high:g} dB"
    return f"from {low:g} dB" if math.isinf(high) else f"{low:g}-{high:g} dB"
