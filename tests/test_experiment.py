"""An experiment is data: a mistake in it is named at once, and `--set` changes single values."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from unblur import experiment
from unblur.errors import SettingsError
from unblur.experiment import Experiment, load, parse_size

RIGHT: dict[str, Any] = {
    "model": {"name": "reduced_deblurnet", "residual": True},
    "data": {"train": "sharp", "valid": "sharp", "hold_out": 0.1, "recipe": "everyday", "crop_px": 32},
    "loss": {"charbonnier": 1.0},
    "optimizer": {"name": "adam", "lr": 5.0e-3},
    "schedule": {"steps": 10},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of an experiment without a mistake."""
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(RIGHT), encoding="utf-8")
    return file


def complaint(path: Path, *changes: str) -> str:
    """Return the one line in which the changed experiment is refused."""
    with pytest.raises(SettingsError) as caught:
        load(path, changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_experiment_holds_what_its_file_says_and_the_defaults(path):
    loaded = load(path)
    assert loaded.model.options == {"residual": True}
    assert loaded.optimizer.lr == 5e-3
    assert loaded.data.batch_size == 8
    assert loaded.data.blur is not None
    assert loaded.data.blur.name == "everyday"
    assert loaded.clip_grad_norm is None
    assert loaded.seed == 0


def test_what_an_experiment_writes_is_read_as_the_same_experiment(path, tmp_path):
    loaded = load(path, ["data.shrink=[1, 2]", "model={name: nafnet, width: 8}", "ema=0.999"])
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(loaded.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    assert load(again) == loaded


# -- --set -------------------------------------------------------------------------------------------------------------


def test_single_values_are_changed(path):
    changed = load(
        path, ["seed=7", "optimizer.lr=5e-4", "data.shrink=[1, 2]", "data.recipe=null", "validation.patience=3"]
    )
    assert changed.seed == 7
    assert changed.optimizer.lr == 5e-4
    assert changed.data.shrink == (1.0, 2.0)
    assert changed.data.blur is None
    assert changed.validation.patience == 3
    assert changed.loss == load(path).loss


def test_a_later_change_overrides_an_earlier_one(path):
    assert load(path, ["seed=1", "seed=2"]).seed == 2


def test_a_whole_table_can_be_changed(path):
    assert load(path, ["schedule={name: cosine, epochs: 3}"]).schedule.epochs == 3


@pytest.mark.parametrize("change", ["seed", "=3", ""])
def test_a_change_without_key_or_value_is_refused(path, change):
    assert "write key=value" in complaint(path, change)


def test_a_change_that_is_not_yaml_is_refused(path):
    assert "[1" in complaint(path, "data.shrink=[1")


@pytest.mark.parametrize("text", ["", "- 1", "only text"])
def test_a_file_that_holds_no_table_is_refused_with_changes_too(tmp_path, text):
    file = tmp_path / "wrong.yaml"
    file.write_text(text, encoding="utf-8")
    for changes in ([], ["seed=1"], ["optimizer.lr=1"]):
        assert "not a table of keys and values" in complaint(file, *changes)


# -- Mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("sede=1", "unknown key 'sede'. Did you mean 'seed'?"),
        ("optimizer.lrr=1", "unknown key 'optimizer.lrr'. Did you mean 'lr'?"),
        ("data.crop=64", "unknown key 'data.crop'. Did you mean 'crop_px'?"),
        ("validation.every_step=5", "Did you mean 'every_steps'?"),
        ("model.residul=true", "No option of reduced_deblurnet is called 'residul'. Did you mean 'residual'?"),
        ("model.name=nafent", "No model is called 'nafent'. Did you mean 'nafnet'?"),
        ("data.recipe=evryday", "No recipe is called 'evryday'. Did you mean 'everyday'?"),
        ("data.recipe=missing.yaml", "missing.yaml does not exist"),
        ("loss.charbonier=1", "No loss is called 'charbonier'. Did you mean 'charbonnier'?"),
        ("loss={}", "at least one loss"),
        ("optimizer.lr=0", "'optimizer.lr' is 0: Input should be greater than 0"),
        ("optimizer.lr=fast", "'optimizer.lr' is 'fast'"),
        ("optimizer.name=adan", "'adam', 'adamw' or 'sgd'"),
        ("data.hold_out=1", "less than 1"),
        ("data.crop_px=4", "greater than or equal to 8"),
        ("data.resize=large", "'data.resize' is 'large'"),
        ("data.resize=448x0", "'data.resize' is '448x0'"),
        ("precision=fp8", "'precision' is 'fp8'"),
        ("schedule={name: cosin, steps: 9}", "'schedule.name' is 'cosin'"),
        ("data.progressive=[{steps: 5, crop_px: 64, batchsize: 2}]", "Did you mean 'batch_size'?"),
        ("teacher={weights: default, loss: kld}", "the loss compares pictures"),
        ("ema=1", "'ema' is 1"),
        ("seed=two", "'seed' is 'two'"),
        ("seed=", "'seed' is None"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_what_would_be_right(path, change, message):
    said = complaint(path, change)
    assert said.startswith(f"{path}: ")
    assert message in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.hold_out=0"], "train and valid are the same set: give hold_out"),
        (["schedule.epochs=2"], "give either steps or epochs"),
        (["schedule={name: constant}"], "give either steps or epochs"),
        (["data.shrink=[2, 1]"], "lowest <= highest"),
        (["data.shrink=[0.5, 1]"], "1 <= lowest"),
        (["data.progressive=[{steps: 5, crop_px: 64, batch_size: 2}]"], "progressive gives the crops of each stage"),
        (["strategy=fsdp", "ema=0.9"], "fsdp goes without ema"),
        (["data.max_ssim=0.9"], "max_ssim chooses among crops of pairs"),
        (["schedule={name: step, steps: 9}"], "step needs every and factor"),
        (["schedule={name: multi_step, steps: 9, factor: 0.5}"], "multi_step needs at and factor"),
        (["schedule={name: exponential, steps: 9}"], "exponential needs factor and every"),
        (["schedule={name: plateau, steps: 9, factor: 0.1}"], "plateau needs factor and patience"),
        (["schedule={name: cosine, steps: 9, factor: 0.5}"], "cosine has no factor"),
        (["schedule={name: constant, steps: 9, hold: 3}"], "constant has no hold"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(path, changes, message):
    assert message in complaint(path, *changes)


@pytest.mark.parametrize(
    "changes",
    [
        ["data.valid=pairs", "data.hold_out=0"],
        ["data.crop_px=null", "data.resize=48x32"],
        ["data.crop_px=null", "data.batch_size=1"],
        ["data.crop_px=null", "data.rotations=true", "data.progressive=[{steps: 5, crop_px: 64, batch_size: 2}]"],
        ["schedule={name: exponential, steps: 9, final_lr: 1e-6}"],
        ["schedule={name: exponential, steps: 9, factor: 0.5, every: 3, hold: 2}"],
        ["schedule={name: cosine_restarts, epochs: 9, every: 3, growth: 2}"],
    ],
)
def test_settings_that_only_look_contradictory_are_taken(path, changes):
    assert isinstance(load(path, changes), Experiment)


def test_a_missing_table_is_named(tmp_path):
    file = tmp_path / "short.yaml"
    file.write_text(yaml.safe_dump({key: RIGHT[key] for key in ("model", "data")}), encoding="utf-8")
    for key in ("loss", "optimizer", "schedule"):
        assert f"'{key}' is missing" in complaint(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere.yaml does not exist"):
        experiment.load(tmp_path / "nowhere.yaml", ["seed=1"])


# -- Sizes -------------------------------------------------------------------------------------------------------------


def test_a_size_is_width_times_height(path):
    assert parse_size("448x256") == (448, 256)
    assert load(path, ["data.resize=448x256"]).data.size == (448, 256)
    assert load(path).data.size is None


@pytest.mark.parametrize("text", ["448", "448x", "x256", "448x256x3", "0x256", "448x0", "-1x5", "a x b", ""])
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(SettingsError, match="for example 448x256"):
        parse_size(text)
