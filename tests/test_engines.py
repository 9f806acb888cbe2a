"""An exported network computes what it did, for the pictures that it says it takes."""

import json
import logging
import sys

import pytest
import torch
from torch import Tensor, nn

from golden import fill
from unblur import models, weights
from unblur.cli import main
from unblur.engines import OnnxInput, export_onnx
from unblur.errors import MissingExtra, OutputError, SettingsError

onnxruntime = pytest.importorskip("onnxruntime", reason="exporting needs the extra `engines`")
pytest.importorskip("onnxscript", reason="exporting needs the extra `engines`")


def tiny(name: str, **options: object) -> nn.Module:
    return fill(models.create(name, **{**models.find(name).tiny, **options}))


def picture(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height * width))


def run(path, blurred: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["restored"], {"blurred": blurred.numpy()})[0])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A tiny NAFNet, its file, and what that takes."""
    model, path = tiny("nafnet"), tmp_path_factory.mktemp("onnx") / "nafnet.onnx"
    return model, path, export_onnx(model, path)


def test_a_file_restores_pictures_of_all_sizes_in_its_multiple_like_the_network(exported):
    model, path, taken = exported
    assert (taken.size, taken.multiple, taken.padding) == (None, 4, "zeros")
    for height, width in [(20, 16), (16, 36), (8, 8), (4, 4), (100, 4)]:
        blurred = picture(height, width)
        with torch.no_grad():
            torch.testing.assert_close(run(path, blurred), model(blurred), atol=1e-5, rtol=1e-4)


def test_a_file_says_what_it_is(exported):
    model, path, taken = exported
    facts = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_modelmeta()
    about = json.loads(facts.custom_metadata_map["unblur"])
    assert (about["architecture"], about["options"]) == models.identity(model)
    assert OnnxInput(**about["input"]) == taken
    assert str(taken) == "pictures of any size in multiples of 4"


def test_exporting_leaves_the_network_as_it_was(exported):
    model, _, _ = exported
    assert all(torch.equal(value, tiny("nafnet").state_dict()[key]) for key, value in model.state_dict().items())
    assert not model.training


def test_one_size_can_be_asked_for(tmp_path, capfd):
    model = tiny("reduced_deblurnet")
    taken = export_onnx(model, tmp_path / "a.onnx", size=(32, 16))
    assert capfd.readouterr() == ("", "")
    assert str(taken) == "pictures of 32x16"
    with torch.no_grad():
        torch.testing.assert_close(run(tmp_path / "a.onnx", picture(16, 32)), model(picture(16, 32)), atol=1e-5, rtol=0)
    with pytest.raises(Exception, match=r"(?i)invalid dimensions"):
        run(tmp_path / "a.onnx", picture(32, 32))


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [
        ("nafnet", (18, 16), "nafnet takes sizes in multiples of 4, not 18x16"),
        ("autoencoder", (256, 256), "autoencoder knows pictures of 448x256 only, not 256x256"),
        ("uformer", (256, 512), "uformer takes square pictures only, not 256x512"),
    ],
)
def test_a_size_that_the_network_would_pad_is_refused(tmp_path, name, size, says):
    with pytest.raises(SettingsError, match=says):
        export_onnx(tiny(name), tmp_path / "a.onnx", size=size)
    assert not (tmp_path / "a.onnx").exists()


def test_a_file_that_exists_is_replaced_only_if_asked_for(tmp_path):
    (tmp_path / "a.onnx").write_text("kept")
    with pytest.raises(OutputError, match="exists already"):
        export_onnx(tiny("reduced_deblurnet"), tmp_path / "a.onnx", size=(8, 8), overwrite=False)
    assert (tmp_path / "a.onnx").read_text() == "kept"


def test_a_network_that_does_not_say_what_it_is_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"only a network that models\.create made"):
        export_onnx(nn.Identity(), tmp_path / "a.onnx")


def test_without_the_packages_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtra, match=r"ONNX export needs .*pip install 'unblur\[engines\]'"):
        export_onnx(tiny("reduced_deblurnet"), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_command_exports_weights(tmp_path, capsys):
    weights.save(tiny("reduced_deblurnet"), tmp_path / "model.safetensors", {})
    arguments = ["export", "--model", str(tmp_path / "model.safetensors"), "--format", "onnx", "-o"]
    assert main([*arguments, str(tmp_path / "model.onnx")]) == 0
    assert capsys.readouterr().out.strip().endswith("model.onnx (pictures of any size in multiples of 4)")
    with pytest.raises(SystemExit):
        main([*arguments, str(tmp_path / "model.pt")])
    assert "--format onnx writes a .onnx file, not model.pt" in capsys.readouterr().err


def test_exporting_leaves_logging_as_it_was(exported):
    assert logging.getLogger("torch.onnx").level == logging.NOTSET
