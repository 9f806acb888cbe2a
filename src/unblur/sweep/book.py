"""The book of a study, which Optuna keeps: who has which values, who works on what, and what came of it."""

import contextlib
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from unblur.blur.recipes import sample_seed
from unblur.errors import MissingExtra, SettingsError, TrainingError
from unblur.files import written_whole
from unblur.provenance import versions
from unblur.settings import differences
from unblur.sweep.study import Setting, Study, StudySettings
from unblur.sweep.table import markdown_table

try:
    import optuna
    from filelock import FileLock, Timeout
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial, TrialState
except ImportError:
    raise MissingExtra("A study", "study") from None

Ending = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class Trial:
    """A trial that was taken to be worked on."""

    number: int
    values: dict[str, Any]
    """What is studied, by the settings' full names."""
    folder: Path
    num_looks: int
    """How many validations of it are noted already: more than none where it was left behind."""
    entry: optuna.Trial


@dataclass(frozen=True)
class Twin:
    """A complete trial with the same values, whose training would be the same."""

    number: int
    value: float
    facts: dict[str, Any]


class Book:
    """The book of a study in the folder `out`: a context, in which it is open."""

    def __init__(self, study: Study, out: Path, storage: str | None, resume: bool) -> None:
        self.study, self.out, self.address, self.resume = study, out, storage, resume
        self.name = out.resolve().name

    def __enter__(self) -> "Book":
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

    def take(self) -> contextlib.AbstractContextManager[Trial] | None:
        """Return a trial to work on, locked while the context lasts; None where none waits or was left behind."""
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

    def note(self, trial: Trial, ending: Ending, value: float | None = None, **facts: Any) -> None:
        """Close a trial with what is to be known of it."""
        (state,) = (state for state, name in _STATES.items() if name == ending)
        with self.lock:
            for name, fact in facts.items():
                trial.entry.set_user_attr(name, fact)
            self.optuna.tell(trial.entry, value, state=state)

    def look(self, trial: Trial, number: int, value: float) -> bool:
        """Note a validation and return whether the trial is to end."""
        with self.lock:
            trial.entry.report(value, number)
            return trial.entry.should_prune()

    def twin(self, trial: Trial) -> Twin | None:
        """Return the first complete trial with the same values, if there is one."""
        for other in self._trials():
            if other.state == TrialState.COMPLETE and other.params == trial.entry.params:
                assert other.value is not None
                return Twin(other.number, other.value, other.user_attrs)
        return None

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
    def _taken(self, number: int, lock: FileLock) -> Iterator[Trial]:
        try:
            settings = self.study.settings
            self.optuna.sampler = _sampler(settings, number)
            entry = optuna.Trial(self.optuna, self._identity(number))
            values = {key: _value(setting, entry, key) for key, setting in settings.space.items()}
            num_looks = len(self.storage.get_trial(self._identity(number)).intermediate_values)
            yield Trial(number, values, self._folder(number), num_looks, entry)
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


def _value(setting: Setting, trial: optuna.Trial, key: str) -> Any:
    """Return the value that the trial has, or what the sampler proposes for it."""
    if setting.values is not None:
        return json.loads(trial.suggest_categorical(key, setting.labels))
    assert setting.low is not None
    assert setting.high is not None
    if isinstance(setting.low, int) and isinstance(setting.high, int):
        return trial.suggest_int(key, setting.low, setting.high, log=setting.log)
    return trial.suggest_float(key, setting.low, setting.high, log=setting.log)


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
