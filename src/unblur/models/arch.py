"""The facts of an architecture, which stand at the end of its own file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn


@dataclass(frozen=True)
class Arch:
    """One architecture: how it is built and what whoever runs it must know.

    `options` are the defaults of every option that `build` takes, `tiny` those changes that make a network of the
    same make for tests in a blink. `size_multiple` is what the network pads heights and widths to, by `padding`,
    inside its own `forward`, with its default options; where options change that, the network has an attribute of the
    same name. Tiles of such sizes spare it the padding. It pads on the right and below, save that `square` means zeros
    on all sides to a centred square; `grey` is middle grey, the zero of a network whose pictures lie in [-1, 1].
    `licence` is the licence of our code, `origin` whose idea it is.
    """

    name: str
    build: Callable[..., nn.Module]
    options: Mapping[str, Any]
    tiny: Mapping[str, Any]
    size_multiple: int
    padding: Literal["none", "zeros", "grey", "reflect", "replicate", "square"]
    overlap_px: int
    """How far tiles overlap: about the reach of the network's convolutions, so that seams do not show."""
    origin: str
    paper: str
    licence: str = "Apache-2.0"
    stages: int = 1
    frames: int = 1
    unused: tuple[str, ...] = ()
    """Beginnings of the state-dict keys that the authors' files have and no output depends on."""
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options of the configurations that the authors published, by their name."""
