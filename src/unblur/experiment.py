"""An experiment as data: one YAML file holds every value that changes a training.

    experiment = load("experiments/sharp/nafnet_small.yaml", changes=["seed=2", "optimizer.lr=5e-4"])

Files name data sets, never paths. A key that is not known is an error that names the nearest one, in the first
second and not after the first epoch.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ConfigDict, Field, field_validator, model_validator

from unblur import losses, models
from unblur.blur.recipes import Recipe, load_recipe
from unblur.errors import SettingsError, UnknownName
from unblur.metrics import find_metric
from unblur.models import critics
from unblur.settings import Settings, parse_value, read_yaml, validated


class Model(Settings):
    """The network by name; every other key is an option of it, the rest are its defaults."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The options that the file gives."""
        return dict(self.model_extra or {})

    @property
    def frames(self) -> int:
        """How many frames the network makes of one blurred picture."""
        arch = models.ARCHITECTURES[self.name]
        return int({"frames": arch.frames, **arch.options, **self.options}["frames"])

    @model_validator(mode="after")
    def _buildable(self) -> "Model":
        _try_to_build(models.create, self.name, self.options)
        return self


class ProgressiveStage(Settings):
    """A part of a progressive training."""

    steps: int = Field(ge=1)
    crop_px: int = Field(ge=8)
    batch_size: int = Field(ge=1)


class Data(Settings):
    """Where pictures come from and how they are cut."""

    train: str
    """A data set's id or a folder. With `recipe` it holds sharp photographs, without it pairs."""
    valid: str
    """The same; where it equals `train`, the two are parted by `hold_out`."""
    hold_out: float = Field(0.0, ge=0, lt=1)
    """Share of the pictures that is kept for validation; a picture's name alone decides."""
    share: float = Field(1.0, gt=0, le=1)
    """Share of the pictures to train on that is used, always the same ones."""
    resize: str | None = Field(None, pattern=r"^[1-9]\d*x[1-9]\d*$")
    """WIDTHxHEIGHT that pictures are reduced to first, by area, aspect not kept."""
    recipe: str | None = None
    """A recipe's name or YAML file; the blur is made on the device, anew in each epoch."""
    windows: str | None = None
    """A data set or folder of numbered sharp frames, `windows_share` of the samples: their mean, as the recipe's part
    `windows` says, is the blurred picture, the middle one the sharp one. Parted by `hold_out`, too.
    """
    windows_share: float | None = Field(None, gt=0, le=1)
    """With 1 there is nothing else: then `train` is to name the same set, and `valid` may name another one of windows.
    """
    windows_frames: int = Field(11, ge=1)
    """Frames in a window, an odd number: at most so many are averaged."""
    windows_stride: int | None = Field(None, ge=1)
    """So many frames further the next window of a clip begins; none: where the one before ends."""
    crop_px: int | None = Field(None, ge=8)
    """Side of the square crops; none: whole pictures, which must then be of one size, or reduced to one by `resize`."""
    shrink: tuple[float, float] = (1.0, 1.0)
    """Crops are cut larger by a factor between these two and reduced by area: sharper, and more varied, samples."""
    batch_size: int = Field(8, ge=1)
    """Pictures that go through the network at once, over all processes together."""
    crops_per_picture: int = Field(1, ge=1)
    """Samples in a row that are cut from one picture, which is decoded once for them."""
    max_ssim: float | None = Field(None, gt=0, le=1)
    """Of up to `max_tries` random crops of a pair the first is taken whose pictures are less alike than this."""
    max_tries: int = Field(10, ge=1)
    flips: bool = True
    rotations: bool = False
    workers: int = Field(0, ge=0)
    """Processes that load; 0 loads in the training's own, which is best while the pictures fit in memory."""
    resident: bool = False
    """Keep all pictures on the device as bytes, where they fit: on a GPU nothing waits for loading then. Crops that are
    reduced (`shrink`) may differ by one level of 255 from those that are loaded.
    """
    progressive: tuple[ProgressiveStage, ...] | None = Field(None, min_length=1)
    """Crops that grow while the batches shrink, one after the other, instead of `crop_px` and `batch_size`. The last
    one goes on to the end of the schedule (Restormer, section 3.4, "progressive learning").
    """

    @property
    def size(self) -> tuple[int, int] | None:
        """`resize` as (width, height)."""
        return parse_size(self.resize) if self.resize else None

    @property
    def is_cropped(self) -> bool:
        """Whether the training sees squares that are cut out of the pictures."""
        return self.crop_px is not None or self.progressive is not None

    @property
    def windows_only(self) -> bool:
        """Whether nothing but windows is trained on."""
        return self.windows_share == 1

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
        if self.progressive and self.crop_px is not None:
            raise ValueError("progressive gives the crops of each stage: leave crop_px out")
        if self.max_ssim is not None and (self.recipe or not self.is_cropped or self.resident):
            raise ValueError("max_ssim chooses among crops of pairs: give crop_px, no recipe, and not resident")
        if self.rotations and not self.is_cropped:
            raise ValueError("rotations turn squares: give crop_px")
        return self

    @model_validator(mode="after")
    def _windows_make_sense(self) -> "Data":
        if (self.windows is None) != (self.windows_share is None):
            raise ValueError("windows and windows_share need each other")
        if self.windows_frames % 2 == 0:
            raise ValueError("windows_frames must be odd, so that one frame is in the middle")
        if self.windows is not None and self.recipe is None:
            raise ValueError("windows are blurred by a recipe's part `windows`: give recipe, if only `sharp`")
        if self.windows_only and self.train != self.windows:
            raise ValueError("with windows_share 1 nothing else is trained on: train is to be the same as windows")
        if self.windows is not None and not self.windows_only and not self.is_cropped and self.resize is None:
            raise ValueError("windows and photographs differ in size: give crop_px or resize")
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
    """How long, and how the learning rate goes; give `steps` or `epochs`, the unit of `every`, `at` and `hold`.

    * constant
    * step: times `factor` at every `every`; multi_step: times `factor` at each of `at`
    * exponential: falls by the same share in each step, to `final_lr` at the end, or by `factor` in each `every`
    * cosine, linear: from the optimiser's rate to `final_lr` at the end
    * cosine_restarts: the cosine in `every`, again and again; each period `growth` times as long as the one before
      (SGDR, Loshchilov and Hutter 2017)
    * plateau: times `factor`, not below `final_lr`, after `patience` validations in a row without a lower loss

    With `warmup_steps` the rate first rises evenly from 0. cosine, linear and exponential wait for `hold` at the full
    rate and, like the restarts, begin after the warm-up; `at` and `every` of step and multi_step count from the start.
    """

    name: Literal["constant", "step", "multi_step", "exponential", "cosine", "cosine_restarts", "linear", "plateau"] = (
        "cosine"
    )
    steps: int | None = Field(None, ge=1)
    epochs: int | None = Field(None, ge=1)
    final_lr: float = Field(0.0, ge=0)
    warmup_steps: int = Field(0, ge=0)
    hold: int | None = Field(None, ge=0)
    every: int | None = Field(None, ge=1)
    at: tuple[int, ...] | None = Field(None, min_length=1)
    factor: float | None = Field(None, gt=0, lt=1)
    growth: int | None = Field(None, ge=1)
    patience: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _length(self) -> "Schedule":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        return self

    @model_validator(mode="after")
    def _of_its_name(self) -> "Schedule":
        needed, optional = SCHEDULE_KEYS[self.name]
        if self.name == "exponential" and self.final_lr == 0:
            needed, optional = ("factor", "every"), ("hold",)
        for key in ("hold", "every", "at", "factor", "growth", "patience"):
            if getattr(self, key) is None and key in needed:
                raise ValueError(f"{self.name} needs {' and '.join(needed)}")
            if getattr(self, key) is not None and key not in (*needed, *optional):
                raise ValueError(f"{self.name} has no {key}")
        return self


SCHEDULE_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "constant": ((), ()),
    "step": (("every", "factor"), ()),
    "multi_step": (("at", "factor"), ()),
    "exponential": ((), ("hold",)),
    "cosine": ((), ("hold",)),
    "cosine_restarts": (("every",), ("growth",)),
    "linear": ((), ("hold",)),
    "plateau": (("factor", "patience"), ()),
}
"""What a schedule needs, and what else it knows, besides what all of them have."""


class Validation(Settings):
    """What is looked at on the way; the best checkpoint is the one with the lowest loss on these pictures."""

    every_steps: int = Field(1000, ge=1)
    max_pictures: int | None = Field(None, ge=1)
    """At most so many, spread evenly over the set."""
    crop_px: int | None = Field(None, ge=8)
    """Only the middle of each picture, to save time."""
    seed: int = 0
    """Of the recipe on the validation pictures: the same blur at each look."""
    metrics: tuple[str, ...] = ()
    """Measured beside loss and PSNR, by the names of docs/metrics.md; they decide nothing."""
    patience: int | None = Field(None, ge=1)
    """Early stopping: after so many validations without a better loss."""

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            _as_value_error(find_metric, name)
        return names


class Teacher(Settings):
    """Distillation: the network also learns to give what another one, already trained, makes of the blurred picture."""

    weights: str
    """Name or file of the teacher's weights."""
    loss: str = "l1"
    """What compares the two."""
    weight: float = Field(1.0, gt=0)

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, name: str) -> str:
        if name not in (known := (*losses.PICTURES, *losses.FEATURES)):
            raise ValueError(f"the loss compares pictures: {', '.join(known)}")
        return name


class Critic(Settings):
    """A network that learns to tell restored from sharp pictures (`models.critics`); other keys are its options."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str
    weight: float = Field(1.0, gt=0)
    """Its share among several critics, whose parts in the losses are averaged."""

    @property
    def options(self) -> dict[str, Any]:
        """The options that the file gives."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _buildable(self) -> "Critic":
        _try_to_build(critics.create, self.name, self.options)
        return self


class WarmUp(Settings):
    """First steps in which a part of the network stays as it is, such as a backbone that was trained before."""

    steps: int = Field(ge=1)
    frozen: tuple[str, ...] = Field(min_length=1)
    """What the names of its parameters begin with, such as `fpn.features`."""


class Adversarial(Settings):
    """Training against critics, which learn beside the network by the adversarial loss named in `loss`."""

    critics: dict[str, Critic] = Field(min_length=1)
    """By names of your choice, under which they are logged."""
    steps: int = Field(1, ge=1)
    """Steps of the critics for each of the network's."""
    optimizer: Optimizer | None = None
    """Of the critics; the network's settings where nothing is said."""
    schedule: Schedule | None = None
    """Of the critics, as long as the network's; the network's where nothing is said."""
    warmup: WarmUp | None = None
    reblur: Model | None = None
    """A second network, which learns to blur again what is restored, for the loss `cycle`."""


class Experiment(Settings):
    """Everything that changes a training."""

    model: Model
    data: Data
    loss: dict[str, float]
    optimizer: Optimizer
    schedule: Schedule
    teacher: Teacher | None = None
    adversarial: Adversarial | None = None
    accumulate: int = Field(1, ge=1)
    """Batches whose gradients are gathered for one step, which is then that of one batch so many times as large.

    Exactly so for losses that are means over pictures and networks without batch normalisation, whose statistics are
    those of the single batches.
    """
    clip_grad_norm: float | None = Field(None, gt=0)
    """Gradients are shortened together to this length."""
    clip_grad_value: float | None = Field(None, gt=0)
    """Each number of the gradients is limited to this size, before the length."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay per step of the moving average of the weights, which is then what is validated and kept.

    Not for networks with batch normalisation: the gathered statistics are not those of averaged weights.
    """
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 autocast where the processor or GPU has it, which is where it is faster. fp16: only on a GPU with
    CUDA, with a loss scaled so that small gradients do not vanish. Validation runs in `auto` then.
    """
    compile: bool = False
    """Compile the network (torch.compile) before the first step: a minute or more, then faster steps on a GPU."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """Where several processes train (torchrun): each holds the whole network (ddp), or its share of it (fsdp), which
    spares memory with large networks and goes without `ema`, `compile` and fp16.
    """
    scaling: Literal["accumulate", "linear", "sqrt"] = "accumulate"
    """What a `--budget` with a smaller batch does: gather the gradients of several batches, so that a step sees as
    many pictures as before, or lower the learning rate in proportion to the batch or to its square root.
    """
    validation: Validation = Validation()
    checkpoint_steps: int = Field(500, ge=1)
    """`last.state` is written every so many steps, and at each validation."""
    vgg: str = "auto"
    """Where the features of VGG-19 come from, for losses that need them: auto, random, or a file (`losses.build`)."""
    stages: dict[str, float] | None = None
    """Weights of a network's stages in the loss, by their names; 1 where nothing is said."""
    max_bad_steps: int = Field(20, ge=1)
    """A step whose loss or gradient is not finite is skipped; after so many in a row the training ends."""
    start_from: str | None = None
    """Name or file of weights to begin with, instead of random ones."""
    seed: int = 0

    @property
    def clips(self) -> bool:
        """Whether batches have all frames of each window, as networks need that make several of one picture."""
        return self.model.frames > 1 and self.data.windows_only

    @property
    def blur(self) -> Recipe | None:
        """The recipe; with clips its `windows` average all frames, which are those that the network is to give."""
        recipe = self.data.blur
        if recipe is None or not self.clips:
            return recipe
        frames = (self.data.windows_frames, self.data.windows_frames)
        return recipe.model_copy(update={"windows": recipe.windows.model_copy(update={"frames": frames})})

    @model_validator(mode="after")
    def _has_the_clips_that_it_needs(self) -> "Experiment":
        frames = self.model.frames
        if self.clips and self.data.windows_frames != frames:
            raise ValueError(f"{self.model.name} makes {frames} frames: data.windows_frames is to be {frames}")
        if "order_invariant" in self.loss and not self.clips:
            raise ValueError("the loss order_invariant needs a network of several frames and data.windows_share: 1")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> "Experiment":
        if self.strategy == "fsdp" and (self.ema is not None or self.precision == "fp16" or self.compile):
            raise ValueError("strategy fsdp goes without ema, fp16 and compile")
        return self

    @field_validator("loss")
    @classmethod
    def _known_losses(cls, weights: dict[str, float]) -> dict[str, float]:
        _as_value_error(losses.check_names, weights)
        if not weights:
            raise ValueError("name at least one loss")
        return weights

    @model_validator(mode="after")
    def _adversary(self) -> "Experiment":
        named = [name for name in self.loss if name in losses.ADVERSARIAL]
        if self.adversarial is None:
            if named:
                raise ValueError(f"the loss {named[0]} needs critics: give adversarial.critics")
            return self
        if len(named) != 1:
            raise ValueError(
                f"critics learn by one adversarial loss: name one in loss ({', '.join(losses.ADVERSARIAL)})"
            )
        if ("cycle" in self.loss) != (self.adversarial.reblur is not None):
            raise ValueError("the loss cycle and the network adversarial.reblur need each other")
        schedule = self.adversarial.schedule or self.schedule
        if (schedule.steps, schedule.epochs) != (self.schedule.steps, self.schedule.epochs):
            raise ValueError("adversarial.schedule is to have the steps or epochs of schedule")
        for name, critic in self.adversarial.critics.items():
            if named == ["gan"] and critic.name == "li" and critic.options.get("activation") != "none":
                raise ValueError(f"gan takes the sigmoid itself: give adversarial.critics.{name} activation: none")
        if self.teacher is not None or self.strategy == "fsdp":
            raise ValueError("a training against critics has no teacher, and no strategy fsdp")
        return self


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


def _try_to_build(create: Callable[..., Any], name: str, options: dict[str, Any]) -> None:
    """Build a network within pydantic, which collects `ValueError`s."""
    try:
        with torch.device("meta"):  # costs no memory and no time
            create(name, **options)
    except (UnknownName, ValueError, TypeError, RuntimeError) as error:
        raise ValueError(str(error)) from None


def _as_value_error(check: Any, *args: Any, **options: Any) -> None:
    """Run a check of ours within pydantic, which collects `ValueError`s."""
    try:
        check(*args, **options)
    except (UnknownName, SettingsError) as error:
        raise ValueError(str(error)) from None
