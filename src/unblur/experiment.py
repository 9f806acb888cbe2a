"""An experiment as data: one YAML file holds every value that changes a training.

    experiment = load("experiments/sharp/nafnet_small.yaml", changes=["seed=2", "optimizer.lr=5e-4"])

Files name data sets, never paths. A key that is not known is an error that names the nearest one, in the first
second and not after the first epoch.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ConfigDict, Field, field_validator, model_validator

from unblur import losses, models
from unblur.blur.recipes import Recipe, load_recipe
from unblur.errors import SettingsError, UnknownName
from unblur.settings import Settings, parse_value, read_yaml, validated


class Model(Settings):
    """The network by name; every other key is an option of it, the rest are its defaults."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The options that the file gives."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _buildable(self) -> "Model":
        try:
            with torch.device("meta"):  # costs no memory and no time
                models.create(self.name, **self.options)
        except (UnknownName, ValueError, TypeError, RuntimeError) as error:
            raise ValueError(str(error)) from None
        return self


class Data(Settings):
    """Where pictures come from and how they are cut."""

    train: str
    """A data set's id or a folder. With `recipe` it holds sharp photographs, without it pairs."""
    valid: str
    """The same; where it equals `train`, the two are parted by `hold_out`."""
    hold_out: float = Field(0.0, ge=0, lt=1)
    """Share of the pictures that is kept for validation; a picture's name alone decides."""
    resize: str | None = Field(None, pattern=r"^[1-9]\d*x[1-9]\d*$")
    """WIDTHxHEIGHT that pictures are reduced to first, by area, aspect not kept."""
    recipe: str | None = None
    """A recipe's name or YAML file; the blur is made on the device, anew in each epoch."""
    crop_px: int | None = Field(None, ge=8)
    """Side of the square crops; none: whole pictures, which must then be of one size."""
    shrink: tuple[float, float] = (1.0, 1.0)
    """Crops are cut larger by a factor between these two and reduced by area: sharper, and more varied, samples."""
    batch_size: int = Field(8, ge=1)
    flips: bool = True
    rotations: bool = False
    workers: int = Field(0, ge=0)
    """Processes that load; 0 loads in the training's own, which is best while the pictures fit in memory."""

    @property
    def size(self) -> tuple[int, int] | None:
        """`resize` as (width, height)."""
        return parse_size(self.resize) if self.resize else None

    @property
    def blur(self) -> Recipe | None:
        """The recipe itself."""
        return load_recipe(self.recipe) if self.recipe else None

    @model_validator(mode="after")
    def _consistent(self) -> "Data":
        _as_value_error(lambda: self.blur)
        if self.train == self.valid and not self.hold_out:
            raise ValueError("train and valid are the same set: give hold_out, the share kept for validation")
        if not 1.0 <= self.shrink[0] <= self.shrink[1]:
            raise ValueError("shrink is [lowest, highest] with 1 <= lowest <= highest")
        if self.rotations and self.crop_px is None:
            raise ValueError("rotations turn squares: give crop_px")
        if self.crop_px is None and self.resize is None and self.batch_size > 1:
            raise ValueError("pictures of several sizes make no batch: give crop_px or resize, or batch_size: 1")
        return self


class Optimizer(Settings):
    """How weights move."""

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    lr: float = Field(gt=0)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = Field(0.9, ge=0)
    """For sgd."""


class Schedule(Settings):
    """How long, and how the learning rate falls; give `steps` or `epochs`."""

    name: Literal["constant", "cosine"] = "cosine"
    steps: int | None = Field(None, ge=1)
    epochs: int | None = Field(None, ge=1)
    final_lr: float = Field(0.0, ge=0)
    warmup_steps: int = Field(0, ge=0)
    """Steps in which the rate rises evenly from 0."""

    @model_validator(mode="after")
    def _length(self) -> "Schedule":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        return self


class Validation(Settings):
    """What is looked at on the way; the best checkpoint is the one with the lowest loss on these pictures."""

    every_steps: int = Field(1000, ge=1)
    max_pictures: int | None = Field(None, ge=1)
    """At most so many, spread evenly over the set."""
    crop_px: int | None = Field(None, ge=8)
    """Only the middle of each picture, to save time."""
    seed: int = 0
    """Of the recipe on the validation pictures: the same blur at each look."""
    patience: int | None = Field(None, ge=1)
    """Early stopping: after so many validations without a better loss."""


class Experiment(Settings):
    """Everything that changes a training."""

    model: Model
    data: Data
    loss: dict[str, float]
    optimizer: Optimizer
    schedule: Schedule
    clip_grad_norm: float | None = Field(None, gt=0)
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay per step of the moving average of the weights, which is then what is validated and kept.

    Not for networks with batch normalisation: the gathered statistics are not those of averaged weights.
    """
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast where the processor or GPU has it, which is where it is faster."""
    validation: Validation = Validation()
    checkpoint_steps: int = Field(500, ge=1)
    """`last.state` is written every so many steps, and at each validation."""
    start_from: str | None = None
    """Name or file of weights to begin with, instead of random ones."""
    seed: int = 0

    @field_validator("loss")
    @classmethod
    def _known_losses(cls, weights: dict[str, float]) -> dict[str, float]:
        _as_value_error(losses.check_names, weights)
        if not weights:
            raise ValueError("name at least one loss")
        return weights


def load(path: str | Path, changes: Sequence[str] = ()) -> Experiment:
    """Return the experiment of a YAML file, with `key.key=value` changes applied.

    Raises `SettingsError` with the file's name and every mistake in it.
    """
    data = read_yaml(Path(path))
    for change in changes if isinstance(data, dict) else ():
        _apply(data, change)
    return validated(Experiment, data, str(path))


def parse_size(text: str) -> tuple[int, int]:
    """Return WIDTHxHEIGHT as (width, height); `SettingsError` otherwise."""
    match = re.fullmatch(r"(\d+)x(\d+)", text.lower())
    if not match or "0" in match.groups():
        raise SettingsError(f"'{text}' is not a size; write WIDTHxHEIGHT, for example 448x256.")
    return int(match[1]), int(match[2])


def _apply(data: Any, change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise SettingsError(f"'{change}' is not a change; write key=value, for example optimizer.lr=5e-4.")
    *parents, last = key.strip().split(".")
    for parent in parents:
        if not isinstance(data.get(parent), dict):
            data[parent] = {}
        data = data[parent]
    data[last] = parse_value(text)


def _as_value_error(check: Any, *args: Any, **options: Any) -> None:
    """Run a check of ours within pydantic, which collects `ValueError`s."""
    try:
        check(*args, **options)
    except (UnknownName, SettingsError) as error:
        raise ValueError(str(error)) from None
