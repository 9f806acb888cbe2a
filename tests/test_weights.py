"""Checkpoints come back as they went; what is not ours, damaged or unknown is refused in one line."""

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import unblur
from golden import fill
from unblur import models, published, weights
from unblur.errors import OutputError, UnblurError, UnknownName, WeightsError
from unblur.weights import (
    METADATA_KEY,
    KnownWeights,
    ShippedWeights,
    describe,
    home,
    known,
    licence_of_others,
    load,
    num_parameters,
    open_weights,
    save,
    sha256,
    shipped,
    verify,
)

SOURCE = Path(unblur.__file__).parent
LIMIT = 24 * 1000**2


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
    assert about.options == {"residual": True, "batch_norm": True}
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


def test_nothing_in_the_package_unpickles_without_choosing_what_may_be_called():
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & {"dill", "joblib", "cloudpickle"}, path
            if isinstance(node, ast.ImportFrom):
                assert node.module not in ("pickle", "dill", "joblib", "cloudpickle"), path
            if isinstance(node, ast.ClassDef) and "pickle.Unpickler" in map(ast.unparse, node.bases):
                assert "find_class" in {part.name for part in node.body if isinstance(part, ast.FunctionDef)}, path
            if isinstance(node, ast.Call):
                called, where = ast.unparse(node.func), f"{path}:{node.lineno}"
                keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert called not in ("pickle.load", "pickle.loads", "pickle.Unpickler"), where
                assert called != "torch.load" or keywords.get("weights_only") == "True", where
                assert keywords.get("allow_pickle", "False") == "False", where


# -- Weights of others that have a name here ---------------------------------------------------------------------------

NAFNET = {"encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [1]}


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of local weights, empty."""
    monkeypatch.setenv("UNBLUR_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def theirs(local: Path, monkeypatch: pytest.MonkeyPatch) -> KnownWeights:
    """Known weights of a network small enough for tests, "small-gopro", with their file where it belongs."""
    arch = models.ARCHITECTURES["nafnet"]
    small = {"Small": {"width": 4, **NAFNET}, "Wider": {"width": 6, **NAFNET}}
    monkeypatch.setitem(models.ARCHITECTURES, "nafnet", replace(arch, published={**arch.published, **small}))
    entry = KnownWeights(
        name="small-gopro",
        repository="someone/Small",
        network="nafnet",
        configurations=("Small",),
        file="Small.pth",
        lies_at="https://example.org/small",
        licence="NON-COMMERCIAL",
        licence_note="for tests only",
    )
    monkeypatch.setattr(weights, "known", lambda: {entry.name: entry})
    put(entry)
    return entry


def put(entry: KnownWeights, gain: float = 0.7, width: int = 4) -> None:
    """Write a file as its authors would, with other weights for another gain."""
    entry.path.parent.mkdir(exist_ok=True)
    torch.save({"params": fill(models.create("nafnet", width=width, **NAFNET), gain).state_dict()}, entry.path)


def test_local_weights_lie_where_unblur_home_says_or_else_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("UNBLUR_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.delenv("UNBLUR_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert home() == Path.home() / ".cache" / "unblur"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert home() == tmp_path / "cache" / "unblur"


@pytest.mark.parametrize("name", known())
def test_a_missing_file_of_known_weights_is_named_with_place_folder_and_licence(local, name):
    entry, said = known()[name], complaint(name)
    for word in (name, entry.file, entry.lies_at, str(local), "UNBLUR_HOME", entry.licence, entry.repository):
        assert word in said
    assert not local.exists()


@pytest.mark.parametrize("name", known())
def test_known_weights_are_of_published_configurations_and_have_names_and_files_of_their_own(name):
    entry = known()[name]
    assert {*entry.configurations} <= {*models.find(entry.network).published}
    assert entry.configurations
    assert name not in {*shipped(), *models.ARCHITECTURES}
    assert [other.name for other in known().values() if other.file == entry.file] == [name]
    assert Path(entry.file).name == entry.file
    assert ("commercial" in entry.full_licence.lower()) == (entry.licence == "NON-COMMERCIAL")


def test_known_weights_load_by_name_and_say_whose_they_are(theirs):
    model, checkpoint = open_weights("small-gopro")
    assert model.arch_name == "nafnet"
    assert torch.equal(model.state_dict()["intro.weight"], torch.load(theirs.path)["params"]["intro.weight"])
    origin = checkpoint.facts["origin"]
    assert (origin["name"], origin["file"], origin["configurations"]) == ("small-gopro", "Small.pth", ["Small"])
    assert origin["weights_licence"] == "NON-COMMERCIAL, for tests only (someone/Small)"
    assert describe("small-gopro") == checkpoint


@pytest.mark.full
@pytest.mark.parametrize("name", known())
def test_a_file_of_each_published_configuration_is_what_its_name_says(local, name):
    entry = known()[name]
    local.mkdir()
    for configuration in entry.configurations:
        options = models.find(entry.network).published[configuration]
        with torch.device("meta"):
            layout = models.create(entry.network, **options).state_dict()
        if entry.path.suffix == ".safetensors":
            save_file({key: torch.zeros(value.shape) for key, value in layout.items()}, entry.path)
        else:
            hollow = {key: torch.zeros(()).expand(value.shape) for key, value in layout.items()}
            torch.save({"params": hollow}, entry.path)  # takes no room
        checkpoint = describe(name)
        wanted = entry.network, models.full_options(entry.network, **options)
        assert (checkpoint.architecture, checkpoint.options) == wanted
        (local / f"{entry.file}.sha256").unlink()


def test_options_that_leave_no_trace_are_those_of_the_configuration_that_the_name_stands_for(theirs, monkeypatch):
    arch = models.ARCHITECTURES["nafnet"]
    twins = {"Small": {"width": 4, **NAFNET, "padding": "zeros"}, "Twin": {"width": 4, **NAFNET, "padding": "reflect"}}
    monkeypatch.setitem(models.ARCHITECTURES, "nafnet", replace(arch, published=twins))
    assert load("small-gopro").arch_options["padding"] == "zeros"
    twin = theirs.model_copy(update={"configurations": ("Twin",)})
    monkeypatch.setattr(weights, "known", lambda: {twin.name: twin})
    assert load("small-gopro").arch_options["padding"] == "reflect"


def test_the_checksum_of_known_weights_is_recorded_when_they_are_first_used(theirs):
    record = theirs.path.with_name("Small.pth.sha256")
    assert not record.exists()
    load("small-gopro")
    assert record.read_text() == f"{sha256(theirs.path)}  Small.pth\n"
    load("small-gopro")
    assert {path.name for path in home().iterdir()} == {"Small.pth", "Small.pth.sha256"}


def test_known_weights_that_changed_since_are_refused_until_the_record_is_deleted(theirs):
    before = load("small-gopro").state_dict()["intro.weight"]
    put(theirs, gain=0.5)
    said = complaint("small-gopro")
    assert f"{theirs.path} has changed since it was first used" in said
    assert "Get the file again or, if you changed it on purpose, delete Small.pth.sha256." in said
    with pytest.raises(WeightsError, match="has changed"):
        describe("small-gopro")
    theirs.path.with_name("Small.pth.sha256").unlink()
    assert not torch.equal(load("small-gopro").state_dict()["intro.weight"], before)


def test_a_file_of_another_network_is_refused_by_its_name_and_not_recorded(theirs):
    put(theirs, width=6)
    said = complaint("small-gopro")
    assert f"{theirs.path} is of nafnet (Wider) and not of nafnet (Small). Get Small.pth from https://" in said
    put(theirs, width=8)
    assert "is of nafnet (with options of its own) and not of" in complaint("small-gopro")
    assert [path.name for path in home().iterdir()] == ["Small.pth"]


def test_a_page_that_was_saved_instead_of_the_weights_is_refused_with_where_to_get_them(theirs):
    theirs.path.write_text("<!DOCTYPE html><title>Sign in</title>" * 20)
    said = complaint("small-gopro")
    assert "damaged, or of another kind. Get Small.pth from https://example.org/small" in said


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_known_weights_load_from_a_folder_for_reading_only(theirs):
    home().chmod(0o555)
    try:
        assert load("small-gopro")
    finally:
        home().chmod(0o755)
    assert [path.name for path in home().iterdir()] == ["Small.pth"]


def test_known_weights_load_where_nothing_can_be_recorded(theirs, monkeypatch):
    def refuse(path: Path) -> None:
        raise OutputError(f"{path} could not be written")

    monkeypatch.setattr(weights, "written_whole", refuse)
    assert load("small-gopro")


def test_a_network_without_weights_names_those_of_its_authors():
    assert "its authors' are known as mprnet-deblurring." in complaint("mprnet")


def test_weights_of_several_authors_have_several_licences():
    both = licence_of_others("nafnet", ["NAFNet-GoPro-width32"])
    assert both is not None
    assert "megvii-research/NAFNet) or Apache-2.0" in both
    only = licence_of_others("nafnet", ["NAFNet-GoPro-width64", "NAFNet-REDS-width64"])
    assert only == "MIT, that of the authors' code; none of their own for the weights (megvii-research/NAFNet)"
    assert licence_of_others("reduced_deblurnet") is None


def test_weights_and_what_they_say_come_from_reading_the_file_once(checkpoint, theirs, monkeypatch):
    read = []
    recognise = published.recognise
    monkeypatch.setattr(published, "recognise", lambda path: read.append(path) or recognise(path))
    assert open_weights(theirs.path)[1].facts["origin"]["file"] == "Small.pth"
    assert open_weights("small-gopro")
    assert read == [theirs.path, theirs.path]
    assert open_weights(checkpoint)[1] == describe(checkpoint)


# -- What comes with the package ---------------------------------------------------------------------------------------


def test_weights_of_the_package_load_by_name(in_package):
    assert load("gaussian").arch_options == {"residual": True, "batch_norm": True}
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
