"""Which pictures a step sees: batches from any step to the end, on the device, blurred.

Samples are addressed by their position in one endless, seeded series (`data.pairs.TrainingCrops`), and the position of
a step's first sample is a function of the step. A training that stopped after n steps therefore goes on with the very
samples that it would have seen, in the middle of a progressive training too. Of several processes each takes a part of
each batch, so that together they see what one process would.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader

from unblur.blur.recipes import sample_seed
from unblur.data.mixture import MixedCrops, collated_by_kind, complete_mixture
from unblur.data.pairs import Positions, TrainingCrops, collated, complete_batch
from unblur.data.resident import ResidentCrops, ResidentMixture
from unblur.data.sources import Pair, Window, place_of
from unblur.errors import DataError, TrainingError
from unblur.experiment import Data, Experiment

Batch = dict[str, Any]
"""`blurred` and `sharp` (B, 3, H, W) float32 in [0, 1] on the device, and `name`; `clip` (B, T, 3, H, W), the sharp
frames, where the network gives several.
"""

Samples = TrainingCrops | MixedCrops


@dataclass(frozen=True)
class Stage:
    """A part of the training with crops and batches of one size, from step `first` on, `stop` excluded."""

    first: int
    stop: int
    crop_px: int | None
    batch_size: int
    first_position: int


def stages(data: Data, total_steps: int, accumulate: int) -> list[Stage]:
    """Return the stages of a progressive training, or the single one of any other."""
    parts: list[tuple[int, int | None, int]] = [(total_steps, data.crop_px, data.batch_size)]
    if data.progressive:
        parts = [(part.steps, part.crop_px, part.batch_size) for part in data.progressive]
    found: list[Stage] = []
    first, position = 0, 0
    for steps, crop_px, batch_size in parts:
        found.append(Stage(first, first + steps, crop_px, batch_size, position))
        first, position = first + steps, position + steps * batch_size * accumulate
    last = found[-1]
    found[-1] = Stage(last.first, max(last.stop, total_steps), last.crop_px, last.batch_size, last.first_position)
    return found


@dataclass
class Batches:
    """The batches of one process of `processes`."""

    experiment: Experiment
    pairs: Sequence[Pair]
    total_steps: int
    device: torch.device
    rank: int = 0
    processes: int = 1
    windows: Sequence[Window] = ()
    """Besides the pairs, or alone."""
    seconds_waiting: float = field(default=0.0, init=False)
    """What steps have waited for their batches so far."""
    seconds_loading: float = field(default=0.0, init=False)
    """What loading has taken so far, beside the steps."""
    seconds_blurring: float = field(default=0.0, init=False)
    """What blurring has taken; on a GPU only what the processor spends on it."""

    def __post_init__(self) -> None:
        data = self.experiment.data
        self.recipe = self.experiment.blur
        self.margin_px = self.recipe.margin_px if self.recipe and data.is_cropped else 0
        self.stages = stages(data, self.total_steps, self.experiment.accumulate)
        for stage in self.stages:
            if stage.batch_size % self.processes:
                raise TrainingError(
                    f"A batch of {stage.batch_size} pictures cannot be divided evenly over {self.processes} processes. "
                    f"Choose a multiple of {self.processes} as batch_size, or another number of processes."
                )

    def position(self, step: int) -> int:
        """Return the position of a step's first sample, which is how many pictures were seen before it."""
        stage = next(stage for stage in reversed(self.stages) if stage.first <= step)
        return stage.first_position + (step - stage.first) * stage.batch_size * self.experiment.accumulate

    def from_step(self, step: int) -> Iterator[list[Batch]]:
        """Yield, step after step, the batches whose gradients make the step.

        Beside a GPU the next ones are made meanwhile. On a CPU a thread that does so takes the cores from the step's
        own: a step of `default` on two of them took 335 ms so, and 205 ms with batches made in between.
        """
        made = self._from_step(step)
        steps = ahead(made, self.device) if self.device.type == "cuda" else made
        try:
            while True:
                started = time.perf_counter()
                batches = next(steps, None)
                self.seconds_waiting += time.perf_counter() - started
                if batches is None:
                    return
                yield batches
        finally:
            steps.close()

    def _from_step(self, step: int) -> Generator[list[Batch], None, None]:
        for stage in self.stages:
            first, stop = max(step, stage.first), min(stage.stop, self.total_steps)
            if first < stop:
                yield from self._of_stage(stage, first, stop)

    def _of_stage(self, stage: Stage, first: int, stop: int) -> Iterator[list[Batch]]:
        accumulate = self.experiment.accumulate
        samples = self._samples(stage.crop_px)
        begin, end = (stage.first_position + (s - stage.first) * stage.batch_size * accumulate for s in (first, stop))
        loaded = self._loaded(samples, begin, end, stage.batch_size)
        for _ in range(first, stop):
            yield [self._completed(self._next(loaded)) for _ in range(accumulate)]

    def _samples(self, crop_px: int | None) -> Samples:
        """Return the samples by position: of photographs, or pairs, of windows, or of both."""
        data, seed = self.experiment.data, self.experiment.seed

        def crops(items: Sequence[Pair] | Sequence[Window], seed: int, margin_px: int) -> TrainingCrops:
            return TrainingCrops(
                items,
                seed=seed,
                crop_px=crop_px,
                margin_px=margin_px,
                resize=data.size,
                shrink=data.shrink,
                flips=data.flips,
                rotations=data.rotations,
                crops_per_picture=data.crops_per_picture,
                max_ssim=data.max_ssim,
                max_tries=data.max_tries,
            )

        of_windows = sample_seed(seed, place_of("windows"))
        if not self.windows:
            return crops(self.pairs, seed, self.margin_px)
        if data.windows_only:
            return crops(self.windows, of_windows, 0)
        assert data.windows_share is not None
        both = crops(self.pairs, seed, self.margin_px), crops(self.windows, of_windows, 0)
        return MixedCrops(*both, data.windows_share, sample_seed(seed, place_of("mixture")))

    def _loaded(self, samples: Samples, begin: int, end: int, batch_size: int) -> Iterator[dict[str, Any]]:
        """Yield this process's part of the batches of all positions from `begin` to `end`."""
        if self.experiment.data.resident:
            crops = (
                ResidentMixture.load(samples, self.device)
                if isinstance(samples, MixedCrops)
                else ResidentCrops.load(samples, self.device)
            )
            if crops is None:
                raise TrainingError(f"The pictures do not fit on {self.device}: leave data.resident out.")
            for first in range(begin, end, batch_size):
                yield crops.batch(range(first + self.rank, first + batch_size, self.processes))
            return
        loader = DataLoader(
            samples,
            batch_size=batch_size // self.processes,
            sampler=Positions(begin, end, rank=self.rank, world_size=self.processes),
            num_workers=self.experiment.data.workers,
            collate_fn=collated_by_kind if isinstance(samples, MixedCrops) else collated,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # its own, so that making the loader draws nothing from the global one
        )
        try:
            yield from loader
        except DataError as error:  # a worker's comes with a traceback before the message
            raise DataError(str(error).rpartition(f"{DataError.__module__}.DataError: ")[2]) from None
        except RuntimeError as error:
            if "equal size" not in str(error):
                raise
            raise TrainingError(
                "Pictures of several sizes make no batch: give data.crop_px or data.resize, or data.batch_size: 1."
            ) from None

    def _next(self, loaded: Iterator[dict[str, Any]]) -> dict[str, Any]:
        started = time.perf_counter()
        samples = next(loaded)
        self.seconds_loading += time.perf_counter() - started
        return samples

    def _completed(self, samples: dict[str, Any]) -> Batch:
        started = time.perf_counter()
        moved = _moved(samples, self.device)
        if "order" in samples:
            batch = complete_mixture(moved, self.recipe, self.margin_px)
        else:
            batch = complete_batch(moved, self.recipe, self.margin_px, clips=self.experiment.clips)
        self.seconds_blurring += time.perf_counter() - started
        return batch


def _moved(samples: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return samples on the device, save for their seeds, which are read here."""
    moved = dict(samples)
    for key, value in samples.items():
        if isinstance(value, dict):
            moved[key] = _moved(value, device)
        elif isinstance(value, torch.Tensor) and key != "seed":
            moved[key] = value.to(device, non_blocking=True)
    return moved


Item = TypeVar("Item")


def ahead(items: Iterator[Item], device: torch.device, depth: int = 2) -> Generator[Item, None, None]:
    """Yield the items in their order, up to `depth` of them made before they are asked for, in a thread of its own.

    An error that making one raises is raised where that item is asked for. The thread computes on one core, so that it
    does not crowd out the threads of the step.
    """
    made: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)
    ready, ended = threading.Event(), threading.Event()

    def put(is_item: bool, value: Any) -> None:
        while not ended.is_set():
            with contextlib.suppress(queue.Full):
                made.put((is_item, value), timeout=0.1)
                return

    def make() -> None:
        torch.set_num_threads(1)
        ready.set()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            for item in items:
                put(True, item)
                if ended.is_set():
                    return
            put(False, None)
        except BaseException as error:
            put(False, error)

    num_threads = torch.get_num_threads()
    thread = threading.Thread(target=make, name="batches", daemon=True)
    thread.start()
    ready.wait()
    torch.set_num_threads(num_threads)  # that was for the new thread alone, save that MKL makes no difference
    try:
        while True:
            is_item, value = made.get()
            if is_item:
                yield value
            elif value is None:
                return
            else:
                raise value
    finally:
        ended.set()
        thread.join()
