"""Every experiment that ships can be read, says in its first lines what it is, and takes a step in a small form."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from data_trees import put_pair
from training_pictures import write_pairs, write_pictures, write_windows
from unblur import models, weights
from unblur.experiment import Experiment, load
from unblur.inference import restore_image
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


ADAM_MSE = {"optimizer.name": "adam", "optimizer.lr": 1e-3, "loss": {"mse": 1.0}}
CAESSC = {**ADAM_MSE, "optimizer.lr": 1e-4, "model.name": "caessc"}
HALF = {**CAESSC, "model.depth": 22, "model.filters": 128, "model.half": True}
SRN = {**ADAM_MSE, "model.name": "srn_deblur_cifar", "data.batch_size": 150}
TRIPLE = {"data.recipe": "gaussian-triple", "data.resize": "448x256"}
MINUS_PSNR = {**TRIPLE, "loss": {"psnr": 1.0}, "data.batch_size": 8, "optimizer.name": "adam", "optimizer.lr": 5e-3}
STEPLR = {"model.name": "vit_deblur", "schedule.name": "step", "schedule.epochs": 100, "schedule.every": 25}
VIT = {**STEPLR, "data.batch_size": 1, "data.train": "kaggle-blur/all/motion"}
STRIPFORMER = {"model.name": "stripformer", "loss": {"charbonnier": 1.0, "edge": 0.05, "contrastive": 5e-4}}
REDS = {"model.name": "srn_deblur_reds", "loss": {"mse": 1.0}, "data.batch_size": 10, "data.crop_px": 256}

DOCUMENTED: dict[str, tuple[dict[str, object], list[str]]] = {
    "cifar10/resunet_1.yaml": ({**ADAM_MSE, "model.num_blocks": 1}, ["40 epochs", "0.0018", "28.49", "0.930"]),
    "cifar10/resunet_3.yaml": ({**ADAM_MSE, "model.num_blocks": 3}, ["50 epochs", "0.0016", "29.03", "0.935"]),
    "cifar10/eddensenet.yaml": (ADAM_MSE, ["after 5", "22 epochs", "0.0021", "27.62", "0.90"]),
    "cifar10/caessc_d30_f64.yaml": (CAESSC, ["after 7", "40 epochs", "0.0018", "28.95", "0.919"]),
    "cifar10/caessc_d22_f128_half.yaml": (HALF, ["after 7", "80 epochs", "0.0020", "28.12", "0.916"]),
    "cifar10/caessc_d22_f128_half_no_sigmoid.yaml": (
        {**HALF, "model.sigmoid": False},
        ["0.00389", "24.85", "0.839", "can't restore black area"],
    ),
    "cifar10/srn_deblur_cifar.yaml": (SRN, ["70 epochs", "0.00174", "29.38", "0.9188"]),
    "cifar10/srn_deblur_cifar_without_lstm.yaml": (
        {**SRN, "model.lstm": False},
        ["70 epochs", "0.00175", "29.23", "0.9225"],
    ),
    "reds/srn_deblur_reds.yaml": (
        {**REDS, "data.crops_per_picture": 2, "data.max_ssim": 0.9, "optimizer.lr": 1e-4, "schedule.epochs": 150},
        ["0.002", "27.23", "0.8105"],
    ),
    "gaussian_triple/reduced_deblurnet.yaml": (MINUS_PSNR, ["20 epochs", "28.694"]),
    "gaussian_triple/deblurnet.yaml": ({**MINUS_PSNR, "model.name": "deblurnet"}, ["20 epochs"]),
    "gaussian_triple/vae.yaml": ({**TRIPLE, "data.batch_size": 8}, ["17.64", "17.12", "16.27"]),
    "gaussian_triple/autoencoder.yaml": (
        {**TRIPLE, **ADAM_MSE, "schedule.name": "plateau"},
        ["25 epochs", "25.01", "25.14", "15.52", "0.6306", "0.6364"],
    ),
    "gopro/stripformer_document_a.yaml": (
        {**STRIPFORMER, "optimizer.lr": 1e-3, "optimizer.betas": [0.9, 0.999], "data.batch_size": 2},
        ["5 epochs of 2,800", "8 dB", "9.4", "25.4"],
    ),
    "kaggle_blur/vit_deblur_adam.yaml": (
        {**VIT, "loss": {"l1": 1.0}, "optimizer.name": "adam", "optimizer.lr": 1e-2, "schedule.factor": 0.5},
        ["48.45", "80 / 10 / 10", "0.704", "0.743"],
    ),
    "kaggle_blur/vit_deblur_sgd.yaml": (
        {**VIT, "loss": {"mse": 1.0}, "optimizer.name": "sgd", "optimizer.lr": 0.1, "schedule.factor": 0.1},
        ["48.75", "80 / 10 / 10", "0.917", "1.061"],
    ),
}
"""The source documents' experiments: settings that are the documents' own, and what the first lines quote of them."""


@pytest.mark.parametrize("name", DOCUMENTED)
def test_an_experiment_of_a_document_has_its_settings_and_quotes_what_it_reports(name):
    (own, quoted), experiment = DOCUMENTED[name], load(FOLDER / name).model_dump(mode="json")
    for key, value in own.items():
        section, _, setting = key.partition(".")
        assert (experiment[section][setting] if setting else experiment[section]) == value, key
    text = (FOLDER / name).read_text(encoding="utf-8")
    head = "".join(line for line in text.splitlines() if line.startswith("#"))
    assert [words for words in quoted if words not in head] == []


def test_the_reds_experiment_trains_on_both_scales_in_a_folder_laid_out_like_reds(tmp_path):
    for seed, (scene, frame) in enumerate((s, f) for s in ("000", "023", "024", "239") for f in (49, 50, 99)):
        file = f"{scene}/{frame:08d}.png"
        put_pair(tmp_path / "data/reds", f"train_blur/{file}", f"train_sharp/{file}", seed)
    small = ["data.crop_px=24", "data.batch_size=2", "schedule.epochs=3", "validation.every_steps=12"]
    experiment = load(FOLDER / "reds/srn_deblur_reds.yaml", [*small, "precision=fp32"])
    result = train(experiment, tmp_path / "run", data_root=tmp_path / "data")
    assert (result.step, result.bad_steps) == (12, 0)  # 3 epochs of 4 pictures, each cut twice for a batch of its own
    with open(tmp_path / "run/log/train.csv") as file:
        [row] = csv.DictReader(file)  # of step 10
    assert float(row["mse"]) == pytest.approx(float(row["mse/half"]) + float(row["mse/full"]))
    assert float(row["loss"]) == pytest.approx(float(row["mse"]))
    model = weights.load(tmp_path / "run/best.safetensors")
    assert models.identity(model) == ("srn_deblur_reds", dict(models.find("srn_deblur_reds").options))
    assert restore_image(model, torch.rand(3, 45, 37)).shape == (3, 45, 37)


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
