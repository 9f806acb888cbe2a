"""Losses by name, and the weighted sum that an experiment file names: `loss: {charbonnier: 1.0}`."""

from collections.abc import Callable, Mapping

from torch import Tensor

from unblur.errors import UnknownName
from unblur.losses.pixel import charbonnier, l1, mse, psnr

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "charbonnier": charbonnier,
    "l1": l1,
    "mse": mse,
    "psnr": psnr,
}


def weighted_sum(weights: Mapping[str, float], restored: Tensor, sharp: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the total loss and its parts by name (unweighted), so that each can be logged."""
    parts = {name: LOSSES[name](restored, sharp) for name in check_names(weights)}
    return sum((weights[name] * part for name, part in parts.items()), start=restored.new_zeros(())), parts


def check_names(weights: Mapping[str, float]) -> list[str]:
    """Return the names of the losses; `UnknownName` gives the nearest one."""
    for name in weights:
        if name not in LOSSES:
            raise UnknownName("loss", name, LOSSES)
    return list(weights)
