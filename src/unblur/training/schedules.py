"""Learning rates as functions of the step alone, so that a resumed training needs no state for them."""

import math

from unblur.experiment import Optimizer, Schedule


def learning_rate(step: int, total_steps: int, schedule: Schedule, optimizer: Optimizer) -> float:
    """Return the learning rate of step 0, 1, ... of `total_steps`."""
    if step < schedule.warmup_steps:
        return optimizer.lr * (step + 1) / schedule.warmup_steps
    if schedule.name == "constant":
        return optimizer.lr
    done = (step - schedule.warmup_steps) / max(1, total_steps - schedule.warmup_steps)
    return schedule.final_lr + (optimizer.lr - schedule.final_lr) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def total_steps(schedule: Schedule, num_pictures: int, batch_size: int) -> int:
    """Return how many steps the training has; an epoch is as many batches as the pictures fill."""
    if schedule.steps is not None:
        return schedule.steps
    assert schedule.epochs is not None
    return schedule.epochs * math.ceil(num_pictures / batch_size)
