"""Learning rates as functions of the step alone, so that a resumed training needs no state for them.

One schedule cannot be such a function: `plateau` goes by the validation losses so far. What it remembers of them is a
`Plateau`, whose few numbers are part of the state.
"""

import math
from dataclasses import dataclass

from unblur.experiment import Optimizer, Schedule


def learning_rate(step: int, total_steps: int, schedule: Schedule, optimizer: Optimizer) -> float:
    """Return the learning rate of step 0, 1, ... of `total_steps`; for `plateau` that without any reduction."""
    highest, lowest = optimizer.lr, schedule.final_lr
    if step < schedule.warmup_steps:
        return highest * (step + 1) / schedule.warmup_steps
    unit = total_steps // schedule.epochs if schedule.epochs else 1  # steps
    every, factor = (schedule.every or 1) * unit, schedule.factor or 1.0
    if schedule.name in ("constant", "plateau"):
        return highest
    if schedule.name == "step":
        return highest * factor ** (step // every)
    if schedule.name == "multi_step":
        return highest * factor ** sum(step >= place * unit for place in schedule.at or ())
    start = schedule.warmup_steps + (schedule.hold or 0) * unit
    since = max(0, step - start)
    if schedule.name == "cosine_restarts":
        place, period = _place_in_period(since, every, schedule.growth or 1)
        return _cosine(highest, lowest, place / period)
    if schedule.name == "exponential" and schedule.factor:
        return max(lowest, highest * factor ** (since / every))
    done = min(1.0, since / max(1, total_steps - start))
    if schedule.name == "exponential":
        return highest * (lowest / highest) ** done
    if schedule.name == "linear":
        return highest + (lowest - highest) * done
    return _cosine(highest, lowest, done)


def total_steps(schedule: Schedule, num_pictures: int, pictures_per_step: int) -> int:
    """Return how many steps the training has; an epoch is as many steps as the pictures fill."""
    if schedule.steps is not None:
        return schedule.steps
    assert schedule.epochs is not None
    return schedule.epochs * math.ceil(num_pictures / pictures_per_step)


@dataclass
class Plateau:
    """The reductions of the schedule `plateau`; of every other schedule it is never told and leaves the rate alone."""

    reduction: float = 1.0
    """What the rate is multiplied by."""
    best_loss: float = math.inf
    looks_since_best: int = 0

    def look(self, loss: float, schedule: Schedule) -> None:
        """Take note of a validation loss; after `patience` in a row that are not the lowest, reduce the rate."""
        assert schedule.patience is not None
        assert schedule.factor is not None
        if loss < self.best_loss:
            self.best_loss, self.looks_since_best = loss, 0
            return
        self.looks_since_best += 1
        if self.looks_since_best >= schedule.patience:
            self.reduction, self.looks_since_best = self.reduction * schedule.factor, 0

    def applied(self, rate: float, schedule: Schedule) -> float:
        """Return the reduced rate, not below `final_lr`, save where it lay below that before (in the warm-up)."""
        return max(rate * self.reduction, min(rate, schedule.final_lr))


def _cosine(highest: float, lowest: float, done: float) -> float:
    return lowest + (highest - lowest) * (1 + math.cos(math.pi * done)) / 2


def _place_in_period(step: int, period: int, growth: int) -> tuple[int, int]:
    """Return how many steps of the present period are done, and its length."""
    while step >= period:
        step, period = step - period, period * growth
    return step, period
