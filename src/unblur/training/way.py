"""What a way of training is to `training.run`, which does everything that all of them share.

`run` brings batches, tells the step, validates, saves, stops and resumes. A way has the networks that learn and knows
one thing: what a step is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unblur.losses import LossSum
from unblur.training.batches import Batch


@dataclass(frozen=True)
class StepReport:
    """What came of a step; numbers on the device, so that nothing waits for those that are not logged."""

    values: Mapping[str, float | Tensor]
    """By the names under which they are logged: `loss`, its parts, `learning_rate`, `psnr`, ..."""
    problem: str | None = None
    """What was not finite; then no weight has moved."""


class Way(Protocol):
    """A way of training: the networks that learn, and their step."""

    loss: LossSum
    """What restored pictures are validated by."""

    def kept(self) -> nn.Module:
        """Return the network that is validated and kept in checkpoints; every process calls it."""

    def step(self, batches: Sequence[Batch], step: int) -> StepReport:
        """Take step number `step`, with the gradients of all batches together, or leave everything as it was."""

    def looked(self, loss: float) -> None:
        """Take note of a validation loss."""

    def state(self) -> dict[str, Any]:
        """Return all that resuming needs; every process calls it, the first one writes it."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""


def first_bad(values: Mapping[str, Tensor], total: str = "loss") -> str | None:
    """Return the first part of a loss that is not finite, where its total is not."""
    if torch.isfinite(values[total]):
        return None
    return next((n for n, value in values.items() if n not in (total, "psnr") and not torch.isfinite(value)), total)
