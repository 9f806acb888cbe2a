"""Networks as they are trained: made as the experiment says, run in its precision, giving what the losses compare."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from unblur import models, weights
from unblur.errors import TrainingError
from unblur.experiment import Experiment
from unblur.inference import Precision, autocast
from unblur.models.layers import channels_last

Outputs = Tensor | dict[str, Tensor]
"""Restored pictures (B, 3, H, W), or a network's `training_outputs`."""

TrainingPrecision = Precision | Literal["fp16"]

LATENT = ("mean", "log_variance")
"""Those of the training outputs that are no pictures."""


def new_network(experiment: Experiment) -> nn.Module:
    """Return the experiment's network, with the weights that it starts from: of the same one, or of a part of it."""
    model = experiment.model
    network = models.create(model.name, **model.options)
    if experiment.start_from:
        start = weights.load(experiment.start_from)
        if not _is_part(start, network):
            raise TrainingError(
                f"{experiment.start_from} is another network than the experiment's: {models.identity(start)}"
            )
        network.load_state_dict(network.state_dict() | start.state_dict())
    return channels_last(network)


def moving_average(network: nn.Module, decay: float | None) -> AveragedModel | None:
    """Return a moving average of the network's weights and statistics, where a decay says so."""
    if decay is None:
        return None
    averaging = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=averaging, use_buffers=True)


def final(outputs: Outputs) -> Tensor:
    """Return the final picture of what a network gave."""
    if isinstance(outputs, Tensor):
        return outputs
    return [output for name, output in outputs.items() if name not in LATENT][-1]


def _is_part(start: nn.Module, network: nn.Module) -> bool:
    """Return whether one network is the other, or what the other one grows from (`Arch.grows`)."""
    part, whole = models.identity(start), models.identity(network)
    if part is None or whole is None or part[0] != whole[0]:
        return False
    option = models.ARCHITECTURES[whole[0]].grows
    if option is not None and part[1][option] < whole[1][option]:
        return part[1] | {option: None} == whole[1] | {option: None}
    return part[1] == whole[1]


class Trained(nn.Module):
    """A network whose `forward` gives what the losses compare, in float32, computed in the experiment's precision.

    The pictures that go in stay float32: a residual network adds them to what it computes, and in bf16 they have eight
    bits.
    """

    def __init__(self, network: nn.Module, precision: TrainingPrecision) -> None:
        super().__init__()
        self.network, self.precision = network, precision

    def forward(self, blurred: Tensor) -> Outputs:
        """Return the training outputs of the network, or the restored pictures where it has no others."""
        run = getattr(self.network, "training_outputs", self.network)
        with computing_in(self.precision, blurred.device):
            outputs: Outputs = run(blurred.contiguous(memory_format=torch.channels_last))
        if isinstance(outputs, Mapping):
            return {name: output.float() for name, output in outputs.items()}
        return outputs.float()


def computing_in(precision: TrainingPrecision, device: torch.device) -> torch.autocast:
    """Return the context in which networks are trained."""
    if precision == "fp16":
        return torch.autocast(device.type, torch.float16)
    return autocast(device, precision)
