"""A study: the same experiment trained with other values of some of its settings, to see what they change.

    study = load("experiments/studies/document-b-learning-rate.yaml")
    result = sweep(study, Path("runs/document-b-learning-rate"), train=train)

Optuna proposes the values and keeps the book. Each trial is an ordinary run folder of a training. The folder of a
study holds

    study.yaml              what is studied, with the full settings of the experiment
    study.db                the book (SQLite), unless another one is named by an address
    trials/000/ ...         the run folders
    locks/                  who works on what; see below
    result.json result.md   every trial with its values and what came of it; the same as a table, best first

Any number of processes may work on one study at a time, and each may be killed at any moment. All trials are put into
the book as waiting when the study is made. A process takes one by locking its file, which the system unlocks when the
process ends, however it ends. A trial that the book calls running and that nobody has locked was left behind: the next
process goes on with its training where that stopped. On several machines with one database each machine has a folder
of its own, and what it left behind waits for it.
"""

import contextlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import yaml
from pydantic import Field, field_validator, model_validator

from unblur import experiment
from unblur.blur.recipes import sample_seed
from unblur.errors import MissingExtra, SettingsError, TrainingError
from unblur.experiment import Experiment
from unblur.files import written_whole
from unblur.provenance import versions
from unblur.report.runs import read_table
from unblur.report.studies import value_text
from unblur.settings import Settings, differences, read_yaml, validated

try:
    import optuna
    from filelock import FileLock, Timeout
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial, TrialState
except ImportError:
    raise MissingExtra("A study", "study") from None

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

    def suggested(self, trial: optuna.Trial, key: str) -> Any:
        """Return the value that the trial has, or what the sampler proposes for it."""
        if self.values is not None:
            return json.loads(trial.suggest_categorical(key, self.labels))
        assert self.low is not None
        assert self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(key, self.low, self.high, log=self.log)
        return trial.suggest_float(key, self.low, self.high, log=self.log)

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


def sweep(
    study: Study,
    out: Path,
    *,
    train: Train,
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
    with _Book(study, out, storage or study.settings.storage, resume) as book:
        interrupted = False
        while not interrupted and (taken := book.take()):
            with taken as (trial, folder):
                interrupted = _run(study, trial, folder, book, train, data_root, progress, tell)
                book.write_result()
        data = book.write_result()
    return StudyResult(out, markdown_table(data), data, interrupted)


def markdown_table(result: Mapping[str, Any]) -> str:
    """Return all trials as a Markdown table, best first, those without a value at the end."""
    keys = list(result["space"])
    header = ["trial", *keys, "PSNR (dB)", "loss", "steps", "minutes", "state"]
    lines = []
    for trial in best_first(result):
        measured = [
            f"{trial['psnr']:.2f}" if trial["psnr"] is not None else "-",
            f"{trial['loss']:.5g}" if trial["loss"] is not None else "-",
            str(trial["step"] or "-"),
            f"{trial['seconds'] / 60:.1f}" if trial["seconds"] is not None else "-",
            trial["state"] + (f": {trial['note']}" if trial["note"] else ""),
        ]
        values = [value_text(trial["values"][key]) if key in trial["values"] else "-" for key in keys]
        lines.append([str(trial["number"]), *values, *measured])
    align = ["---:"] * (len(header) - 1)
    rows = [f"| {' | '.join(cells)} |" for cells in (header, [*align, "---"], *lines)]
    made = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if name != "commit")
    sentences = [
        f"{result['objective']}, of the network with the lowest validation loss",
        f"Experiment: {' '.join((result['base'], *result['changes']))}",
        made,
    ]
    return "\n".join(rows) + f"\n\n{'. '.join(sentences)}."


def best_first(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the trials of a result: the complete ones, best first; then the others, by number."""
    sign = -1 if result["higher_is_better"] else 1
    complete = [trial for trial in result["trials"] if trial["state"] == "complete"]
    others = [trial for trial in result["trials"] if trial["state"] != "complete"]
    return [*sorted(complete, key=lambda trial: sign * trial["value"]), *others]


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


# -- The book ----------------------------------------------------------------------------------------------------------


class _Book:
    """Who has which values, who works on what, and what came of it."""

    def __init__(self, study: Study, out: Path, storage: str | None, resume: bool) -> None:
        self.study, self.out, self.address, self.resume = study, out, storage, resume
        self.name = out.resolve().name

    def __enter__(self) -> "_Book":
        """Open the book, or make it with all trials waiting."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        existed = (self.out / "study.yaml").exists()
        if existed and not self.resume:
            raise TrainingError(f"{self.out} holds a study already. Go on with --resume, or give another folder.")
        (self.out / "locks").mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(self.out / "locks" / "study.lock")
        with self.lock:
            try:
                self.storage = RDBStorage(
                    self.address or f"sqlite:///{self.out.resolve() / 'study.db'}",
                    engine_kwargs={} if self.address else {"connect_args": {"timeout": 60}},
                )
            except Exception as error:  # SQLAlchemy's and the drivers' own
                reason = " ".join(str(error).split())[:200]
                raise SettingsError(f"The study's database cannot be opened: {reason}") from None
            self.optuna = optuna.create_study(
                storage=self.storage,
                study_name=self.name,
                direction="maximize" if self.study.settings.higher_is_better else "minimize",
                pruner=_pruner(self.study.settings),
                load_if_exists=True,
            )
            self._check_definition()
            self._enqueue()
            self._write_definition()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the database."""
        self.storage.remove_session()
        self.storage.engine.dispose()

    def take(self) -> "contextlib.AbstractContextManager[tuple[optuna.Trial, Path]] | None":
        """Return a trial to work on, with its folder, locked; None where none waits or was left behind."""
        for trial in self._trials():
            if trial.state.is_finished():
                continue
            lock = FileLock(self.out / "locks" / f"{trial.number:03}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            if self._begun(trial.number):
                return self._taken(trial.number, lock)
            lock.release()
        return None

    def note(self, trial: optuna.Trial, state: TrialState, value: float | None = None, **facts: Any) -> None:
        """Close a trial with what is to be known of it."""
        with self.lock:
            for name, fact in facts.items():
                trial.set_user_attr(name, fact)
            self.optuna.tell(trial, value, state=state)

    def look(self, trial: optuna.Trial, number: int, value: float) -> bool:
        """Note a validation and return whether the trial is to end."""
        with self.lock:
            trial.report(value, number)
            return trial.should_prune()

    def num_looks(self, trial: optuna.Trial) -> int:
        """Return how many validations of a trial are noted."""
        return len(self.storage.get_trial(self._identity(trial.number)).intermediate_values)

    def twin(self, trial: optuna.Trial) -> FrozenTrial | None:
        """Return a complete trial with the same values, whose training would be the same."""
        return next((t for t in self._trials() if t.state == TrialState.COMPLETE and t.params == trial.params), None)

    def write_result(self) -> dict[str, Any]:
        """Write where the study stands as result.json and result.md, and return it."""
        with self.lock:
            data = self._result()
            for name, text in (("json", json.dumps(data, indent=1)), ("md", markdown_table(data))):
                with written_whole(self.out / f"result.{name}") as temporary:
                    temporary.write_text(f"{text}\n", encoding="utf-8", newline="\n")
        return data

    def _check_definition(self) -> None:
        definition = json.loads(json.dumps(self.study.definition))
        before = self.optuna.user_attrs.get("definition")
        if before is None:
            self.optuna.set_user_attr("definition", definition)
        elif different := differences(before, definition):
            raise SettingsError(
                f"{self.out} holds another study ({'; '.join(different[:5])}). Give another folder with --out."
            )

    def _enqueue(self) -> None:
        """Let all trials wait that are not in the book yet."""
        settings, there = self.study.settings, len(self._trials())
        if settings.sampler == "grid":
            for values in itertools.islice(settings.combinations, there, None):
                self.optuna.enqueue_trial({key: json.dumps(value) for key, value in values.items()})
        else:
            for _ in range(there, settings.count):
                self.optuna.enqueue_trial({})  # the sampler chooses when its time comes

    def _write_definition(self) -> None:
        shown = {
            **self.study.settings.model_dump(mode="json", exclude={"storage"}),
            "experiment": os.path.normpath(self.study.base),
        }
        full = {"study": shown, "experiment": self.study.definition["experiment"]}
        with written_whole(self.out / "study.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(full, sort_keys=False), encoding="utf-8")

    def _trials(self) -> list[FrozenTrial]:
        return self.optuna.get_trials(deepcopy=False)

    def _folder(self, number: int) -> Path:
        return self.out / "trials" / f"{number:03}"

    def _begun(self, number: int) -> bool:
        """Call a trial running whose file is locked, or find that it was left behind here."""
        identity, folder = self._identity(number), self._folder(number)
        with self.lock:
            state = self.storage.get_trial(identity).state
            if state == TrialState.RUNNING:
                return folder.is_dir()
            if state != TrialState.WAITING:
                return False
            folder.mkdir(parents=True, exist_ok=True)  # before it is called running: a sign that it is ours
            if self.storage.set_trial_state_values(identity, state=TrialState.RUNNING):
                return True
            folder.rmdir()  # another machine was faster
            return False

    @contextlib.contextmanager
    def _taken(self, number: int, lock: FileLock) -> Iterator[tuple[optuna.Trial, Path]]:
        try:
            self.optuna.sampler = _sampler(self.study.settings, number)
            yield optuna.Trial(self.optuna, self._identity(number)), self._folder(number)
        finally:
            lock.release()

    def _identity(self, number: int) -> int:
        study = self.storage.get_study_id_from_name(self.name)
        return self.storage.get_trial_id_from_study_id_trial_number(study, number)

    def _result(self) -> dict[str, Any]:
        settings = self.study.settings
        trials = [_described(trial, self.study, self._folder(trial.number)) for trial in self._trials()]
        complete = [trial for trial in trials if trial["state"] == "complete"]
        best = (max if settings.higher_is_better else min)(complete, key=lambda t: t["value"], default=None)
        return {
            "study": self.name,
            "base": os.path.normpath(self.study.base),
            "changes": list(self.study.changes),
            "space": {
                key: setting.model_dump(mode="json", exclude_none=True) for key, setting in settings.space.items()
            },
            "sampler": settings.sampler,
            "pruner": settings.pruner,
            "seed": settings.seed,
            "objective": settings.objective,
            "higher_is_better": settings.higher_is_better,
            "best": best and best["number"],
            "trials": trials,
            "versions": versions(),
        }


_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def _described(trial: FrozenTrial, study: Study, folder: Path) -> dict[str, Any]:
    facts = trial.user_attrs
    return {
        "number": trial.number,
        "state": _STATES[trial.state],
        "values": {
            key: json.loads(trial.params[key]) if setting.values is not None else trial.params[key]
            for key, setting in study.settings.space.items()
            if key in trial.params
        },
        "value": trial.value if trial.state == TrialState.COMPLETE else None,
        **{name: facts.get(name) for name in ("psnr", "loss", "step", "total_steps", "seconds")},
        "looks": [value for _, value in sorted(trial.intermediate_values.items())],
        "folder": str(folder.relative_to(folder.parents[1])),
        "note": facts.get("note", ""),
    }


def _sampler(settings: StudySettings, number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of one trial; each has a seed of its own, so that two processes never draw the same."""
    seed = sample_seed(settings.seed, number) % 2**32
    if settings.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def _pruner(settings: StudySettings) -> optuna.pruners.BasePruner:
    if settings.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2)
    if settings.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner()
    return optuna.pruners.NopPruner()


# -- One trial ---------------------------------------------------------------------------------------------------------


class _Pruned(Exception):
    """Ends a training from within."""


def _run(
    study: Study,
    trial: optuna.Trial,
    folder: Path,
    book: _Book,
    train: Train,
    data_root: Path | None,
    progress: bool,
    tell: Callable[[str], None],
) -> bool:
    """Train a trial to its end, whatever that is, and note it. Return whether it was interrupted."""
    values = {key: setting.suggested(trial, key) for key, setting in study.settings.space.items()}
    tell(f"trial {trial.number} of {study.settings.count}: {' '.join(as_changes(values))}")
    if (twin := book.twin(trial)) is not None:
        book.note(trial, TrialState.COMPLETE, twin.value, **{**twin.user_attrs, "note": f"the same as {twin.number}"})
        return False
    watch = _Watch(study, trial, folder, book, tell)
    try:
        done = train(
            study.experiment(values), folder, data_root=data_root, resume=True, progress=progress, tell=watch.told
        )
    except _Pruned:
        best = min(watch.looks, key=lambda look: look["loss"])
        facts = {name: best[name] for name in ("psnr", "loss")} | {
            name: watch.looks[-1][name] for name in ("step", "seconds")
        }
        book.note(trial, TrialState.PRUNED, **facts)
        return False
    except (TrainingError, SettingsError, torch.OutOfMemoryError) as error:
        tell(f"trial {trial.number} failed: {error}")
        book.note(trial, TrialState.FAIL, note=" ".join(str(error).split())[:300])
        return False
    if done.stopped == "interrupted":
        return True  # the book still calls it running: whoever comes next goes on with it
    value = done.best_psnr if study.settings.higher_is_better else done.best_loss
    facts = {"psnr": done.best_psnr, "loss": done.best_loss, "step": done.step, "total_steps": done.total_steps}
    if math.isfinite(value):
        book.note(trial, TrialState.COMPLETE, value, **facts, seconds=done.seconds)
    else:
        book.note(trial, TrialState.FAIL, note="no validation gave a finite value")
    return False


class _Watch:
    """Hears what a training tells, which it does after each validation, and looks into its table of validations."""

    def __init__(
        self, study: Study, trial: optuna.Trial, folder: Path, book: _Book, tell: Callable[[str], None]
    ) -> None:
        self.trial, self.book, self.tell = trial, book, tell
        self.table = folder / "log" / "valid.csv"
        self.column = study.settings.objective.removeprefix("valid/")
        self.noted = book.num_looks(trial)
        self.looks: list[dict[str, float]] = []

    def told(self, line: str) -> None:
        """Pass a line on, note new validations, and raise `_Pruned` where one of them is the last."""
        self.tell(f"trial {self.trial.number}: {line}")
        self.looks = read_table(self.table)
        for number in range(self.noted + 1, len(self.looks) + 1):
            self.noted = number
            if self.book.look(self.trial, number, self.looks[number - 1][self.column]):
                raise _Pruned
