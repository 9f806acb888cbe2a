"""What came of it: counts of each picture, what they sum up to, and the table."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from unblur.detection.boxes import Counts
from unblur.tables import markdown


@dataclass(frozen=True)
class PictureCounts:
    """The counts of one picture by class; `level` is the label of its blur, or of the benchmark's part it is in."""

    name: str
    classes: Mapping[str, Counts]
    level: str | None = None

    @property
    def counts(self) -> Counts:
        """The counts of all classes together."""
        return total(self.classes.values())

    def to_json(self) -> dict[str, Any]:
        """Return them as plain data."""
        level = {"level": self.level} if self.level is not None else {}
        return {"name": self.name, **level, **self.counts.to_json()}


@dataclass(frozen=True)
class Row:
    """What was found in the pictures of one model; `scores` are the means of the evaluation that made them."""

    model: str
    images: tuple[PictureCounts, ...]
    scores: Mapping[str, float]

    @property
    def counts(self) -> Counts:
        """The counts of all pictures and classes together, so that each object weighs the same."""
        return total(image.counts for image in self.images)

    @property
    def classes(self) -> dict[str, Counts]:
        """The counts of each class over all pictures, in the order of their names."""
        labels = sorted({label for image in self.images for label in image.classes})
        return {label: total(image.classes.get(label, Counts()) for image in self.images) for label in labels}

    @property
    def levels(self) -> dict[str, Counts]:
        """The counts of each level of blur; empty where there are no levels."""
        labels = dict.fromkeys(image.level for image in self.images if image.level is not None)
        return {label: total(image.counts for image in self.images if image.level == label) for label in labels}

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "model": self.model,
            "n": len(self.images),
            **self.counts.to_json(),
            "classes": {label: counts.to_json() for label, counts in self.classes.items()},
            "levels": {label: counts.to_json() for label, counts in self.levels.items()},
            "scores": dict(self.scores),
            "images": [image.to_json() for image in self.images],
        }


@dataclass(frozen=True)
class Detection:
    """The row of the blurred input first, then one for each model, in the order given."""

    rows: tuple[Row, ...]
    settings: Mapping[str, Any]
    protocol: Mapping[str, str]
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data: at the top the row of the first model, under "rows" all of them."""
        rows = [row.to_json() for row in self.rows]
        return {
            **rows[1],
            "rows": rows,
            "protocol": dict(self.protocol),
            "settings": dict(self.settings),
            "versions": dict(self.versions),
        }


def total(counts: Iterable[Counts]) -> Counts:
    """Return the sum."""
    return sum(counts, Counts())


def detection_table(summary: Mapping[str, Any]) -> str:
    """Return what `Detection.to_json` gave as Markdown: a row a model, one a model and class where there are several.

    F1 of each level of blur and the mean PSNR stand beside, where there are any; below, how it was computed.
    """
    rows = summary["rows"]
    judge = next((name for name in rows[0]["scores"] if name.startswith("psnr")), None)
    levels = list(rows[0]["levels"])
    header = ["model", "precision", "recall", "F1", *(f"F1, {level}" for level in levels), "matched", "found", "true"]
    cells = []
    for row in rows:
        of_levels = [_share(row["levels"][level]["f1"]) for level in levels]
        psnr = [f"{row['scores'][judge]:.2f}"] if judge else []
        cells.append([row["model"], *_shares(row), *of_levels, *_numbers(row), *psnr])
    parts = [markdown([*header, *([f"{judge}, mean"] if judge else [])], cells)]
    if len({label for row in rows for label in row["classes"]}) > 1:
        of_classes = [
            [row["model"], label, *_shares(counts), *_numbers(counts)]
            for row in rows
            for label, counts in row["classes"].items()
        ]
        parts.append(markdown(["model", "class", "precision", "recall", "F1", "matched", "found", "true"], of_classes))
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items() if name != "commit")
    parts.append(f"{_about(summary)}. {summary['protocol']['detection']}. {versions}.")
    return "\n\n".join(parts)


def _about(summary: Mapping[str, Any]) -> str:
    """Return n, the set and the recipe in one line."""
    made = summary["settings"]["evaluation"]
    levels = summary["rows"][0]["levels"]
    line = f"n = {summary['n']}" + (f" (each picture at {len(levels)} levels)" if levels and made["recipe"] else "")
    line += f"; {made['data']}" + (f" reduced to {made['size']}" if made["size"] else "")
    return line + (f"; blurred by `{made['recipe']['name']}`, seed {made['seed']}" if made["recipe"] else "")


def _shares(counts: Mapping[str, Any]) -> list[str]:
    return [_share(counts[name]) for name in ("precision", "recall", "f1")]


def _numbers(counts: Mapping[str, Any]) -> list[str]:
    return [str(counts[name]) for name in ("matched", "found", "true")]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
