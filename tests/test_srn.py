"""SRN returns what its authors' TensorFlow code returns, under the names of their variables, and its ablations work."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

from golden import fill
from unblur import models
from unblur.models.srn import double
from unblur.weights import num_parameters

TINY = dict(models.find("srn").tiny)
ABLATIONS = ["SR-Flat", "SR-RB", "SR-ED", "SR-EDRB1", "SR-EDRB2", "SR-EDRB3"]
SCALES = ["quarter", "half", "full"]


@pytest.mark.parametrize(
    ("name", "published"),
    [pytest.param("srn-lstm", "lstm", marks=pytest.mark.full), ("srn-color", "color")],
)
def test_the_output_of_every_scale_is_that_of_the_authors_code(published_root, name, published):
    path = published_root / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"no golden {path.name}")
    with safe_open(path, framework="pt") as file:
        gain = float(file.metadata()["gain"])
        blurred = file.get_tensor("input0")  # lstm and gray: the three planes of one picture as a batch
        expected = [file.get_tensor(f"output0.{scale}") for scale in range(3)]
    model = fill(models.create("srn", **models.find("srn").published[published]), gain)
    with torch.no_grad():
        outputs = model.training_outputs(blurred.reshape(1, 3, *blurred.shape[-2:]))
    assert list(outputs) == SCALES
    for output, wanted in zip(outputs.values(), expected, strict=True):
        torch.testing.assert_close(output.reshape(wanted.shape), wanted, atol=2e-5, rtol=0)


@pytest.mark.parametrize(("file", "published"), [("srn-lstm", "lstm"), ("srn-gray", "gray"), ("srn-color", "color")])
def test_names_shapes_and_parameters_are_the_authors(published_root, file, published):
    facts = json.loads((published_root / f"{file}.json").read_text())
    with torch.device("meta"):
        model = models.create("srn", **models.find("srn").published[published])
    tensorflow = {  # back to (height, width, in, out), for transposed convolutions (height, width, out, in)
        key: list(value.permute(2, 3, 1, 0).shape) if value.ndim == 4 else list(value.shape)
        for key, value in model.state_dict().items()
    }
    assert tensorflow == facts["state_dict"]
    assert list(tensorflow) == list(facts["state_dict"])
    assert num_parameters(model) == facts["params"]


@pytest.mark.parametrize(("name", "millions"), [("SR-EDRB1", 2.21), ("SR-EDRB2", 2.99), ("SR-EDRB3", 3.76)])
def test_the_ablations_have_the_papers_number_of_parameters_where_a_convlstm_is_added(name, millions):
    with torch.device("meta"):
        model = models.create("srn", **{**models.find("srn").published[name], "convlstm": True})
    assert round(num_parameters(model) / 1e6, 2) == millions


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_restores_and_learns(name):
    torch.manual_seed(1)
    model = models.create("srn", **{**models.find("srn").published[name], "width": 4})
    blurred = torch.rand(1, 3, 20, 13, generator=torch.Generator().manual_seed(1))
    outputs = model.training_outputs(blurred)
    assert [tuple(output.shape) for output in outputs.values()] == [(1, 3, 5, 4), (1, 3, 10, 7), (1, 3, 20, 13)]
    sum(output.square().mean() for output in outputs.values()).backward()
    assert all(weight.grad.abs().max() > 0 for weight in model.parameters())


@pytest.mark.parametrize("name", ABLATIONS)
def test_without_halving_all_levels_work_at_full_size(name, monkeypatch):
    options = models.find("srn").published[name]
    model = fill(models.create("srn", **{**options, "width": 4}))
    sizes, convolve = set(), F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda x, *rest, **kw: sizes.add(tuple(x.shape[-2:])) or convolve(x, *rest, **kw))
    with torch.no_grad():
        model(torch.rand(1, 3, 16, 32))
    scales = {(4, 8), (8, 16), (16, 32)}
    assert sizes == (scales if name in ("SR-Flat", "SR-RB") else scales | {(1, 2), (2, 4)})


def test_without_residual_a_block_of_zeros_returns_zeros_and_with_it_its_input():
    x = torch.rand(1, 4, 5, 6)
    for residual in (True, False):
        model = models.create("srn", **TINY, residual=residual)
        with torch.no_grad():
            model.get_parameter("g_net/enc1_2/conv2/weights").zero_()
            assert torch.equal(model._block(x, "enc1_2"), x if residual else torch.zeros_like(x))


def test_colours_are_restored_one_by_one_where_there_is_one_plane():
    picture = torch.rand(1, 3, 16, 32, generator=torch.Generator().manual_seed(2))
    model = fill(models.create("srn", **TINY))
    with torch.no_grad():
        torch.testing.assert_close(model(picture.flip(1)), model(picture).flip(1), atol=1e-6, rtol=0)
        model = fill(models.create("srn", **TINY, planes=3))
        assert not torch.allclose(model(picture.flip(1)), model(picture).flip(1), atol=1e-2)


def test_the_results_of_the_scales_fit_a_sharp_picture_of_any_size_of_which_pixels_are_left_out():
    model = fill(models.create("srn", **TINY))
    sharp = torch.rand(1, 3, 33, 18)
    with torch.no_grad():
        outputs = model.training_outputs(sharp)
        assert torch.equal(outputs["full"], model(sharp))
    assert [output.shape for output in outputs.values()] == [sharp[..., ::step, ::step].shape for step in (4, 2, 1)]


def test_no_gradient_goes_back_through_a_result_into_the_scale_before():
    model = fill(models.create("srn", **TINY, convlstm=False))  # a ConvLSTM's state does carry gradients
    blurred = torch.rand(1, 3, 16, 16)
    outputs = model.training_outputs(blurred)
    outputs["quarter"].retain_grad()
    outputs["full"].square().mean().backward()
    assert outputs["quarter"].grad is None


def test_a_strided_convolution_is_padded_as_tensorflow_pads_it():
    model = fill(models.create("srn", **{**TINY, "kernel_px": 5}))
    x = torch.rand(1, 4, 8, 6)
    weights, biases = model._of("enc2_1")
    padded = F.pad(x, (1, 2, 1, 2))  # TensorFlow's SAME: a kernel of 5, steps of 2, an even size
    with torch.no_grad():
        expected = F.conv2d(padded, weights, biases, stride=2).relu()
        torch.testing.assert_close(model._halve(x, "enc2_1"), expected)


def test_enlarging_keeps_each_pixel_and_puts_the_mean_of_two_between():
    x = torch.tensor([[1.0, 3.0], [5.0, 11.0]])[None, None]
    assert double(x)[0, 0].tolist() == [
        [1.0, 2.0, 3.0, 3.0],
        [3.0, 5.0, 7.0, 7.0],
        [5.0, 8.0, 11.0, 11.0],
        [5.0, 8.0, 11.0, 11.0],
    ]


def test_another_number_of_planes_or_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match=r"planes is 1 \(each colour by itself\) or 3"):
        models.create("srn", planes=2)
    with pytest.raises(ValueError, match="kernel_px is odd, not 4"):
        models.create("srn", kernel_px=4)
