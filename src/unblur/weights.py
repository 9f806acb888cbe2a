"""Named weights, and checkpoint files: ours, and authors'.

A checkpoint of ours is a `.safetensors` file: tensors, and in its metadata under the key "unblur" the architecture's
name and options, the experiment, version and commit. It opens without guessing and without unpickling. Any other file
goes to `published.py`, which finds out what it is.

Weights with names are listed in `weights.yaml`. Shipped ones come with the package, in `pretrained/`, as fp16. Known
ones are their authors': you get the file and put it into the folder of local weights, `home()`; nothing is downloaded
here. Its SHA-256 is kept beside it from the first use on, so that a name keeps meaning the same weights.
"""

import contextlib
import hashlib
import json
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from unblur import models, published
from unblur.errors import OutputError, UnknownName, WeightsError
from unblur.files import written_whole
from unblur.models.layers import channels_last
from unblur.settings import Settings, read_yaml, validated

LIST = Path(__file__).with_name("weights.yaml")
PRETRAINED = Path(__file__).with_name("pretrained")
METADATA_KEY = "unblur"


class ShippedWeights(Settings):
    """Weights that come with the package: one entry of `weights.yaml`."""

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


class ReportedScore(Settings):
    """What authors say that their weights reach on a data set; never measured here."""

    data: str
    psnr: str = Field(pattern=r"^\d+\.\d+$")
    """In dB; like SSIM with the digits that were said."""
    ssim: str | None = Field(default=None, pattern=r"^0\.\d+$")
    said_in: Literal["authors' README", "paper", "others' table"]

    def __str__(self) -> str:
        ssim = f", SSIM {self.ssim}" if self.ssim else ""
        checked = ", not looked up again" if self.said_in == "paper" else ""
        return f"psnr {self.psnr} dB{ssim} ({self.said_in}{checked})"


class KnownWeights(Settings):
    """Weights that their authors published, and that do not come with the package: one entry of `weights.yaml`."""

    name: str
    repository: str
    network: str
    configurations: tuple[str, ...]
    """Published configurations of the network, one of which the file is of."""
    file: str
    """The file's name in the folder of local weights: the authors' where they have one that torch can open."""
    lies_at: str
    convert: str | None = None
    """What to make of the authors' file first; None where it opens as it is."""
    licence: str
    """In a word; NON-COMMERCIAL where no other use is allowed."""
    licence_note: str
    trained_on: str | None = None
    note: str | None = None
    protocol: str | None = None
    reported: tuple[ReportedScore, ...] = ()

    @property
    def path(self) -> Path:
        """Where the file lies, once you have put it there."""
        return home() / self.file

    @property
    def full_licence(self) -> str:
        """The licence with what is to be said of it, and whose it is."""
        return f"{self.licence}, {self.licence_note} ({self.repository})"


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
    return {
        name: validated(ShippedWeights, {"name": name, **entry}, f"{LIST.name}: {name}")
        for name, entry in _listed()["shipped"].items()
    }


@cache
def known() -> dict[str, KnownWeights]:
    """Return the authors' weights that have a name here, by name; their files need not be there."""
    return {
        name: validated(KnownWeights, {"name": name, **common, **entry}, f"{LIST.name}: {name}")
        for release in _listed()["published"]
        for common in [{key: value for key, value in release.items() if key != "weights"}]
        for name, entry in release["weights"].items()
    }


def home() -> Path:
    """Return the folder of local weights, UNBLUR_HOME or else one in the user's cache folder; it need not exist."""
    chosen = os.environ.get("UNBLUR_HOME")
    cache_folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(chosen or cache_folder / "unblur").expanduser()


def load(name_or_file: str | Path) -> nn.Module:
    """Return the network with its weights: float32, channels-last, on the CPU, in eval mode, without gradients.

    Takes a name of shipped or known weights, a checkpoint file of ours or an author's (`published.py`). Raises
    `UnknownName` with the nearest name, `WeightsError` where the file is missing (for known weights with where to get
    it), damaged, changed, of no known network or of another than it should be, or does not fit.
    """
    return open_weights(name_or_file)[0]


def open_weights(name_or_file: str | Path) -> tuple[nn.Module, Checkpoint]:
    """Return the network as `load` does, and what its weights say of themselves, from reading the file once."""
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
    return channels_last(model).eval().requires_grad_(False), checkpoint


def describe(name_or_file: str | Path) -> Checkpoint:
    """Return what a checkpoint says of itself, reading only its head; a file of others is read as a whole."""
    path = find(name_or_file)
    about = None if str(name_or_file) in known() else _own_description(path)
    if about is None:
        return _of_others(name_or_file)[0]
    try:
        facts = json.loads(about)
        return Checkpoint(path, facts.pop("architecture"), facts.pop("options"), facts)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightsError(f"{path} is damaged: what it says of its network cannot be read.") from None


def find(name_or_file: str | Path) -> Path:
    """Return the file of shipped or known weights, or of a path. It is there, or `WeightsError` says what to do."""
    name = str(name_or_file)
    if name in shipped():
        return _present(shipped()[name].path)
    if name in known():
        if not known()[name].path.is_file():
            raise WeightsError(f"The weights {name} are not here yet. {_how_to_get(known()[name])}")
        return known()[name].path
    path = Path(name_or_file)
    if path.is_file():
        return path
    if path.is_dir() and name not in models.ARCHITECTURES:
        raise WeightsError(f"{path} is a folder. Give the file of weights in it.")
    if path.suffix or "/" in name or "\\" in name:
        raise WeightsError(f"{path} does not exist.")
    if name in models.ARCHITECTURES:
        of_it = [entry.name for entry in known().values() if entry.network == name]
        theirs = f"; its authors' are known as {', '.join(of_it)}" if of_it else ""
        raise WeightsError(
            f"'{name}' is a network without weights{theirs}. "
            f"Weights that come with unblur: {', '.join(sorted(shipped()))}; or give a file of weights."
        )
    raise UnknownName(
        "model", name, {*shipped(), *known(), *models.ARCHITECTURES}, "`unblur models` lists all of them."
    )


def local_tensors(file: str | Path, what: str, *, otherwise: str) -> dict[str, Tensor]:
    """Return the tensors of a file that is no network of ours: one in the folder of local weights, or any by its path.

    Where it is missing, `WeightsError` says where it should be, `what` it is, and what to do `otherwise`; it is raised
    for a damaged file too, and for one that holds anything but tensors by name.
    """
    path = home() / file
    if not path.is_file():
        raise WeightsError(
            f"{path} is missing: {what}. unblur downloads nothing; put the file there, or set UNBLUR_HOME to the "
            f"folder that holds {file}; or {otherwise}."
        )
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from None
    if not (isinstance(tensors, dict) and all(isinstance(value, Tensor) for value in tensors.values())):
        raise WeightsError(f"{path} holds no table of tensors: {what}.")
    return tensors


def licence_of_others(network: str, configurations: Sequence[str] = ()) -> str | None:
    """Return under which licence authors give away their weights of a network; None where nothing is known of it.

    Several where weights of the same configurations were published under several.
    """
    of_network = [entry for entry in known().values() if entry.network == network]
    alike = [entry for entry in of_network if {*configurations} & {*entry.configurations}]
    return " or ".join(dict.fromkeys(entry.full_licence for entry in alike or of_network)) or None


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
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(entry: ShippedWeights) -> None:
    """Raise `WeightsError` where a shipped file is missing or is not the one that was listed."""
    if sha256(_present(entry.path)) != entry.sha256:
        raise WeightsError(f"{entry.path} is damaged (its SHA-256 is not the listed one). Install the package again.")


def num_parameters(model: nn.Module) -> int:
    """Return the number of trainable and fixed parameters, buffers not counted."""
    return sum(parameter.numel() for parameter in model.parameters())


# -- opening -----------------------------------------------------------------------------------------------------------


def _opened(name_or_file: str | Path) -> tuple[Checkpoint, Mapping[str, Tensor]]:
    """Return what a checkpoint is, and its tensors by the network's keys."""
    if str(name_or_file) in shipped():
        verify(shipped()[str(name_or_file)])
    path = find(name_or_file)
    if str(name_or_file) in known() or _own_description(path) is None:
        return _of_others(name_or_file)
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


def _of_others(name_or_file: str | Path) -> tuple[Checkpoint, Mapping[str, Tensor]]:
    """Return what a file of others turned out to be, checked against what is known of it, and its tensors."""
    entry = known().get(str(name_or_file))
    if entry is not None:
        return _of_known(entry)
    found = published.recognise(find(name_or_file))
    licence = licence_of_others(found.architecture, found.configurations)
    return Checkpoint(found.path, found.architecture, found.options, _origin(found, licence)), found.state


def _of_known(entry: KnownWeights) -> tuple[Checkpoint, Mapping[str, Tensor]]:
    """Return what the file of known weights holds; its SHA-256 is recorded once it has proved to be what it should."""
    path = find(entry.name)
    digest, recorded = sha256(path), _recorded_sha256(path)
    if recorded is not None and recorded != digest:
        record = _record(path).name
        raise WeightsError(
            f"{path} has changed since it was first used: its SHA-256 is {digest}, not {recorded}, which {record} has. "
            f"Get the file again or, if you changed it on purpose, delete {record}."
        )
    try:
        found = published.recognise(path)
    except WeightsError as error:
        raise WeightsError(f"{str(error).rstrip('.')}. {_how_to_get(entry)}") from None
    alike = [name for name in entry.configurations if name in found.configurations]
    if found.architecture != entry.network or not alike:
        holds = f"{found.architecture} ({' or '.join(found.configurations) or 'with options of its own'})"
        wanted = f"{entry.network} ({' or '.join(entry.configurations)})"
        raise WeightsError(f"{path} is of {holds} and not of {wanted}. {_how_to_get(entry)}")
    if recorded is None:
        _write_record(path, digest)
    options = {**found.options, **models.find(entry.network).published[alike[0]]}  # some leave no trace in a file
    return Checkpoint(
        path, found.architecture, options, _origin(found, entry.full_licence, name=entry.name)
    ), found.state


def _origin(found: published.PublishedWeights, licence: str | None, **more: str) -> dict[str, Any]:
    """Return what is worth keeping in a checkpoint of ours that weights of others go into, as plain data."""
    about = {"file": found.path.name, "configurations": [*found.configurations], "weights_licence": licence}
    return {"origin": {**more, **about}}


def _record(path: Path) -> Path:
    """Return where the SHA-256 of a file was recorded, in the form of `sha256sum`."""
    return path.with_name(f"{path.name}.sha256")


def _recorded_sha256(path: Path) -> str | None:
    try:
        return _record(path).read_text(encoding="utf-8", errors="replace").partition(" ")[0]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WeightsError(f"{_record(path)} cannot be read: {error.strerror}. Delete it.") from None


def _write_record(path: Path, digest: str) -> None:
    """Record a SHA-256, save in a folder for reading only, as several computers may share."""
    with contextlib.suppress(OutputError), written_whole(_record(path)) as temporary:
        temporary.write_text(f"{digest}  {path.name}\n", encoding="utf-8", newline="\n")


def _how_to_get(entry: KnownWeights) -> str:
    convert = f" ({entry.convert})" if entry.convert else ""
    return (
        f"Get {entry.file} from {entry.lies_at}{convert} and put it into {home()} under that name (UNBLUR_HOME chooses "
        f"another folder). Licence: {entry.full_licence}."
    )


def _present(path: Path) -> Path:
    """Return the path of a shipped file, which must be there."""
    if not path.is_file():
        raise WeightsError(f"{path} is missing: the package is not installed completely. Install it again.")
    return path


@cache
def _listed() -> Any:
    return read_yaml(LIST)
