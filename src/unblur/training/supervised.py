"""Training on pairs of blurred and sharp: one network, one loss, one optimiser.

    result = train(experiment.load("experiments/sharp/nafnet_small.yaml"), Path("runs/nafnet_small"))

A run folder holds `experiment.yaml` (the full settings), `best.safetensors` (lowest validation loss) and
`last.safetensors`, which `unblur restore --model` takes at once, `last.state` (what resuming needs) and `log/` (CSV
and TensorBoard).

Everything random comes from the seed and the step: samples are addressed by their position in the series
(`data.pairs.TrainingCrops`), learning rates are functions of the step, and torch's generator is part of the state. A
training that was stopped and resumed is therefore the same as one that was not.
"""

import contextlib
import logging
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from unblur import losses, metrics, models, weights
from unblur.blur.recipes import blur_batch, sample_seed
from unblur.data.catalog import find_dataset
from unblur.data.pairs import (
    Positions,
    TrainingCrops,
    complete_batch,
    hold_out,
    paired_files,
    resized,
    sharp_files,
    to_batch,
)
from unblur.errors import DataError, MissingExtra, OutputError, TrainingError
from unblur.experiment import Data, Experiment
from unblur.files import written_whole
from unblur.images import read_rgb8
from unblur.inference import bf16_is_fast, restore_image
from unblur.provenance import commit, versions
from unblur.settings import differences
from unblur.training.schedules import learning_rate, total_steps

try:
    import lightning.pytorch as pl
    from lightning.fabric.utilities.warnings import PossibleUserWarning
    from lightning.pytorch.callbacks import RichProgressBar
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
except ImportError:
    raise MissingExtra("Training", "train") from None

Files = list[tuple[Path | None, Path]]
"""(blurred or None, sharp) files."""


@dataclass(frozen=True)
class TrainingResult:
    """What a training leaves behind."""

    folder: Path
    step: int
    total_steps: int
    best_loss: float
    best_psnr: float
    seconds: float
    stopped: str
    """Why it ended: "done", "early stopping" or "interrupted"."""


def train(
    experiment: Experiment,
    out: Path,
    *,
    data_root: Path | None = None,
    resume: bool = False,
    progress: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> TrainingResult:
    """Train as the experiment says and return what came of it; files go to `out`.

    `resume` goes on from `out/last.state`, or begins where there is none. On SIGINT or SIGTERM the step is finished,
    the state saved and the call returns. Raises `TrainingError`, `DataError`; `tell` receives one-line messages.
    """
    started = time.perf_counter()
    state_file = out / "last.state"
    if state_file.exists() and not resume:
        raise TrainingError(f"{out} holds a training already. Go on with --resume, or give another folder with --out.")
    state = _read_state(state_file) if state_file.exists() else None
    training, validation = _files(experiment.data, data_root)
    torch.manual_seed(experiment.seed)
    module = SupervisedTraining(experiment, training, validation, out, tell)
    if state is not None:
        module.load_state(state)
        tell(f"resumed at step {module.step} of {module.total_steps}")
        for change in differences(state["experiment"], experiment.model_dump(mode="json")):
            tell(f"changed since then: {change}")
    _write_settings(out, experiment)
    if module.step >= module.total_steps:
        tell("nothing left to do")
        return module.result("done", started)
    version = f"from-step-{module.step:07d}"
    loggers = [CSVLogger(out, name="log", version=version), TensorBoardLogger(out, name="log", version=version)]
    with _quiet_lightning():
        trainer = _trainer(experiment, module.total_steps - module.step, loggers, progress)
    with _signals_restored(), _quiet_lightning():
        trainer.fit(module, train_dataloaders=module.loader())
    return module.result(module.stop_reason or "done", started)


class SupervisedTraining(pl.LightningModule):
    """The training step, the looks at the validation pictures and the state; the network itself knows nothing of
    them.
    """

    def __init__(
        self, experiment: Experiment, training: Files, validation: Files, out: Path, tell: Callable[[str], None]
    ) -> None:
        super().__init__()
        self.experiment, self.out, self.tell = experiment, out, tell
        self.recipe = experiment.data.blur
        self.margin_px = self.recipe.margin_px if self.recipe and experiment.data.crop_px else 0
        self.network = _network(experiment)
        decay = experiment.ema
        averaging = get_ema_multi_avg_fn(decay or 0.0)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(self.network, multi_avg_fn=averaging, use_buffers=True) if decay else None
        self.samples = TrainingCrops(
            training,
            seed=experiment.seed,
            crop_px=experiment.data.crop_px,
            margin_px=self.margin_px,
            resize=experiment.data.size,
            shrink=experiment.data.shrink,
            flips=experiment.data.flips,
            rotations=experiment.data.rotations,
        )
        self.total_steps = total_steps(experiment.schedule, len(training), experiment.data.batch_size)
        self.looks_at = list(_validation_pictures(experiment, validation))
        self.step, self.best_loss, self.best_psnr, self.looks_since_best = 0, float("inf"), float("-inf"), 0
        self.stop_reason: str | None = None
        self._state: dict[str, Any] | None = None

    # -- the step --------------------------------------------------------------------------------------

    def loader(self) -> DataLoader[dict[str, Any]]:
        """Return the loader of all samples from the present step to the end."""
        batch_size = self.experiment.data.batch_size
        return DataLoader(
            self.samples,
            batch_size=batch_size,
            sampler=Positions(self.step * batch_size, self.total_steps * batch_size),
            num_workers=self.experiment.data.workers,
            persistent_workers=self.experiment.data.workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # its own, so that making the loader draws nothing from the global one
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser, with its state where the training is resumed."""
        settings = self.experiment.optimizer
        parameters = self.network.parameters()
        optimizer: torch.optim.Optimizer
        if settings.name == "sgd":
            optimizer = torch.optim.SGD(
                parameters, settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
            )
        else:
            kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
            optimizer = kind(
                parameters, settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
            )
        if self._state is not None:
            optimizer.load_state_dict(self._state["optimizer"])
        return optimizer

    def on_train_start(self) -> None:
        """Put the networks where they are fast, take up the random state of a resumed training, listen to signals."""
        for network in (self.network, self.average):
            if network is not None:
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own stub lacks it
        if self._state is not None:
            torch.set_rng_state(self._state["random_state"])
            self._state = None
        if threading.current_thread() is threading.main_thread():  # only there can handlers be set
            for number in (signal.SIGINT, signal.SIGTERM):  # here, because Lightning sets its own before
                signal.signal(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_reason = "interrupted"  # the step is finished and the state saved, instead of cutting it off

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Blur on the device, where the experiment names a recipe."""
        return complete_batch(batch, self.recipe, self.margin_px)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate of this step."""
        rate = learning_rate(self.step, self.total_steps, self.experiment.schedule, self.experiment.optimizer)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        restored = self.network(batch["blurred"].contiguous(memory_format=torch.channels_last)).float()
        total, parts = losses.weighted_sum(self.experiment.loss, restored, batch["sharp"])
        if not torch.isfinite(total):
            bad = [name for name, part in parts.items() if not torch.isfinite(part)]
            raise TrainingError(
                f"The loss is not finite at step {self.step}: {', '.join(bad)}. {self.out} keeps the last state."
            )
        if self.step % 10 == 0:
            rate = self.trainer.optimizers[0].param_groups[0]["lr"]
            self._log({"train/loss": total, **{f"train/{n}": p for n, p in parts.items()}, "train/learning_rate": rate})
        self.log("loss", total.detach(), prog_bar=True, logger=False)
        return total

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clip by the norm ourselves: Lightning's own clipping refuses fused optimisers, which are the fast ones."""
        if self.experiment.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.experiment.clip_grad_norm)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the step; average, look and save when it is time."""
        self.step += 1
        if self.average is not None:
            self.average.update_parameters(self.network)
        if self.step % self.experiment.validation.every_steps == 0 or self.step == self.total_steps:
            self.look()
        elif self.step % self.experiment.checkpoint_steps == 0 or self.stop_reason:
            self.save_last()
        if self.stop_reason:
            self.trainer.should_stop = True

    # -- looking ---------------------------------------------------------------------------------------

    @property
    def kept(self) -> nn.Module:
        """The network that is validated and kept: the moving average where there is one."""
        return self.average.module if self.average is not None else self.network

    def look(self) -> None:
        """Restore the validation pictures, log the scores, keep the best network, save the state."""
        was_training = self.kept.training
        self.kept.eval()
        rows = [self._look_at(blurred, sharp) for blurred, sharp in self.looks_at]
        self.kept.train(was_training)
        loss, loss_blurred, psnr, psnr_blurred = (sum(column) / len(rows) for column in zip(*rows, strict=True))
        scores = {"valid/loss": loss, "valid/psnr": psnr}
        self._log(scores | {"valid/loss_blurred_input": loss_blurred, "valid/psnr_blurred_input": psnr_blurred})
        better = loss < self.best_loss
        if better:
            self.best_loss, self.best_psnr, self.looks_since_best = loss, psnr, 0
            weights.save(self.kept, self.out / "best.safetensors", self._facts(loss, psnr))
        else:
            self.looks_since_best += 1
        patience = self.experiment.validation.patience
        if patience is not None and self.looks_since_best >= patience:
            self.stop_reason = "early stopping"
        self.save_last(loss, psnr)
        self.tell(
            f"step {self.step}/{self.total_steps}: validation loss {loss:.5f} (blurred input {loss_blurred:.5f}), "
            f"PSNR {psnr:.2f} dB (blurred input {psnr_blurred:.2f}){', best so far' if better else ''}"
        )

    def _look_at(self, blurred: Tensor, sharp: Tensor) -> list[float]:
        """Return the loss and the PSNR (`psnr-float`) of the restored and of the blurred."""
        pictures = (restore_image(self.kept, blurred, precision=self.experiment.precision), blurred)
        found = [float(losses.weighted_sum(self.experiment.loss, p[None], sharp[None])[0]) for p in pictures]
        return found + [float(metrics.psnr_float(picture, sharp)) for picture in pictures]

    # -- the state -------------------------------------------------------------------------------------

    def save_last(self, loss: float | None = None, psnr: float | None = None) -> None:
        """Write `last.safetensors` and `last.state`, each whole or not at all."""
        weights.save(self.kept, self.out / "last.safetensors", self._facts(loss, psnr))
        state = {
            "format": 1,
            "experiment": self.experiment.model_dump(mode="json"),
            "step": self.step,
            "best": {"loss": self.best_loss, "psnr": self.best_psnr, "looks_since": self.looks_since_best},
            "network": self.network.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimizer": self.trainer.optimizers[0].state_dict(),
            "random_state": torch.get_rng_state(),
        }
        with written_whole(self.out / "last.state") as temporary:
            try:
                torch.save(state, temporary)
            except RuntimeError as error:  # torch's archive writer says so of a full disk
                raise OutputError(f"{self.out / 'last.state'} could not be written: {error}") from None

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up a saved state; the optimiser and the random state follow when the training starts."""
        try:
            self.network.load_state_dict(state["network"])
            if self.average is not None and state["average"] is not None:
                self.average.load_state_dict(state["average"])
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise TrainingError(f"{self.out / 'last.state'} belongs to another network: {reason}") from None
        self.step, best = state["step"], state["best"]
        self.best_loss, self.best_psnr, self.looks_since_best = best["loss"], best["psnr"], best["looks_since"]
        self._state = state

    def result(self, stopped: str, started: float) -> TrainingResult:
        """Return what has come of the training so far."""
        seconds = time.perf_counter() - started
        return TrainingResult(self.out, self.step, self.total_steps, self.best_loss, self.best_psnr, seconds, stopped)

    def _facts(self, loss: float | None, psnr: float | None) -> dict[str, Any]:
        return {
            "experiment": self.experiment.model_dump(mode="json"),
            "step": self.step,
            "total_steps": self.total_steps,
            "validation": {"loss": loss, "psnr": psnr},
            "commit": commit(),
            "versions": versions(),
        }

    def _log(self, values: Mapping[str, float | Tensor]) -> None:
        for logger in self.trainer.loggers:
            logger.log_metrics(
                {name: float(torch.as_tensor(value).detach()) for name, value in values.items()}, step=self.step
            )


def _network(experiment: Experiment) -> nn.Module:
    model = experiment.model
    network = models.create(model.name, **model.options)
    if experiment.start_from:
        start = weights.load(experiment.start_from)
        if models.identity(start) != models.identity(network):
            raise TrainingError(
                f"{experiment.start_from} is another network than the experiment's: {models.identity(start)}"
            )
        network.load_state_dict(start.state_dict())
    return network


def _files(data: Data, data_root: Path | None) -> tuple[Files, Files]:
    """Return the files to train on and those to validate on; `DataError` where either is empty."""

    def listed(name: str) -> Files:
        folder = find_dataset(name, data_root)
        if data.recipe:
            return [(None, path) for path in sharp_files(folder)]
        return [(pair.blurred, pair.sharp) for pair in paired_files(folder)]

    training = listed(data.train)
    if data.valid == data.train:
        blurred_of = {sharp: blurred for blurred, sharp in training}
        kept, held = hold_out([sharp for _, sharp in training], data.hold_out)
        training, validation = ([(blurred_of[path], path) for path in part] for part in (kept, held))
    else:
        validation = listed(data.valid)
    for part, name in ((training, "train on"), (validation, "validate on")):
        if not part:
            raise DataError(
                f"There is no picture to {name}: '{data.train}' with hold_out {data.hold_out} is too small."
            )
    return training, validation


def _validation_pictures(experiment: Experiment, files: Files) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (blurred, sharp), each (3, H, W): always the same, from the validation's own seed."""
    settings, recipe = experiment.validation, experiment.data.blur
    count = min(len(files), settings.max_pictures or len(files))
    for index in range(count):
        blurred_file, sharp_file = files[index * len(files) // count]
        sharp = to_batch([resized(read_rgb8(sharp_file), experiment.data.size)]).float() / 255
        if blurred_file is not None:
            blurred = to_batch([resized(read_rgb8(blurred_file), experiment.data.size)]).float() / 255
        else:
            assert recipe is not None
            kind = index % len(recipe.kinds) if recipe.each_kind else None
            blurred = blur_batch(sharp, recipe, [sample_seed(settings.seed, index)], kind=kind)
        if settings.crop_px:
            top, left = (max(0, (length - settings.crop_px) // 2) for length in sharp.shape[-2:])
            middle = (..., slice(top, top + settings.crop_px), slice(left, left + settings.crop_px))
            blurred, sharp = blurred[middle], sharp[middle]
        yield blurred[0].contiguous(), sharp[0].contiguous()


def _trainer(experiment: Experiment, steps: int, loggers: list[Any], progress: bool) -> pl.Trainer:
    return pl.Trainer(
        accelerator="auto",
        devices=1,
        precision=_lightning_precision(experiment),
        max_steps=steps,
        logger=loggers,
        log_every_n_steps=10,
        callbacks=[RichProgressBar(leave=True)] if progress else [],
        enable_progress_bar=progress,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    )


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Leave out Lightning's advice (products, number of workers) and a deprecation within itself; errors stay."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec")
            yield
    finally:
        logger.setLevel(level)


def _lightning_precision(experiment: Experiment) -> Any:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = experiment.precision == "bf16" or (experiment.precision == "auto" and bf16_is_fast(device))
    return "bf16-mixed" if half else "32-true"


@contextlib.contextmanager
def _signals_restored() -> Iterator[None]:
    """Put the handlers of SIGINT and SIGTERM back afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive raises a dozen kinds
        raise TrainingError(f"{path} cannot be read, the training cannot be resumed: {error}") from None
    return state


def _write_settings(out: Path, experiment: Experiment) -> None:
    with written_whole(out / "experiment.yaml") as temporary:
        settings = experiment.model_dump(mode="json", exclude_none=True)
        temporary.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
