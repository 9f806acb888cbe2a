"""MIMO-UNet returns what its authors' code returns at each size, under their keys."""

import json

import pytest
import torch
from safetensors import safe_open

from golden import fill
from unblur import models
from unblur.weights import num_parameters

TINY = models.find("mimo_unet").tiny
PLUS = models.find("mimo_unet").published["MIMO-UNetPlus"]


def our_options(config):
    """Return the authors' configuration in our words; the larger class differs by its dropout too."""
    dropout = {"MIMOUNet": 0.0, "MIMOUNetPlus": 0.1}[config["class"]]
    return {"width": config["base_channel"], "blocks": config["num_res"], "dropout": dropout}


def pictures(count, height, width):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(height * width))


@pytest.mark.parametrize("name", ["mimounet-tiny", "mimounet", pytest.param("mimounet-plus", marks=pytest.mark.full)])
def test_every_size_is_that_of_the_authors_code(published_root, name):
    path = published_root / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"no golden {path.name}")
    with safe_open(path, framework="pt") as file:
        facts = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    floors = json.loads(facts["float32_vs_float64_max_abs_diff"])
    model = fill(models.create("mimo_unet", **our_options(json.loads(facts["config"]))), float(facts["gain"]))
    for key, blurred in tensors.items():
        if not key.startswith("input"):
            continue
        with torch.no_grad():
            restored = model.training_outputs(blurred)
        for place, size in enumerate(("quarter", "half", "full")):
            expected = f"{key.replace('input', 'output')}.{place}"
            tolerance = max(2e-5, 10 * floors[expected])
            torch.testing.assert_close(restored[size], tensors[expected], atol=tolerance, rtol=0)


@pytest.mark.parametrize(("file", "published"), [("mimounet", "MIMO-UNet"), ("mimounet-plus", "MIMO-UNetPlus")])
def test_keys_shapes_and_parameters_are_the_authors(published_root, file, published):
    facts = json.loads((published_root / f"{file}.json").read_text())
    options = models.find("mimo_unet").published[published]
    assert options == our_options(facts["config"])
    with torch.device("meta"):  # shapes without memory
        model = models.create("mimo_unet", **options)
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == facts["state_dict"]
    assert num_parameters(model) == facts["params"]


@pytest.mark.parametrize(
    ("size", "half", "quarter"),
    [((1, 1), (1, 1), (1, 1)), ((8, 12), (4, 6), (2, 3)), ((9, 14), (5, 7), (3, 4))],
)
def test_a_network_that_adds_nothing_returns_every_pixel_every_second_and_every_fourth(size, half, quarter):
    model, blurred = models.create("mimo_unet", **TINY).eval(), pictures(2, *size)
    for convolution in (*model.ConvsOut, model.feat_extract[5]):
        for parameter in convolution.parameters():
            torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        restored = model.training_outputs(blurred)
    assert list(restored) == ["quarter", "half", "full"]
    assert restored["half"].shape[-2:] == half
    assert restored["quarter"].shape[-2:] == quarter
    assert torch.equal(restored["full"], blurred)
    assert torch.equal(restored["half"], blurred[:, :, ::2, ::2])
    assert torch.equal(restored["quarter"], blurred[:, :, ::4, ::4])


def test_the_full_size_is_the_result():
    model, blurred = fill(models.create("mimo_unet", **TINY)), pictures(1, 9, 14)
    with torch.no_grad():
        assert torch.equal(model(blurred), model.training_outputs(blurred)["full"])


def test_features_are_left_out_at_random_in_training_only_and_in_the_larger_network_only():
    blurred = pictures(1, 16, 16)
    for dropout in (0.0, PLUS["dropout"]):
        torch.manual_seed(1)
        model = fill(models.create("mimo_unet", **{**TINY, "dropout": dropout}))
        with torch.no_grad():
            trained = torch.stack([model.train()(blurred) for _ in range(8)])
            restored = model.eval()(blurred)
        assert (trained.std(dim=0).max() > 0) == (dropout > 0)
        torch.testing.assert_close(restored, fill(models.create("mimo_unet", **TINY))(blurred), atol=0, rtol=0)


def test_the_smaller_pictures_are_looked_at_too():
    model, blurred = fill(models.create("mimo_unet", **TINY)), pictures(1, 16, 16)
    sizes = []
    for module in (model.SCM1, model.SCM2):
        module.register_forward_pre_hook(lambda module, inputs: sizes.append(tuple(inputs[0].shape)))
    with torch.no_grad():
        model(blurred)
    assert sorted(sizes) == [(1, 3, 4, 4), (1, 3, 8, 8)]
