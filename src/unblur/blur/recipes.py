"""Recipes: from a batch of sharp pictures to blurred ones, described as plain data.

A recipe lists kinds of blur with weights and ranges, and what the camera adds afterwards. For each picture one kind
and its numbers are drawn from the picture's own seed, so that a blurred picture can be made again from recipe, seed and
index alone, whatever batch it was part of. Only a few numbers are drawn on the CPU; kernels, convolution and noise
live on the batch's device.

    blurred = blur_batch(sharp, load_recipe("everyday"), [sample_seed(1, index) for index in range(len(sharp))])

The built-in recipes are in `recipes.yaml` beside this file; a user's own is a YAML file of the same form.
"""

import hashlib
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from unblur.blur import camera, kernels
from unblur.errors import UnknownName
from unblur.settings import Settings, read_yaml, validated

Range = Annotated[float | tuple[float, float], Field(union_mode="left_to_right")]
"""A number, or [lowest, highest] of an even distribution."""


class Gaussian(Settings):
    """A Gaussian of `sigma` pixels in a square of `size` pixels; without `size`, one that holds 4 σ."""

    blur: Literal["gaussian"]
    sigma: Range
    size: int | None = Field(None, ge=1)
    weight: float = Field(1.0, gt=0)

    @property
    def label(self) -> str:
        return f"gaussian-{_text(self.sigma)}" if self.size is None else f"gaussian-{self.size}-{_text(self.sigma)}"

    @property
    def canvas(self) -> int:
        return self.size or 2 * math.ceil(4 * _ends(self.sigma)[1]) + 1

    def draw(self, generator: torch.Generator) -> list[float]:
        return [_drawn(self.sigma, generator)]

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

    blur: Literal["defocus"]
    radius_px: Range
    weight: float = Field(1.0, gt=0)

    @property
    def label(self) -> str:
        return f"defocus-{_text(self.radius_px)}"

    @property
    def canvas(self) -> int:
        return 2 * math.ceil(_ends(self.radius_px)[1]) + 1

    def draw(self, generator: torch.Generator) -> list[float]:
        return [_drawn(self.radius_px, generator)]

    def kernels(self, numbers: Tensor, canvas: int) -> Tensor:
        return kernels.defocus_kernel(numbers[:, 0], canvas)


class Motion(Settings):
    """A straight, even motion of `length_px` pixels; any direction by default."""

    blur: Literal["motion"]
    length_px: Range
    angle_deg: Range = (0.0, 180.0)
    weight: float = Field(1.0, gt=0)

    @property
    def label(self) -> str:
        return f"motion-{_text(self.length_px)}"

    @property
    def canvas(self) -> int:
        return 2 * math.ceil(_ends(self.length_px)[1] / 2) + 1

    def draw(self, generator: torch.Generator) -> list[float]:
        return [_drawn(self.length_px, generator), _drawn(self.angle_deg, generator)]

    def kernels(self, numbers: Tensor, canvas: int) -> Tensor:
        return kernels.motion_kernel(numbers[:, 0], numbers[:, 1], canvas)


class Shake(Settings):
    """A hand-held camera: a random path whose longer side is `extent_px`; see `kernels.shake_kernel`."""

    blur: Literal["shake"]
    extent_px: Range
    smoothness: Range = (1.2, 2.5)
    weight: float = Field(1.0, gt=0)

    @property
    def label(self) -> str:
        return f"shake-{_text(self.extent_px)}"

    @property
    def canvas(self) -> int:
        return 2 * math.ceil(0.75 * _ends(self.extent_px)[1]) + 3  # the centre of mass may lie off the box's middle

    def draw(self, generator: torch.Generator) -> list[float]:
        numbers = [_drawn(self.extent_px, generator), _drawn(self.smoothness, generator)]
        return numbers + kernels.draw_shake(generator).flatten().tolist()

    def kernels(self, numbers: Tensor, canvas: int) -> Tensor:
        draws = numbers[:, 2:].reshape(-1, 2, 2, kernels.SHAKE_FREQUENCIES)
        return kernels.shake_kernel(numbers[:, 0], numbers[:, 1], draws, canvas)


class Unblurred(Settings):
    """No blur at all: what a network must learn to leave alone."""

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


Kind = Annotated[Gaussian | Defocus | Motion | Shake | Unblurred, Field(discriminator="blur")]


class Noise(Settings):
    """Sensor noise on a `share` of the pictures; `read` and `shot` as in `camera.add_noise`."""

    share: float = Field(1.0, ge=0, le=1)
    read: Range = 0.0
    shot: Range = 0.0


class Jpeg(Settings):
    """JPEG compression of a `share` of the pictures with a quality from 1 to 100."""

    share: float = Field(1.0, ge=0, le=1)
    quality: Range


class Recipe(Settings):
    """A mixture of blurs and what the camera does to the blurred light.

    `each_kind`: the kinds are levels, and an evaluation takes every picture once with each of them; a training draws
    one kind a picture, in proportion to the weights, for every recipe. `linear_light` is the share of pictures that
    are blurred as light (gamma 2.2 undone and redone) rather than as grey values.
    """

    name: str
    kinds: tuple[Kind, ...] = Field(min_length=1)
    each_kind: bool = False
    linear_light: float = Field(0.0, ge=0, le=1)
    noise: Noise | None = None
    jpeg: Jpeg | None = None

    @property
    def margin_px(self) -> int:
        """How far a pixel's light can spread: a crop that is larger by this on each side has no reflected border in
        it.
        """
        return max(kind.canvas for kind in self.kinds) // 2

    @property
    def levels(self) -> list[tuple[int | None, str | None]]:
        """The (kind, label) pairs that a picture is blurred by: one a kind, or (None, None) where one is drawn.

        Labels that occur twice get the kind's number, so that no two are alike.
        """
        if not self.each_kind:
            return [(None, None)]
        labels = [kind.label for kind in self.kinds]
        unique = len(set(labels)) == len(labels)
        return [(index, label if unique else f"{index + 1}-{label}") for index, label in enumerate(labels)]

    @model_validator(mode="after")
    def _ranges_make_sense(self) -> "Recipe":
        for part in (*self.kinds, self.noise, self.jpeg):
            for key, value in part or ():
                if not isinstance(value, tuple | float):
                    continue
                low, high = _ends(value)
                if low > high:
                    raise ValueError(f"{key}: {[low, high]} runs downwards")
                if low < 0 and key != "angle_deg":
                    raise ValueError(f"{key}: {low:g} is negative")
                if key == "quality" and not (low >= 1 and high <= 100):
                    raise ValueError(f"{key}: JPEG knows 1 to 100, not {_text(value)}")
        return self


def load_recipe(name_or_file: str | Path) -> Recipe:
    """Return a built-in recipe by name, or one from a YAML file.

    Raises `UnknownName` with the nearest name, `SettingsError` for a file that is not a recipe.
    """
    path = Path(name_or_file)
    if path.suffix.lower() in (".yaml", ".yml"):
        data = read_yaml(path)
        if isinstance(data, dict):
            data.setdefault("name", path.stem)
        return validated(Recipe, data, str(path))
    recipes = built_in_recipes()
    if str(name_or_file) not in recipes:
        raise UnknownName("recipe", str(name_or_file), recipes, "A recipe of your own is a file that ends in .yaml.")
    return recipes[str(name_or_file)]


@cache
def built_in_recipes() -> dict[str, Recipe]:
    """Return the recipes that come with the package, by name."""
    source = Path(__file__).with_name("recipes.yaml")
    return {name: validated(Recipe, {"name": name, **data}, name) for name, data in read_yaml(source).items()}


def sample_seed(seed: int, index: int) -> int:
    """Return the seed of sample `index` of a series; neighbouring seeds and indices give unrelated numbers."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=7).digest(), "big")


def blur_batch(sharp: Tensor, recipe: Recipe, seeds: Sequence[int], *, kind: int | None = None) -> Tensor:
    """Return the batch blurred by the recipe, clamped to [0, 1] and rounded to 8 bit.

    `sharp` (B, 3, H, W), RGB in [0, 1], on any device, any size from 1×1; one seed a picture. `kind` takes that entry
    of `recipe.kinds` for every picture instead of drawing one. Same recipe, seed and picture: same result on the same
    kind of device (noise is drawn on the device, so a GPU's noise differs from a CPU's).
    """
    if len(seeds) != len(sharp):
        raise ValueError(f"{len(sharp)} pictures need as many seeds, not {len(seeds)}")
    with torch.no_grad(), torch.autocast(sharp.device.type, enabled=False):  # light is not counted in bf16
        return _blurred(sharp, recipe, seeds, [_plan(recipe, seed, kind) for seed in seeds])


def _blurred(sharp: Tensor, recipe: Recipe, seeds: Sequence[int], plans: list[dict[str, Any]]) -> Tensor:
    gamma = sharp.new_tensor([2.2 if plan["linear"] else 1.0 for plan in plans]).reshape(-1, 1, 1, 1)
    light = camera.to_linear_light(sharp, gamma) if recipe.linear_light else sharp
    blurred = kernels.convolve(light, _kernels(recipe, plans, sharp.device))
    if recipe.linear_light:
        blurred = camera.from_linear_light(blurred, gamma)
    if recipe.noise:
        read, shot = (sharp.new_tensor([plan[key] for plan in plans]) for key in ("read", "shot"))
        noise = torch.stack([_noise(sharp[i], seed) if plans[i]["noisy"] else torch.zeros_like(sharp[i])
                             for i, seed in enumerate(seeds)])  # fmt: skip
        blurred = camera.add_noise(blurred, read, shot, noise)
    blurred = camera.round_to_8bit(blurred)
    packed = [i for i, plan in enumerate(plans) if plan["packed"]]
    if packed:
        quality = sharp.new_tensor([plans[i]["quality"] for i in packed])
        blurred[packed] = camera.jpeg(blurred[packed], quality)
    return blurred


def _plan(recipe: Recipe, seed: int, kind: int | None) -> dict[str, Any]:
    """Draw all that is random about one picture, in a fixed order, so that a later addition changes nothing before
    it.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = torch.tensor([k.weight for k in recipe.kinds])
    drawn = int(torch.multinomial(weights, 1, generator=generator))
    chosen = drawn if kind is None else kind
    plan: dict[str, Any] = {"kind": chosen, "numbers": recipe.kinds[chosen].draw(generator)}
    plan["linear"] = _happens(recipe.linear_light, generator)
    noise = recipe.noise or Noise(share=0)
    plan["noisy"] = _happens(noise.share, generator)
    plan["read"], plan["shot"] = _drawn(noise.read, generator), _drawn(noise.shot, generator)
    packing = recipe.jpeg or Jpeg(share=0, quality=100)
    plan["packed"], plan["quality"] = _happens(packing.share, generator), _drawn(packing.quality, generator)
    return plan


def _kernels(recipe: Recipe, plans: list[dict[str, Any]], device: torch.device) -> Tensor:
    """Return the kernels of all pictures, (B, canvas, canvas); made on the device, together for all of one kind."""
    canvas = 2 * recipe.margin_px + 1
    result = torch.zeros(len(plans), canvas, canvas, device=device)
    for index, kind in enumerate(recipe.kinds):
        rows = [i for i, plan in enumerate(plans) if plan["kind"] == index]
        if rows:
            numbers = torch.tensor([plans[i]["numbers"] for i in rows], device=device)
            result[rows] = kind.kernels(numbers, canvas)
    return result


def _noise(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator(device=like.device).manual_seed(seed + 1)
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)


def _drawn(value: float | tuple[float, float], generator: torch.Generator) -> float:
    """Return a number of the range; one is drawn even where the range is a single number, to keep the order."""
    low, high = _ends(value)
    return low + (high - low) * float(torch.rand((), generator=generator))


def _happens(share: float, generator: torch.Generator) -> bool:
    return float(torch.rand((), generator=generator)) < share


def _ends(value: float | tuple[float, float]) -> tuple[float, float]:
    return value if isinstance(value, tuple) else (value, value)


def _text(value: float | tuple[float, float]) -> str:
    return "-".join(f"{number:g}" for number in dict.fromkeys(_ends(value)))
