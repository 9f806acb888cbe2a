"""Perceptual losses compare features of VGG-19, which comes from the well-known file or is random and says so."""

import numpy as np
import pytest
import torch
from scipy.signal import correlate
from torch import Tensor

from unblur.errors import UnknownName, WeightsError
from unblur.losses import FEATURES, build
from unblur.losses.perceptual import FeatureLoss, contrastive, gram, perceptual, style
from unblur.losses.vgg import FILE, LAYERS, VGG19Features, load_vgg19

EVERY = pytest.mark.parametrize("name", FEATURES)

SHAPES = {
    **{"0": (64, 3), "2": (64, 64), "5": (128, 64), "7": (128, 128), "10": (256, 128)},
    **dict.fromkeys(("12", "14", "16"), (256, 256)),
    "19": (512, 256),
    **dict.fromkeys(("21", "23", "25", "28", "30", "32", "34"), (512, 512)),
}
"""(outputs, inputs) of the convolutions in the well-known file, by their numbers."""


def well_known() -> dict[str, Tensor]:
    """A file's tensors by its layout: weights of their own as far as conv2_2, then one number each that fills all."""
    generator = torch.Generator().manual_seed(7)
    tensors = {}
    for number, (outputs, inputs) in SHAPES.items():
        weights = torch.full((1, 1, 1, 1), 0.01)
        if int(number) < 10:
            weights = (2 / (9 * inputs)) ** 0.5 * torch.randn(outputs, inputs, 3, 3, generator=generator)
        tensors[f"features.{number}.weight"] = weights.expand(outputs, inputs, 3, 3)
        tensors[f"features.{number}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
    for number in (0, 3, 6):  # of the classifier, which nobody reads
        tensors |= {f"classifier.{number}.weight": torch.ones(2, 2), f"classifier.{number}.bias": torch.ones(2)}
    return tensors


@pytest.fixture
def local_weights(tmp_path, monkeypatch):
    """The folder of local weights, empty."""
    monkeypatch.setenv("UNBLUR_HOME", str(tmp_path))
    return tmp_path


def pictures(batch: int = 2, size: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    """Restored, sharp and blurred pictures."""
    generator = torch.Generator().manual_seed(1)
    sharp = torch.rand(batch, 3, size, size, generator=generator)
    blurred = torch.nn.functional.avg_pool2d(sharp, 3, stride=1, padding=1, count_include_pad=False)
    return 0.7 * sharp + 0.3 * blurred, sharp, blurred


# -- VGG-19 ------------------------------------------------------------------------------------------------------------


def test_the_state_dict_is_the_layout_of_the_well_known_file():
    shapes = {key: tuple(value.shape) for key, value in VGG19Features().state_dict().items()}
    assert shapes == {k: tuple(v.shape) for k, v in well_known().items() if k.startswith("features.")}


def test_layers_have_the_names_of_their_places():
    assert LAYERS[14] == "conv3_3"
    assert LAYERS[12] == "conv3_2"
    assert (LAYERS[1], LAYERS[4], LAYERS[35], LAYERS[36], len(LAYERS)) == ("relu1_1", "pool1", "relu5_4", "pool5", 37)


def test_features_are_those_that_scipy_computes_from_the_file(local_weights):
    tensors = well_known()
    torch.save(tensors, local_weights / FILE)
    picture = pictures(1, 6)[0]
    values = picture[0].double().numpy()
    values = (values - np.reshape([0.485, 0.456, 0.406], (3, 1, 1))) / np.reshape([0.229, 0.224, 0.225], (3, 1, 1))

    def convolved(values: np.ndarray, number: int) -> np.ndarray:
        weights = tensors[f"features.{number}.weight"].double().numpy()
        padded = np.pad(values, ((0, 0), (1, 1), (1, 1)))
        bias = tensors[f"features.{number}.bias"].double().numpy()
        return np.stack([correlate(padded, kernel, "valid")[0] for kernel in weights]) + bias[:, None, None]

    expected = {"conv1_1": convolved(values, 0)}
    expected["relu1_2"] = np.maximum(convolved(np.maximum(expected["conv1_1"], 0), 2), 0)
    expected["pool1"] = expected["relu1_2"].reshape(64, 3, 2, 3, 2).max(axis=(2, 4))
    expected["conv2_1"] = convolved(expected["pool1"], 5)
    found = load_vgg19(deepest="conv2_1")(picture, list(expected))
    assert list(found) == list(expected)
    for layer, values in expected.items():
        np.testing.assert_allclose(found[layer][0].numpy(), values, rtol=1e-3, atol=1e-4)


def test_only_what_is_needed_is_built_and_nothing_of_it_is_trained(tmp_path):
    torch.save(well_known(), tmp_path / "mine.pth")
    network = load_vgg19(tmp_path / "mine.pth", "conv3_2")
    assert sorted(network.state_dict())[-1] == "features.7.weight"
    assert len(network.features) == 13
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    torch.testing.assert_close(network.state_dict()["features.12.weight"], well_known()["features.12.weight"])


def test_random_weights_are_the_same_each_time_and_at_each_depth_and_draw_from_no_global_generator():
    before = torch.get_rng_state()
    shallow, deep = load_vgg19("random", "conv2_1"), load_vgg19("random", "conv3_1")
    assert torch.equal(torch.get_rng_state(), before)
    for key, value in shallow.state_dict().items():
        assert torch.equal(deep.state_dict()[key], value)


def test_random_features_neither_vanish_nor_explode():
    found = load_vgg19("random")(pictures(1, 32)[0], LAYERS[:-1])
    assert all(0.2 < values.std() < 10 for layer, values in found.items())


def test_a_missing_file_is_named_with_its_folder_and_where_it_is_known_to_lie(local_weights):
    with pytest.raises(WeightsError) as caught:
        build({"l1": 1.0, "perceptual": 0.1})
    message = str(caught.value)
    assert str(local_weights / FILE) in message
    assert "PyTorch model zoo" in message
    assert "UNBLUR_HOME" in message
    assert "or try the training out with vgg: random" in message
    assert "metrics" not in message
    with pytest.raises(WeightsError, match=r"vgg\.pth does not exist"):
        load_vgg19(local_weights / "vgg.pth")


def test_other_files_are_refused_with_what_does_not_fit(tmp_path):
    vgg16 = {key: value for key, value in well_known().items() if key.split(".")[1] not in ("16", "23", "25")}
    smaller = well_known() | {"features.2.weight": torch.zeros(64, 32, 3, 3)}
    more = well_known() | {"features.1.running_mean": torch.zeros(64)}
    for tensors, message in (
        (vgg16, r"features\.16\.bias"),
        (smaller, r"features\.2\.weight is \(64, 32, 3, 3\) and not \(64, 64, 3, 3\)"),
        (more, r"features\.1\.running_mean"),
    ):
        torch.save(tensors, tmp_path / "other.pth")
        with pytest.raises(WeightsError, match=message):
            load_vgg19(tmp_path / "other.pth", "conv3_2")
    (tmp_path / "other.pth").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_vgg19(tmp_path / "other.pth")


def test_unknown_layers_and_pictures_too_small_are_refused():
    network = load_vgg19("random", "conv3_1")
    with pytest.raises(UnknownName, match="Did you mean 'conv3_1'"):
        network(pictures()[0], ["conv3-1"])
    with pytest.raises(UnknownName, match="layer of VGG-19"):
        network(pictures()[0], ["conv4_1"])
    with pytest.raises(UnknownName):
        VGG19Features("conv6_1")
    with pytest.raises(ValueError, match="conv3_1 of VGG-19, which needs 4 px"):
        network(torch.rand(1, 3, 3, 8), ["conv3_1"])
    assert network(torch.rand(1, 3, 4, 4), ["conv3_1"])["conv3_1"].shape == (1, 256, 1, 1)


# -- The losses --------------------------------------------------------------------------------------------------------


def features() -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.randn(3, 2, 5, 4, 6, generator=torch.Generator().manual_seed(2)).unbind(0))


def test_perceptual_is_the_mean_square_of_differences():
    restored, sharp, _ = features()
    assert float(perceptual(restored, sharp)) == pytest.approx(np.mean((restored - sharp).numpy() ** 2.0))


def test_style_is_the_frobenius_norm_between_gram_matrices():
    restored, sharp, _ = (values.double().numpy() for values in features())
    grams = [np.einsum("bchw,bdhw->bcd", values, values) / (5 * 4 * 6) for values in (restored, sharp)]
    expected = np.mean([np.linalg.norm(a - b, "fro") ** 2 for a, b in zip(*grams, strict=True)])
    assert float(style(*features()[:2])) == pytest.approx(expected, rel=1e-5)


def test_style_does_not_ask_where_things_are():
    restored, sharp, _ = features()
    shuffled = restored.flatten(2)[..., torch.randperm(24, generator=torch.Generator().manual_seed(3))].reshape(
        restored.shape
    )
    torch.testing.assert_close(gram(shuffled), gram(restored))
    torch.testing.assert_close(style(shuffled, sharp), style(restored, sharp))
    assert perceptual(shuffled, restored) > 1


def test_contrastive_is_the_ratio_of_distances():
    restored, sharp, blurred = features()
    expected = np.abs((sharp - restored).numpy()).mean() / np.abs((blurred - restored).numpy()).mean()
    assert float(contrastive(restored, sharp, blurred)) == pytest.approx(expected, rel=1e-5)


def test_contrastive_is_0_at_the_sharp_1_halfway_and_huge_at_the_blurred_picture():
    _, sharp, blurred = features()
    assert contrastive(sharp, sharp, blurred) == 0
    assert float(contrastive((sharp + blurred) / 2, sharp, blurred)) == pytest.approx(1, rel=1e-4)
    assert 1e6 < contrastive(blurred, sharp, blurred) < float("inf")
    scaled = [7 * values for values in features()]
    torch.testing.assert_close(contrastive(*scaled), contrastive(*features()))


@EVERY
def test_a_feature_loss_is_0_for_a_perfect_picture_and_falls_on_the_way_there(name):
    restored, sharp, blurred = pictures()
    loss = build({name: 1.0}, vgg="random")
    worse, better, perfect = (
        float(loss(picture, sharp, blurred)[0]) for picture in (restored, (restored + 2 * sharp) / 3, sharp)
    )
    assert 0 == perfect < better < worse


@EVERY
def test_gradients_of_a_feature_loss_reach_the_restored_picture_alone_and_are_finite(name):
    for restored, sharp, blurred in (pictures(), (*pictures()[1:2] * 2, pictures()[2]), pictures()[2:] * 3):
        restored, sharp, blurred = (p.clone().requires_grad_(True) for p in (restored, sharp, blurred))
        loss = build({name: 1.0}, vgg="random")
        loss(restored, sharp, blurred)[0].backward()
        assert restored.grad is not None
        assert torch.isfinite(restored.grad).all()
        assert sharp.grad is None
        assert blurred.grad is None
        assert all(parameter.grad is None for parameter in loss.parameters())


@EVERY
def test_pictures_of_different_shapes_are_refused(name):
    restored, sharp, blurred = pictures()
    loss = FeatureLoss(load_vgg19("random", "relu4_3"), FEATURES[name], ["conv1_1"])
    with pytest.raises(ValueError, match=r"sharp is \(1, 3, 24, 24\)"):
        loss(restored, sharp[:1], blurred)
    with pytest.raises(ValueError, match=r"blurred is \(1, 3, 24, 24\)"):
        loss(restored, sharp, blurred[:1])


def test_the_layer_is_a_choice_and_several_are_summed():
    restored, sharp, _ = pictures()
    network = load_vgg19("random", "conv3_3")
    one, other = (FeatureLoss(network, perceptual, [layer])(restored, sharp) for layer in ("relu1_1", "conv3_3"))
    both = FeatureLoss(network, perceptual, ["relu1_1", "conv3_3"])(restored, sharp)
    torch.testing.assert_close(both, one + other)
    with pytest.raises(UnknownName):
        FeatureLoss(network, perceptual, ["conv3-3"])


def test_losses_share_one_network_as_deep_as_they_need_and_say_that_it_is_random():
    loss = build({"contrastive": 1.0, "perceptual": 1.0}, vgg="random")
    assert loss.features["contrastive"].vgg is loss.features["perceptual"].vgg
    assert len(loss.features["perceptual"].vgg.features) == 15
    assert loss.notes == ("contrastive, perceptual on a VGG-19 with random weights",)
    assert build({"l1": 1.0}, vgg="random").notes == ()


def test_real_weights_need_no_note(local_weights):
    torch.save(well_known(), local_weights / FILE)
    assert build({"contrastive": 1.0}).notes == ()
    assert build({"contrastive": 1.0}, vgg=local_weights / FILE).notes == ()
