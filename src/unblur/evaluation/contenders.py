"""Who competes: networks with their weights, and the classical answers under names of their own."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from unblur import weights
from unblur.blur.deconvolution import GRADIENT_WEIGHT, unsharp_mask, wiener
from unblur.blur.recipes import Recipe, kernel_of
from unblur.errors import SettingsError
from unblur.evaluation.samples import Sample
from unblur.inference import restore_image
from unblur.restorer import pooling_locally

Restore = Callable[[Tensor, Sample], Tensor]
"""Takes a blurred picture (3, H, W) in [0, 1] and what is known of it; returns the restored one alike."""


@dataclass(frozen=True)
class Contender:
    """A row of an evaluation: what it is called, how it restores, and which one exactly it is."""

    label: str
    restore: Restore
    fingerprint: str
    network: nn.Module | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where it computes."""
    tile_px: int | None = None
    """Longest side of its tiles where it is not the usual one."""


def _unsharp(recipe: Recipe | None) -> Restore:
    return lambda blurred, sample: unsharp_mask(blurred[None])[0]


def _wiener_true_kernel(recipe: Recipe | None) -> Restore:
    if recipe is None:
        raise SettingsError("wiener-true-kernel needs a recipe: of pairs the kernel is not known.")
    return lambda blurred, sample: wiener(blurred[None], kernel_of(recipe, sample.seed, sample.kind))[0]


@dataclass(frozen=True)
class _Classical:
    facts: str
    prepare: Callable[[Recipe | None], Restore]


CLASSICAL: Mapping[str, _Classical] = {
    "unsharp": _Classical("unsharp mask, sigma 1.5, amount 1", _unsharp),
    "wiener-true-kernel": _Classical(f"Wiener, true kernel, gradient weight {GRADIENT_WEIGHT:g}", _wiener_true_kernel),
}
"""Pseudo-models by name: a baseline that knows nothing, and one that knows what no network is told."""


def gather(
    models: Sequence[str | Path],
    recipe: Recipe | None,
    device: torch.device,
    *,
    tile_px: int | None = None,
    local_pooling: bool = False,
) -> list[Contender]:
    """Return the contenders, weights loaded.

    `tile_px` and `local_pooling` are those of `Restorer`, for all networks; their labels say so, because scores with
    and without are those of different rows. Raises what `weights.load` raises, and `SettingsError` for one that is
    given twice, needs what is not known, or has no pooling that could be local.
    """
    return [
        _classical(label, recipe) if label in CLASSICAL else _network(model, label, device, tile_px, local_pooling)
        for model, label in zip(models, _labels(models), strict=True)
    ]


def fingerprint_of(model: str | Path) -> str:
    """Return what identifies a contender: a hash of layers and weights, or a classical one's settings."""
    if str(model) in CLASSICAL:
        return CLASSICAL[str(model)].facts
    return hash_of_network(weights.load(model))


def hash_of_network(network: nn.Module) -> str:
    """Return a hash of layers and weights: another training under the same name is another network."""
    digest = hashlib.sha256(repr(network).encode())
    for key, tensor in network.state_dict().items():
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def folder_names(labels: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Return a folder name for each label; no two alike, none of those `taken`, whatever the case of letters."""
    names: list[str] = []
    for label in labels:
        name = re.sub(r"[^\w.-]+", "-", label).strip(".-") or "model"
        while name.lower() in {other.lower() for other in (*taken, *names)}:
            name += "-model"
        names.append(name)
    return names


def _classical(name: str, recipe: Recipe | None) -> Contender:
    return Contender(name, CLASSICAL[name].prepare(recipe), CLASSICAL[name].facts)


def _network(
    model: str | Path, label: str, device: torch.device, tile_px: int | None, local_pooling: bool
) -> Contender:
    network = weights.load(model)
    network = pooling_locally(network) if local_pooling else network
    way = [*(["local pooling"] if local_pooling else []), *([f"tiles of {tile_px} px"] if tile_px else [])]
    label = f"{label} ({', '.join(way)})" if way else label
    fingerprint = hash_of_network(network)
    network = network.to(device)

    def restore(blurred: Tensor, sample: Sample) -> Tensor:
        return restore_image(network, blurred, tile_px=tile_px)

    return Contender(label, restore, fingerprint, network, device, tile_px)


def _labels(models: Sequence[str | Path]) -> list[str]:
    """Return what the rows are called: a name as it is, a file by its last folder and name, or more of its path.

    Trainings all call their file best.safetensors, so that the name alone would say nothing.
    """
    if isinstance(models, str | Path) or not models:
        raise ValueError(f"models is {models!r}; give a list of one name or file at least.")
    named = {*weights.shipped(), *CLASSICAL}
    in_files = [model for model in models if str(model) not in named and Path(model).is_file()]
    files = {model: Path(model).resolve().with_suffix("") for model in in_files}
    longest = max((len(path.parts) for path in files.values()), default=2)
    for num_parts in range(2, longest + 1):
        labels = ["/".join(files[m].parts[-num_parts:]) if m in files else str(m) for m in models]
        if len(set(labels)) == len(labels):
            return labels
    raise SettingsError(f"A model is given twice: {', '.join(map(str, models))}.")
