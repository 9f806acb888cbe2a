"""The trials of a study, trained one after the other until none waits."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from unblur.errors import SettingsError, TrainingError
from unblur.experiment import Experiment
from unblur.report.runs import read_table
from unblur.sweep.book import Book, Trial
from unblur.sweep.study import Study, as_changes
from unblur.sweep.table import markdown_table


@dataclass(frozen=True)
class StudyResult:
    """Where a study stands."""

    folder: Path
    table: str
    """All trials as Markdown, best first."""
    data: Mapping[str, Any]
    """The same as plain data, as in result.json."""
    interrupted: bool

    def number_of(self, *states: str) -> int:
        """Return how many trials are complete, pruned, failed, running or waiting."""
        return sum(trial["state"] in states for trial in self.data["trials"])


def sweep(
    study: Study,
    out: Path,
    *,
    train: "Train",
    data_root: Path | None = None,
    storage: str | None = None,
    resume: bool = False,
    progress: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> StudyResult:
    """Train until no trial waits, and return where the study stands then; it is written to `out` after each trial.

    `storage` is the address of a database, before what the study says. `resume` goes on with a study, or joins other
    processes; where there is none it begins. A trial whose training cannot go on (`TrainingError`, no memory) is noted
    as failed, and the next one follows. Raises `TrainingError` where `out` holds a study and `resume` is not given,
    `SettingsError` where it, or the database, holds another study, and what trainings raise.
    """
    with Book(study, out, storage or study.settings.storage, resume) as book:
        interrupted = False
        while not interrupted and (taken := book.take()):
            with taken as trial:
                interrupted = _run(study, trial, book, train, data_root, progress, tell)
                book.write_result()
        data = book.write_result()
    return StudyResult(out, markdown_table(data), data, interrupted)


class TrainingResult(Protocol):
    """What a study reads of what a training leaves behind (`unblur.training.run.TrainingResult`)."""

    @property
    def step(self) -> int: ...
    @property
    def total_steps(self) -> int: ...
    @property
    def best_loss(self) -> float: ...
    @property
    def best_psnr(self) -> float: ...
    @property
    def seconds(self) -> float: ...
    @property
    def stopped(self) -> str: ...


class Train(Protocol):
    """`unblur.training.run.train`, which whoever calls `sweep` brings along: only trainings import Lightning."""

    def __call__(
        self,
        experiment: Experiment,
        out: Path,
        *,
        data_root: Path | None,
        resume: bool,
        progress: bool,
        tell: Callable[[str], None],
    ) -> TrainingResult: ...


class _Pruned(Exception):
    """Ends a training from within."""


def _run(
    study: Study,
    trial: Trial,
    book: Book,
    train: Train,
    data_root: Path | None,
    progress: bool,
    tell: Callable[[str], None],
) -> bool:
    """Train a trial to its end, whatever that is, and note it. Return whether it was interrupted."""
    tell(f"trial {trial.number} of {study.settings.count}: {' '.join(as_changes(trial.values))}")
    if (twin := book.twin(trial)) is not None:
        book.note(trial, "complete", twin.value, **{**twin.facts, "note": f"the same as {twin.number}"})
        return False
    watch = _Watch(study, trial, book, tell)
    try:
        done = train(
            study.experiment(trial.values),
            trial.folder,
            data_root=data_root,
            resume=True,
            progress=progress,
            tell=watch.told,
        )
    except _Pruned:
        best = min(watch.looks, key=lambda look: look["loss"])
        facts = {name: best[name] for name in ("psnr", "loss")} | {
            name: watch.looks[-1][name] for name in ("step", "seconds")
        }
        book.note(trial, "pruned", **facts)
        return False
    except (TrainingError, SettingsError, torch.OutOfMemoryError) as error:
        tell(f"trial {trial.number} failed: {error}")
        book.note(trial, "failed", note=" ".join(str(error).split())[:300])
        return False
    if done.stopped == "interrupted":
        return True  # the book still calls it running: whoever comes next goes on with it
    value = done.best_psnr if study.settings.higher_is_better else done.best_loss
    facts = {"psnr": done.best_psnr, "loss": done.best_loss, "step": done.step, "total_steps": done.total_steps}
    if math.isfinite(value):
        book.note(trial, "complete", value, **facts, seconds=done.seconds)
    else:
        book.note(trial, "failed", note="no validation gave a finite value")
    return False


class _Watch:
    """Hears what a training tells, which it does after each validation, and looks into its table of validations."""

    def __init__(self, study: Study, trial: Trial, book: Book, tell: Callable[[str], None]) -> None:
        self.trial, self.book, self.tell = trial, book, tell
        self.table = trial.folder / "log" / "valid.csv"
        self.column = study.settings.objective.removeprefix("valid/")
        self.noted = trial.num_looks
        self.looks: list[dict[str, float]] = []

    def told(self, line: str) -> None:
        """Pass a line on, note new validations, and raise `_Pruned` where one of them is the last."""
        self.tell(f"trial {self.trial.number}: {line}")
        self.looks = read_table(self.table)
        for number in range(self.noted + 1, len(self.looks) + 1):
            self.noted = number
            if self.book.look(self.trial, number, self.looks[number - 1][self.column]):
                raise _Pruned
