"""Recipes: from a batch of sharp pictures to blurred ones, described as plain data.

A recipe lists kinds of blur with weights and ranges, and what the camera adds afterwards. For each picture one kind
and its numbers are drawn from the picture's own seed, so that a blurred picture can be made again from recipe, seed and
index alone, whatever batch it was part of. Only a few numbers are drawn on the CPU; kernels, convolution and noise
live on the batch's device.

    blurred = blur_batch(sharp, load_recipe("everyday"), [sample_seed(1, index) for index in range(len(sharp))])

The built-in recipes are in `recipes.yaml` beside this file; a user's own is a YAML file of the same form.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from unblur.blur import camera, kernels
from unblur.blur.kinds import Kind, Known, Layers, Unblurred, Uniform, Varying
from unblur.blur.known import find_kernels
from unblur.blur.ranges import Range, at, drawn, ends, text
from unblur.errors import SettingsError, UnknownName
from unblur.settings import Settings, read_yaml, validated


class Saturation(Settings):
    """Lamps and skies brighter than white on a `share` of the pictures; `gain` as in `camera.beyond_white`."""

    share: float = Field(1.0, ge=0, le=1)
    gain: Range


class Windows(Settings):
    """How blur is made of frames of a video: the mean of `frames` (odd) around the middle one, as light of `gamma`."""

    frames: tuple[int, int] = (3, 25)
    gamma: Range = 2.2

    @field_validator("frames")
    @classmethod
    def _odd(cls, frames: tuple[int, int]) -> tuple[int, int]:
        if any(number % 2 == 0 or number < 1 for number in frames):
            raise ValueError("numbers of frames must be odd, so that one is in the middle")
        return frames


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
    are blurred as light (gamma 2.2 undone and redone) rather than as grey values. `windows` says what `blur_windows`
    does with frames of a video.
    """

    name: str
    kinds: tuple[Kind, ...] = Field(min_length=1)
    each_kind: bool = False
    linear_light: float = Field(0.0, ge=0, le=1)
    saturation: Saturation | None = None
    noise: Noise | None = None
    jpeg: Jpeg | None = None
    windows: Windows = Windows()

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
        for part in _parts(self):
            for key, value in part:
                if not isinstance(value, float) and not (isinstance(value, tuple) and value is not self.kinds):
                    continue
                low, high = ends(value)
                if low > high:
                    raise ValueError(f"{key}: {[low, high]} runs downwards")
                if low < 0 and key != "angle_deg":
                    raise ValueError(f"{key}: {low:g} is negative")
                if key == "quality" and not (low >= 1 and high <= 100):
                    raise ValueError(f"{key}: JPEG knows 1 to 100, not {text(value)}")
                if key in ("cover", "far") and high > 1:
                    raise ValueError(f"{key}: a share is at most 1, not {text(value)}")
                if key == "gain" and low < 1:
                    raise ValueError(f"{key}: what is brighter than white has at least 1, not {text(value)}")
        return self


def load_recipe(name_or_file: str | Path) -> Recipe:
    """Return a built-in recipe by name, or one from a YAML file.

    Raises `UnknownName` with the nearest name, `SettingsError` for a file that is not a recipe, `DataError` where it
    names kernels that are not there.
    """
    path = Path(name_or_file)
    if path.suffix.lower() in (".yaml", ".yml"):
        data = read_yaml(path)
        if isinstance(data, dict):
            data.setdefault("name", path.stem)
        return _with_kernels_found(validated(Recipe, data, str(path)), path.parent)
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


def blur_batch(
    sharp: Tensor, recipe: Recipe, seeds: Sequence[int], *, kind: int | None = None, margin_px: int = 0
) -> Tensor:
    """Return the batch blurred by the recipe, clamped to [0, 1] and rounded to 8 bit.

    `sharp` (B, 3, H, W), RGB in [0, 1], on any device, any size from 1×1; one seed a picture. `kind` takes that entry
    of `recipe.kinds` for every picture instead of drawing one. `margin_px` pixels on each side only give their light:
    the result is without them, (B, 3, H - 2 margin_px, W - 2 margin_px). Same recipe, seed, margin and picture: same
    result on the same kind of device (noise is drawn on the device, so a GPU's noise differs from a CPU's).
    """
    if len(seeds) != len(sharp):
        raise ValueError(f"{len(sharp)} pictures need as many seeds, not {len(seeds)}")
    with torch.no_grad(), torch.autocast(sharp.device.type, enabled=False):  # light is not counted in bf16
        return _blurred(sharp, recipe, seeds, [_plan(recipe, seed, kind) for seed in seeds], margin_px)


def kernel_of(recipe: Recipe, seed: int, kind: int | None = None) -> Tensor:
    """Return the kernel, (k, k) summing to 1, by which `blur_batch` blurs the picture of that seed and kind.

    Raises `SettingsError` where that blur differs from place to place.
    """
    plan = _plan(recipe, seed, kind)
    chosen = recipe.kinds[plan["kind"]]
    if isinstance(chosen, Varying):
        raise SettingsError(f"Recipe {recipe.name}: {chosen.label} has another kernel at every place of the picture.")
    canvas = max(2 * (other.canvas // 2) + 1 for other in recipe.kinds if not isinstance(other, Varying))
    return chosen.kernels(torch.tensor([plan["numbers"]]), canvas)[0]


def blur_windows(frames: Tensor, recipe: Recipe, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return (blurred, sharp), each (B, 3, H, W), from windows of consecutive sharp frames (B, T, 3, H, W), T odd.

    The middle frame is the sharp picture; the blurred one is the mean of an odd number of frames around it, drawn by
    the recipe's `windows` for each picture, with the recipe's noise and JPEG after it. Its kinds of blur do not apply:
    the frames have moved by themselves. All else as in `blur_batch`.

    A data set of windows gives such stacks by reading T frames that follow each other and cutting the same crop out of
    all of them (no margin is needed); reducing the crop by area makes the motion smaller and the frames sharper. Frames
    that move by more than about 3 pixels each leave ghosts, see `camera.average_frames`.
    """
    if len(seeds) != len(frames):
        raise ValueError(f"{len(frames)} windows need as many seeds, not {len(seeds)}")
    if frames.shape[1] % 2 == 0:
        raise ValueError(f"a window has a middle, and so an odd number of frames, not {frames.shape[1]}")
    middle = frames.shape[1] // 2
    with torch.no_grad(), torch.autocast(frames.device.type, enabled=False):
        plans = [_plan(recipe, seed, None) for seed in seeds]
        averages = []
        for window, plan in zip(frames, plans, strict=True):
            radius = min(plan["frames"] // 2, middle)
            around = window[middle - radius : middle + radius + 1]
            averages.append(camera.average_frames(around, plan["gamma"]))
        return _developed(torch.stack(averages), recipe, seeds, plans), frames[:, middle]


def _blurred(
    sharp: Tensor, recipe: Recipe, seeds: Sequence[int], plans: list[dict[str, Any]], margin_px: int
) -> Tensor:
    linear = [i for i, plan in enumerate(plans) if plan["linear"]]
    light = sharp
    if linear:
        light = sharp.clone()
        light[linear] = camera.to_linear_light(sharp[linear])
    if recipe.saturation:
        light = camera.beyond_white(light, sharp, sharp.new_tensor([plan["gain"] for plan in plans]))
    blurred = _spread(light, recipe, plans, margin_px)
    if recipe.linear_light or recipe.saturation:
        blurred = blurred.clamp(0, 1)
    if linear:
        blurred[linear] = camera.from_linear_light(blurred[linear])
    return _developed(blurred, recipe, seeds, plans)


def _developed(blurred: Tensor, recipe: Recipe, seeds: Sequence[int], plans: list[dict[str, Any]]) -> Tensor:
    """Return what the camera makes of blurred pictures: noise, rounding, JPEG."""
    noisy = [i for i, plan in enumerate(plans) if plan["noisy"]]
    if noisy:
        read, shot = (blurred.new_tensor([plans[i][key] for i in noisy]) for key in ("read", "shot"))
        noise = torch.stack([_noise(blurred[i], seeds[i]) for i in noisy])
        blurred = blurred.clone()
        blurred[noisy] = camera.add_noise(blurred[noisy], read, shot, noise)
    blurred = camera.round_to_8bit(blurred)
    packed = [i for i, plan in enumerate(plans) if plan["packed"]]
    if packed:
        quality = blurred.new_tensor([plans[i]["quality"] for i in packed])
        blurred[packed] = camera.jpeg(blurred[packed], quality)
    return blurred


def _plan(recipe: Recipe, seed: int, kind: int | None) -> dict[str, Any]:
    """Draw all that is random about one picture, in a fixed order, so that a later addition changes nothing before
    it.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = torch.tensor([k.weight for k in recipe.kinds])
    chosen_by_weight = int(torch.multinomial(weights, 1, generator=generator))
    chosen = chosen_by_weight if kind is None else kind
    plan: dict[str, Any] = {"kind": chosen, "numbers": recipe.kinds[chosen].draw(generator)}
    plan["linear"] = _happens(recipe.linear_light, generator)
    noise = recipe.noise or Noise(share=0)
    plan["noisy"] = _happens(noise.share, generator)
    plan["read"], plan["shot"] = drawn(noise.read, generator), drawn(noise.shot, generator)
    packing = recipe.jpeg or Jpeg(share=0, quality=100)
    plan["packed"], plan["quality"] = _happens(packing.share, generator), drawn(packing.quality, generator)
    saturation = recipe.saturation or Saturation(share=0, gain=1)
    bright, gain, frames, gamma = torch.rand(4, generator=generator).tolist()
    plan["gain"] = at(saturation.gain, gain) if bright < saturation.share else 1.0
    plan["frames"], plan["gamma"] = _odd_between(recipe.windows.frames, frames), at(recipe.windows.gamma, gamma)
    return plan


def _spread(light: Tensor, recipe: Recipe, plans: list[dict[str, Any]], margin_px: int) -> Tensor:
    """Return the light spread by each picture's blur, made on the device, together for all of one kind."""
    uniform = {index: kind for index, kind in enumerate(recipe.kinds) if not isinstance(kind, Varying)}
    if len(uniform) == len(recipe.kinds):
        return kernels.convolve(light, _kernels(uniform, plans, light.device), margin_px)
    spread = kernels.inside(light, margin_px).clone()
    for index, kind in enumerate(recipe.kinds):
        rows = _rows(plans, index)
        if rows and isinstance(kind, Varying):
            spread[rows] = kind.blurred(light[rows], _numbers(plans, rows, light.device), margin_px)
    moved = [i for index, kind in uniform.items() if not isinstance(kind, Unblurred) for i in _rows(plans, index)]
    if moved:
        some = _kernels(uniform, [plans[i] for i in moved], light.device)
        spread[moved] = kernels.convolve(light[moved], some, margin_px)
    return spread


def _kernels(kinds: dict[int, Uniform], plans: list[dict[str, Any]], device: torch.device) -> Tensor:
    """Return the kernels of pictures whose kinds are uniform, (B, canvas, canvas)."""
    canvas = max(2 * (kind.canvas // 2) + 1 for kind in kinds.values())
    result = torch.zeros(len(plans), canvas, canvas, device=device)
    for index, kind in kinds.items():
        rows = _rows(plans, index)
        if rows:
            result[rows] = kind.kernels(_numbers(plans, rows, device), canvas)
    return result


def _rows(plans: list[dict[str, Any]], kind: int) -> list[int]:
    return [i for i, plan in enumerate(plans) if plan["kind"] == kind]


def _numbers(plans: list[dict[str, Any]], rows: list[int], device: torch.device) -> Tensor:
    return torch.tensor([plans[i]["numbers"] for i in rows], device=device)


def _with_kernels_found(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe with the paths of known kernels made absolute."""

    def found(kind: Kind) -> Kind:
        if isinstance(kind, Known):
            return kind.model_copy(update={"path": str(find_kernels(kind.path, folder))})
        if isinstance(kind, Layers):
            return kind.model_copy(update={"near": found(kind.near), "far": found(kind.far)})
        return kind

    return recipe.model_copy(update={"kinds": tuple(found(kind) for kind in recipe.kinds)})


def _parts(settings: Settings) -> Iterator[Settings]:
    """Yield the settings and all that are within them."""
    yield settings
    for _, value in settings:
        for part in value if isinstance(value, tuple) else [value]:
            if isinstance(part, Settings):
                yield from _parts(part)


def _noise(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator(device=like.device).manual_seed(seed + 1)
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)


def _happens(share: float, generator: torch.Generator) -> bool:
    return float(torch.rand((), generator=generator)) < share


def _odd_between(limits: tuple[int, int], place: float) -> int:
    """Return the odd number at `place` from 0 to 1 between two odd ones."""
    low, high = limits
    return low + 2 * int(place * ((high - low) // 2 + 1))
