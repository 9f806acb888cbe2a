"""Training on a few small pictures: it learns, it stops, and it goes on exactly where it stopped."""

import csv
import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from training_pictures import TINY, same, settings, write_pairs, write_pictures
from unblur import experiment, losses, weights
from unblur.errors import DataError, OutputError, TrainingError
from unblur.experiment import Experiment
from unblur.training import run as training_run
from unblur.training import state
from unblur.training.run import TrainingResult, train

SHORT = {"name": "constant", "steps": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data root whose set `sharp` holds twelve pictures of stripes and blobs."""
    folder = tmp_path_factory.mktemp("data")
    write_pictures(folder / "sharp")
    return folder


def way_of(run: Path) -> dict[str, Any]:
    """Return the weights, averages and optimisers of a run."""
    return state.read_state(run / "last.state")[2]


def facts_of(run: Path) -> state.Progress:
    return state.read_state(run / "last.state")[1]


def rows_of(table: Path) -> list[dict[str, str]]:
    with open(table, newline="") as file:
        return list(csv.DictReader(file))


class _At:
    """A `tell` that does something when the training reports a step."""

    def __init__(self, step: int, do: Callable[[], object]) -> None:
        self.step, self.do = step, do

    def __call__(self, line: str) -> None:
        if line.startswith(f"step {self.step}/") and "validation" in line:
            self.do()


def in_two_parts(
    settings: Experiment, out: Path, root: Path, at: int, number: signal.Signals = signal.SIGTERM
) -> TrainingResult:
    """Train until a signal comes at the validation of step `at`, then resume to the end."""
    first = train(settings, out, data_root=root, tell=_At(at, lambda: os.kill(os.getpid(), number)))
    assert first.stopped == "interrupted"
    assert at <= first.step <= at + 1
    return train(settings, out, data_root=root, resume=True)


# -- Stopping and going on ---------------------------------------------------------------------------------------------

FOUR_AND_FOUR = {"schedule": {"name": "cosine", "steps": 8}, "validation": {"every_steps": 4, "max_pictures": 1}}
PROGRESSIVE = [{"steps": 3, "crop_px": 16, "batch_size": 4}, {"steps": 2, "crop_px": 24, "batch_size": 2},
               {"steps": 3, "crop_px": 32, "batch_size": 2}]  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {
    "average": {},
    "accumulation": {"accumulate": 3, "ema": None},
    "plateau": {"schedule": {"name": "plateau", "steps": 8, "factor": 0.1, "patience": 1},
                "validation": {"every_steps": 2, "max_pictures": 1}, "optimizer": {"name": "sgd", "lr": 0.5}},
    "progressive": {"data": {**TINY["data"], "crop_px": None, "progressive": PROGRESSIVE}, "accumulate": 2},
    "batch normalisation": {"model": {"name": "reduced_deblurnet", "residual": True}, "ema": None},
    "multi-stage": {"model": {"name": "mimo_unet", "width": 4, "blocks": 1}},
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_training_equals_one_that_was_never_stopped(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(training_run, "EVERY_STEPS", 1)  # loss, learning rate and number of pictures of every step
    changed = settings(**{**FOUR_AND_FOUR, **WAYS[way]})
    whole = train(changed, tmp_path / "whole", data_root=root)
    parts = in_two_parts(changed, tmp_path / "parts", root, at=4)
    assert (whole.step, parts.step, parts.stopped) == (8, 8, "done")
    assert same(way_of(tmp_path / "whole"), way_of(tmp_path / "parts"))
    assert whole.best_loss == parts.best_loss
    timed = {"seconds", "cpu_seconds", "images_per_second", "waiting"}
    for name in ("train.csv", "valid.csv"):
        ours, theirs = (rows_of(tmp_path / run / "log" / name) for run in ("whole", "parts"))
        assert [{k: v for k, v in row.items() if k not in timed} for row in ours] == [
            {k: v for k, v in row.items() if k not in timed} for row in theirs
        ]


def test_a_training_whose_time_is_up_saves_and_goes_on(root: Path, tmp_path: Path) -> None:
    chosen = settings(**FOUR_AND_FOUR)
    first = train(chosen, tmp_path / "parts", data_root=root, stop_after=0)
    assert (first.step, first.stopped) == (1, "time is up")
    parts = train(chosen, tmp_path / "parts", data_root=root, resume=True, stop_after=1000)
    assert (parts.step, parts.stopped) == (8, "done")
    assert parts.best_loss == train(chosen, tmp_path / "whole", data_root=root).best_loss


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_twenty_steps_are_ten_and_ten_more_whatever_stopped_them(
    tmp_path: Path, root: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    whole = train(settings(), tmp_path / "whole", data_root=root)
    parts = in_two_parts(settings(), tmp_path / "parts", root, at=10, number=number)
    assert (whole.step, parts.step) == (20, 20)
    assert same(way_of(tmp_path / "whole"), way_of(tmp_path / "parts"))
    assert signal.getsignal(number) == before


def test_time_and_pictures_are_counted_over_all_resumes(tmp_path: Path, root: Path) -> None:
    short = settings(**FOUR_AND_FOUR)
    first = train(short, tmp_path, data_root=root, tell=_At(4, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    second = train(short, tmp_path, data_root=root, resume=True)
    assert second.seconds > first.seconds > 0
    assert second.cpu_seconds > first.cpu_seconds > 0
    facts = weights.describe(tmp_path / "last.safetensors").facts
    assert facts["images"] == 16
    assert facts["seconds"] == pytest.approx(second.seconds, rel=0.5)
    assert facts["cpu_seconds"] == pytest.approx(second.cpu_seconds, rel=0.5)


def test_a_state_of_the_first_format_is_taken_up(tmp_path: Path, root: Path) -> None:
    short = settings(schedule={"name": "constant", "steps": 4})
    train(short, tmp_path / "run", data_root=root)
    before, progress, way = state.read_state(tmp_path / "run" / "last.state")
    first_format = {
        "format": 1,
        "experiment": {key: value for key, value in before.items() if key != "accumulate"},
        "step": progress.step,
        "best": {"loss": progress.best_loss, "psnr": progress.best_psnr, "looks_since": 0},
        "random_state": torch.get_rng_state(),
        **{key: way[key] for key in ("network", "average", "optimizer")},
    }
    told: list[str] = []
    for name, resumed in (("old", first_format), ("new", None)):
        train(short, tmp_path / name, data_root=root)
        if resumed is not None:
            torch.save(resumed, tmp_path / name / "last.state")
        longer = settings(schedule={"name": "constant", "steps": 8})
        train(longer, tmp_path / name, data_root=root, resume=True, tell=told.append)
    assert told.count("changed since then: schedule.steps was 4, is 8") == 2
    assert len([line for line in told if line.startswith("changed")]) == 2
    assert same(way_of(tmp_path / "old"), way_of(tmp_path / "new"))


def test_a_run_folder_is_not_overwritten_without_resume(tmp_path: Path, root: Path) -> None:
    train(settings(schedule=SHORT), tmp_path / "run", data_root=root)
    before = (tmp_path / "run" / "last.state").read_bytes()
    with pytest.raises(TrainingError, match="--resume"):
        train(settings(schedule=SHORT), tmp_path / "run", data_root=root)
    assert (tmp_path / "run" / "last.state").read_bytes() == before


def test_a_damaged_state_is_a_clear_error(tmp_path: Path, root: Path) -> None:
    (tmp_path / "last.state").write_bytes(b"not a state")
    with pytest.raises(TrainingError, match="cannot be resumed"):
        train(settings(), tmp_path, data_root=root, resume=True)


def test_a_state_of_another_network_is_a_clear_error(tmp_path: Path, root: Path) -> None:
    train(settings(schedule=SHORT), tmp_path / "run", data_root=root)
    other = settings(model={**TINY["model"], "width": 8})
    with pytest.raises(TrainingError, match="belongs to another training"):
        train(other, tmp_path / "run", data_root=root, resume=True)


def test_a_full_disk_leaves_the_state_before(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = settings(**FOUR_AND_FOUR)
    write, calls = torch.save, []

    def save(content: object, path: Path) -> None:
        write(content, path)
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(path.read_bytes()[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OutputError, match="No space left"):
        train(long, tmp_path / "run", data_root=root)
    assert facts_of(tmp_path / "run").step == 4
    assert not list((tmp_path / "run").glob(".*"))
    train(long, tmp_path / "run", data_root=root, resume=True)
    train(long, tmp_path / "whole", data_root=root)
    assert same(way_of(tmp_path / "run"), way_of(tmp_path / "whole"))


# -- What is not finite ------------------------------------------------------------------------------------------------


class _BadLoss(torch.nn.Module):
    """A loss whose value, or whose gradient alone, is not finite in some of its calls while training."""

    def __init__(self, loss: torch.nn.Module, bad: set[int], *, value: bool) -> None:
        super().__init__()
        self.loss, self.bad, self.value, self.calls = loss, bad, value, 0
        self.final, self.adversarial, self.notes = loss.final, {}, ()

    def forward(self, outputs: torch.Tensor, sharp: torch.Tensor, blurred: torch.Tensor, clip: None = None) -> Any:
        total, parts = self.loss(outputs, sharp, blurred, clip)
        self.calls += 1
        if self.calls - 1 not in self.bad:
            return total, parts
        if self.value:
            return total + torch.inf, {**parts, "edge": total + torch.inf}
        zero = (outputs - outputs.detach()).sum()
        return total + zero.square().sqrt(), parts  # 0, with a slope of 0/0


def with_bad_steps(monkeypatch: pytest.MonkeyPatch, bad: set[int], *, value: bool = True) -> None:
    build = losses.build
    monkeypatch.setattr(losses, "build", lambda *args, **options: _BadLoss(build(*args, **options), bad, value=value))


@pytest.mark.parametrize(("value", "named"), [(True, "not finite: edge"), (False, "not finite: the gradient of ")])
def test_a_step_that_is_not_finite_is_skipped_counted_and_told(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, value: bool, named: str
) -> None:
    with_bad_steps(monkeypatch, {4, 7, 8}, value=value)
    told: list[str] = []
    result = train(settings(max_bad_steps=3), tmp_path, data_root=root, tell=told.append)
    assert (result.step, result.bad_steps) == (20, 3)
    skipped = [line for line in told if "was skipped" in line]
    assert [line.split("/")[0] for line in skipped] == ["step 5", "step 8", "step 9"]
    assert all(named in line for line in skipped)
    assert all(torch.isfinite(tensor).all() for tensor in way_of(tmp_path)["network"].values())
    assert [row["bad_steps"] for row in rows_of(tmp_path / "log" / "train.csv")] == ["3", "3"]


def test_a_skipped_step_leaves_no_trace(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_bad_steps(monkeypatch, {2, 3})
    net = {"name": "reduced_deblurnet", "residual": True}  # with batch normalisation, which gathers statistics
    for name, steps in (("before", 2), ("after", 4)):
        short = settings(model=net, schedule={"name": "constant", "steps": steps}, validation={"every_steps": 2})
        train(short, tmp_path / name, data_root=root)
    assert same(way_of(tmp_path / "before"), way_of(tmp_path / "after"))


def test_too_many_bad_steps_in_a_row_end_the_training_and_keep_what_was_good(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_bad_steps(monkeypatch, set(range(5, 99)))
    with pytest.raises(TrainingError, match=r"4 steps in a row.*first edge at step 6\."):
        train(settings(max_bad_steps=4, checkpoint_steps=1), tmp_path, data_root=root)
    assert facts_of(tmp_path).step == 5
    weights.load(tmp_path / "last.safetensors")


# -- What comes of it --------------------------------------------------------------------------------------------------


def test_training_improves_on_the_blurred_input(tmp_path: Path, root: Path) -> None:
    told: list[str] = []
    long = settings(schedule={"name": "cosine", "steps": 40}, validation={"every_steps": 40, "max_pictures": 3})
    result = train(long, tmp_path / "run", data_root=root, tell=told.append)
    look = next(line for line in told if "validation loss" in line)
    assert result.best_psnr > float(look.split("blurred input ")[2].split(")")[0])


def test_a_run_folder_holds_settings_logs_and_a_checkpoint_that_loads(tmp_path: Path, root: Path) -> None:
    run = tmp_path / "run"
    result = train(settings(), run, data_root=root)
    assert 0 < result.waiting < 1
    assert experiment.load(run / "experiment.yaml") == settings()
    for name in ("best.safetensors", "last.safetensors"):
        assert weights.load(run / name).arch_options["width"] == 4
    facts = weights.describe(run / "last.safetensors").facts
    assert facts["step"] == 20
    assert Experiment.model_validate(facts["experiment"]) == settings()
    rows = rows_of(run / "log" / "train.csv")
    assert [row["step"] for row in rows] == ["10", "20"]
    assert [row["images"] for row in rows] == ["20", "40"]
    assert {"loss", "charbonnier", "psnr", "learning_rate", "seconds", "cpu_seconds", "waiting"} <= rows[0].keys()
    assert [row["step"] for row in rows_of(run / "log" / "valid.csv")] == ["10", "20"]
    assert list(run.glob("log/events.out.tfevents.*"))


def test_the_kept_network_is_the_moving_average(tmp_path: Path, root: Path) -> None:
    train(settings(), tmp_path, data_root=root)
    kept, way = load_file(tmp_path / "last.safetensors"), way_of(tmp_path)
    assert all(torch.equal(kept[key], way["average"][f"module.{key}"]) for key in kept)
    assert any(not torch.equal(kept[key], way["network"][key]) for key in kept)


def test_the_same_seed_trains_the_same_network_and_another_seed_another(tmp_path: Path, root: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(settings(seed=seed, schedule=SHORT), tmp_path / name, data_root=root)
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
    result = train(stuck, tmp_path / "run", data_root=root)
    assert result.stopped == "early stopping"
    assert result.step < 50


def test_a_finished_training_can_be_made_longer(tmp_path: Path, root: Path) -> None:
    train(settings(schedule={"name": "cosine", "steps": 4}), tmp_path / "run", data_root=root)
    longer = settings(schedule={"name": "cosine", "steps": 8})
    assert train(longer, tmp_path / "run", data_root=root, resume=True).step == 8


def test_training_starts_from_given_weights(tmp_path: Path, root: Path) -> None:
    train(settings(schedule=SHORT), tmp_path / "first", data_root=root)
    start = str(tmp_path / "first" / "last.safetensors")
    still = settings(schedule=SHORT, start_from=start, optimizer={"name": "sgd", "lr": 1e-30}, ema=None)
    train(still, tmp_path / "second", data_root=root)
    first, second = load_file(start), load_file(tmp_path / "second" / "last.safetensors")
    assert all(torch.allclose(first[key], second[key], atol=1e-20) for key in first)
    other = settings(schedule=SHORT, start_from=start, model={**TINY["model"], "width": 8})
    with pytest.raises(TrainingError, match="another network"):
        train(other, tmp_path / "third", data_root=root)


def test_a_student_learns_to_give_what_its_teacher_gives(tmp_path: Path, root: Path) -> None:
    train(settings(schedule={"name": "constant", "steps": 10}), tmp_path / "teacher", data_root=root)
    teacher = {"weights": str(tmp_path / "teacher" / "last.safetensors"), "loss": "l1", "weight": 100.0}
    taught = settings(schedule={"name": "constant", "steps": 20}, seed=4, teacher=teacher)
    train(taught, tmp_path / "student", data_root=root)
    rows = rows_of(tmp_path / "student" / "log" / "train.csv")
    told = [float(row["teacher"]) for row in rows]
    assert told[-1] < 0.8 * told[0]
    for row in rows:
        assert float(row["loss"]) == pytest.approx(float(row["charbonnier"]) + 100 * float(row["teacher"]), rel=1e-4)


def test_a_set_too_small_to_hold_anything_out_is_a_clear_error(tmp_path: Path, root: Path) -> None:
    data = {**TINY["data"], "hold_out": 1e-9}
    with pytest.raises(DataError, match="validate on"):
        train(settings(data=data), tmp_path / "run", data_root=root)


def test_whole_pictures_of_several_sizes_are_a_clear_error(tmp_path: Path) -> None:
    for file in write_pictures(tmp_path / "sharp")[::2]:
        Image.open(file).transpose(Image.Transpose.ROTATE_90).save(file)
    data = {**TINY["data"], "crop_px": None, "batch_size": 6}
    with pytest.raises(TrainingError, match=r"several sizes make no batch: give data\.crop_px"):
        train(settings(data=data), tmp_path / "run", data_root=tmp_path)


def test_fp16_without_cuda_is_a_clear_error(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match="fp16 needs a GPU with CUDA"):
        train(settings(precision="fp16"), tmp_path / "run", data_root=root)


def test_pairs_of_unequal_size_and_of_mixed_colours_stop_a_training_before_its_first_step(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", offset=40)
    Image.new("RGB", (24, 25)).save(tmp_path / "pairs/blur/0.png")
    Image.new("L", (24, 24)).save(tmp_path / "pairs/sharp/1.png")
    data = {"train": "pairs", "valid": "pairs", "hold_out": 0.4, "crop_px": 16, "batch_size": 2}
    with pytest.raises(DataError, match=r"2 pairs differ in size or colours: .*0.png \(24x25.*1.png \(colour, its"):
        train(settings(data=data), tmp_path / "run", data_root=tmp_path)
    assert not (tmp_path / "run").exists()


def test_training_on_pairs_uses_the_blurred_files(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", offset=40)
    data = {"train": "pairs", "valid": "pairs", "hold_out": 0.4, "crop_px": 16, "batch_size": 2}
    told: list[str] = []
    learnt = settings(data=data, schedule={"name": "constant", "steps": 50}, validation={"every_steps": 50})
    result = train(learnt, tmp_path / "run", data_root=tmp_path, tell=told.append)
    assert any("blurred input 16.09" in line for line in told)  # an offset of 40 grey values
    assert result.best_psnr > 20


def test_further_metrics_of_a_validation_are_means_over_the_pictures_that_its_loss_is_of(
    root: Path, tmp_path: Path
) -> None:
    looking = {"every_steps": 2, "max_pictures": 3, "metrics": ["psnr-float", "strongest-channel", "mse"]}
    train(settings(schedule=SHORT, validation=looking, loss={"mse": 1.0}), tmp_path, data_root=root)
    row = {name: float(value) for name, value in rows_of(tmp_path / "log/valid.csv")[-1].items()}
    assert row["psnr-float"] == pytest.approx(row["psnr"])
    assert row["mse"] == pytest.approx(row["loss"])
    assert 0 < row["strongest-channel"] < 1


def test_a_metric_that_is_not_known_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match=r"No metric is called 'psn'. Did you mean 'psnr'"):
        settings(validation={"metrics": ["psn"]})
