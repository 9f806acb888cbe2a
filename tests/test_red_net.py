"""RED-Net returns what its authors' Caffe network and script return, under the names of their layers."""

import json

import pytest
import torch

from golden import fill, read_golden
from unblur import models
from unblur.weights import num_parameters


@pytest.mark.parametrize(
    "name",
    [
        "rednet-tiny",
        pytest.param("rednet-ch1", marks=pytest.mark.full),
    ],
)
def test_the_output_is_that_of_the_authors_code(published_root, name):
    path = published_root / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"no golden {path.name}")
    golden = read_golden(path)
    config = golden.config
    options = {"layers": config["layers"], "width": config["width"], "planes": config["in_channels"]}
    model = fill(models.create("red_net", **options), golden.gain)
    for blurred, expected in golden.cases:
        with torch.no_grad():
            restored = model(blurred.expand(-1, 3, -1, -1))  # a grey picture has three equal planes here
        torch.testing.assert_close(restored, expected.expand_as(restored), atol=golden.tolerance, rtol=0)


@pytest.mark.parametrize(("file", "published"), [("rednet-ch3", "REDNet_ch3"), ("rednet-ch1", "REDNet_ch1")])
def test_keys_shapes_and_parameters_are_the_authors(published_root, file, published):
    facts = json.loads((published_root / f"{file}.json").read_text())
    with torch.device("meta"):
        model = models.create("red_net", **models.find("red_net").published[published])
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == facts["state_dict"]
    assert num_parameters(model) == facts["params"]


def test_a_fresh_network_returns_its_input(photograph):
    model = models.create("red_net", layers=10, width=8)
    with torch.no_grad():
        assert torch.equal(model(photograph[None])[0], photograph)


@pytest.mark.parametrize("layers", [30, 20, 10])
def test_the_paper_s_depths_have_half_their_layers_transposed(layers):
    model = models.create("red_net", layers=layers, width=4)
    kinds = [type(module) for module in model.children()]
    assert kinds == [torch.nn.Conv2d] * (layers // 2) + [torch.nn.ConvTranspose2d] * (layers // 2)


@pytest.mark.parametrize("planes", [1, 3])
def test_all_thirty_layers_of_a_fresh_network_pass_the_signal_on(planes):
    torch.manual_seed(1)
    model = models.create("red_net", layers=30, width=16, planes=planes)
    strengths = []
    for name, module in model.named_children():
        if name != "deconv15":
            module.register_forward_hook(lambda _, inputs, output: strengths.append(output.std().item()))
    model(torch.rand(1, 3, 24, 24))
    assert len(strengths) == 29
    assert min(strengths) > 0.01
    assert max(strengths) < 100


def test_colours_are_restored_one_by_one_where_there_is_one_plane():
    picture = torch.rand(2, 3, 9, 8, generator=torch.Generator().manual_seed(2))
    model = fill(models.create("red_net", layers=10, width=8, planes=1))
    with torch.no_grad():
        torch.testing.assert_close(model(picture.flip(1)), model(picture).flip(1), atol=1e-6, rtol=0)


def test_pixels_beyond_the_reach_of_the_layers_do_not_matter():
    picture = torch.rand(1, 3, 1, 64, generator=torch.Generator().manual_seed(3))
    changed = picture.clone()
    changed[..., :20] = 0
    model = fill(models.create("red_net", layers=30, width=4))
    with torch.no_grad():
        same = (model(picture) == model(changed)).all(dim=1)[0, 0]
    assert same[50:].all()
    assert not same[20:25].any()  # further away the change is too faint for float32 here


@pytest.mark.parametrize(
    ("options", "message"), [({"layers": 7}, "even number from 4 on.*not 7"), ({"planes": 2}, "planes is 1 .* not 2")]
)
def test_an_odd_number_of_layers_or_two_planes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        models.create("red_net", **options)
