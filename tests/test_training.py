"""Training on a few small pictures: it learns, it stops, and it goes on exactly where it stopped."""

import csv
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from unblur import experiment, weights
from unblur.errors import DataError, TrainingError
from unblur.experiment import Experiment, Optimizer, Schedule
from unblur.training import supervised
from unblur.training.schedules import learning_rate, total_steps

TINY = {
    "model": {"name": "nafnet", "width": 4, "encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [1]},
    "data": {
        "train": "sharp",
        "valid": "sharp",
        "hold_out": 0.3,
        "recipe": "gaussian-2.5",
        "crop_px": 16,
        "batch_size": 2,
    },
    "loss": {"charbonnier": 1.0},
    "optimizer": {"name": "adamw", "lr": 2e-3},
    "schedule": {"name": "cosine", "steps": 20},
    "ema": 0.9,
    "clip_grad_norm": 1.0,
    "validation": {"every_steps": 10, "max_pictures": 2, "crop_px": 32},
    "seed": 3,
}


def settings(**changes: object) -> Experiment:
    return Experiment.model_validate({**TINY, **changes})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data root whose set `sharp` holds twelve pictures of stripes and blobs."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "sharp").mkdir()
    draw = np.random.default_rng(0)
    for index in range(12):
        coarse = draw.integers(0, 256, (12, 14, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((56, 48), Image.Resampling.NEAREST).save(folder / "sharp" / f"{index:02}.png")
    return folder


def state_of(run: Path) -> dict[str, object]:
    return torch.load(run / "last.state", weights_only=True)


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b


class _Interrupt:
    """A `tell` that asks for a stop, as Ctrl-C would, when the training reports a step."""

    def __init__(self, number: signal.Signals, step: int) -> None:
        self.number, self.step = number, step

    def __call__(self, line: str) -> None:
        if line.startswith(f"step {self.step}/"):
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_resumed_training_equals_one_that_was_never_stopped(
    tmp_path: Path, root: Path, number: signal.Signals
) -> None:
    whole = supervised.train(settings(), tmp_path / "whole", data_root=root)
    first = supervised.train(settings(), tmp_path / "parts", data_root=root, tell=_Interrupt(number, 10))
    assert first.stopped == "interrupted"
    assert 10 <= first.step < 20
    second = supervised.train(settings(), tmp_path / "parts", data_root=root, resume=True)
    assert (whole.step, second.step, second.stopped) == (20, 20, "done")
    ours, theirs = state_of(tmp_path / "whole"), state_of(tmp_path / "parts")
    for part in ("step", "network", "average", "optimizer", "random_state", "best"):
        assert same(ours[part], theirs[part]), part


def test_training_improves_on_the_blurred_input(tmp_path: Path, root: Path) -> None:
    told: list[str] = []
    long = settings(schedule={"name": "cosine", "steps": 60}, validation={"every_steps": 60, "max_pictures": 3})
    result = supervised.train(long, tmp_path / "run", data_root=root, tell=told.append)
    blurred_input = float(told[-1].split("blurred input ")[2].split(")")[0])
    assert result.best_psnr > blurred_input


def test_a_run_folder_holds_settings_logs_and_a_checkpoint_that_loads(tmp_path: Path, root: Path) -> None:
    run = tmp_path / "run"
    supervised.train(settings(), run, data_root=root)
    assert experiment.load(run / "experiment.yaml") == settings()
    for name in ("best.safetensors", "last.safetensors"):
        model = weights.load(run / name)
        assert model.arch_options["width"] == 4
    facts = weights.describe(run / "last.safetensors").facts
    assert facts["step"] == 20
    assert Experiment.model_validate(facts["experiment"]) == settings()
    with open(next(run.glob("log/*/metrics.csv"))) as file:
        rows = list(csv.DictReader(file))
    assert {"step", "train/loss", "train/charbonnier", "train/learning_rate", "valid/psnr"} <= rows[0].keys()
    assert list(run.glob("log/*/events.out.tfevents.*"))


def test_the_kept_network_is_the_moving_average(tmp_path: Path, root: Path) -> None:
    run = tmp_path / "run"
    supervised.train(settings(), run, data_root=root)
    kept, state = load_file(run / "last.safetensors"), state_of(run)
    average, network = state["average"], state["network"]
    assert all(torch.equal(kept[key], average[f"module.{key}"]) for key in kept)
    assert any(not torch.equal(kept[key], network[key]) for key in kept)


def test_the_same_seed_trains_the_same_network_and_another_seed_another(tmp_path: Path, root: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        short = settings(seed=seed, schedule={"name": "constant", "steps": 4})
        supervised.train(short, tmp_path / name, data_root=root)
    a, b, c = (load_file(tmp_path / name / "last.safetensors") for name in "abc")
    assert same(a, b)
    assert not same(a, c)


def test_training_stops_early_when_validation_no_longer_improves(tmp_path: Path, root: Path) -> None:
    stuck = settings(
        schedule={"name": "constant", "steps": 50},
        optimizer={"name": "sgd", "lr": 1e-12},
        ema=None,
        validation={"every_steps": 2, "max_pictures": 1, "patience": 3},
    )
    result = supervised.train(stuck, tmp_path / "run", data_root=root)
    assert result.stopped == "early stopping"
    assert result.step < 50


def test_a_run_folder_is_not_overwritten_without_resume(tmp_path: Path, root: Path) -> None:
    short = settings(schedule={"name": "constant", "steps": 2})
    supervised.train(short, tmp_path / "run", data_root=root)
    before = (tmp_path / "run" / "last.state").read_bytes()
    with pytest.raises(TrainingError, match="--resume"):
        supervised.train(short, tmp_path / "run", data_root=root)
    assert (tmp_path / "run" / "last.state").read_bytes() == before


def test_a_finished_training_can_be_made_longer(tmp_path: Path, root: Path) -> None:
    told: list[str] = []
    supervised.train(settings(schedule={"name": "cosine", "steps": 4}), tmp_path / "run", data_root=root)
    longer = settings(schedule={"name": "cosine", "steps": 8})
    result = supervised.train(longer, tmp_path / "run", data_root=root, resume=True, tell=told.append)
    assert result.step == 8
    assert "changed since then: schedule.steps was 4, is 8" in told


def test_a_damaged_state_is_a_clear_error(tmp_path: Path, root: Path) -> None:
    (tmp_path / "last.state").write_bytes(b"not a state")
    with pytest.raises(TrainingError, match="cannot be resumed"):
        supervised.train(settings(), tmp_path, data_root=root, resume=True)


def test_a_loss_that_is_not_finite_ends_the_training_by_name(tmp_path: Path, root: Path) -> None:
    wild = settings(optimizer={"name": "sgd", "lr": 1e30, "momentum": 0.0}, clip_grad_norm=None)
    with pytest.raises(TrainingError, match="charbonnier"):
        supervised.train(wild, tmp_path / "run", data_root=root)


def test_training_starts_from_given_weights(tmp_path: Path, root: Path) -> None:
    short = {"name": "constant", "steps": 2}
    supervised.train(settings(schedule=short), tmp_path / "first", data_root=root)
    start = str(tmp_path / "first" / "last.safetensors")
    still = settings(schedule=short, start_from=start, optimizer={"name": "sgd", "lr": 1e-30}, ema=None)
    supervised.train(still, tmp_path / "second", data_root=root)
    first, second = load_file(start), load_file(tmp_path / "second" / "last.safetensors")
    assert all(torch.allclose(first[key], second[key], atol=1e-20) for key in first)
    other = settings(schedule=short, start_from=start, model={**TINY["model"], "width": 8})
    with pytest.raises(TrainingError, match="another network"):
        supervised.train(other, tmp_path / "third", data_root=root)


def test_a_set_too_small_to_hold_anything_out_is_a_clear_error(tmp_path: Path, root: Path) -> None:
    data = {**TINY["data"], "hold_out": 1e-9}
    with pytest.raises(DataError, match="validate on"):
        supervised.train(settings(data=data), tmp_path / "run", data_root=root)


def test_training_on_pairs_uses_the_blurred_files(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    for index in range(4):
        picture = draw.integers(0, 200, (24, 24, 3), dtype=np.uint8)
        for folder, offset in (("blur", 40), ("sharp", 0)):
            (tmp_path / "pairs" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture + np.uint8(offset)).save(tmp_path / "pairs" / folder / f"{index}.png")
    data = {"train": "pairs", "valid": "pairs", "hold_out": 0.4, "crop_px": 16, "batch_size": 2}
    told: list[str] = []
    learnt = settings(data=data, schedule={"name": "constant", "steps": 80}, validation={"every_steps": 80})
    result = supervised.train(learnt, tmp_path / "run", data_root=tmp_path, tell=told.append)
    assert "PSNR" in told[-1]
    assert "blurred input 16.09" in told[-1]  # an offset of 40 grey values
    assert result.best_psnr > 20


@pytest.mark.parametrize("name", ["cosine", "constant"])
def test_the_learning_rate_rises_in_the_warm_up_and_then_follows_its_name(name: str) -> None:
    schedule = Schedule(name=name, steps=100, warmup_steps=10, final_lr=1e-5)
    rates = [learning_rate(step, 100, schedule, Optimizer(lr=1e-2)) for step in range(101)]
    assert rates[:10] == pytest.approx([1e-3 * (step + 1) for step in range(10)])
    assert rates[10] == pytest.approx(1e-2)
    assert rates[100] == pytest.approx(1e-5 if name == "cosine" else 1e-2)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_an_epoch_is_as_many_steps_as_the_pictures_fill() -> None:
    assert total_steps(Schedule(epochs=3), num_pictures=17, batch_size=8) == 9
    assert total_steps(Schedule(steps=5), num_pictures=17, batch_size=8) == 5
