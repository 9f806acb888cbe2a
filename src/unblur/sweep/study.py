"""A study as data: which settings of an experiment have which values, how they are chosen and judged."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from unblur import experiment
from unblur.errors import SettingsError
from unblur.experiment import Experiment
from unblur.settings import Settings, read_yaml, validated

MAX_CHECKED = 512
"""So many combinations are tried out before the first training; where there are more, each value is, on its own."""


class Setting(Settings):
    """What one setting may be: one of `values`, or anything from `low` to `high`, whole numbers if both are."""

    values: tuple[Any, ...] | None = Field(None, min_length=1)
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    """Small numbers are looked at as closely as large ones: 0.001 to 0.01 is as wide as 0.01 to 0.1."""

    @model_validator(mode="after")
    def _one_way(self) -> "Setting":
        limits = (self.low, self.high)
        if (self.values is None) == (limits == (None, None)):
            raise ValueError("give either values: [...], or low and high")
        if self.values is not None and self.log:
            raise ValueError("log belongs to low and high")
        if self.values is None:
            if self.low is None or self.high is None or self.low >= self.high:
                raise ValueError("give low and high, low being the smaller one")
            if self.log and self.low <= 0:
                raise ValueError("with log, low is above 0")
        return self

    @property
    def tried(self) -> tuple[Any, ...]:
        """The values, or both ends of the range."""
        return self.values if self.values is not None else (self.low, self.high)

    @property
    def labels(self) -> list[str]:
        """The values as the book keeps them: JSON."""
        return [json.dumps(value) for value in self.values or ()]


class StudySettings(Settings):
    """What a study's YAML file holds."""

    experiment: str
    """The file of the experiment, relative to the study's."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Other values of its settings for all trials, by their full names: `schedule.steps: 300`."""
    space: dict[str, Setting] = Field(min_length=1)
    """What is studied: settings by their full names."""
    sampler: Literal["grid", "random", "tpe"] = "grid"
    """grid: every combination. random; tpe: tree-structured Parzen estimator (Bergstra et al. 2011), which learns from
    the trials that are done."""
    trials: int | None = Field(None, ge=1)
    """How many; a grid has as many as it has combinations."""
    seed: int = 0
    """Of the sampler. The trainings have the experiment's."""
    objective: Literal["valid/loss", "valid/psnr"] = "valid/psnr"
    """What is to be low, or high: of the network that a training keeps, which is that of the lowest validation loss."""
    pruner: Literal["none", "median", "hyperband"] = "none"
    """Ends trials early that look bad. median: worse than the median of the others at the same validation, from the
    second one on, once three trials are done. hyperband: Li et al. 2018, a validation being the unit."""
    storage: str | None = None
    """Address of a database (postgresql://..., mysql://...) instead of study.db."""

    @model_validator(mode="after")
    def _as_many_as_needed(self) -> "StudySettings":
        if self.sampler == "grid":
            if self.trials is not None:
                raise ValueError("a grid takes every combination: leave trials out")
            without = [key for key, setting in self.space.items() if setting.values is None]
            if without:
                raise ValueError(f"a grid needs values: [...] for {', '.join(without)}; random and tpe take ranges")
        elif self.trials is None:
            raise ValueError(f"{self.sampler} needs trials, their number")
        if self.objective == "valid/loss" and any(key.split(".")[0] == "loss" for key in self.space):
            raise ValueError("values of different losses cannot be compared: take valid/psnr as the objective")
        return self

    @field_validator("space")
    @classmethod
    def _not_twice(cls, space: dict[str, Setting]) -> dict[str, Setting]:
        for key, setting in space.items():
            if len(set(setting.labels)) < len(setting.labels):
                raise ValueError(f"{key} has a value twice")
        return space

    @property
    def combinations(self) -> Iterator[dict[str, Any]]:
        """All combinations of values and of the ends of ranges."""
        return (
            dict(zip(self.space, found, strict=True))
            for found in itertools.product(*(setting.tried for setting in self.space.values()))
        )

    @property
    def count(self) -> int:
        """How many trials there are."""
        return self.trials or math.prod(len(setting.tried) for setting in self.space.values())

    @property
    def higher_is_better(self) -> bool:
        """Whether the objective is to be high."""
        return self.objective == "valid/psnr"


@dataclass(frozen=True)
class Study:
    """A study that was found to be possible."""

    settings: StudySettings
    base: Path
    """The experiment's file."""
    changes: tuple[str, ...] = ()
    """What is changed in all trials, as `key=value`."""

    def experiment(self, values: Mapping[str, Any]) -> Experiment:
        """Return the experiment of a trial. Raises `SettingsError` where the values do not go together."""
        return experiment.load(self.base, [*self.changes, *as_changes(values)])

    @property
    def definition(self) -> dict[str, Any]:
        """What must not change while the study goes on: all but the number of trials and the book's place."""
        settings = self.settings.model_dump(mode="json", exclude={"storage", "trials", "experiment", "settings"})
        base = experiment.load(self.base, self.changes).model_dump(mode="json")
        return {**settings, "experiment": base}


def load(path: str | Path, changes: Sequence[str] = ()) -> Study:
    """Return the study of a YAML file; `changes` are `key=value` of its experiment, for all trials.

    Raises `SettingsError` with every mistake in the file, and for values with which there is no such experiment.
    """
    path = Path(path)
    settings = validated(StudySettings, read_yaml(path), str(path))
    study = Study(settings, path.parent / settings.experiment, (*as_changes(settings.settings), *changes))
    study.experiment({})
    for values in _tried_out(settings):
        try:
            study.experiment(values)
        except SettingsError as error:
            raise SettingsError(f"{path} with {' '.join(as_changes(values))}: {error}") from None
    return study


def as_changes(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return values by key as the `key=value` that `--set` takes."""
    return tuple(f"{key}={json.dumps(value)}" for key, value in values.items())


def _tried_out(settings: StudySettings) -> Iterator[dict[str, Any]]:
    if math.prod(len(setting.tried) for setting in settings.space.values()) <= MAX_CHECKED:
        yield from settings.combinations
        return
    first = next(settings.combinations)
    for key, setting in settings.space.items():
        yield from ({**first, key: value} for value in setting.tried)
