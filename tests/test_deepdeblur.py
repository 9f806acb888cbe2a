"""DeepDeblur returns what its authors' code returns at each scale, and its critic does, under their keys."""

import json

import pytest
import torch
from safetensors import safe_open

from golden import fill, read_golden
from unblur import models
from unblur.models.deepdeblur import DeepDeblurCritic, half_size
from unblur.weights import num_parameters

TINY = models.find("deepdeblur").tiny


def our_options(config):
    """Return the authors' configuration in our words; what we have no option for is the same in all of their files."""
    assert (config["n_scales"], config["kernel_size"], config["rgb_range"]) == (3, 5, 255)
    return {"width": config["n_feats"], "blocks": config["n_resblocks"]}


def pictures(count, height, width):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(height * width))


# -- The network -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["deepdeblur-tiny", pytest.param("deepdeblur-msresnet", marks=pytest.mark.full)])
def test_every_scale_is_that_of_the_authors_code(published_root, name):
    path = published_root / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"no golden {path.name}")
    with safe_open(path, framework="pt") as file:
        facts = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    floors = json.loads(facts["float32_vs_float64_max_abs_diff"])  # their colours are 0 to 255, ours 0 to 1
    model = fill(models.create("deepdeblur", **our_options(json.loads(facts["config"]))), float(facts["gain"]))
    for key, blurred in tensors.items():
        if not (key.startswith("input") and key.endswith(".0")):  # the other scales we make ourselves
            continue
        with torch.no_grad():
            restored = model.training_outputs(blurred / 255)
        for place, size in enumerate(("full", "half", "quarter")):
            expected = f"{key.replace('input', 'output').removesuffix('.0')}.{place}"
            tolerance = max(2e-5, 10 * floors[expected] / 255)
            torch.testing.assert_close(restored[size], tensors[expected] / 255, atol=tolerance, rtol=0)


def test_keys_shapes_and_parameters_are_the_authors(published_root):
    facts = json.loads((published_root / "deepdeblur-msresnet.json").read_text())
    for options in models.find("deepdeblur").published.values():
        assert options == our_options(facts["config"])
    with torch.device("meta"):  # shapes without memory
        model = models.create("deepdeblur", **options)
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == facts["state_dict"]
    assert num_parameters(model) == facts["params"]


@pytest.mark.parametrize(
    ("size", "half", "quarter"),
    [((1, 1), (1, 1), (1, 1)), ((8, 12), (4, 6), (2, 3)), ((9, 14), (5, 7), (3, 4))],
)
def test_a_network_whose_last_layers_are_zero_returns_middle_grey_at_three_sizes(size, half, quarter):
    model, blurred = models.create("deepdeblur", **TINY).eval(), pictures(2, *size)
    for scale in model.body_models:
        for parameter in scale.body[-1].parameters():
            torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        restored = model.training_outputs(blurred)
    assert list(restored) == ["quarter", "half", "full"]
    assert [tuple(picture.shape) for picture in restored.values()] == [(2, 3, *s) for s in (quarter, half, size)]
    assert all((picture == 0.5).all() for picture in restored.values())


def test_the_finest_scale_is_the_result_and_hears_of_the_coarser_ones():
    model, blurred = fill(models.create("deepdeblur", **TINY)), pictures(1, 9, 14)
    with torch.no_grad():
        before = model(blurred)
        assert torch.equal(before, model.training_outputs(blurred)["full"])
        model.body_models[2].body[-1].bias += 1
        assert not torch.allclose(model(blurred), before)


def test_autocast_does_not_round_the_result_to_whole_greys():
    model, blurred = fill(models.create("deepdeblur", **TINY)), pictures(1, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        restored = model(blurred)
    assert restored.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(restored, model(blurred), atol=0.01, rtol=0)


# -- The pyramid -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(96, 128), (2, 2), (4, 22)])
def test_the_pyramid_is_scikit_images(photograph, height, width):
    transform = pytest.importorskip("skimage.transform")
    picture = photograph[:, :height, :width]
    _, expected = transform.pyramid_gaussian(picture.double().numpy(), max_layer=1, downscale=2, channel_axis=0)
    half = half_size(picture[None])[0]
    torch.testing.assert_close(half.double(), torch.from_numpy(expected), atol=1e-6, rtol=0)


def test_the_pyramid_is_the_authors_input(published_root):
    with safe_open(published_root / "deepdeblur-tiny.safetensors", framework="pt") as file:
        full, half, quarter = (file.get_tensor(f"input1.{place}") for place in range(3))
    torch.testing.assert_close(half_size(full), half, atol=255 * 1e-6, rtol=0)
    torch.testing.assert_close(half_size(half), quarter, atol=255 * 1e-6, rtol=0)


def test_an_even_picture_stays_even_in_the_pyramid():
    torch.testing.assert_close(half_size(torch.full((1, 3, 6, 2), 0.3)), torch.full((1, 3, 3, 1), 0.3))


# -- The critic --------------------------------------------------------------------------------------------------------


def test_the_critic_judges_as_the_authors_does(published_root):
    golden = read_golden(published_root / "deepdeblur-discriminator.safetensors")
    critic = fill(DeepDeblurCritic(), golden.gain)
    for picture, expected in golden.cases:
        with torch.no_grad():
            torch.testing.assert_close(critic(picture / 255), expected, atol=golden.tolerance, rtol=0)


def test_the_critics_keys_shapes_and_parameters_are_the_authors(published_root):
    facts = json.loads((published_root / "deepdeblur-discriminator.json").read_text())
    with torch.device("meta"):
        critic = DeepDeblurCritic()
    assert {key: list(value.shape) for key, value in critic.state_dict().items()} == facts["state_dict"]
    assert num_parameters(critic) == facts["params"]


@pytest.mark.parametrize(("size", "logits"), [((193, 193), (1, 1)), ((256, 256), (1, 1)), ((512, 768), (2, 3))])
def test_the_critic_gives_one_logit_for_each_square_of_256(size, logits):
    with torch.device("meta"):
        assert DeepDeblurCritic()(torch.empty(2, 3, *size)).shape == (2, 1, *logits)
