"""What lies in a folder that is to be compared: a training, an evaluation or a study, read as plain data."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from unblur import weights
from unblur.errors import DataError, WeightsError

Row = dict[str, float]


@dataclass(frozen=True)
class TrainingRun:
    """A run folder of `unblur train`."""

    folder: Path
    name: str
    settings: Mapping[str, Any]
    """The experiment in full."""
    steps: list[Row]
    """`log/train.csv`"""
    looks: list[Row]
    """`log/valid.csv`"""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What best.safetensors, or else last.safetensors, says of itself: commit, versions, steps, time."""

    @property
    def best(self) -> Row | None:
        """The validation with the lowest loss, which is that of best.safetensors."""
        return min(self.looks, key=lambda look: look["loss"], default=None)


@dataclass(frozen=True)
class EvaluationRun:
    """A folder of `unblur evaluate --out`."""

    folder: Path
    name: str
    summary: Mapping[str, Any]

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for, of which pictures."""
        settings: Mapping[str, Any] = self.summary["settings"]
        return settings


@dataclass(frozen=True)
class StudyRun:
    """A folder of `unblur sweep`."""

    folder: Path
    name: str
    result: Mapping[str, Any]
    trials: list[TrainingRun]
    """The run folders that are there."""


Run = TrainingRun | EvaluationRun | StudyRun


def read_runs(folders: list[Path]) -> list[Run]:
    """Return what lies in the folders, named by as much of their paths as tells them apart.

    Raises `DataError` for a folder that holds none of the three, or one that is not finished enough to be shown.
    """
    return [_read(folder, name) for folder, name in zip(folders, names_of(folders), strict=True)]


def names_of(folders: list[Path]) -> list[str]:
    """Return the last names of folders, with more of their paths where these are alike. `DataError` for one twice."""
    paths = [folder.resolve() for folder in folders]
    for count in range(1, max((len(path.parts) for path in paths), default=1) + 1):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise DataError(f"A folder is given twice: {', '.join(map(str, folders))}.")


def read_table(path: Path) -> list[Row]:
    """Return the rows of a CSV table of numbers, without empty cells; none where the file is missing.

    A last line that is being written, or that a crash cut short, is left out.
    """
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        return [
            {key: float(value) for key, value in row.items() if value != ""}
            for number, row in enumerate(rows, 1)
            if None not in row.values() or number < len(rows)
        ]
    except (TypeError, ValueError):
        raise DataError(f"{path} is not a table of numbers.") from None


def _read(folder: Path, name: str) -> Run:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. Give run folders of train, sweep or evaluate --out.")
    if (folder / "study.yaml").is_file():
        return _read_study(folder, name)
    if (folder / "experiment.yaml").is_file():
        return _read_training(folder, name)
    if (folder / "settings.json").is_file():
        return _read_evaluation(folder, name)
    raise DataError(
        f"{folder} is no run: it has neither experiment.yaml (train), settings.json (evaluate --out) nor study.yaml "
        "(sweep)."
    )


def _read_training(folder: Path, name: str) -> TrainingRun:
    try:
        settings = yaml.safe_load((folder / "experiment.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{folder / 'experiment.yaml'} cannot be read: {error}") from None
    facts: Mapping[str, Any] = {}
    for file in (folder / "best.safetensors", folder / "last.safetensors"):
        if file.is_file():
            try:
                facts = weights.describe(file).facts
            except WeightsError as error:
                raise DataError(str(error)) from None
            break
    log = folder / "log"
    return TrainingRun(folder, name, settings, read_table(log / "train.csv"), read_table(log / "valid.csv"), facts)


def _read_evaluation(folder: Path, name: str) -> EvaluationRun:
    if not (folder / "summary.json").is_file():
        raise DataError(f"The evaluation in {folder} is not finished; the same command with the same --out goes on.")
    return EvaluationRun(folder, name, _read_json(folder / "summary.json"))


def _read_study(folder: Path, name: str) -> StudyRun:
    if not (folder / "result.json").is_file():
        raise DataError(f"No trial of the study in {folder} is done yet.")
    result = _read_json(folder / "result.json")
    there = {trial["number"]: folder / trial["folder"] for trial in result["trials"]}
    trials = [
        _read_training(path, f"trial {number}")
        for number, path in there.items()
        if (path / "experiment.yaml").is_file()
    ]
    return StudyRun(folder, name, result, trials)


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} does not hold what it should.")
    return content
