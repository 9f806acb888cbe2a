"""Every experiment that ships can be read, says in its first lines what it is, and takes a step in a small form."""

import math
from pathlib import Path
from typing import Any

import pytest

from training_pictures import write_pairs, write_pictures, write_windows
from unblur import models
from unblur.experiment import Experiment, load
from unblur.training.run import train

FOLDER = Path(__file__).parents[1] / "experiments"
EXPERIMENTS = sorted(path for path in FOLDER.rglob("*.y*ml") if path.parent.name != "studies")  # those: test_sweep.py
EVERY = pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.relative_to(FOLDER).as_posix())


def test_there_are_experiments():
    assert EXPERIMENTS
    assert {path.suffix for path in EXPERIMENTS} == {".yaml"}


@EVERY
def test_an_experiment_begins_with_what_it_is(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 20


@EVERY
def test_an_experiment_is_read_without_complaint_and_its_network_can_be_built(path):
    settings = load(path).model
    model = models.create(settings.name, **settings.options)
    assert settings.options.items() <= model.arch_options.items()


@EVERY
def test_an_experiment_names_data_sets_and_never_paths(path):
    data = load(path).data
    for name in (data.train, data.valid):
        assert not name.startswith((".", "/", "~"))
        assert "\\" not in name


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data root with sharp pictures, with pairs, and with clips of eleven frames."""
    folder = tmp_path_factory.mktemp("data")
    write_pictures(folder / "sharp")
    write_pairs(folder / "pairs", offset=20)
    write_windows(folder / "windows", clips=8, frames=11)
    return folder


@EVERY
def test_an_experiment_takes_a_step_in_a_small_form(path: Path, root: Path, tmp_path: Path) -> None:
    small = shrunk(load(path))
    result = train(small, tmp_path, data_root=root)
    assert (result.step, result.bad_steps) == (1, 0)
    assert math.isfinite(result.best_loss)
    assert load(tmp_path / "experiment.yaml") == small


def shrunk(experiment: Experiment) -> Experiment:
    """Return the experiment with a tiny network, small crops of other pictures and random VGG weights, for one step."""
    settings = experiment.model_dump(mode="json", exclude_none=True)
    settings["model"] = tiny(settings["model"])
    pictures = "windows" if experiment.data.windows_only else "sharp" if experiment.data.recipe else "pairs"
    settings["data"] |= {"train": pictures, "valid": pictures}
    settings["data"] |= {"hold_out": 0.5, "share": 1.0, "batch_size": 2, "workers": 0, "resident": False}
    if experiment.data.crop_px:
        settings["data"]["crop_px"] = 32
    if experiment.data.resize:
        settings["data"]["resize"] = "32x32"
    if experiment.data.progressive:
        settings["data"]["progressive"] = [{"steps": 1, "crop_px": 32, "batch_size": 2}]
    one_step(settings["schedule"])
    if experiment.adversarial:
        shrink_adversary(settings)
    settings |= {"vgg": "random", "precision": "fp32", "compile": False, "accumulate": 1}
    settings["validation"] = {"every_steps": 1, "max_pictures": 1, "crop_px": 32}
    return Experiment.model_validate(settings)


def shrink_adversary(settings: dict[str, Any]) -> None:
    section = settings["adversarial"]
    section["steps"] = min(section["steps"], 2)
    for critic in section["critics"].values():
        if critic["name"] == "deepdeblur":
            settings["data"]["crop_px"] = 193  # the least that it takes; its width is fixed
        else:
            critic["channels"] = 2
    if "schedule" in section:
        one_step(section["schedule"])
    if "reblur" in section:
        section["reblur"] = tiny(section["reblur"])


def tiny(model: dict[str, Any]) -> dict[str, Any]:
    """Return the network with its tiny sizes; what the file says in words or by true and false stays."""
    sizes = models.find(model["name"]).tiny
    kept = {key: value for key, value in model.items() if key not in sizes or isinstance(value, str | bool)}
    return {**sizes, **kept}


def one_step(schedule: dict[str, Any]) -> None:
    schedule.pop("epochs", None)
    schedule["steps"] = 1
