"""A recipe cut down to what is there: `--budget 30min`, `--budget 2000steps`, `--budget 10%`, each also with `batch=4`.

    experiment, lines = scaled(experiment, "10% batch=8", num_pictures=2103)

Authors' recipes are made for eight GPUs and a week. What a budget keeps is the shape of the training: every length in
it (warm-up, places and periods of the schedule, stages of a progressive training, the distance of validations) shrinks
with the number of steps. With `batch=N` at most N pictures go through the network at once, and the experiment's
`scaling` says what becomes of the rest:

* `accumulate`: the gradients of several batches are gathered, so that a step sees as many pictures as before, at the
  same learning rate. The safe choice.
* `linear`: a step sees fewer pictures, and the learning rate is smaller in the same proportion (Goyal et al. 2017, who
  go the other way). For SGD.
* `sqrt`: the same with the square root of the proportion (Hoffer et al. 2017), which fits Adam better.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from unblur.errors import SettingsError
from unblur.experiment import Experiment, Schedule
from unblur.settings import validated
from unblur.training.batches import stages
from unblur.training.schedules import total_steps


@dataclass(frozen=True)
class Budget:
    """What may be spent: one of the first three, and pictures at once."""

    seconds: float | None = None
    steps: int | None = None
    share: float | None = None
    """Of the pictures that the recipe would see."""
    batch_size: int | None = None


def parse(text: str) -> Budget:
    """Return what a text such as `30min`, `2h batch=4`, `2000steps`, `0.1` or `10%` says; `SettingsError` otherwise."""
    found = re.fullmatch(
        r"(?P<number>\d[\d_]*(\.\d+)?) ?(?P<unit>s|min|h|steps|%|)([ ,]+batch=(?P<batch>[1-9]\d*))?", text.strip()
    )
    if found is None:
        raise SettingsError(
            f"'{text}' is not a budget. Write 30min, 2h, 2000steps, or 10% of the pictures, each also with batch=4."
        )
    number, unit = float(found["number"]), found["unit"]
    batch_size = int(found["batch"]) if found["batch"] else None
    if number == 0 or (unit == "" and number > 1):
        raise SettingsError(f"'{text}' is not a budget: a number without a unit is a share, above 0 and at most 1.")
    if unit == "steps":
        return Budget(steps=round(number), batch_size=batch_size)
    if unit in ("", "%"):
        return Budget(share=number if unit == "" else number / 100, batch_size=batch_size)
    return Budget(seconds=number * {"s": 1, "min": 60, "h": 3600}[unit], batch_size=batch_size)


def scaled(
    experiment: Experiment,
    budget: str | Budget,
    *,
    num_pictures: int,
    seconds_per_step: Callable[[Experiment], float] | None = None,
) -> tuple[Experiment, list[str]]:
    """Return the experiment within the budget, its length in steps, and the lines that say what became of it.

    `num_pictures` makes an epoch; `seconds_per_step` measures an experiment where the budget is a time.
    """
    given = parse(budget) if isinstance(budget, str) else budget
    planned_steps = total_steps(
        experiment.schedule,
        num_pictures * experiment.data.crops_per_picture,
        experiment.data.batch_size * experiment.accumulate,
    )
    planned_images = _images(experiment, planned_steps)
    smaller, about_rate = _with_batch(experiment, given.batch_size)
    if given.seconds is not None:
        if seconds_per_step is None:
            raise ValueError("a budget in time needs seconds_per_step")
        per_step = seconds_per_step(smaller)
        steps, cost = max(1, math.floor(given.seconds / per_step)), f" at {per_step:.3g} s a step"
    elif given.steps is not None:
        steps, cost = given.steps, ""
    else:
        assert given.share is not None
        images_per_step = planned_images / planned_steps * _images(smaller, 1) / _images(experiment, 1)
        steps, cost = max(1, round(given.share * planned_images / images_per_step)), ""
    result = _with_steps(smaller, planned_steps, steps)
    images = _images(result, steps)
    return result, [
        f"planned: {_lengths(experiment, planned_steps)}: {planned_images:,} pictures seen",
        f"within the budget: {_lengths(result, steps)}{cost}: {images:,} pictures seen, {images / planned_images:.1%}",
        about_rate,
        f"warm-up {experiment.schedule.warmup_steps:,} -> {result.schedule.warmup_steps:,} steps, validation every "
        f"{experiment.validation.every_steps:,} -> {result.validation.every_steps:,}",
    ]


def _with_batch(experiment: Experiment, batch_size: int | None) -> tuple[Experiment, str]:
    """Return the experiment with at most so many pictures at once, and what is said of the learning rate."""
    before, rate = experiment.data.batch_size, experiment.optimizer.lr
    if batch_size is None or batch_size >= before:
        return experiment, f"learning rate {rate:g}, as planned"
    if experiment.data.progressive:
        raise SettingsError("batch= cannot be given for a training with data.progressive: its table has the batches.")
    if experiment.scaling == "accumulate":
        if before % batch_size:
            divisors = [str(n) for n in range(1, before) if before % n == 0]
            raise SettingsError(f"batch={batch_size} does not divide {before}; choose {', '.join(divisors)}.")
        gathered = {"data": {"batch_size": batch_size}, "accumulate": experiment.accumulate * before // batch_size}
        return _changed(experiment, gathered), f"learning rate {rate:g}, as planned: a step sees as many pictures"
    ratio = batch_size / before
    factor = ratio if experiment.scaling == "linear" else math.sqrt(ratio)
    changes: dict[str, Any] = {
        "data": {"batch_size": batch_size},
        "optimizer": {"lr": rate * factor},
        "schedule": {"final_lr": experiment.schedule.final_lr * factor},
    }
    if experiment.adversarial:
        own, schedule = experiment.adversarial.optimizer, experiment.adversarial.schedule
        changes["adversarial"] = {
            "optimizer": own and {**own.model_dump(), "lr": own.lr * factor},
            "schedule": schedule and {**schedule.model_dump(), "final_lr": schedule.final_lr * factor},
        }
    return _changed(experiment, changes), f"learning rate {rate:g} -> {rate * factor:g} ({experiment.scaling})"


def _with_steps(experiment: Experiment, planned: int, steps: int) -> Experiment:
    """Return the experiment with so many steps, all that is measured in them shrunk alike."""
    ratio = steps / planned

    def shrunk(length: float | None, least: int = 1) -> int | None:
        return None if length is None else max(least, round(length * ratio))

    def shorter(schedule: Schedule) -> dict[str, Any]:
        unit = planned / schedule.epochs if schedule.epochs else 1
        return {
            **schedule.model_dump(),
            "steps": steps,
            "epochs": None,
            "warmup_steps": shrunk(schedule.warmup_steps, 0),
            "hold": None if schedule.hold is None else shrunk(schedule.hold * unit, 0),
            "every": None if schedule.every is None else shrunk(schedule.every * unit),
            "at": None if schedule.at is None else [shrunk(place * unit, 0) for place in schedule.at],
        }

    changes: dict[str, Any] = {
        "schedule": shorter(experiment.schedule),
        "validation": {"every_steps": min(steps, shrunk(experiment.validation.every_steps) or 1)},
    }
    if experiment.adversarial:
        own, warmup = experiment.adversarial.schedule, experiment.adversarial.warmup
        changes["adversarial"] = {
            "schedule": own and shorter(own),
            "warmup": warmup and {**warmup.model_dump(), "steps": shrunk(warmup.steps)},
        }
    if experiment.data.progressive:
        changes["data"] = {
            "progressive": [{**part.model_dump(), "steps": shrunk(part.steps)} for part in experiment.data.progressive]
        }
    return _changed(experiment, changes)


def _changed(experiment: Experiment, changes: dict[str, Any]) -> Experiment:
    data = experiment.model_dump(mode="json")
    for key, value in changes.items():
        data[key] = {**data[key], **value} if isinstance(value, dict) else value
    return validated(Experiment, data, "within the budget")


def _images(experiment: Experiment, steps: int) -> int:
    """Return how many pictures the first steps see."""
    parts = stages(experiment.data, steps, experiment.accumulate)
    return sum(max(0, min(p.stop, steps) - p.first) * p.batch_size for p in parts) * experiment.accumulate


def _lengths(experiment: Experiment, steps: int) -> str:
    sizes = dict.fromkeys(str(part.batch_size) for part in experiment.data.progressive or ())
    size = " to ".join(sizes) if sizes else str(experiment.data.batch_size)
    return f"{steps:,} steps of {experiment.accumulate} x {size} pictures"
