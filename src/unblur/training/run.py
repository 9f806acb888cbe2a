"""A training from beginning to end, whatever its way: run folder, steps, validation, saving, stopping, resuming.

    result = train(experiment.load("experiments/sharp/nafnet_small.yaml"), Path("runs/nafnet_small"))

A run folder holds `experiment.yaml` (the full settings), `best.safetensors` (lowest validation loss) and
`last.safetensors`, which `unblur restore --model` takes at once, `last.state` (what resuming needs, see
`training.state`) and `log/` (CSV and TensorBoard, see `training.progress`).

Everything random comes from the seed and the step: samples are addressed by their position in a series
(`training.batches`), learning rates are functions of the step, and torch's generator is seeded anew for each step. A
training that was stopped and resumed is therefore the same as one that was not, to the bit on a CPU.
"""

import contextlib
import logging
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
import yaml

from unblur import weights
from unblur.blur.recipes import sample_seed
from unblur.data.catalog import open_dataset
from unblur.data.check import require_alike
from unblur.data.pairs import hold_out
from unblur.data.sources import Pair, Window, subset
from unblur.data.windows import open_windows
from unblur.errors import DataError, MissingExtra, SettingsError, TrainingError
from unblur.experiment import Data, Experiment
from unblur.files import written_whole
from unblur.provenance import commit, versions
from unblur.settings import differences, validated

try:
    from lightning.fabric import Fabric

    from unblur.training import processes
    from unblur.training.adversarial import Adversarial
    from unblur.training.batches import Batch, Batches
    from unblur.training.budget import scaled
    from unblur.training.clock import Clock
    from unblur.training.progress import EVERY_STEPS, Log
    from unblur.training.schedules import total_steps
    from unblur.training.state import Progress, read_state, save_state
    from unblur.training.supervised import Supervised
    from unblur.training.validation import Validation
    from unblur.training.way import StepReport, Way
except ImportError:
    raise MissingExtra("Training", "train") from None


NUM_TRIED = 12
"""Steps that are taken to see how long one is; only the second half counts."""


@dataclass(frozen=True)
class TrainingResult:
    """What a training leaves behind."""

    folder: Path
    step: int
    total_steps: int
    best_loss: float
    best_psnr: float
    seconds: float
    """On the clock, over all resumes."""
    cpu_seconds: float
    """Of the processors, over all resumes (of several processes: the first one's)."""
    waiting: float
    """Share of this call's time in which a step waited for its pictures and their blur."""
    bad_steps: int
    """Steps that were skipped because something was not finite."""
    stopped: str
    """Why it ended: "done", "early stopping", "time is up" or "interrupted"."""


def train(
    experiment: Experiment,
    out: Path,
    *,
    data_root: Path | None = None,
    resume: bool = False,
    stop_after: float | None = None,
    progress: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> TrainingResult:
    """Train as the experiment says and return what came of it; files go to `out`.

    `resume` goes on from `out/last.state`, or begins where there is none. On SIGINT or SIGTERM, and `stop_after` so
    many seconds of this call, the step is finished, the state saved and the call returns. Raises `TrainingError`,
    `DataError`; `tell` receives one-line messages, `progress` shows a bar on stderr. Under `torchrun` all processes
    call it, and the first one writes and tells.
    """
    stop_at = None if stop_after is None else time.monotonic() + stop_after
    state_file = out / "last.state"
    if state_file.exists() and not resume:
        raise TrainingError(f"{out} holds a training already. Go on with --resume, or give another folder with --out.")
    state = read_state(state_file) if state_file.exists() else None
    training, validation = _pictures(experiment.data, data_root)
    with _quiet_lightning():
        fabric = processes.start(experiment)
    with _Stop(stop_at) as stop:
        run = _Run(experiment, training, validation, out, fabric, stop, tell if fabric.is_global_zero else _silent)
        if state is not None:
            run.resume(*state)
        return run.to_the_end(progress)


def within_budget(experiment: Experiment, text: str, *, data_root: Path | None = None) -> tuple[Experiment, list[str]]:
    """Return the experiment cut down to a budget, and the lines that say what became of it (`training.budget`).

    Where the budget is a time, a few steps are taken and forgotten to see how long one is.
    """
    training, _ = _pictures(experiment.data, data_root)

    def seconds_per_step(changed: Experiment) -> float:
        with _quiet_lightning():
            fabric = processes.start(changed)
        torch.manual_seed(changed.seed)
        way = _way(changed, NUM_TRIED, fabric)
        batches = _batches(changed, training, NUM_TRIED, fabric)
        ends = []
        for step, given in enumerate(batches.from_step(0)):
            float(way.step(given, step).values["loss"])  # waits for a GPU
            ends.append(time.perf_counter())
        seconds = (ends[-1] - ends[NUM_TRIED // 2]) / (NUM_TRIED - 1 - NUM_TRIED // 2)
        return float(fabric.broadcast(seconds))  # all processes plan the same

    num_pictures = training.in_an_epoch(experiment.data)
    return scaled(experiment, text, num_pictures=num_pictures, seconds_per_step=seconds_per_step)


class _Run:
    """One call of `train`."""

    def __init__(
        self,
        experiment: Experiment,
        training: "_Pictures",
        validation: "_Pictures",
        out: Path,
        fabric: Fabric,
        stop: "_Stop",
        tell: Callable[[str], None],
    ) -> None:
        self.experiment, self.out, self.fabric, self.stop, self.tell = experiment, out, fabric, stop, tell
        self.total_steps = total_steps(
            experiment.schedule,
            training.in_an_epoch(experiment.data) * experiment.data.crops_per_picture,
            experiment.data.batch_size * experiment.accumulate,
        )
        torch.manual_seed(experiment.seed)
        self.way = _way(experiment, self.total_steps, fabric)
        self.batches = _batches(experiment, training, self.total_steps, fabric)
        self.validation = Validation(experiment, [*validation.photographs, *validation.windows])
        self.progress = Progress()
        self.stopped: str | None = None
        self.first_step, self.clock = 0, Clock(0.0, 0.0)
        self.log: Log | None = None

    def resume(self, before: dict[str, Any], progress: Progress, way: dict[str, Any]) -> None:
        """Take up a saved state."""
        try:
            self.way.load_state(way)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise TrainingError(f"{self.out / 'last.state'} belongs to another training: {reason}") from None
        self.progress = progress
        self.tell(f"resumed at step {progress.step} of {self.total_steps}")
        for change in _changes(before, self.experiment):
            self.tell(f"changed since then: {change}")

    def to_the_end(self, progress_bar: bool) -> TrainingResult:
        """Take all steps that are left, or those until it stops, and return what came of it."""
        first = self.first_step = self.progress.step
        self.clock = Clock(self.progress.seconds, self.progress.cpu_seconds)
        if self.fabric.is_global_zero:
            _write_settings(self.out, self.experiment)
        if first >= self.total_steps:
            self.tell("nothing left to do")
            return self._result()
        if self.fabric.is_global_zero:
            self.log = Log(self.out / "log", first, self.total_steps, bar=progress_bar)
        try:
            for batches in self.batches.from_step(first):
                self._step(batches)
                if self.stopped:
                    break
        finally:
            if self.log is not None:
                self.log.close()
        result = self._result()
        self.tell(f"{result.waiting:.1%} of the time of the steps was waiting for pictures and their blur")
        return result

    def _step(self, batches: list[Batch]) -> None:
        """Take a step, then log, look and save when it is time."""
        progress = self.progress
        seed = sample_seed(self.experiment.seed, progress.step)
        torch.manual_seed(sample_seed(seed, self.fabric.global_rank))  # for what draws within networks and losses
        report = self.way.step(batches, progress.step)
        progress.step += 1
        self._count(report.problem)
        if self.log is not None:
            self._log(report)
        if processes.any_process(self.stop.is_wanted, self.fabric):
            self.stopped = self.stop.why
        with self.clock.aside():
            if progress.step % self.experiment.validation.every_steps == 0 or progress.step == self.total_steps:
                self._look()
            elif self.stopped or (progress.step % self.experiment.checkpoint_steps == 0 and not progress.bad_in_a_row):
                self._save_last()

    def _count(self, problem: str | None) -> None:
        """Count steps that were skipped, and give up after too many in a row."""
        progress = self.progress
        if problem is None:
            progress.bad_in_a_row = 0
            return
        if progress.bad_in_a_row == 0:
            progress.first_bad = f"{problem} at step {progress.step}"
        progress.bad_steps, progress.bad_in_a_row = progress.bad_steps + 1, progress.bad_in_a_row + 1
        self.tell(f"step {progress.step}/{self.total_steps} was skipped: not finite: {problem}")
        if progress.bad_in_a_row >= self.experiment.max_bad_steps:
            raise TrainingError(
                f"{progress.bad_in_a_row} steps in a row were not finite, first {progress.first_bad}. {self.out} keeps "
                "what was saved before. A lower optimizer.lr, or clip_grad_norm, may help; then --resume."
            )

    def _log(self, report: StepReport) -> None:
        assert self.log is not None
        self.log.advance(self.progress.step)
        if self.progress.step % EVERY_STEPS == 0:
            seen = self.batches.position(self.progress.step) - self.batches.position(self.first_step)
            rates = self.clock.rates(seen, self.batches.seconds_waiting)
            spent, skipped = self._spent(), {"bad_steps": self.progress.bad_steps}
            self.log.step(self.progress.step, {**spent, **report.values, **skipped, **rates})

    def _look(self) -> None:
        """Validate, keep the best network, see whether it is time to stop, save."""
        kept = self.way.kept()
        look = self.validation.look(kept, self.way.loss, self.fabric)
        self.way.looked(look.loss)
        progress = self.progress
        better = look.loss < progress.best_loss
        if better:
            progress.best_loss, progress.best_psnr, progress.looks_since_best = look.loss, look.psnr, 0
        else:
            progress.looks_since_best += 1
        if self.log is not None:
            self.log.look(progress.step, self._spent(), look)
            if better:
                weights.save(kept, self.out / "best.safetensors", self._facts(look.loss, look.psnr))
        patience = self.experiment.validation.patience
        if patience is not None and progress.looks_since_best >= patience:
            self.stopped = self.stopped or "early stopping"
        self._save_last(look.loss, look.psnr)
        self.tell(
            f"step {progress.step}/{self.total_steps}: validation loss {look.loss:.5f} "
            f"(blurred input {look.loss_blurred:.5f}), PSNR {look.psnr:.2f} dB "
            f"(blurred input {look.psnr_blurred:.2f}){', best so far' if better else ''}"
        )

    def _save_last(self, loss: float | None = None, psnr: float | None = None) -> None:
        """Write `last.safetensors` and `last.state`, each whole or not at all."""
        self._spent()
        kept, state = self.way.kept(), self.way.state()
        if self.fabric.is_global_zero:
            weights.save(kept, self.out / "last.safetensors", self._facts(loss, psnr))
            save_state(self.out / "last.state", self.experiment, self.progress, state)

    def _spent(self) -> dict[str, float]:
        """Return the time and the pictures spent up to here, over all resumes."""
        self.progress.seconds, self.progress.cpu_seconds = self.clock.spent()
        images = self.batches.position(self.progress.step)
        return {"seconds": self.progress.seconds, "cpu_seconds": self.progress.cpu_seconds, "images": images}

    def _facts(self, loss: float | None, psnr: float | None) -> dict[str, Any]:
        return {
            "experiment": self.experiment.model_dump(mode="json"),
            "step": self.progress.step,
            "total_steps": self.total_steps,
            **self._spent(),
            "bad_steps": self.progress.bad_steps,
            "validation": {"loss": loss, "psnr": psnr},
            "commit": commit(),
            "versions": versions(),
        }

    def _result(self) -> TrainingResult:
        progress, waiting = self.progress, self.batches.seconds_waiting / self.clock.steps
        self._spent()
        return TrainingResult(
            self.out,
            progress.step,
            self.total_steps,
            progress.best_loss,
            progress.best_psnr,
            progress.seconds,
            progress.cpu_seconds,
            waiting,
            progress.bad_steps,
            self.stopped or "done",
        )


class _Stop:
    """The wish to stop. Within, SIGINT and SIGTERM are only noted: the step is finished and the state saved, instead of
    cutting it off.
    """

    def __init__(self, at: float | None) -> None:
        """`at`, of the monotonic clock, is when to stop without a signal."""
        self.received, self.at = False, at

    @property
    def is_wanted(self) -> bool:
        return self.received or (self.at is not None and time.monotonic() >= self.at)

    @property
    def why(self) -> str:
        """The reason, also where another process had it first."""
        return "interrupted" if self.received or self.at is None else "time is up"

    def __enter__(self) -> "_Stop":
        """Listen, where this is the main thread; only there can handlers be set."""
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Put the handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True


def _way(experiment: Experiment, total_steps: int, fabric: Fabric) -> Way:
    """Return the way of training that the experiment asks for."""
    kind = Supervised if experiment.adversarial is None else Adversarial
    return kind(experiment, total_steps, fabric)


def _silent(line: str) -> None:
    """Tell nothing: only the first of several processes does."""


class _Pictures(NamedTuple):
    """What is trained or validated on."""

    photographs: list[Pair]
    """Or pairs; empty where there are only windows."""
    windows: list[Window]

    def in_an_epoch(self, data: Data) -> int:
        """Return how many samples show every photograph once; or every window, where there is nothing else."""
        if not self.photographs or not self.windows:
            return len(self.photographs) or len(self.windows)
        assert data.windows_share is not None
        return round(len(self.photographs) / (1 - data.windows_share))


def _batches(experiment: Experiment, training: _Pictures, total_steps: int, fabric: Fabric) -> Batches:
    return Batches(
        experiment,
        training.photographs,
        total_steps,
        fabric.device,
        fabric.global_rank,
        fabric.world_size,
        windows=training.windows,
    )


def _pictures(data: Data, data_root: Path | None) -> tuple[_Pictures, _Pictures]:
    """Return the pictures to train on and those to validate on; `DataError` where either is empty, or pairs are not
    alike.
    """
    photographs, photographs_held = ([], []) if data.windows_only else _photographs(data, data_root)
    windows, windows_held = _windows(data, data_root) if data.windows else ([], [])
    needed = (windows, windows_held) if data.windows_only else (photographs, photographs_held)
    for part, name in zip(needed, ("train on", "validate on"), strict=True):
        if not part:
            raise DataError(
                f"There is no picture to {name}: '{data.train}' with hold_out {data.hold_out} is too small."
            )
    if data.windows and not windows:
        raise DataError(f"There is no window to train on: hold_out {data.hold_out} takes all of '{data.windows}'.")
    if data.share < 1:
        photographs = subset(photographs, data.share, seed=0) if photographs else []
        windows = subset(windows, data.share, seed=0) if windows else []
    require_alike([*photographs, *photographs_held])
    return _Pictures(photographs, windows), _Pictures(photographs_held, windows_held)


def _windows(data: Data, data_root: Path | None) -> tuple[list[Window], list[Window]]:
    """Return the windows to train on and those held out, or those of `valid` where nothing else is trained on."""

    def opened(name: str) -> list[Window]:
        return open_windows(name, data_root, frames=data.windows_frames, stride=data.windows_stride)

    assert data.windows is not None
    if data.windows_only and data.valid != data.train:
        return opened(data.windows), opened(data.valid)
    return hold_out(opened(data.windows), data.hold_out)


def _photographs(data: Data, data_root: Path | None) -> tuple[list[Pair], list[Pair]]:
    """Return the photographs, or pairs, to train on and those to validate on."""

    def opened(name: str) -> list[Pair]:
        pairs = open_dataset(name, data_root, sharp_only=data.recipe is not None)
        if data.recipe is None and any(pair.blurred is None for pair in pairs):
            raise DataError(f"'{name}' holds sharp pictures only: give data.recipe, by which they are blurred.")
        return pairs

    training = opened(data.train)
    if data.valid == data.train:
        return hold_out(training, data.hold_out)
    return training, opened(data.valid)


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Leave out Lightning's advice and announcements; errors stay."""
    loggers = [logging.getLogger(name) for name in ("lightning.fabric", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec")  # a deprecation within itself
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _changes(before: dict[str, Any], now: Experiment) -> list[str]:
    """Return what differs from the settings of a state; keys that are newer than it have their defaults there."""
    with contextlib.suppress(SettingsError):  # a key that is no longer known
        before = validated(Experiment, before, "state").model_dump(mode="json")
    return differences(before, now.model_dump(mode="json"))


def _write_settings(out: Path, experiment: Experiment) -> None:
    with written_whole(out / "experiment.yaml") as temporary:
        settings = experiment.model_dump(mode="json", exclude_none=True)
        temporary.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
