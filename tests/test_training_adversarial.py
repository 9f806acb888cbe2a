"""Training against critics: both sides learn, neither moves without the other, and a run goes on where it stopped."""

import copy
import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from training_pictures import TINY, same, settings, write_pictures
from unblur import models
from unblur.errors import SettingsError, UnknownName
from unblur.experiment import Experiment, load
from unblur.losses.adversarial import AdversarialLoss, gan_critic, gan_generator
from unblur.models.critics import CRITICS
from unblur.settings import validated
from unblur.training import processes
from unblur.training import run as training_run
from unblur.training.adversarial import Adversarial
from unblur.training.budget import scaled
from unblur.training.run import train
from unblur.training.state import read_state

PATCH = {"name": "patch", "halvings": 1, "channels": 4}
LOCAL_AND_GLOBAL = {"local": PATCH, "global": {**PATCH, "halvings": 2, "weight": 3.0}}
PLAIN = {"name": "sgd", "lr": 0.1, "momentum": 0.0}
REBLUR = {"name": "reduced_deblurnet", "residual": True}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data root whose set `sharp` holds twelve pictures of blobs."""
    folder = tmp_path_factory.mktemp("data")
    write_pictures(folder / "sharp")
    return folder


def against(section: dict[str, Any] | None = None, game: str = "lsgan", **changes: Any) -> Experiment:
    """Return the tiny experiment with a critic, other values in its section `adversarial` and of its other keys."""
    section = {"critics": {"only": PATCH}, **(section or {})}
    return settings(adversarial=section, **{"loss": {"charbonnier": 1.0, game: 0.1}, **changes})


def way_of(run: Path) -> dict[str, Any]:
    return read_state(run / "last.state")[2]


def rows_of(run: Path) -> list[dict[str, float]]:
    """Return the rows of a training's table, without what depends on the clock."""
    timed = {"seconds", "cpu_seconds", "images_per_second", "waiting"}
    with open(run / "log" / "train.csv", newline="") as file:
        return [{key: float(value) for key, value in row.items() if key not in timed} for row in csv.DictReader(file)]


def stop_at(step: int) -> Callable[[str], None]:
    """Return a `tell` that asks the training to stop when it reports the validation of a step."""
    return lambda line: os.kill(os.getpid(), signal.SIGTERM) if line.startswith(f"step {step}/") else None


# -- Stopping and going on ---------------------------------------------------------------------------------------------

WAYS: dict[str, dict[str, Any]] = {
    "penalty, several steps": {
        "section": {"steps": 3, "optimizer": {"name": "adam", "lr": 1e-3}},
        "game": "wgan_gp",
    },
    "clamped weights": {"section": {}, "game": "wgan", "ema": None, "accumulate": 2},
    "local and global, warming up": {
        "section": {
            "critics": LOCAL_AND_GLOBAL,
            "warmup": {"steps": 5, "frozen": ["encoders"]},
            "schedule": {"name": "step", "steps": 8, "every": 3, "factor": 0.5},
        },
        "game": "ragan_ls",
    },
    "cycle": {
        "section": {"reblur": REBLUR},
        "loss": {"l1": 1.0, "gan": 0.1, "cycle": 0.5},
        "schedule": {"name": "plateau", "steps": 8, "factor": 0.1, "patience": 1},
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_training_equals_one_that_was_never_stopped(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(training_run, "EVERY_STEPS", 1)
    eight = {"schedule": {"name": "cosine", "steps": 8}, "validation": {"every_steps": 4, "max_pictures": 1}}
    changed = against(**{**eight, **WAYS[way]})
    train(changed, tmp_path / "whole", data_root=root)
    assert train(changed, tmp_path / "parts", data_root=root, tell=stop_at(4)).stopped == "interrupted"
    train(changed, tmp_path / "parts", data_root=root, resume=True)
    assert same(way_of(tmp_path / "whole"), way_of(tmp_path / "parts"))
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "parts")


def test_twenty_steps_are_ten_and_ten_more(tmp_path: Path, root: Path) -> None:
    twenty = against({"critics": LOCAL_AND_GLOBAL}, "wgan_gp", validation={"every_steps": 10, "max_pictures": 1})
    whole = train(twenty, tmp_path / "whole", data_root=root)
    assert train(twenty, tmp_path / "parts", data_root=root, tell=stop_at(10)).step in (10, 11)
    parts = train(twenty, tmp_path / "parts", data_root=root, resume=True)
    assert (whole.step, parts.step) == (20, 20)
    assert same(way_of(tmp_path / "whole"), way_of(tmp_path / "parts"))


def test_the_kept_network_is_what_restores_alone(tmp_path: Path, root: Path) -> None:
    train(against(schedule={"name": "constant", "steps": 2}), tmp_path, data_root=root)
    kept, way = load_file(tmp_path / "last.safetensors"), way_of(tmp_path)
    with torch.device("meta"):
        assert kept.keys() == models.create(**TINY["model"]).state_dict().keys()
    assert all(torch.equal(kept[key], way["average"][f"module.{key}"]) for key in kept)


# -- What a step is ----------------------------------------------------------------------------------------------------


def started(experiment: Experiment) -> Adversarial:
    torch.manual_seed(experiment.seed)
    return Adversarial(experiment, 10, processes.start(experiment))


def batch(seed: int = 0, size: int = 2) -> dict[str, Any]:
    blurred, sharp = torch.rand(2, size, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return {"blurred": blurred, "sharp": sharp}


def moved(before: dict[str, Tensor], network: nn.Module) -> set[str]:
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


def by_hand(way: Adversarial, given: dict[str, Any], steps: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what plain gradient descent makes of the network and of its critic, one that plays LSGAN."""
    network, critic = copy.deepcopy(way.network), copy.deepcopy(way.critics.networks["only"])
    restored = network(given["blurred"])
    charbonnier = ((restored - given["sharp"]) ** 2 + 1e-6).sqrt().mean()
    loss = charbonnier + 0.1 * ((critic(restored) - 1) ** 2).mean() / 2
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    for _ in range(steps):
        to_sharp, to_restored = critic(given["sharp"]), critic(restored.detach())
        told = ((to_sharp - 1) ** 2).mean() / 2 + (to_restored**2).mean() / 2
        for weights, slope in zip(
            critic.parameters(), torch.autograd.grad(told, list(critic.parameters())), strict=True
        ):
            weights.data -= 0.02 * slope
    for weights, slope in zip(network.parameters(), gradients, strict=True):
        weights.data -= 0.1 * slope
    return network.state_dict(), critic.state_dict()


@pytest.mark.parametrize("steps", [1, 3])
def test_a_step_is_one_of_the_network_and_so_many_of_the_critic_each_by_its_own_optimiser(steps: int) -> None:
    section = {"steps": steps, "optimizer": {**PLAIN, "lr": 0.02}}
    way = started(against(section, optimizer=PLAIN, clip_grad_norm=None, precision="fp32", schedule=CONSTANT))
    network, critic = by_hand(way, batch(), steps)
    report = way.step([batch()], 0)
    assert report.problem is None
    assert report.values["critic/learning_rate"] == pytest.approx(0.02)
    torch.testing.assert_close(dict(way.network.state_dict()), dict(network))
    torch.testing.assert_close(dict(way.critics.networks["only"].state_dict()), dict(critic))


CONSTANT = {"name": "constant", "steps": 10}


def test_a_critic_that_does_not_count_leaves_the_training_as_it_would_be_without(tmp_path: Path, root: Path) -> None:
    short = {"schedule": {"name": "constant", "steps": 3}, "precision": "fp32"}
    train(against(loss={"charbonnier": 1.0, "gan": 0.0}, **short), tmp_path / "ignored", data_root=root)
    train(settings(**short), tmp_path / "none", data_root=root)
    ignored, none = (load_file(tmp_path / name / "last.safetensors") for name in ("ignored", "none"))
    torch.testing.assert_close(ignored, none)


@pytest.mark.parametrize("loss", ["gan", "lsgan", "wgan"])
def test_two_batches_that_are_gathered_count_as_one_of_both(loss: str) -> None:
    changes = {"optimizer": PLAIN, "precision": "fp32", "schedule": CONSTANT}
    one, two = started(against({}, loss, **changes)), started(against({}, loss, **changes))
    first, second = batch(1), batch(2)
    joint = {key: torch.cat([first[key], second[key]]) for key in first}
    reports = one.step([joint], 0), two.step([first, second], 0)
    torch.testing.assert_close(one.state()["generator"]["networks"], two.state()["generator"]["networks"])
    torch.testing.assert_close(one.state()["critic"]["networks"], two.state()["critic"]["networks"])
    for name in ("loss", loss, "critic/loss", "critic/separation"):
        torch.testing.assert_close(reports[0].values[name], reports[1].values[name])


def test_critics_count_by_their_weights_and_are_told_by_their_names() -> None:
    way = started(against({"critics": LOCAL_AND_GLOBAL}, "ragan_ls", precision="fp32"))
    values = way.step([batch()], 0).values
    apart = {name: values[f"critic/{name}/sharp"] - values[f"critic/{name}/restored"] for name in LOCAL_AND_GLOBAL}
    torch.testing.assert_close(values["critic/separation"], (apart["local"] + 3 * apart["global"]) / 4)
    assert {"loss", "charbonnier", "ragan_ls", "psnr", "critic/loss", "critic/gradient_norm"} <= values.keys()
    torch.testing.assert_close(values["loss"], values["charbonnier"] + 0.1 * values["ragan_ls"])


def test_the_weights_of_a_wasserstein_critic_stay_within_their_limit() -> None:
    way = started(against({"optimizer": PLAIN}, "wgan"))
    way.step([batch()], 0)
    assert all(weights.abs().max() <= 0.01 for weights in way.critics.parameters())


@pytest.mark.parametrize("critic", [{"name": "multi_scale", "channels": 2}, {"name": "li", "channels": 2}])
def test_every_small_critic_plays(critic: dict[str, Any]) -> None:
    way = started(against({"critics": {"only": critic}}, "wgan_gp"))
    before = copy.deepcopy(way.critics.state_dict())
    big = {key: nn.functional.interpolate(pictures, size=64) for key, pictures in batch().items()}
    assert way.step([big], 0).problem is None
    unmoved = {name for name, _ in way.critics.named_parameters()} - moved(before, way.critics)
    assert all(name.endswith(".bias") for name in unmoved)  # a last one shifts all scores, which makes no difference


def test_the_penalty_is_the_same_in_half_precision_and_drawn_from_seed_and_step_alone() -> None:
    def penalty(precision: str, step: int = 0, seed: int = 3) -> float:
        way = started(against({}, "wgan_gp", precision=precision))
        way.experiment = way.experiment.model_copy(update={"seed": seed})
        torch.manual_seed(99)
        return float(way.step([batch()], step).values["critic/penalty"])

    fine = penalty("fp32")
    assert penalty("fp32") == fine
    assert penalty("bf16") == pytest.approx(fine, rel=1e-4)  # save that the restored pictures are rounded
    assert len({fine, penalty("fp32", step=1), penalty("fp32", seed=4)}) == 3


def test_a_frozen_part_waits_until_the_warm_up_is_over() -> None:
    way = started(against({"warmup": {"steps": 2, "frozen": ["encoders", "intro.bias"]}}))
    frozen = {name for name in way.network.state_dict() if name.startswith(("encoders", "intro.bias"))}
    for step in range(3):
        before = copy.deepcopy(way.network.state_dict())
        assert way.step([batch(step)], step).problem is None
        changed = moved(before, way.network)
        assert changed
        assert bool(changed & frozen) == (step >= 2)


def test_freezing_what_is_not_there_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(UnknownName, match=r"'encodrs'.*Did you mean 'encoders"):
        started(against({"warmup": {"steps": 2, "frozen": ["encodrs"]}}))


def test_a_network_that_blurs_again_learns_from_cycles_and_from_sharp_pictures() -> None:
    loss = {"l1": 1.0, "cycle": 0.5, "gan": 0.1}
    unlearnt = {"name": "reduced_deblurnet"}  # without a residual path, which is a perfect cycle from the start
    way = started(against({"reblur": unlearnt}, loss=loss, ema=None, optimizer={"name": "adam", "lr": 1e-2}))
    before = copy.deepcopy(way.generator.networks.state_dict())
    smooth = {key: nn.functional.interpolate(it[..., :3, :3], size=16, mode="bilinear") for key, it in batch().items()}
    told = [way.step([smooth], step).values for step in range(20)]
    parts = sum(loss[name] * told[0][name] for name in loss) + 0.5 * told[0]["reblur"]
    torch.testing.assert_close(told[0]["loss"], parts)
    assert told[-1]["cycle"] < 0.8 * told[0]["cycle"]
    assert told[-1]["reblur"] < 0.8 * told[0]["reblur"]
    assert any(name.startswith("reblurring") for name in moved(before, way.generator.networks))


# -- What is not finite ------------------------------------------------------------------------------------------------


class _Bad:
    """A part of a loss that is infinite in some of its calls, or has an infinite slope there."""

    def __init__(self, part: Callable[[Tensor, Tensor], Tensor], calls: set[int], *, value: bool) -> None:
        self.part, self.bad, self.value, self.calls = part, calls, value, 0

    def __call__(self, restored: Tensor, sharp: Tensor) -> Tensor:
        self.calls += 1
        if self.calls - 1 not in self.bad:
            return self.part(restored, sharp)
        return restored.sum() + torch.inf if self.value else (restored - restored.detach()).sum().square().sqrt()


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize(("side", "call"), [("generator", 0), ("critic", 0), ("critic", 2)])
def test_what_is_not_finite_on_either_side_leaves_both_as_they_were(side: str, call: int, value: bool) -> None:
    net = {"name": "reduced_deblurnet", "residual": True}  # with batch normalisation, which gathers statistics
    way = started(against({"steps": 3}, "gan", model=net, ema=None))
    way.step([batch(1)], 0)
    before = copy.deepcopy(way.state())
    good = way.game
    if side == "generator":
        way.game = AdversarialLoss("gan", _Bad(gan_generator, {call}, value=value), gan_critic)
    else:
        way.game = AdversarialLoss("gan", gan_generator, _Bad(gan_critic, {call}, value=value))
    report = way.step([batch(2)], 1)
    assert report.problem is not None
    assert report.problem.startswith("the gradient of" if not value else "gan" if side == "generator" else "critic/")
    assert same(way.state(), before)
    way.game = good
    assert way.step([batch(2)], 2).problem is None


# -- Several processes -------------------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("game", ["lsgan", "wgan"])
def test_two_processes_play_as_one_with_the_joint_batch(tmp_path: Path, root: Path, game: str) -> None:
    section = {"critics": LOCAL_AND_GLOBAL, "steps": 2, "warmup": {"steps": 1, "frozen": ["encoders"]}}
    joint = against(
        section, game, optimizer=PLAIN, precision="fp32", accumulate=2, schedule={"name": "constant", "steps": 3}
    )
    (tmp_path / "joint.yaml").write_text(
        yaml.safe_dump(joint.model_dump(mode="json", exclude_none=True), sort_keys=False)
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "unblur"]
    command += ["train", str(tmp_path / "joint.yaml"), "--data-root", str(root), "--out", str(tmp_path / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr
    train(joint, tmp_path / "one", data_root=root)
    one, two = way_of(tmp_path / "one"), way_of(tmp_path / "two")
    for side in ("generator", "critic"):
        torch.testing.assert_close(one[side]["networks"], two[side]["networks"], atol=1e-5, rtol=1e-4)


# -- Settings ----------------------------------------------------------------------------------------------------------

GAN = {"charbonnier": 1.0, "gan": 0.1}
LI = {"name": "li", "channels": 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": GAN}, r"the loss gan needs critics: give adversarial\.critics"),
        ({"adversarial": {"critics": {"a": PATCH}}}, "name one in loss"),
        ({"adversarial": {"critics": {"a": PATCH}}, "loss": {**GAN, "wgan": 1.0}}, "name one in loss"),
        ({"adversarial": {"critics": {}}, "loss": GAN}, "adversarial.critics"),
        ({"adversarial": {"critics": {"a": {"name": "ptch"}}}, "loss": GAN}, "Did you mean 'patch'"),
        ({"adversarial": {"critics": {"a": {**PATCH, "halving": 2}}}, "loss": GAN}, "Did you mean 'halvings'"),
        ({"adversarial": {"critics": {"a": PATCH}, "step": 5}, "loss": GAN}, "Did you mean 'steps'"),
        ({"adversarial": {"critics": {"a": LI}}, "loss": GAN}, "give adversarial.critics.a activation: none"),
        ({"adversarial": {"critics": {"a": PATCH}}, "loss": {**GAN, "cycle": 1.0}}, "need each other"),
        ({"adversarial": {"critics": {"a": PATCH}, "reblur": REBLUR}, "loss": GAN}, "need each other"),
        ({"adversarial": {"critics": {"a": PATCH}, "schedule": CONSTANT}, "loss": GAN}, "steps or epochs of schedule"),
        ({"adversarial": {"critics": {"a": PATCH}}, "loss": GAN, "teacher": {"weights": "x"}}, "no teacher"),
    ],
)
def test_settings_that_cannot_be_meant_are_errors(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        validated(Experiment, {**TINY, **changes}, "file.yaml")


def test_a_budget_shortens_and_slows_the_critics_as_it_does_the_network() -> None:
    own = {"name": "linear", "steps": 100, "hold": 50, "final_lr": 1e-5}
    section = {
        "optimizer": {"name": "adam", "lr": 4e-4}, "schedule": own, "warmup": {"steps": 10, "frozen": ["encoders"]}
    }  # fmt: skip
    planned = against(section, schedule={"name": "cosine", "steps": 100}, scaling="linear")
    within = scaled(planned, "20steps batch=1", num_pictures=8)[0].adversarial
    assert within is not None
    assert within.optimizer is not None
    assert within.optimizer.lr == pytest.approx(2e-4)
    assert within.schedule is not None
    assert (within.schedule.steps, within.schedule.hold, within.schedule.final_lr) == (20, 10, pytest.approx(5e-6))
    assert within.warmup is not None
    assert within.warmup.steps == 2


def test_every_critic_can_be_built_by_its_name() -> None:
    options: Sequence[dict[str, Any]] = [{"critics": {"a": {"name": name}}} for name in CRITICS]
    for section in options:
        assert against(section).adversarial is not None


# -- What comes of it --------------------------------------------------------------------------------------------------


def test_the_critic_learns_to_tell_sharp_pictures_and_the_network_to_restore(tmp_path: Path, root: Path) -> None:
    told: list[str] = []
    result = train(
        against(
            {"optimizer": {"name": "adam", "lr": 2e-3, "betas": [0.5, 0.9]}, "steps": 2},
            loss={"charbonnier": 1.0, "wgan_gp": 1e-3},
            schedule={"name": "cosine", "steps": 60},
            validation={"every_steps": 60, "max_pictures": 3},
        ),
        tmp_path,
        data_root=root,
        tell=told.append,
    )
    apart = [row["critic/separation"] for row in rows_of(tmp_path)]
    assert apart[-1] > 5 * abs(apart[0])
    look = next(line for line in told if "validation loss" in line)
    assert result.best_psnr > float(look.split("blurred input ")[2].split(")")[0])


SMALL = ["data.crop_px=48", "data.hold_out=0.3", "schedule.steps=150", "schedule.hold=75", "validation.every_steps=50"]
NETWORKS = {
    "deblurgan_small": ["model.channels=8", "adversarial.critics.patch.channels=8"],
    "deblurgan_v2_small": ["adversarial.critics.local.channels=8", "adversarial.critics.global.channels=4"],
    "deblur_gan_li_small": ["model.channels=8", "adversarial.critics.patch.channels=8"],
}


@pytest.mark.full
@pytest.mark.parametrize("name", NETWORKS)
def test_a_small_form_learns_on_photographs_and_its_critic_separates(tmp_path: Path, name: str) -> None:
    data = pytest.importorskip("skimage.data")
    (tmp_path / "sharp").mkdir()
    for photo in ("astronaut", "coffee", "rocket"):
        pixels = getattr(data, photo)()
        for place in range(4):
            tile = pixels[64 * place : 64 * place + 128, 80 * place : 80 * place + 128]
            Image.fromarray(tile).save(tmp_path / "sharp" / f"{photo}-{place}.png")
    file = Path(__file__).parents[1] / "experiments" / "sharp" / f"{name}.yaml"
    changes = [*SMALL, *NETWORKS[name]]
    still = load(file, [*changes, "schedule.steps=1", "schedule.hold=0", "optimizer.lr=1e-12"])
    start = train(still, tmp_path / "start", data_root=tmp_path).best_psnr
    result = train(load(file, changes), tmp_path / "run", data_root=tmp_path)
    assert result.best_psnr > start + 0.5
    apart = [row["critic/separation"] for row in rows_of(tmp_path / "run")]
    assert sum(apart[-5:]) / 5 > 0.002  # that of an untrained critic scatters about 0
