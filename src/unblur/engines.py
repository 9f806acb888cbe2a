"""The same network for other engines than torch: export to ONNX.

A file holds the network for one picture, float32: input `blurred` (1, 3, H, W), RGB in [0, 1], output `restored` of the
same shape, not clamped. What pads a picture to the network's multiple is left out, as shapes that depend on it cannot
be exported: H and W must be such multiples. Which ones, and which network it is, stands in the file's metadata under
the key "unblur", as JSON. Inputs that are optional, such as masks, are left out too.
"""

import copy
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim
from torch.nn.attention import SDPBackend, sdpa_kernel

from unblur import models
from unblur.errors import MissingExtra, SettingsError
from unblur.files import written_whole
from unblur.models.arch import Arch

METADATA_KEY = "unblur"
ONE_SIZE_PX = 256
"""Side of the pictures that a network takes which can be exported for one size only, where no other is asked for."""


@dataclass(frozen=True)
class OnnxInput:
    """What pictures an exported network takes."""

    size: tuple[int, int] | None
    """(width, height) in pixels, or None for any that are multiples of `multiple`."""
    multiple: int
    padding: str
    """How the network itself would continue a picture up to the multiple: `Arch.padding`."""

    def __str__(self) -> str:
        if self.size is not None:
            return f"pictures of {self.size[0]}x{self.size[1]}"
        return f"pictures of any size in multiples of {self.multiple}" if self.multiple > 1 else "pictures of any size"


def export_onnx(
    model: nn.Module, path: Path, *, size: tuple[int, int] | None = None, overwrite: bool = True
) -> OnnxInput:
    """Write a network that `models.create` made, with its weights, as an ONNX file; return what pictures it takes.

    `size` (width, height) makes the file one for pictures of that size alone; without, it takes any, save that some
    networks can only be exported for one (`Arch.onnx`): 256×256 then, or the size that the network knows. Raises
    `MissingExtra`, `SettingsError` for a size that the network would pad, `OutputError` where `path` cannot be written.
    """
    identity = models.identity(model)
    if identity is None:
        raise ValueError("only a network that models.create made says what it is; others cannot be exported")
    taken = _input(model, models.find(identity[0]), size)
    about = {"architecture": identity[0], "options": identity[1], "input": asdict(taken)}
    with written_whole(path, overwrite=overwrite) as temporary:
        program = _exported(copy.deepcopy(model).cpu().float().eval(), taken)
        program.model.metadata_props[METADATA_KEY] = json.dumps(about)
        program.save(temporary)
    return taken


def _input(model: nn.Module, arch: Arch, size: tuple[int, int] | None) -> OnnxInput:
    multiple = int(getattr(model, "size_multiple", arch.size_multiple))
    known = getattr(model, "fixed_size", arch.fixed_size)
    if size is None and (known is not None or arch.onnx == "one size"):
        side = -(-ONE_SIZE_PX // multiple) * multiple
        size = known or (side, side)
    if size is not None and known not in (None, size):
        raise SettingsError(f"{arch.name} knows pictures of {known[0]}x{known[1]} only, not {size[0]}x{size[1]}.")
    if size is not None and (size[0] % multiple or size[1] % multiple):
        raise SettingsError(f"{arch.name} takes sizes in multiples of {multiple}, not {size[0]}x{size[1]}.")
    if size is not None and arch.padding == "square" and size[0] != size[1]:
        raise SettingsError(f"{arch.name} takes square pictures only, not {size[0]}x{size[1]}.")
    return OnnxInput(size, multiple, arch.padding)


def _exported(model: nn.Module, taken: OnnxInput) -> Any:
    """Return the network as an ONNX program of torch."""
    try:
        import onnxscript  # noqa: F401 (torch does the rest, and imports it where it is hard to tell why)
    except ImportError:
        raise MissingExtra("ONNX export", "engines") from None
    # Sizes that differ from each other and are not small: torch takes a 1, and equal ones, for rules.
    width, height = taken.size or (3 * taken.multiple + taken.multiple * (16 // taken.multiple),) * 2
    shapes: Any = None
    if taken.size is None:
        height += taken.multiple
        sides = {2: taken.multiple * Dim("rows", max=4096), 3: taken.multiple * Dim("columns", max=4096)}
        shapes = {"blurred": sides}
    with _quiet(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # other kernels leave strides that do not export
        return torch.onnx.export(
            model,
            (torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)),),
            dynamic_shapes=shapes,
            input_names=["blurred"],
            output_names=["restored"],
            dynamo=True,
            external_data=False,
            verbose=False,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's remarks on its own exporter from the user, such as that there is no torchvision."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
