"""NAFNet returns what its authors' code returns, under their keys."""

import json

import pytest
import torch

from golden import fill, read_golden
from unblur import models
from unblur.models.nafnet import simple_gate
from unblur.weights import num_parameters

LEVELS_4 = {"width": 8, "encoder_blocks": [1, 1, 1, 1], "middle_blocks": 1, "decoder_blocks": [1, 1, 1, 1]}


def our_options(config):
    """Return the authors' configuration in our words."""
    return {
        "width": config["width"],
        "encoder_blocks": config["enc_blk_nums"],
        "middle_blocks": config["middle_blk_num"],
        "decoder_blocks": config["dec_blk_nums"],
    }


@pytest.mark.parametrize(
    "name",
    [
        "nafnet-tiny",
        pytest.param("nafnet-gopro-width32", marks=pytest.mark.full),
        pytest.param("nafnet-gopro-width64", marks=pytest.mark.full),
        pytest.param("nafnet-sidd-width32", marks=pytest.mark.full),
    ],
)
def test_the_output_is_that_of_the_authors_code(published_root, name):
    path = published_root / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"no golden {path.name}")
    golden = read_golden(path)
    model = fill(models.create("nafnet", **our_options(golden.config)), golden.gain)
    for blurred, expected in golden.cases:
        with torch.no_grad():
            torch.testing.assert_close(model(blurred), expected, atol=golden.tolerance, rtol=0)


@pytest.mark.parametrize(
    ("file", "published"),
    [
        ("nafnet-gopro-width32", "NAFNet-GoPro-width32"),
        ("nafnet-gopro-width64", "NAFNet-GoPro-width64"),
        ("nafnet-reds-width64", "NAFNet-REDS-width64"),
        ("nafnet-sidd-width32", "NAFNet-SIDD-width32"),
    ],
)
def test_keys_shapes_and_parameters_are_the_authors(published_root, file, published):
    facts = json.loads((published_root / f"{file}.json").read_text())
    options = models.find("nafnet").published[published]
    assert options == our_options(facts["config"])
    with torch.device("meta"):  # shapes without memory
        model = models.create("nafnet", **options)
    state = model.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == facts["state_dict"]
    assert num_parameters(model) == facts["params"]


def test_a_fresh_network_returns_its_input(photograph):
    model = models.create("nafnet", **LEVELS_4)
    with torch.no_grad():
        assert torch.equal(model(photograph[None, :, :50, :70])[0], photograph[:, :50, :70])


@pytest.mark.parametrize(("options", "multiple"), [({}, 16), ({"unshuffle": 2}, 32)])
@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_four_levels_pad_to_16_and_folded_pixels_to_twice_that(options, multiple, padding):
    model = fill(models.create("nafnet", **LEVELS_4, **options, padding=padding))
    picture = torch.rand(1, 3, multiple - 3, multiple, generator=torch.Generator().manual_seed(1))
    mode = "constant" if padding == "zeros" else padding
    padded = torch.nn.functional.pad(picture, (0, 0, 0, 3), mode=mode)
    with torch.no_grad():
        torch.testing.assert_close(model(picture), model(padded)[:, :, : multiple - 3], atol=1e-6, rtol=0)


def test_folding_squares_of_pixels_makes_the_inner_picture_smaller_and_not_the_result():
    model = fill(models.create("nafnet", **LEVELS_4, unshuffle=2))
    sizes = []
    model.intro.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(inputs[0].shape)))
    with torch.no_grad():
        assert model(torch.rand(1, 3, 32, 64)).shape == (1, 3, 32, 64)
    assert sizes == [(1, 12, 16, 32)]


def test_as_many_levels_down_as_up_are_needed():
    with pytest.raises(ValueError, match="1 encoder levels need as many in the decoder, not 2"):
        models.create("nafnet", width=8, encoder_blocks=[1], decoder_blocks=[1, 1])


def test_the_gate_is_the_first_half_times_the_second():
    x = torch.arange(8.0).reshape(1, 4, 1, 2)
    assert simple_gate(x).flatten().tolist() == [0 * 4, 1 * 5, 2 * 6, 3 * 7]
