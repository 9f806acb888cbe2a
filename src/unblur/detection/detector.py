"""What a detector is, whatever finds for it: a function from a picture to objects, and what has to be said of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unblur.data.sources import Pixels
from unblur.detection.boxes import Found

Find = Callable[[Pixels, float, Sequence[str]], list[Found]]
"""Takes a picture (H, W, 3) uint8 RGB, the lowest score, and the classes to look for (empty: all of them)."""


@dataclass(frozen=True)
class Detector:
    """A detector with its classes, and what identifies it."""

    name: str
    about: str
    """What it is, how pictures come to it, what its score means: part of the line under every table."""
    fingerprint: str
    """A hash of all that was learnt, hexadecimal."""
    classes: tuple[str, ...]
    """What it can find; empty where its file does not say."""
    find: Find
    usual: tuple[str, ...] = ()
    """What it looks for where nobody says; empty for all it can find."""
    package: str | None = None
    """The package beside the usual ones whose version may change what it finds."""
