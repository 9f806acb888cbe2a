"""Document B's network has its 50 thousand parameters; the residual path lets it return what is sharp."""

import pytest
import torch
from torch import Tensor, nn

from golden import fill
from unblur import models, weights
from unblur.weights import num_parameters

BOTH = pytest.mark.parametrize("residual", [False, True])


def picture(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))


@BOTH
def test_it_has_the_documents_50_thousand_parameters(residual):
    assert num_parameters(models.create("reduced_deblurnet", residual=residual)) == 48_163


def test_without_batch_normalisation_its_192_parameters_are_missing_and_single_pictures_are_restored_in_training_mode():
    model = models.create("reduced_deblurnet", batch_norm=False)
    assert num_parameters(model) == 48_163 - 2 * (32 + 64)
    assert not list(model.buffers())
    one, other = picture(16, 20), picture(16, 20) / 2
    with torch.no_grad():
        together = model.train()(torch.cat([one, other]))
        torch.testing.assert_close(together[:1], model(one))  # no statistics of the other picture in it


def test_weights_from_before_the_option_still_load():
    for name in ("reduced-deblurnet-gaussian", "reduced-deblurnet-document"):
        assert "batch_norm" not in weights.describe(name).options
        assert any(isinstance(layer, nn.BatchNorm2d) for layer in weights.load(name).modules())


def test_the_network_of_the_document_is_the_default():
    assert models.find("reduced_deblurnet").options == {"residual": False, "batch_norm": True}


def test_its_layers_are_those_of_the_document():
    model = models.create("reduced_deblurnet")
    assert [type(layer) for layer in model.encoder] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d] * 2
    assert [type(layer) for layer in model.decoder] == [nn.ConvTranspose2d, nn.ReLU] * 2 + [nn.ConvTranspose2d]
    shapes = {key: tuple(weight.shape) for key, weight in model.named_parameters()}
    assert shapes == {
        "encoder.0.weight": (32, 3, 3, 3),
        "encoder.0.bias": (32,),
        "encoder.1.weight": (32,),
        "encoder.1.bias": (32,),
        "encoder.4.weight": (64, 32, 3, 3),
        "encoder.4.bias": (64,),
        "encoder.5.weight": (64,),
        "encoder.5.bias": (64,),
        "decoder.0.weight": (64, 32, 3, 3),  # transposed: (in, out, height, width)
        "decoder.0.bias": (32,),
        "decoder.2.weight": (32, 32, 3, 3),
        "decoder.2.bias": (32,),
        "decoder.4.weight": (32, 3, 3, 3),
        "decoder.4.bias": (3,),
    }


@BOTH
def test_keys_do_not_depend_on_the_residual_path(residual):
    plain, other = (models.create("reduced_deblurnet", residual=choice) for choice in (False, residual))
    assert plain.state_dict().keys() == other.state_dict().keys()


def test_a_fresh_network_with_the_residual_path_returns_its_input(photograph):
    model = models.create("reduced_deblurnet", residual=True)
    for network in (model.train(), model.eval()):
        with torch.no_grad():
            assert torch.equal(network(photograph[None])[0], photograph)


def test_without_the_residual_path_the_output_lies_within_0_and_1():
    model = fill(models.create("reduced_deblurnet"))
    with torch.no_grad():
        restored = model(20 * picture(13, 18) - 10)
    assert restored.min() >= 0
    assert restored.max() <= 1
    assert restored.std() > 0.01


def test_with_the_residual_path_the_output_is_not_clamped():
    model = fill(models.create("reduced_deblurnet", residual=True))
    with torch.no_grad():
        restored = model(picture(16, 16) + 3)
    assert restored.max() > 1.5


def test_the_features_are_64_planes_of_a_quarter_of_the_size():
    model = models.create("reduced_deblurnet").eval()
    sizes: list[tuple[int, ...]] = []

    def note(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        sizes.append(tuple(output.shape))

    model.encoder.register_forward_hook(note)
    with torch.no_grad():
        model(picture(12, 20))
    assert sizes == [(1, 64, 3, 5)]
