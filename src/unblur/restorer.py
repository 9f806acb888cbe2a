"""Blurred photographs in, restored ones out: in memory, as a file, as a folder.

    unblur.restore("photo.jpg").save("sharp.jpg")

A `Restorer` holds a network and restores one picture at a time. For files there are two steps, so that a mistake
shows before any time is spent: `outputs.plan_outputs` says what would be written where, `restore_files` does it.

A grey photo is shown to the network as three equal planes. Where a photo is fully transparent, the network sees the
colours around instead of those underneath, and the latter are kept. Colours are restored in the photo's own space.
"""

import contextlib
import inspect
import os
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from unblur import models, weights
from unblur.errors import OutputError, PhotoError, SettingsError
from unblur.images import (
    DEFAULT_MAX_PIXELS,
    PHOTO_SUFFIXES,
    Photo,
    as_photo,
    check_output,
    losses,
    read_photo,
    write_photo,
)
from unblur.inference import Precision, restore_image, tiles_for
from unblur.masks import Masks, find_masks
from unblur.models.local_pooling import with_local_pooling
from unblur.outputs import FailedFile, PlannedFile

NO_MASKS = (
    "restored without masks, as one region: this network knows more with them. Give a folder of masks, or sam:NAME for "
    "those of Segment Anything, with --masks."
)

Picture = str | Path | Photo | Image.Image | np.ndarray | Tensor


def restore(
    picture: Picture,
    model: str | Path | nn.Module = "default",
    *,
    device: str = "auto",
    tile_px: int | None = None,
    precision: Precision = "auto",
    masks: str | Path | Masks | None = None,
    local_pooling: bool = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Photo:
    """Return the restored photo; see `Restorer`, which is the better choice for more than one picture."""
    restorer = Restorer(
        model, device=device, tile_px=tile_px, precision=precision, masks=masks, local_pooling=local_pooling
    )
    return restorer.restore(picture, max_pixels=max_pixels)


@dataclass(frozen=True)
class RestoredFile:
    """A file that was written."""

    source: Path
    target: Path
    width: int
    height: int
    tiles: int
    """How often the network ran for it."""
    seconds: float
    losses: tuple[str, ...] = ()
    """What of the input the output does not have, or what it was restored without, in words; mostly nothing."""


class Restorer:
    """A network, ready to restore photographs."""

    def __init__(
        self,
        model: str | Path | nn.Module = "default",
        *,
        device: str = "auto",
        tile_px: int | None = None,
        precision: Precision = "auto",
        masks: str | Path | Masks | None = None,
        local_pooling: bool = False,
    ) -> None:
        """Take the name of shipped weights, a checkpoint, or a network in eval mode.

        Weights are loaded when first needed. `device` is "cpu", "cuda", "cuda:1", "mps", or "auto": the best there is;
        a given network then stays where it is. Smaller tiles (`tile_px`, the longest side) need less memory.
        `precision` is "fp32", "bf16", or "auto": bf16 where it is fast.

        `masks`, for a network that takes them, is a folder of mask files, "sam:" and the name or folder of Segment
        Anything, or a function of your own (unblur/masks.py). `local_pooling` pools over windows of 1.5 times the
        size of training crops instead of over the whole tile (models/local_pooling.py): how NAFNet's and SAM-Deblur's
        authors test, on whole pictures (a `tile_px` as large as the picture). Off by default: tiles of 512 pixels
        are nearly such windows already, and other weights were not made for it.
        """
        if isinstance(model, nn.Module) and model.training:
            raise ValueError("the network is in training mode: call its eval() first")
        if tile_px is not None and tile_px < 1:
            raise ValueError(f"tile_px must be at least 1, not {tile_px}")
        self._model = model
        self._device = None if isinstance(model, nn.Module) and device == "auto" else find_device(device)
        self._tile_px = tile_px
        self._precision: Precision = precision
        self._masks = find_masks(masks) if isinstance(masks, str | Path) else masks
        self._local_pooling = local_pooling

    @cached_property
    def network(self) -> nn.Module:
        """Return the network on its device.

        Raises `UnknownName` or `WeightsError`, and `SettingsError` where it takes no masks or has no pooling to change.
        """
        network = self._model if isinstance(self._model, nn.Module) else weights.load(self._model)
        if self._masks is not None and not _takes_masks(network):
            raise SettingsError(f"{_name(network)} takes no masks; restore without them, or with sam_deblur.")
        network = network if self._device is None else network.to(self._device)
        return pooling_locally(network) if self._local_pooling else network

    def restore(self, picture: Picture, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Photo:
        """Return the restored photo, with the alpha and the metadata of the old one.

        Takes a path, a Photo, a Pillow picture, an array (H, W, C) or a tensor (C, H, W), as `images.as_photo` does.
        Warns (`UserWarning`) where the network goes without the masks it takes.
        """
        photo = as_photo(picture, max_pixels=max_pixels)
        if self._misses_masks():
            warnings.warn(f"The picture is {NO_MASKS}", stacklevel=2)
        return self._restored(photo, "The picture", Path(picture) if isinstance(picture, str | Path) else None)

    def restore_file(
        self, source: str | Path, target: str | Path, *, overwrite: bool = False, max_pixels: int = DEFAULT_MAX_PIXELS
    ) -> RestoredFile:
        """Restore one file into another and return what was done. The input is never overwritten.

        Raises `PhotoError` if the input cannot be read, `OutputError` if the output cannot be written: where this can
        be foreseen, before the network runs.
        """
        started = time.perf_counter()
        source, target = Path(source), Path(target)
        if os.path.exists(source) and os.path.exists(target) and os.path.samefile(source, target):
            raise OutputError(f"{target} is the input itself, which is never overwritten; give another name with -o.")
        if target.suffix.lower() in PHOTO_SUFFIXES:  # else the input, named alike, is probably no picture: say that
            check_output(target, overwrite=overwrite)
        photo = read_photo(source, max_pixels=max_pixels)
        check_output(target, overwrite=overwrite, photo=photo)
        write_photo(self._restored(photo, str(source), source), target, overwrite=overwrite)
        tiles = len(tiles_for(self.network, photo.height, photo.width, self._tile_px))
        seconds = time.perf_counter() - started
        lacking = losses(photo, target) + ((NO_MASKS,) if self._misses_masks() else ())
        return RestoredFile(source, target, photo.width, photo.height, tiles, seconds, lacking)

    def _misses_masks(self) -> bool:
        return self._masks is None and _takes_masks(self.network)

    def _restored(self, photo: Photo, name: str, path: Path | None) -> Photo:
        """Return the restored photo; `name` is for messages, `path` for its masks."""
        with _short_of_memory(name):
            network, blurred = self.network, photo.visible_rgb()
            masks = None if self._masks is None else self._masks(blurred.to(_device_of(network)), path)
            rgb = restore_image(network, blurred, tile_px=self._tile_px, precision=self._precision, masks=masks)
            if not photo.is_opaque:
                assert photo.alpha is not None
                rgb = torch.where(photo.alpha > 0, rgb, photo.rgb)
            return photo.with_rgb(rgb)


def restore_files(
    plan: Iterable[PlannedFile],
    restorer: Restorer,
    *,
    overwrite: bool = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Iterator[RestoredFile | FailedFile]:
    """Restore the planned files and yield what became of each; one that fails does not stop the others.

    Raises `UnknownName` or `WeightsError` if there is no network to restore with. Interrupted, it leaves whole files.
    """
    _ = restorer.network  # fails here, once, and not for every file
    for file in plan:
        try:
            yield restorer.restore_file(file.source, file.target, overwrite=overwrite, max_pixels=max_pixels)
        except (PhotoError, OutputError) as error:
            yield FailedFile(file.source, error)


def find_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the GPU if there is one. Raises `SettingsError` if it is not there."""
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if has[kind])
    kind, _, index = name.partition(":")
    if kind not in has or (index and not index.isdigit()):
        raise SettingsError(f"There is no kind of device '{name}'. Known: auto, cpu, cuda, mps.")
    if not has[kind] or (index and kind == "cuda" and int(index) >= torch.cuda.device_count()):
        raise SettingsError(f"PyTorch finds no device '{name}' here; use --device auto or cpu.")
    return torch.device(name)


def pooling_locally(network: nn.Module) -> nn.Module:
    """Return the network as its authors test it, sharing its weights. Raises `SettingsError` where they do not so."""
    known = models.ARCHITECTURES.get(_name(network))
    if known is None or known.local_pooling_px is None:
        names = ", ".join(name for name, arch in models.ARCHITECTURES.items() if arch.local_pooling_px)
        raise SettingsError(f"Local pooling is for networks whose authors test so ({names}), not {_name(network)}.")
    return with_local_pooling(network, known.local_pooling_px)


def _takes_masks(network: nn.Module) -> bool:
    return "masks" in inspect.signature(network.forward).parameters


def _name(network: nn.Module) -> str:
    identity = models.identity(network)
    return type(network).__name__ if identity is None else identity[0]


def _device_of(network: nn.Module) -> torch.device:
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


@contextlib.contextmanager
def _short_of_memory(name: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise PhotoError(f"{name} needs more memory than there is; try smaller tiles, such as --tile 256.") from error
