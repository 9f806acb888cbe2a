"""What is evaluated: the pictures of a folder or data set, each at each level of its blur."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unblur.blur.recipes import Recipe, sample_seed
from unblur.data.catalog import open_dataset
from unblur.data.sources import FilePicture, Pair, Picture
from unblur.errors import DataError
from unblur.images import read_photo
from unblur.metrics.protocols import Protocol

Values = np.ndarray[Any, Any]
"""A picture as metrics take it: (H, W, 3), uint8, or floats in [0, 1] where a protocol asks for 16 bits."""


@dataclass(frozen=True)
class Sample:
    """One picture at one level; without `blurred` it is made from the sharp one by a recipe."""

    name: str
    sharp: Picture
    blurred: Picture | None = None
    level: str | None = None
    kind: int | None = None
    seed: int = 0

    @property
    def path(self) -> str:
        """Where the picture lies in the folder of a row."""
        return f"{self.level}/{self.name}.png" if self.level else f"{self.name}.png"


def collect(data: Path | Sequence[Pair], recipe: Recipe | None, seed: int, protocol: Protocol) -> list[Sample]:
    """Return the samples of a folder or of pairs: those that the protocol takes, each once a level.

    Raises `DataError` where there are none, or where pictures without a blurred partner meet no recipe.
    """
    pairs = list(open_dataset(data, sharp_only=recipe is not None) if isinstance(data, Path) else data)
    taken = [pair for pair in pairs if protocol.takes(pair.name)]
    if not taken:
        raise DataError(f"None of the {len(pairs)} pictures belongs to the protocol '{protocol.name}'.")
    if recipe is None:
        if any(pair.blurred is None for pair in taken):
            raise DataError(
                "The pictures have no blurred partners in blur/ and sharp/ or input/ and target/. "
                "Give a recipe by which they are to be blurred."
            )
        parts = _parts(taken, protocol)
        return [
            Sample(pair.name, pair.sharp, pair.blurred, level=part) for pair, part in zip(taken, parts, strict=True)
        ]
    return [
        Sample(pair.name, pair.sharp, level=level, kind=kind, seed=sample_seed(seed, index))
        for kind, level in recipe.levels
        for index, pair in enumerate(taken)
    ]


def scene_of(sample: Sample, scenes: Mapping[str, str] | None) -> str | None:
    """Return which scene a pair shows: what `scenes` says of its name, without it the folder that it lies in.

    None of a photograph that a recipe blurs, and of a pair without a folder. Raises `DataError` for a name that is
    missing in `scenes`.
    """
    if sample.blurred is None:
        return None
    if scenes is None:
        return sample.name.rpartition("/")[0] or None
    if sample.name not in scenes:
        raise DataError(f"The scene of '{sample.name}' is not given; give one for each pair, or for none.")
    return scenes[sample.name]


def read(picture: Picture, bits: int = 8) -> Values:
    """Return the picture as metrics take it; more than 8 bits only of a file of its own."""
    if bits == 8 or not isinstance(picture, FilePicture):
        return picture.read() if bits == 8 else picture.read().astype(np.float32) / 255
    return np.asarray(read_photo(picture.path).rgb.permute(1, 2, 0))


def size_of(file: Path) -> tuple[int, int]:
    """Return (height, width) of a PNG that was written here, from its head."""
    with Image.open(file) as picture:
        return picture.height, picture.width


def fingerprint(samples: Sequence[Sample]) -> str:
    """Return a hash of the pictures' names and, of files, their sizes in bytes."""
    rows = [(s.name, s.level, _bytes(s.sharp), s.blurred and _bytes(s.blurred)) for s in samples]
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def _bytes(picture: Picture) -> int | None:
    return picture.path.stat().st_size if isinstance(picture, FilePicture) else None


def _parts(pairs: Sequence[Pair], protocol: Protocol) -> list[str | None]:
    """Return the part of the benchmark that each pair is in, by the protocol's label files near the sharp pictures."""
    first = pairs[0].sharp
    folders = list(first.path.parents)[:4] if isinstance(first, FilePicture) else []
    found: dict[int, str] = {}
    for label in protocol.label_files:
        for file in (folder / f"{label}_labels.npy" for folder in folders):
            if file.is_file():
                found.update({int(place): label for place in np.load(file, allow_pickle=False).ravel()})
                break
    if found and found.keys() != set(range(len(pairs))):
        raise DataError(
            f"The label files beside {first} name {len(found)} places, but there are {len(pairs)} pictures."
        )
    return [found.get(place) for place in range(len(pairs))]
