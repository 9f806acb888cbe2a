"""How the weights of one network move: gradients gathered, looked at, clipped, then one step of an optimiser.

    mover = Mover(network, fabric.setup_module(network), settings.optimizer, settings, fabric)
    mover.begin()
    for batch in batches:
        mover.backward(loss_of(batch) / len(batches), last=batch is batches[-1])
    problem = mover.move(rate)              # None, or what was not finite: then no weight has moved
    if problem:
        mover.undo()                        # nor have the gathered statistics

A way of training has one of these for each network that learns.
"""

import math
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.wrappers import _FabricModule
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from unblur.experiment import Experiment, Optimizer
from unblur.training.processes import share_of, whole


def build(parameters: list[nn.Parameter], settings: Optimizer, *, fused: bool = True) -> torch.optim.Optimizer:
    """Return the optimiser by its name; `fused` ones do a step in a single kernel, which is faster everywhere."""
    if settings.name == "sgd":
        return torch.optim.SGD(
            parameters, settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay, fused=fused
        )
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind(parameters, settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, fused=fused)


class Mover:
    """The optimiser of a network with all that belongs to its step: clipping, scaled losses for fp16, several
    processes, and gradients that are not finite.
    """

    def __init__(
        self, network: nn.Module, set_up: _FabricModule, optimizer: Optimizer, experiment: Experiment, fabric: Fabric
    ) -> None:
        """`set_up` is what `fabric.setup_module` made of the network; parameters with `requires_grad` learn."""
        self.network, self.set_up, self.experiment, self.fabric = network, set_up, experiment, fabric
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        half = experiment.precision == "fp16"
        shared = any(isinstance(parameter, DTensor) for parameter in self.parameters)
        # A fused optimiser hides unscaled gradients, and torch has none of SGD for shared weights.
        self.optimizer = build(self.parameters, optimizer, fused=not half and not (shared and optimizer.name == "sgd"))
        self.scaler = torch.amp.GradScaler("cuda", enabled=half)
        self.norm = 0.0
        """Length of the last gradient before it was clipped."""
        self._statistics: list[Tensor] = []

    def begin(self) -> None:
        """Begin a step: no gradients yet, and the gathered statistics (batch normalisation) as they are now."""
        self.optimizer.zero_grad(set_to_none=True)
        self._statistics = [buffer.clone() for buffer in self.network.buffers()]

    def undo(self) -> None:
        """Leave no trace of a step that was begun: neither gradients nor statistics."""
        self.optimizer.zero_grad(set_to_none=True)
        for buffer, before in zip(self.network.buffers(), self._statistics, strict=True):
            buffer.copy_(before)

    def backward(self, loss: Tensor, *, last: bool = True) -> None:
        """Add the gradients of a loss; those of the `last` batch of a step are averaged over the processes."""
        with self.fabric.no_backward_sync(self.set_up, enabled=not last):
            self.fabric.backward(self.scaler.scale(loss))

    def move(self, rate: float) -> str | None:
        """Take the step with that learning rate.

        Returns None, or where a gradient is not finite its name: then nothing moves. All processes answer alike.
        """
        self.scaler.unscale_(self.optimizer)
        norm = self._norm()
        self.norm = float(whole(norm))
        problem = None if math.isfinite(self.norm) else self._first_bad_gradient()
        if problem is None:
            self._clip(norm)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.scaler.step(self.optimizer)
        self.scaler.update()  # scales less after a gradient that was too large for fp16
        return problem

    def state(self) -> dict[str, Any]:
        """Return what resuming needs besides the weights."""
        return {"optimizer": whole(self.optimizer.state_dict()), "scaler": self.scaler.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        moments = {
            index: {key: share_of(value, self.parameters[index]) for key, value in of_one.items()}
            for index, of_one in state["optimizer"]["state"].items()
        }
        self.optimizer.load_state_dict({**state["optimizer"], "state": moments})
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])

    def _norm(self) -> Tensor:
        """Return the length of all gradients together."""
        return nn.utils.get_total_norm([parameter.grad for parameter in self.parameters if parameter.grad is not None])

    def _clip(self, norm: Tensor) -> None:
        if self.experiment.clip_grad_value is not None:
            nn.utils.clip_grad_value_(self.parameters, self.experiment.clip_grad_value)
            norm = self._norm()
        if self.experiment.clip_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.experiment.clip_grad_norm, norm)

    def _first_bad_gradient(self) -> str:
        for name, parameter in self.network.named_parameters():
            if parameter.grad is not None and not torch.isfinite(whole(parameter.grad)).all():
                return f"the gradient of {name}"
        return "the length of the gradient"
