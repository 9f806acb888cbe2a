"""Training on pairs of blurred and sharp: one network, one weighted sum of losses, one optimiser.

What the losses compare is the network's `training_outputs` where it has them (the scales of SRN, the stages of MPRNet,
mean and log variance of the VAE beside its picture), otherwise the restored picture. With a `teacher` the network also
learns to give what another one gives.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from unblur import losses, weights
from unblur.errors import TrainingError
from unblur.experiment import Experiment
from unblur.losses.pixel import psnr
from unblur.training.batches import Batch
from unblur.training.networks import Outputs, Trained, final, moving_average, new_network
from unblur.training.optimizers import Mover
from unblur.training.processes import mean_over_processes, share_of, whole
from unblur.training.schedules import Plateau, learning_rate
from unblur.training.way import StepReport, first_bad


class Supervised:
    """One network that learns from pairs; see `training.way.Way`."""

    def __init__(self, experiment: Experiment, total_steps: int, fabric: Fabric) -> None:
        self.experiment, self.total_steps, self.fabric = experiment, total_steps, fabric
        self.network = new_network(experiment).to(fabric.device)
        self.average = moving_average(self.network, experiment.ema)
        shared = experiment.strategy == "fsdp" and fabric.world_size > 1
        self.whole_network = copy.deepcopy(self.network) if shared else None
        trained = Trained(self.network, experiment.precision)
        if experiment.compile:
            trained.compile()
        self.trained = fabric.setup_module(trained)
        self.mover = Mover(self.network, self.trained, experiment.optimizer, experiment, fabric)
        self.plateau = Plateau()
        self.loss = losses.build(experiment.loss, vgg=experiment.vgg, stages=experiment.stages).to(fabric.device)
        if self.loss.adversarial:
            raise TrainingError(f"{', '.join(self.loss.adversarial)} needs a critic, and none is trained here.")
        self.teacher = _Teacher(experiment, fabric.device) if experiment.teacher else None

    def kept(self) -> nn.Module:
        """Return the moving average where there is one, otherwise the network itself, put together from its shares."""
        if self.whole_network is not None:
            self.whole_network.load_state_dict(whole(self.network.state_dict()))
            return self.whole_network
        return self.average.module if self.average is not None else self.network

    def step(self, batches: Sequence[Batch], step: int) -> StepReport:
        """Take the step with the mean gradient of the batches."""
        self.mover.begin()
        sums: dict[str, Tensor] = {}
        for batch in batches:
            outputs = self.trained(batch["blurred"])
            total, parts = self._compared(outputs, batch)
            self.mover.backward(total / len(batches), last=batch is batches[-1])
            with torch.no_grad():
                parts = {"loss": total, **parts, "psnr": _psnr(final(outputs), batch["sharp"])}
            for name, part in parts.items():
                sums[name] = sums.get(name, 0) + part.detach() / len(batches)
        values = mean_over_processes(sums, self.fabric)
        rate = learning_rate(step, self.total_steps, self.experiment.schedule, self.experiment.optimizer)
        rate = self.plateau.applied(rate, self.experiment.schedule)
        problem = first_bad(values) or self.mover.move(rate)
        if problem:
            self.mover.undo()
        elif self.average is not None:
            self.average.update_parameters(self.network)
        return StepReport({**values, "learning_rate": rate, "gradient_norm": self.mover.norm}, problem)

    def looked(self, loss: float) -> None:
        """Reduce the learning rate where the schedule goes by the validation loss."""
        if self.experiment.schedule.name == "plateau":
            self.plateau.look(loss, self.experiment.schedule)

    def state(self) -> dict[str, Any]:
        """Return weights, their average, the optimiser's state and the plateau's."""
        return {
            "network": whole(self.network.state_dict()),
            "average": self.average.state_dict() if self.average is not None else None,
            "plateau": asdict(self.plateau),
            **self.mover.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned; a moving average that is new begins with the present weights."""
        present = self.network.state_dict()
        given = {key: share_of(value, present.get(key, value)) for key, value in state["network"].items()}
        self.network.load_state_dict(given)
        if self.average is not None:
            if state["average"] is not None:
                self.average.load_state_dict(state["average"])
            else:
                self.average.module.load_state_dict(state["network"])
        self.plateau = Plateau(**state.get("plateau", {}))
        self.mover.load_state(state)

    def _compared(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total loss and its unweighted parts."""
        total, parts = self.loss(outputs, batch["sharp"], batch["blurred"], clip=batch.get("clip"))
        if self.teacher is not None:
            part = self.teacher.loss_of(final(outputs), batch["blurred"])
            total, parts = total + self.teacher.settings.weight * part, {**parts, "teacher": part}
        return total, parts


class _Teacher:
    """A trained network, and how the student's picture is compared with its picture."""

    def __init__(self, experiment: Experiment, device: torch.device) -> None:
        assert experiment.teacher is not None
        self.settings = experiment.teacher
        self.network = Trained(weights.load(self.settings.weights), experiment.precision).to(device)
        self.loss = losses.build({self.settings.loss: 1.0}, vgg=experiment.vgg).to(device)

    def loss_of(self, restored: Tensor, blurred: Tensor) -> Tensor:
        with torch.no_grad():
            shown = final(self.network(blurred))
        total: Tensor = self.loss.final(restored, shown, blurred)[0]
        return total


def _psnr(restored: Tensor, sharp: Tensor) -> Tensor:
    return -psnr(restored.clamp(0, 1), sharp)
