"""Training on windows of frames: mixed into photographs, or alone, for networks that make a clip of one picture."""

import csv
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from training_pictures import TINY, same, settings, write_pictures, write_windows
from unblur import models, weights
from unblur.data.catalog import open_dataset
from unblur.data.windows import open_windows
from unblur.errors import DataError, SettingsError, TrainingError
from unblur.experiment import Experiment
from unblur.settings import validated
from unblur.training import state
from unblur.training.batches import Batch, Batches
from unblur.training.run import train

CPU = torch.device("cpu")
STILL = {"name": "constant", "steps": 1}
WINDOWS = {"windows": "windows", "windows_frames": 5}
MIXED = settings(data={**TINY["data"], **WINDOWS, "recipe": "handheld", "windows_share": 0.4, "batch_size": 4})
CLIPS: dict[str, Any] = {
    "model": {"name": "blur_to_video", "frames": 3, "width": 4, "colour_width": 4, "neighbour_width": 4},
    "data": {"train": "windows", "valid": "windows", "windows": "windows", "windows_share": 1.0, "windows_frames": 3,
             "hold_out": 0.3, "recipe": "sharp", "crop_px": 20, "batch_size": 2},
    "loss": {"mse": 1.0, "order_invariant": 1.0},
    "validation": {"every_steps": 4, "crop_px": 20},
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data root with twelve photographs and eight clips of five frames."""
    folder = tmp_path_factory.mktemp("data")
    write_pictures(folder / "sharp")
    write_windows(folder / "windows", clips=8, frames=5)
    return folder


def of(root: Path, experiment: Experiment, start: int = 0, stop: int = 6, **options: Any) -> list[list[Batch]]:
    """Return the batches of all steps from `start` on."""
    pairs = open_dataset("sharp", root, sharp_only=True)
    windows = open_windows("windows", root, frames=experiment.data.windows_frames)
    return list(Batches(experiment, pairs, stop, CPU, windows=windows, **options).from_step(start))


def with_data(experiment: Experiment, **changes: Any) -> Experiment:
    return experiment.model_copy(update={"data": experiment.data.model_copy(update=changes)})


def rows_of(table: Path) -> list[dict[str, str]]:
    with open(table, newline="") as file:
        return list(csv.DictReader(file))


# -- Batches -----------------------------------------------------------------------------------------------------------


def test_two_fifths_of_the_samples_are_windows(root: Path) -> None:
    names = [name for step in of(root, MIXED, stop=20) for batch in step for name in batch["name"]]
    assert len(names) == 80
    assert sum(name.startswith("clip_") for name in names) == 32


@pytest.mark.parametrize("experiment", [MIXED, settings(**CLIPS)], ids=["mixed", "clips"])
def test_batches_are_the_same_from_any_step_and_with_workers_and_resident(root: Path, experiment: Experiment) -> None:
    whole = of(root, experiment)
    assert same(of(root, experiment, 4), whole[4:])
    assert same(of(root, with_data(experiment, workers=1), 4), whole[4:])
    assert same(of(root, with_data(experiment, resident=True)), whole)


def test_processes_together_see_what_one_sees(root: Path) -> None:
    whole, parts = of(root, MIXED), [of(root, MIXED, rank=rank, processes=2) for rank in (0, 1)]
    for step in range(6):
        theirs = [part[step][0] for part in parts]
        names = [name for both in zip(*(batch["name"] for batch in theirs), strict=True) for name in both]
        assert names == whole[step][0]["name"]
        for key in ("blurred", "sharp"):
            together = torch.stack([batch[key] for batch in theirs], dim=1).flatten(0, 1)
            torch.testing.assert_close(together, whole[step][0][key], rtol=0, atol=1.1 / 255)


def test_photographs_are_the_same_whether_windows_are_mixed_in_or_not(root: Path) -> None:
    pairs = open_dataset("sharp", root, sharp_only=True)
    alone = [batch for step in Batches(MIXED, pairs, 6, CPU).from_step(0) for batch in step]
    mixed = [batch for step in of(root, MIXED, stop=10) for batch in step]
    in_mixed = [s for batch in mixed for s, n in zip(batch["sharp"], batch["name"], strict=True) if n.isdigit()]
    assert torch.equal(torch.stack(in_mixed), torch.cat([batch["sharp"] for batch in alone]))


def test_batches_of_clips_have_all_frames(root: Path) -> None:
    for step in of(root, settings(**CLIPS)):
        (batch,) = step
        assert batch["clip"].shape == (2, 3, 3, 20, 20)
        assert torch.equal(batch["sharp"], batch["clip"][:, 1])
        assert batch["blurred"].shape == (2, 3, 20, 20)
        assert not torch.equal(batch["blurred"], batch["sharp"])


# -- Training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mixed", "clips"])
def test_a_resumed_training_equals_one_that_was_never_stopped(tmp_path: Path, root: Path, kind: str) -> None:
    short = {"schedule": {"name": "cosine", "steps": 4}, "validation": {"every_steps": 2, "crop_px": 20}}
    experiment = settings(**{**CLIPS, **short}) if kind == "clips" else MIXED.model_copy(
        update={key: getattr(settings(**short), key) for key in short}
    )  # fmt: skip

    def stop(line: str) -> None:
        if line.startswith("step 2/"):
            os.kill(os.getpid(), signal.SIGTERM)

    train(experiment, tmp_path / "whole", data_root=root)
    assert train(experiment, tmp_path / "parts", data_root=root, tell=stop).stopped == "interrupted"
    assert train(experiment, tmp_path / "parts", data_root=root, resume=True).stopped == "done"
    whole, parts = (state.read_state(tmp_path / run / "last.state")[2] for run in ("whole", "parts"))
    assert same(whole, parts)


def test_the_pairs_of_frames_come_nearer_to_the_true_ones_in_whichever_order(tmp_path: Path, root: Path) -> None:
    short = {**CLIPS, "schedule": {"name": "constant", "steps": 30}, "optimizer": {"name": "adam", "lr": 5e-3},
             "validation": {"every_steps": 30}, "ema": None}  # fmt: skip
    train(settings(**short), tmp_path, data_root=root)
    parts = [float(row["order_invariant"]) for row in rows_of(tmp_path / "log" / "train.csv")]
    assert parts[-1] < 0.8 * parts[0]


def test_held_out_windows_are_validated_on_beside_the_photographs(tmp_path: Path, root: Path) -> None:
    shown: list[str] = []
    everything = {**MIXED.model_dump(), "schedule": STILL, "validation": {"crop_px": 24}}
    train(Experiment.model_validate(everything), tmp_path / "both", data_root=root, tell=shown.append)
    without = {**TINY["data"], "recipe": "handheld", "batch_size": 4}
    train(settings(data=without, schedule=STILL, validation={"crop_px": 24}), tmp_path / "photographs", data_root=root,
          tell=shown.append)  # fmt: skip
    both, photographs = (line.split("(blurred input ")[2] for line in shown if "validation loss" in line)
    assert both != photographs


def test_a_network_starts_from_the_weights_of_its_middle_frame_alone(tmp_path: Path, root: Path) -> None:
    middle = {**CLIPS, "model": {**CLIPS["model"], "frames": 1}, "schedule": STILL, "loss": {"mse": 1.0}}
    train(settings(**middle), tmp_path / "middle", data_root=root)
    start = str(tmp_path / "middle" / "last.safetensors")
    still = {**CLIPS, "schedule": STILL, "optimizer": {"name": "sgd", "lr": 1e-30}, "ema": None, "start_from": start}
    train(settings(**still), tmp_path / "all", data_root=root)
    first, second = load_file(start), load_file(tmp_path / "all" / "last.safetensors")
    assert first.keys() < second.keys()
    assert all(torch.allclose(first[key], second[key], atol=1e-20) for key in first)
    smaller = {**still, "start_from": str(tmp_path / "all" / "last.safetensors"), "model": middle["model"]}
    wider = {**still, "model": {**CLIPS["model"], "width": 8}}
    for other in ({**smaller, "loss": {"mse": 1.0}}, wider):
        with pytest.raises(TrainingError, match="another network"):
            train(settings(**other), tmp_path / "other", data_root=root)


def test_the_middle_frame_learns_what_a_restoring_network_gives(tmp_path: Path, root: Path) -> None:
    torch.manual_seed(0)
    teacher = models.create("nafnet", width=4, encoder_blocks=[1], middle_blocks=1, decoder_blocks=[1])
    weights.save(teacher, tmp_path / "teacher.safetensors", {})
    taught = {**CLIPS, "schedule": {"name": "constant", "steps": 20}, "optimizer": {"name": "adam", "lr": 5e-3},
              "ema": None, "loss": {"order_invariant": 1.0}, "validation": {"every_steps": 20},
              "teacher": {"weights": str(tmp_path / "teacher.safetensors"), "loss": "l1", "weight": 10.0}}  # fmt: skip
    train(settings(**taught), tmp_path / "run", data_root=root)
    told = [float(row["teacher"]) for row in rows_of(tmp_path / "run" / "log" / "train.csv")]
    assert told[-1] < 0.9 * told[0]


def test_the_clip_is_learnt_against_a_critic_too(tmp_path: Path, root: Path) -> None:
    against = {**CLIPS, "schedule": {"name": "constant", "steps": 10}, "loss": {**CLIPS["loss"], "lsgan": 0.01},
               "adversarial": {"critics": {"patch": {"name": "patch", "channels": 4, "halvings": 1}}}}  # fmt: skip
    train(settings(**against), tmp_path, data_root=root)
    (row,) = rows_of(tmp_path / "log" / "train.csv")
    assert {"order_invariant", "lsgan", "critic/loss"} <= row.keys()


def test_windows_that_are_all_held_out_are_a_clear_error(tmp_path: Path, root: Path) -> None:
    none_left = with_data(MIXED, hold_out=0.999, train="sharp", valid="windows")
    with pytest.raises(DataError, match=r"no window to train on: hold_out 0.999 takes all of 'windows'"):
        train(none_left, tmp_path, data_root=root)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {**TINY["data"], "windows": "windows"}}, "need each other"),
        ({"data": {**TINY["data"], **WINDOWS, "windows_share": 0.4, "windows_frames": 6}}, "must be odd"),
        ({"data": {**TINY["data"], **WINDOWS, "windows_share": 0.4, "recipe": None}}, "give recipe"),
        ({"data": {**TINY["data"], **WINDOWS, "windows_share": 0.4, "crop_px": None}}, "give crop_px or resize"),
        ({"data": {**TINY["data"], **WINDOWS, "windows_share": 1.0}}, "train is to be the same"),
        ({**CLIPS, "data": {**CLIPS["data"], "windows_frames": 5}}, "makes 3 frames: data.windows_frames is to be 3"),
        ({"loss": {"order_invariant": 1.0}}, "order_invariant needs a network of several frames"),
    ],
)
def test_settings_that_do_not_belong_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        validated(Experiment, {**TINY, **changes}, "here.yaml")
