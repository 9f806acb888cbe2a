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
    fixed_size: tuple[int, int] | None = None
    """(width, height) of the only pictures that the network knows, in pixels; it resizes others to that and back inside
    its `forward`, and tiles are cut to exactly that size. Where options lift that, the network has an attribute of the
    same name."""
    stages: int = 1
    frames: int = 1
    grows: str | None = None
    """An option, a number, of which a smaller value makes a network that is a part of this one, with the same keys:
    weights of the part are a beginning for the whole, whose other parts then begin at random."""
    unused: tuple[str, ...] = ()
    """Beginnings of the state-dict keys that the authors' files have and no output depends on."""
    whole_statistics: bool = False
    """Whether it normalises by mean and variance of the whole picture: tiles then come out otherwise than the whole."""
    local_pooling_px: int | None = None
    """Side of the training crops whose global means the authors keep to when they test (models/local_pooling.py)."""
    extra: str | None = None
    """The optional part of the package without which it cannot be built; then `build` raises `MissingExtra`."""
    first_weights: tuple[str, ...] = ()
    """Options that only say where the first weights come from. No checkpoint keeps them: it has weights of its own."""
    onnx: Literal["any size", "one size", "none"] = "any size"
    """What ONNX files can be made of it (engines.py): for pictures of all sizes, of one that is chosen, or none."""
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options of the configurations that the authors published, by their name."""
