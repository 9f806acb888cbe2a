"""Checkpoints come back as they went; what is not ours, damaged or unknown is refused in one line."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import unblur
from golden import fill
from unblur import models, weights
from unblur.errors import UnblurError, UnknownName, WeightsError
from unblur.weights import METADATA_KEY, ShippedWeights, describe, load, num_parameters, save, sha256, shipped, verify

SOURCE = Path(unblur.__file__).parent
LIMIT = 12 * 1000**2


def tiny() -> nn.Module:
    return fill(models.create("reduced_deblurnet", residual=True))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of ours."""
    save(tiny(), tmp_path / "ours.safetensors", {"step": 7, "experiment": {"seed": 1}})
    return tmp_path / "ours.safetensors"


@pytest.fixture
def in_package(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> ShippedWeights:
    """The checkpoint as if it came with the package, under the name "gaussian"."""
    entry = ShippedWeights(
        name="gaussian",
        file=checkpoint.name,
        sha256=sha256(checkpoint),
        about="for tests",
        licence="Apache-2.0",
        trained_on="nothing",
        experiment="none.yaml",
    )
    monkeypatch.setattr(weights, "PRETRAINED", checkpoint.parent)
    monkeypatch.setattr(weights, "shipped", lambda: {entry.name: entry})
    return entry


def with_metadata(path: Path, metadata: dict[str, str] | None) -> Path:
    save_file({"a": torch.ones(2)}, path, metadata=metadata)
    return path


def complaint(name_or_file: str | Path, kind: type[UnblurError] = WeightsError) -> str:
    """Return the one line in which `load` refuses."""
    with pytest.raises(kind) as caught:
        load(name_or_file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- There and back ----------------------------------------------------------------------------------------------------


def test_a_network_comes_back_as_it_went_ready_for_use(checkpoint):
    model, loaded = tiny(), load(checkpoint)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())
    assert not loaded.training
    assert not any(weight.requires_grad for weight in loaded.parameters())
    assert all(weight.dtype == torch.float32 for weight in loaded.parameters())


def test_a_checkpoint_says_what_it_is(checkpoint):
    about = describe(checkpoint)
    assert about.architecture == "reduced_deblurnet"
    assert about.options == {"residual": True}
    assert about.facts["step"] == 7
    assert about.facts["experiment"] == {"seed": 1}
    assert about.facts["version"] == unblur.__version__


def test_half_precision_takes_half_the_room_and_loads_as_fp32(checkpoint, tmp_path):
    half = tmp_path / "half.safetensors"
    save(tiny(), half, {}, half=True)
    assert half.stat().st_size < 0.55 * checkpoint.stat().st_size
    loaded = load(half)
    for key, value in tiny().state_dict().items():
        assert loaded.state_dict()[key].dtype == value.dtype
        torch.testing.assert_close(loaded.state_dict()[key], value.half().to(value.dtype), atol=0, rtol=0)


def test_saving_does_not_change_the_network(tmp_path):
    model = tiny()
    save(model, tmp_path / "a.safetensors", {}, half=True)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in tiny().state_dict().items())


def test_a_checkpoint_saved_from_channels_last_memory_is_the_same(checkpoint, tmp_path):
    save(
        tiny().to(memory_format=torch.channels_last), tmp_path / "b.safetensors", {"step": 7, "experiment": {"seed": 1}}
    )
    with safe_open(checkpoint, "pt") as first, safe_open(tmp_path / "b.safetensors", "pt") as second:
        assert all(torch.equal(first.get_tensor(key), second.get_tensor(key)) for key in tiny().state_dict())


def test_saving_replaces_an_older_checkpoint_and_makes_the_folder(checkpoint, tmp_path):
    save(tiny(), checkpoint, {"step": 8})
    assert describe(checkpoint).facts["step"] == 8
    save(tiny(), tmp_path / "new" / "folder" / "c.safetensors", {})
    assert load(tmp_path / "new" / "folder" / "c.safetensors")


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are Unix's")
def test_a_full_disk_leaves_the_old_checkpoint_and_is_an_output_error(checkpoint):
    before = checkpoint.read_bytes()
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from unblur import models, weights\n"
        "from unblur.errors import OutputError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try:\n"
        "    weights.save(models.create('reduced_deblurnet'), Path(sys.argv[1]), {})\n"
        "except OutputError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", program, str(checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith(f"{checkpoint} could not be written")
    assert checkpoint.read_bytes() == before
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]


def test_the_number_of_parameters_leaves_buffers_out():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert num_parameters(model) == 3 * 4 * 9 + 4 + 8
    assert num_parameters(model.requires_grad_(False)) == 3 * 4 * 9 + 4 + 8


# -- What is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_file_of_someone_else_is_refused(tmp_path, metadata):
    path = with_metadata(tmp_path / "foreign.safetensors", metadata)
    assert complaint(path).startswith(f"{path} does not say which network it belongs to")


@pytest.mark.parametrize("text", ["{", "[]", "{}", "3", '{"architecture": "nafnet"}'])
def test_a_file_whose_description_is_damaged_is_refused(tmp_path, text):
    path = with_metadata(tmp_path / "odd.safetensors", {METADATA_KEY: text})
    assert complaint(path).startswith(f"{path} is damaged")


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_file_that_was_cut_off_is_refused(checkpoint, kept):
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept])
    assert complaint(checkpoint).startswith(f"{checkpoint} is not a readable .safetensors file")


def test_a_text_file_is_refused(tmp_path):
    path = tmp_path / "notes.safetensors"
    path.write_text("These are no weights at all, but a text of some length.")
    assert "not a readable .safetensors file" in complaint(path)


def test_weights_that_do_not_fit_their_network_are_refused(tmp_path):
    about = {"architecture": "reduced_deblurnet", "options": {"residual": False}}
    path = with_metadata(tmp_path / "odd.safetensors", {METADATA_KEY: json.dumps(about)})
    assert complaint(path).startswith(f"{path} does not fit reduced_deblurnet: ")


@pytest.mark.parametrize(
    ("about", "nearest"),
    [
        ({"architecture": "nafnett", "options": {}}, "nafnet"),
        ({"architecture": "nafnet", "options": {"widht": 8}}, "width"),
    ],
)
def test_a_network_or_option_that_this_version_does_not_know_is_named(tmp_path, about, nearest):
    path = with_metadata(tmp_path / "newer.safetensors", {METADATA_KEY: json.dumps(about)})
    assert f"Did you mean '{nearest}'" in complaint(path)


@pytest.mark.parametrize("name", ["missing.safetensors", "folder/missing", "missing.pth"])
def test_a_missing_file_is_named(tmp_path, name):
    assert complaint(tmp_path / name) == f"{tmp_path / name} does not exist."


def test_an_unknown_name_is_answered_with_the_nearest_one(in_package):
    assert "No model is called 'gausian'. Did you mean 'gaussian'?" in complaint("gausian", UnknownName)


def test_a_network_without_weights_is_said_to_be_one(in_package):
    said = complaint("nafnet")
    assert "'nafnet' is a network without weights" in said
    assert "gaussian" in said


def test_pickled_code_in_a_file_is_never_run(tmp_path):
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "trapped"),)

    for name in ("trap.safetensors", "trap.pth"):
        torch.save({"params": Trap()}, tmp_path / name)
        complaint(tmp_path / name)
    assert not (tmp_path / "trapped").exists()


def test_nothing_in_the_package_unpickles():
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & {"pickle", "dill", "joblib"}, path
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert keywords.get("weights_only") == "True", f"{path}:{node.lineno}"


# -- What comes with the package ---------------------------------------------------------------------------------------


def test_weights_of_the_package_load_by_name(in_package):
    assert load("gaussian").arch_options == {"residual": True}
    assert describe("gaussian").facts["step"] == 7


def test_a_damaged_file_of_the_package_is_refused(in_package):
    changed = bytearray(in_package.path.read_bytes())
    changed[-1] ^= 1
    in_package.path.write_bytes(changed)
    assert "is damaged (its SHA-256 is not the listed one)" in complaint("gaussian")
    in_package.path.write_bytes(changed[:100])
    assert "is damaged" in complaint("gaussian")


def test_a_file_that_is_missing_from_the_package_is_named_with_a_way_out(in_package):
    in_package.path.unlink()
    assert "is missing: the package is not installed completely. Install it again." in complaint("gaussian")


@pytest.mark.parametrize("name", shipped())
def test_shipped_weights_are_the_listed_ones_and_restore(name):
    entry = shipped()[name]
    verify(entry)
    assert entry.path.suffix == ".safetensors"
    assert entry.about
    assert entry.licence
    assert entry.trained_on
    assert (SOURCE.parents[1] / entry.experiment).is_file()
    model = load(name)
    with torch.no_grad():
        restored = model(torch.full((1, 3, 32, 48), 0.5))
    assert restored.shape == (1, 3, 32, 48)
    assert torch.isfinite(restored).all()


def test_shipped_weights_stay_small_and_nothing_unlisted_ships():
    listed = {entry.file for entry in shipped().values()}
    files = [path for path in weights.PRETRAINED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LIMIT
    assert {path.name for path in files} == listed
