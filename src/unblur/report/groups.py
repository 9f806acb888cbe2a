"""Evaluations whose numbers may stand side by side.

Evaluations of the same pictures under the same protocol share a table. All others have sections of their own: numbers
of two protocols never stand in one column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unblur.evaluation.contenders import folder_names
from unblur.evaluation.scores import psnr_among
from unblur.report.runs import EvaluationRun

SAME = ("data", "pictures", "recipe", "size", "seed", "protocol", "shift_px")
"""Settings that two evaluations share if their numbers may stand in one column."""

Key = tuple[str, str]
"""(level or "", name) of a picture."""


@dataclass(frozen=True)
class Method:
    """A row of an evaluation: what it is called in the report, its numbers, and where its pictures lie."""

    label: str
    row: Mapping[str, Any]
    folder: Path
    images: Mapping[Key, Mapping[str, Any]]
    run: EvaluationRun

    def score(self, key: Key, metric: str) -> float:
        """Return the score of a picture."""
        return float(self.images[key][metric])


@dataclass
class Group:
    """Evaluations whose numbers may stand in one table; the blurred input is the first method."""

    runs: list[EvaluationRun]
    methods: list[Method] = field(default_factory=list)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those that all share, and others of the first."""
        return self.runs[0].settings

    @property
    def metrics(self) -> list[str]:
        """All metrics that one of them has."""
        return list(dict.fromkeys(metric for run in self.runs for metric in run.settings["metrics"]))

    @property
    def protocol(self) -> dict[str, str]:
        """A line for each metric and for the benchmark."""
        return {name: line for run in self.runs for name, line in run.summary["protocol"].items()}

    @property
    def judge(self) -> str | None:
        """The PSNR that decides where one number has to: one that all of them have."""
        return psnr_among([name for name in self.metrics if all(name in run.settings["metrics"] for run in self.runs)])

    def takes(self, run: EvaluationRun) -> bool:
        """Return whether the numbers of another evaluation may stand beside those here."""
        if any(self.settings.get(key) != run.settings.get(key) for key in SAME):
            return False
        if {"psnr-realblur", "ssim-realblur"} & {*run.settings["metrics"]} and self._opencv != _opencv(run):
            return False  # their alignment is OpenCV's
        lines, others = self.protocol, run.summary["protocol"]
        return all(lines[name] == others[name] for name in lines.keys() & others.keys())

    @property
    def _opencv(self) -> str | None:
        return _opencv(self.runs[0])


def groups(runs: Sequence[EvaluationRun]) -> list[Group]:
    """Return the evaluations in groups whose numbers are comparable."""
    found: list[Group] = []
    for run in runs:
        group = next((group for group in found if group.takes(run)), None)
        if group is None:
            found.append(Group([run]))
        else:
            group.runs.append(run)
    for group in found:
        group.methods = _methods(group)
    return found


def _methods(group: Group) -> list[Method]:
    found: list[Method] = []
    prints: dict[str, str] = {}
    for run in group.runs:
        rows = run.summary["rows"]
        for row, folder in zip(rows, folder_names([row["model"] for row in rows], ["sharp"]), strict=True):
            label, mark = row["model"], run.settings["models"].get(row["model"], "")
            if prints.get(label) == mark:
                continue  # the blurred input, or the same weights again
            if label in prints:
                label = f"{label} ({run.name})"
            prints[label] = mark
            images = {(image.get("level", ""), image["name"]): image for image in row.get("images", [])}
            found.append(Method(label, row, run.folder / folder, images, run))
    return found


def _opencv(run: EvaluationRun) -> str | None:
    version: str | None = run.summary["versions"].get("opencv")
    return version
