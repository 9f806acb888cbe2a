"""Pictures of a data set, wherever they lie: a file, a row of an array, a part of a tar shard, a file far away.

A `Picture` knows its name and how to read itself; everything above asks for no more. Pictures are small, hashable and
cheap to send to a worker process: what they are read from is found again there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from unblur import formats
from unblur.blur.recipes import sample_seed
from unblur.errors import DataError
from unblur.images import DEFAULT_MAX_PIXELS, as_photo, read_rgb8

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""An 8-bit RGB picture, (H, W, 3)."""


class Picture(Protocol):
    """A picture that can be read; equal and hashable by where it lies."""

    @property
    def name(self) -> str:
        """Relative to its data set, with "/" between folders, without suffix; both pictures of a pair share it."""

    def read(self) -> Pixels:
        """Return the pixels, (H, W, 3) uint8 RGB, upright, to be written to; `PhotoError` where that is impossible."""


@dataclass(frozen=True)
class FilePicture:
    """A picture in a file of its own."""

    path: Path
    name: str

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> Pixels:
        """Return the pixels, as `images.read_rgb8` does."""
        return read_rgb8(self.path)


class Pair(NamedTuple):
    """A sharp picture and its blurred one, or None where a recipe is to make it."""

    blurred: Picture | None
    sharp: Picture

    @property
    def name(self) -> str:
        """The name that both share."""
        return self.sharp.name

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All that is to be read, the sharp picture first."""
        return (self.sharp,) if self.blurred is None else (self.sharp, self.blurred)


@dataclass(frozen=True)
class Window:
    """Sharp frames that follow each other, an odd number: their mean is a blur, the middle one its sharp picture."""

    name: str
    pictures: tuple[Picture, ...]


Sample = TypeVar("Sample", Pair, Window)


def as_picture(picture: Path | Picture) -> Picture:
    """Return a file as a picture of its own name; a picture as it is."""
    return FilePicture(picture, picture.stem) if isinstance(picture, Path) else picture


def decode_rgb8(content: bytes, where: str) -> Pixels:
    """Return the pixels of a picture file's bytes, as `images.read_rgb8` would; `where` is for messages."""
    pixels = formats.decode(BytesIO(content), where, DEFAULT_MAX_PIXELS).pixels
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return pixels.copy()
    return replace(as_photo(pixels), bits=8, alpha=None, is_grey=False).to_array()


def subset(pairs: Sequence[Sample], share: float, seed: int) -> list[Sample]:
    """Return a share of the pairs, or windows, in their order, about the same share of each folder; another seed,
    another choice.

    At least one, and `round(share * len(pairs))` in all.
    """
    if not 0 < share <= 1:
        raise DataError(f"A share of {share:g} of a data set makes no sense; give a number above 0, up to 1.")
    count = max(1, round(share * len(pairs)))
    places = [(pair.name.rpartition("/")[0], sample_seed(seed, place_of(pair.name))) for pair in pairs]
    by_folder = sorted(range(len(pairs)), key=places.__getitem__)
    return [pairs[i] for i in sorted(by_folder[int((k + 0.5) * len(pairs) / count)] for k in range(count))]


def place_of(name: str) -> int:
    """Return a number in [0, 2**56) that depends on the name alone."""
    return sample_seed(0, int.from_bytes(name.encode(), "big"))


def first_ten(names: Sequence[str | Path]) -> str:
    """Return the names as a list for an error message: sorted, ten at most, and how many more there are."""
    listed = sorted(map(str, names))
    return ", ".join(listed[:10]) + (f" and {len(listed) - 10} more" if len(listed) > 10 else "")
