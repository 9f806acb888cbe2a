"""Named weights, and checkpoint files: ours, and authors'.

A checkpoint of ours is a `.safetensors` file: tensors, and in its metadata under the key "unblur" the architecture's
name and options, the experiment, version and commit. It opens without guessing and without unpickling. Any other file
goes to `published.py`, which finds out what it is. The weights that come with the package are listed in `weights.yaml`;
they lie in `pretrained/` as fp16.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from unblur import models, published
from unblur.errors import UnknownName, WeightsError
from unblur.files import written_whole
from unblur.settings import Settings, read_yaml, validated

PRETRAINED = Path(__file__).with_name("pretrained")
METADATA_KEY = "unblur"


class ShippedWeights(Settings):
    """One entry of `weights.yaml`."""

    name: str
    file: str
    sha256: str
    about: str
    licence: str
    trained_on: str
    experiment: str
    measured: dict[str, str] = Field(default_factory=dict)
    """Scores by data set, as text with their protocol."""

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return PRETRAINED / self.file


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of itself: all of its metadata, without the tensors."""

    path: Path
    architecture: str
    options: Mapping[str, Any]
    facts: Mapping[str, Any]
    """Everything else: experiment, step, version, commit, scores of the validation; of weights of others, "origin"."""


@cache
def shipped() -> dict[str, ShippedWeights]:
    """Return the weights that come with the package, by name."""
    source = Path(__file__).with_name("weights.yaml")
    table = read_yaml(source)
    return {
        name: validated(ShippedWeights, {"name": name, **entry}, f"{source.name}: {name}")
        for name, entry in table.items()
    }


def load(name_or_file: str | Path) -> nn.Module:
    """Return the network with its weights: float32, on the CPU, in eval mode, without gradients.

    Takes the name of shipped weights, a checkpoint file of ours or an author's (`published.py`). Raises `UnknownName`
    with the nearest name, `WeightsError` where the file is missing, damaged, of no known network, or does not fit.
    """
    if str(name_or_file) in shipped():
        verify(shipped()[str(name_or_file)])
    checkpoint, tensors = _opened(name_or_file)
    try:
        model = models.create(checkpoint.architecture, **checkpoint.options)
    except (UnknownName, ValueError, TypeError, RuntimeError) as error:
        raise WeightsError(f"{checkpoint.path} is of a network that cannot be built here: {error}") from None
    try:
        model.load_state_dict(tensors, strict=True)  # copies into float32 parameters
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{checkpoint.path} does not fit {checkpoint.architecture}: {reason[:300]}") from None
    return model.eval().requires_grad_(False)


def describe(name_or_file: str | Path) -> Checkpoint:
    """Return what a checkpoint says of itself, reading only its head; a file of others is read as a whole."""
    path = find(name_or_file)
    _check_present(path)
    about = _own_description(path)
    if about is None:
        return _of_others(published.recognise(path))
    try:
        facts = json.loads(about)
        return Checkpoint(path, facts.pop("architecture"), facts.pop("options"), facts)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightsError(f"{path} is damaged: what it says of its network cannot be read.") from None


def find(name_or_file: str | Path) -> Path:
    """Return the file of shipped weights or of a path."""
    name = str(name_or_file)
    if name in shipped():
        return shipped()[name].path
    path = Path(name_or_file)
    if path.is_file():
        return path
    if path.suffix or "/" in name or "\\" in name:
        raise WeightsError(f"{path} does not exist.")
    if name in models.ARCHITECTURES:
        raise WeightsError(f"'{name}' is a network without weights. {_list_of_weights()}")
    raise UnknownName("model", name, {*shipped(), *models.ARCHITECTURES}, _list_of_weights())


def save(model: nn.Module, path: Path, facts: Mapping[str, Any], *, half: bool = False, overwrite: bool = True) -> None:
    """Write a checkpoint, whole or not at all. `half` stores floating-point tensors as fp16, half the size."""
    tensors = {}
    for key, value in model.state_dict().items():
        kept = value.half() if half and value.is_floating_point() else value
        tensors[key] = kept.detach().cpu().clone(memory_format=torch.contiguous_format)  # shared weights: once a key
    identity = models.identity(model)
    if identity is None:
        raise ValueError("only a network that models.create made says what it is; others cannot be saved")
    about = {"architecture": identity[0], "options": identity[1], "version": version("unblur"), **facts}
    with written_whole(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(safetensors_bytes(tensors, {METADATA_KEY: json.dumps(about)}))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def verify(entry: ShippedWeights) -> None:
    """Raise `WeightsError` where a shipped file is missing or is not the one that was listed."""
    _check_present(entry.path)
    if sha256(entry.path) != entry.sha256:
        raise WeightsError(f"{entry.path} is damaged (its SHA-256 is not the listed one). Install the package again.")


def _opened(name_or_file: str | Path) -> tuple[Checkpoint, Mapping[str, Tensor]]:
    """Return what a checkpoint is, and its tensors by the network's keys."""
    path = find(name_or_file)
    _check_present(path)
    if _own_description(path) is None:
        found = published.recognise(path)
        return _of_others(found), found.state
    with safe_open(path, framework="pt") as file:
        return describe(path), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)


def _own_description(path: Path) -> str | None:
    """Return what a checkpoint of ours says of itself, as JSON; None for a file of others."""
    if not published.is_safetensors(path):
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get(METADATA_KEY)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable .safetensors file: {error}") from None


def _of_others(found: published.PublishedWeights) -> Checkpoint:
    return Checkpoint(found.path, found.architecture, found.options, found.facts)


def _check_present(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"{path} is missing: the package is not installed completely. Install it again.")


def num_parameters(model: nn.Module) -> int:
    """Return the number of trainable and fixed parameters, buffers not counted."""
    return sum(parameter.numel() for parameter in model.parameters())


def _list_of_weights() -> str:
    return f"Weights that come with unblur: {', '.join(sorted(shipped()))}; or give a file of weights."
