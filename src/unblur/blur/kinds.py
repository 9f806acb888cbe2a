"""The kinds of blur that a recipe may mix, as plain data.

Most kinds are *uniform*: the whole picture has one kernel. `draw` returns the random numbers of one picture (`count` of
them), and `kernels` makes of many pictures' numbers (B, count) their kernels (B, canvas, canvas), on the numbers'
device. The others differ from place to place: their `blurred` takes the light (B, 3, H, W), the numbers, and how many
pixels on each side it leaves out. `canvas` is the side of the square within which a point's light stays, `label` what
tables call the kind. Adding one: docs/recipes.md.
"""

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from unblur.blur import kernels, known, scene
from unblur.blur.ranges import Range, at, drawn, ends, text
from unblur.settings import Settings


class Gaussian(Settings):
    """A Gaussian of `sigma` pixels in a square of `size` pixels; without `size`, one that holds 4 σ."""

    count: ClassVar[int] = 1
    blur: Literal["gaussian"]
    sigma: Range
    size: int | None = Field(None, ge=1)
    weight: float = Field(1.0, gt=0)

    @property
    def label(self) -> str:
        return f"gaussian-{text(self.sigma)}" if self.size is None else f"gaussian-{self.size}-{text(self.sigma)}"

    @property
    def canvas(self) -> int:
        return self.size or 2 * math.ceil(4 * ends(self.sigma)[1]) + 1

    def draw(self, generator: torch.Generator) -> list[float]:
        return [drawn(self.sigma, generator)]

    def kernels(self, numbers: Tensor, canvas: int) -> Tensor:
        return kernels.gaussian_kernel(numbers[:, 0], self.canvas, canvas)

    @field_validator("size")
    @classmethod
    def _odd(cls, size: int | None) -> int | None:
        if size is not None and size % 2 == 0:
            raise ValueError("a kernel size must be odd")
        return size


class Defocus(Settings):
    """A lens out of focus: an even disc of `radius_px` pixels."""

    count: ClassVar[int] = 1
    blur: Literal["defocus"]
    radius_px: Range
    weight: float = Field(1.0, gt=0)

    @property
    def label(self) -> str:
        return f"defocus-{text(self.radius_px)}"

    @property
    def canvas(self) -> int:
        return 2 * math.ceil(ends(self.radius_px)[1]) + 1

    def draw(self, generator: torch.Generator) -> list[float]:
        return [drawn(self.radius_px, generator)]

    def kernels(self, numbers: Tensor, canvas: int) -> Tensor:
        return kernels.defocus_kernel(numbers[:, 0], canvas)


class Motion(Settings):
    """A straight, even motion of `length_px` pixels; any direction by default."""

    count: ClassVar[int] = 2
    blur: Literal["motion"]
    length_px: Range
    angle_deg: Range = (0.0, 180.0)
    weight: float = Field(1.0, gt=0)

    @property
    def label(self) -> str:
        return f"motion-{text(self.length_px)}"

    @property
    def canvas(self) -> int:
        return 2 * math.ceil(ends(self.length_px)[1] / 2) + 1

    def draw(self, generator: torch.Generator) -> list[float]:
        return [drawn(self.length_px, generator), drawn(self.angle_deg, generator)]

    def kernels(self, numbers: Tensor, canvas: int) -> Tensor:
        return kernels.motion_kernel(numbers[:, 0], numbers[:, 1], canvas)


class Shake(Settings):
    """A hand-held camera: a random path whose longer side is `extent_px`; see `kernels.shake_kernel`."""

    count: ClassVar[int] = 2 + 2 * 2 * kernels.SHAKE_FREQUENCIES
    blur: Literal["shake"]
    extent_px: Range
    smoothness: Range = (1.2, 2.5)
    weight: float = Field(1.0, gt=0)

    @property
    def label(self) -> str:
        return f"shake-{text(self.extent_px)}"

    @property
    def canvas(self) -> int:
        return _canvas_of_path(ends(self.extent_px)[1])

    def draw(self, generator: torch.Generator) -> list[float]:
        numbers = [drawn(self.extent_px, generator), drawn(self.smoothness, generator)]
        return numbers + kernels.draw_shake(generator).flatten().tolist()

    def kernels(self, numbers: Tensor, canvas: int) -> Tensor:
        draws = numbers[:, 2:].reshape(-1, 2, 2, kernels.SHAKE_FREQUENCIES)
        return kernels.shake_kernel(numbers[:, 0], numbers[:, 1], draws, canvas)


class Trajectory(Settings):
    """DeblurGAN's random trajectory, scaled to `extent_px` (longer side); see `kernels.draw_trajectory`."""

    count: ClassVar[int] = 1 + 2 * kernels.TRAJECTORY_STEPS
    blur: Literal["trajectory"]
    extent_px: Range
    anxiety: Range = (0.0001, 0.003)
    weight: float = Field(1.0, gt=0)

    @property
    def label(self) -> str:
        return f"trajectory-{text(self.extent_px)}"

    @property
    def canvas(self) -> int:
        return _canvas_of_path(ends(self.extent_px)[1])

    def draw(self, generator: torch.Generator) -> list[float]:
        extent, anxiety = torch.rand(2, generator=generator).tolist()
        path = kernels.draw_trajectory(at(self.anxiety, anxiety), generator)
        return [at(self.extent_px, extent), *path.flatten().tolist()]

    def kernels(self, numbers: Tensor, canvas: int) -> Tensor:
        path = numbers[:, 1:].reshape(-1, kernels.TRAJECTORY_STEPS, 2)
        return kernels.drawn_path(kernels.fitted_path(path, numbers[:, 0]), canvas)


class Known(Settings):
    """Kernels from the file or folder `path`, each as likely as any other; see `known.read_kernels`."""

    count: ClassVar[int] = 1
    blur: Literal["known"]
    path: str
    weight: float = Field(1.0, gt=0)

    @property
    def label(self) -> str:
        return f"known-{known.name_of(self.path)}"

    @property
    def canvas(self) -> int:
        return known.read_kernels(self.path).shape[-1]

    def draw(self, generator: torch.Generator) -> list[float]:
        count = len(known.read_kernels(self.path))
        return [float(torch.randint(count, (), generator=generator))]

    def kernels(self, numbers: Tensor, canvas: int) -> Tensor:
        files = known.read_kernels(self.path).to(numbers.device)
        margin = (canvas - self.canvas) // 2
        return torch.nn.functional.pad(files[numbers[:, 0].long()], (margin,) * 4)


class Unblurred(Settings):
    """No blur at all: what a network must learn to leave alone."""

    count: ClassVar[int] = 1
    blur: Literal["none"]
    weight: float = Field(1.0, gt=0)

    @property
    def label(self) -> str:
        return "sharp"

    @property
    def canvas(self) -> int:
        return 1

    def draw(self, generator: torch.Generator) -> list[float]:
        return [0.0]

    def kernels(self, numbers: Tensor, canvas: int) -> Tensor:
        return kernels.gaussian_kernel(numbers[:, 0], 1, canvas)


Scalable = Gaussian | Defocus | Motion | Shake | Trajectory
"""Uniform kinds whose first number is their size in pixels."""

Uniform = Scalable | Known | Unblurred


def _without_weight(part: Uniform) -> Uniform:
    if "weight" in part.model_fields_set:
        raise ValueError("a blur within another has no weight; weigh the outer one")
    return part


class Rotation(Settings):
    """A camera that turns about its axis while it shakes.

    The shake's longer side is `extent_px`; the turn moves the corners by `roll_px` about a point that lies `pivot` half
    diagonals from the picture's middle. So the blur grows with the distance from that point.
    """

    blur: Literal["rotation"]
    roll_px: Range
    extent_px: Range = 0.0
    pivot: Range = (0.0, 1.5)
    smoothness: Range = (1.2, 2.5)
    weight: float = Field(1.0, gt=0)

    @property
    def label(self) -> str:
        return f"rotation-{text(self.roll_px)}"

    @property
    def canvas(self) -> int:
        return _canvas_of_path(self._reach_px)

    def draw(self, generator: torch.Generator) -> list[float]:
        *places, direction = torch.rand(5, generator=generator).tolist()
        ranges = (self.extent_px, self.smoothness, self.roll_px, self.pivot)
        numbers = [at(value, place) for value, place in zip(ranges, places, strict=True)]
        draws = torch.randn(3 * 2 * kernels.SHAKE_FREQUENCIES, generator=generator)
        return [*numbers, 2 * math.pi * direction, *draws.tolist()]

    def blurred(self, light: Tensor, numbers: Tensor, margin_px: int) -> Tensor:
        extent, smoothness, roll, pivot, direction = numbers[:, :5].unbind(1)
        draws = numbers[:, 5:].reshape(-1, 3, 2, kernels.SHAKE_FREQUENCIES)
        steps = max(8, math.ceil(self._reach_px))  # one moment for each pixel of the way
        path = kernels.shake_path(smoothness, draws, steps)  # (B, T, 3)
        shift = kernels.fitted_path(path[..., :2], extent)
        roll_path = kernels.fitted_path(path[..., 2:], roll)  # (B, T, 1), pixels at the corners
        from_pivot = torch.stack([direction.cos(), direction.sin()], dim=1) * pivot[:, None]
        shift = shift + roll_path * from_pivot[:, None]
        half_diagonal = math.hypot(*light.shape[-2:]) / 2
        return scene.turned(light, torch.cat([shift, roll_path / half_diagonal], dim=-1), margin_px)

    @property
    def _reach_px(self) -> float:
        return ends(self.extent_px)[1] + ends(self.roll_px)[1] * (1 + ends(self.pivot)[1])


class Depth(Settings):
    """One blur that is stronger the nearer a thing is: a camera that moves sideways, or is focused on what is far.

    The scene has `layers`; the nearest is blurred by `of`, the farthest by the same at `far` times the size, those
    between evenly between. All but the farthest cover the share `cover` of the picture, with edges `softness_px` wide.
    """

    blur: Literal["depth"]
    of: Annotated[Scalable, Field(discriminator="blur")]
    far: Range = (0.0, 0.7)
    layers: int = Field(3, ge=2, le=8)
    cover: Range = (0.4, 0.9)
    softness_px: Range = (1.0, 4.0)
    weight: float = Field(1.0, gt=0)

    _no_weights = field_validator("of")(_without_weight)

    @property
    def label(self) -> str:
        return f"depth-{self.of.label}"

    @property
    def canvas(self) -> int:
        return self.of.canvas

    def draw(self, generator: torch.Generator) -> list[float]:
        far, *places = torch.rand(3, generator=generator).tolist()
        outlines = scene.draw_outlines(generator).flatten().tolist()
        masks = [at(self.cover, places[0]), at(self.softness_px, places[1]), *outlines]
        return [at(self.far, far), *masks, *self.of.draw(generator)]

    def blurred(self, light: Tensor, numbers: Tensor, margin_px: int) -> Tensor:
        far, outlines, own = torch.split(numbers, [1, _OUTLINES, self.of.count], dim=1)
        size, rest = own[:, :1], own[:, 1:]
        stack = []
        for nearness in torch.linspace(0, 1, self.layers).tolist():
            scale = far * (1 - nearness) + nearness
            stack.append(self.of.kernels(torch.cat([size * scale, rest], dim=1), self.canvas))
        return scene.composited(light, _masks(outlines, self.layers - 1, light), torch.stack(stack, dim=1), margin_px)


class Layers(Settings):
    """Something before a background, each blurred in its own way: a runner, a camera that follows a car, a portrait.

    The `near` layer covers the share `cover` of the picture, with an edge `softness_px` wide.
    """

    blur: Literal["layers"]
    near: Annotated[Uniform, Field(discriminator="blur")]
    far: Annotated[Uniform, Field(discriminator="blur")]
    cover: Range = (0.15, 0.75)
    softness_px: Range = (1.0, 4.0)
    weight: float = Field(1.0, gt=0)

    _no_weights = field_validator("near", "far")(_without_weight)

    @property
    def label(self) -> str:
        return f"layers-{self.near.label}-{self.far.label}"

    @property
    def canvas(self) -> int:
        return max(self.near.canvas, self.far.canvas)

    def draw(self, generator: torch.Generator) -> list[float]:
        cover, softness = torch.rand(2, generator=generator).tolist()
        outlines = scene.draw_outlines(generator).flatten().tolist()
        far, near = self.far.draw(generator), self.near.draw(generator)
        return [at(self.cover, cover), at(self.softness_px, softness), *outlines, *far, *near]

    def blurred(self, light: Tensor, numbers: Tensor, margin_px: int) -> Tensor:
        outlines, far, near = torch.split(numbers, [_OUTLINES, self.far.count, self.near.count], dim=1)
        stack = [kind.kernels(own, self.canvas) for kind, own in ((self.far, far), (self.near, near))]
        return scene.composited(light, _masks(outlines, 1, light), torch.stack(stack, dim=1), margin_px)


Varying = Rotation | Depth | Layers

Kind = Annotated[Uniform | Varying, Field(discriminator="blur")]

_OUTLINES = 2 + 3 * scene.OUTLINE_WAVES
"""Numbers that make the masks of a picture: cover, softness, and those of the outlines."""


def _masks(numbers: Tensor, count: int, light: Tensor) -> Tensor:
    """Return (B, count, H, W) from numbers (B, _OUTLINES): the first covers its share, each other one less."""
    cover = numbers[:, :1] * torch.linspace(1, 1 / count, count, device=numbers.device)  # (B, count)
    levels = math.sqrt(2) * torch.erfinv(1 - 2 * cover.clamp(0.001, 0.999))
    draws = numbers[:, 2:].reshape(-1, 3, scene.OUTLINE_WAVES)
    return scene.layer_masks(draws, levels, numbers[:, 1], *light.shape[-2:]).to(light.dtype)


def _canvas_of_path(extent_px: float) -> int:
    return 2 * math.ceil(0.75 * extent_px) + 3  # the centre of mass may lie off the box's middle
