"""LPIPS, DISTS and NIQE: structure and properties; their values on random weights mean nothing."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from unblur.errors import PhotoError, WeightsError
from unblur.metrics import METRICS, dists, lpips_alex, lpips_vgg, niqe_unblur, score_pair
from unblur.metrics.backbones import ALEXNET_FILE, VGG16, VGG16_FILE, AlexNet
from unblur.metrics.dists import DISTS, L2Pool
from unblur.metrics.lpips import LPIPS
from unblur.metrics.niqe import exponent_of, patch_features

LINEAR = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}
WITH_WEIGHTS = pytest.mark.parametrize("metric", [lpips_alex, lpips_vgg, dists])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights in files that are laid out as the well-known ones."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    for name, network in ((ALEXNET_FILE, AlexNet()), (VGG16_FILE, VGG16())):
        classifier = {"classifier.6.weight": torch.zeros(2, 2), "classifier.6.bias": torch.zeros(2)}
        torch.save({**network.state_dict(), **classifier}, folder / name)
    (folder / "lpips/v0.1").mkdir(parents=True)
    for backbone, channels in LINEAR.items():
        linear = {f"lin{i}.model.1.weight": torch.rand(1, count, 1, 1) for i, count in enumerate(channels)}
        torch.save(linear, folder / f"lpips/v0.1/{backbone}.pth")
    (folder / "dists").mkdir()
    torch.save({"alpha": torch.rand(1, 1475, 1, 1), "beta": torch.rand(1, 1475, 1, 1)}, folder / "dists/weights.pt")
    return folder


@pytest.fixture
def with_weights(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNBLUR_HOME", str(home))
    return home


@pytest.fixture(scope="module")
def sharp() -> np.ndarray:
    return np.ascontiguousarray(skimage.data.astronaut()[40:136, 160:256])


def blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), sigma) if sigma else picture


# -- LPIPS and DISTS ---------------------------------------------------------------------------------------------------


@WITH_WEIGHTS
def test_identical_pictures_have_no_distance_and_others_have(with_weights, metric, sharp):
    assert metric(sharp, sharp, data_range=255) == pytest.approx(0, abs=1e-6)
    assert metric(blur(sharp, 1), sharp, data_range=255) > 1e-4


@WITH_WEIGHTS
def test_restored_and_sharp_may_change_places(with_weights, metric, sharp):
    there, back = metric(blur(sharp, 2), sharp, data_range=255), metric(sharp, blur(sharp, 2), data_range=255)
    assert there == pytest.approx(back, rel=1e-4)


@WITH_WEIGHTS
def test_more_blur_is_further_away(with_weights, metric, sharp):
    distances = [metric(blur(sharp, sigma), sharp, data_range=255) for sigma in (0.5, 1, 3)]
    assert distances == sorted(distances)


@WITH_WEIGHTS
def test_arrays_tensors_and_batches_are_taken_alike(with_weights, metric, sharp):
    soft = blur(sharp, 2)
    of_arrays = metric(soft, sharp, data_range=255)
    a, b = (torch.from_numpy(p.copy()).permute(2, 0, 1).float() / 255 for p in (soft, sharp))
    assert metric(a, b) == pytest.approx(of_arrays, rel=1e-4)
    batch = metric(torch.stack([a, b]), torch.stack([b, b]))
    assert batch.tolist() == pytest.approx([of_arrays, 0], abs=1e-4 * of_arrays + 1e-6)


@WITH_WEIGHTS
@pytest.mark.parametrize("channel", [0, 2])
def test_a_grey_picture_is_three_equal_planes(with_weights, metric, sharp, channel):
    a, b = blur(sharp, 2)[..., channel], sharp[..., channel]
    of_planes = metric(np.dstack([a] * 3), np.dstack([b] * 3), data_range=255)
    assert metric(a, b, data_range=255) == pytest.approx(of_planes, rel=1e-5)


@pytest.mark.parametrize(
    ("metric", "file", "whose"),
    [
        ("lpips-alex", ALEXNET_FILE, "AlexNet"),
        ("lpips-alex", "lpips/v0.1/alex.pth", "PerceptualSimilarity"),
        ("lpips-vgg", VGG16_FILE, "VGG16"),
        ("dists", "dists/weights.pt", "DISTS"),
    ],
)
def test_a_missing_file_of_weights_is_an_error_that_names_file_and_folder(
    home, tmp_path, monkeypatch, metric, file, whose
):
    for path in (path for path in home.rglob("*.p*") if path.relative_to(home).as_posix() != file):
        target = tmp_path / path.relative_to(home)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(path)
    monkeypatch.setenv("UNBLUR_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=f"{whose}.*UNBLUR_HOME") as error:
        METRICS[metric].ready()
    assert str(tmp_path / file) in str(error.value)
    assert "or choose metrics that do without" in str(error.value)


def test_a_file_of_other_weights_is_refused(home, tmp_path, monkeypatch):
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / ALEXNET_FILE)
    monkeypatch.setenv("UNBLUR_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"does not fit: features\.0\.weight"):
        METRICS["lpips-alex"].ready()
    (tmp_path / ALEXNET_FILE).write_bytes(b"<html>")
    with pytest.raises(WeightsError, match="cannot be read"):
        METRICS["lpips-alex"].ready()


@WITH_WEIGHTS
def test_pictures_that_are_too_small_for_the_features_are_refused(with_weights, metric, sharp):
    with pytest.raises(PhotoError, match=r"at least .* px a side, not 40x15"):
        metric(sharp[:15, :40], sharp[:15, :40], data_range=255)


def test_lpips_is_the_weighted_mean_of_squared_differences_of_unit_features(home, sharp):
    torch.manual_seed(1)
    network = LPIPS("alex")
    a, b = (torch.from_numpy(p.copy()).permute(2, 0, 1)[None].float() / 255 for p in (blur(sharp, 2), sharp))
    mean, std = torch.tensor([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]])[:, None, :, None, None]
    total = 0.0
    x, y = ((2 * picture - 1 - mean) / std for picture in (a, b))
    stage = 0
    for place, layer in enumerate(network.net.features):  # the same, place by place
        x, y = layer(x), layer(y)
        if place in (1, 4, 7, 9, 11):
            weights = network.state_dict()[f"lin{stage}.model.1.weight"][0]
            unit = [features / features.norm(dim=1, keepdim=True) for features in (x, y)]
            unit = [features.nan_to_num() for features in unit]
            total += ((unit[0] - unit[1]) ** 2 * weights).sum(1).mean().item()
            stage += 1
    assert network(a, b).item() == pytest.approx(total, rel=1e-4)


def test_the_networks_have_the_sizes_of_the_well_known_ones():
    def parameters(network: torch.nn.Module) -> int:
        return sum(p.numel() for p in network.parameters())

    assert parameters(AlexNet()) == 2_469_696
    assert parameters(VGG16()) == 14_714_688
    assert {k: tuple(v.shape) for k, v in LPIPS("vgg").state_dict().items() if k.startswith("lin")} == {
        f"lin{i}.model.1.weight": (1, count, 1, 1) for i, count in enumerate(LINEAR["vgg"])
    }
    assert DISTS().alpha.shape == (1, 1475, 1, 1)


def test_dists_does_not_see_where_a_texture_lies_when_structure_has_no_weight():
    torch.manual_seed(0)
    network = DISTS()
    torch.nn.init.zeros_(network.beta)
    torch.nn.init.zeros_(network.alpha[:, 3:])  # the picture's own colours only
    noise = torch.rand(1, 3, 48, 48)
    with torch.no_grad():
        assert network(noise.flip(-1), noise).item() == pytest.approx(0, abs=1e-6)
        assert network(noise * 0.5, noise).item() > 0.1


def test_l2_pooling_halves_the_size_and_keeps_a_flat_picture():
    pooled = L2Pool(2)(torch.full((1, 2, 12, 16), 3.0))
    assert pooled.shape == (1, 2, 6, 8)
    assert torch.allclose(pooled[..., 1:, 1:], torch.tensor(3.0))


# -- NIQE --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("photo", ["astronaut", "coffee", "chelsea"])
def test_a_blurrier_photo_is_less_natural(photo):
    picture = getattr(skimage.data, photo)()
    scores = [niqe_unblur(blur(picture, sigma), data_range=255) for sigma in (0, 1, 2, 4)]
    assert scores == sorted(scores)
    assert scores[1] > scores[0] + 1


def test_a_noisy_photo_is_less_natural():
    picture = skimage.data.astronaut()[:288, :288]
    noise = np.random.default_rng(0).standard_normal(picture.shape)
    noisy = [np.clip(picture + level * noise, 0, 255).astype(np.uint8) for level in (0, 20, 60)]
    scores = [niqe_unblur(one, data_range=255) for one in noisy]
    assert scores == sorted(scores)


def test_the_sharp_picture_is_not_looked_at():
    picture = skimage.data.astronaut()[:192, 100:292]
    alone = niqe_unblur(picture, data_range=255)
    assert score_pair(picture, np.zeros_like(picture), ["niqe-unblur"], data_range=255) == {"niqe-unblur": alone}


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_photo_is_as_natural(axis):
    picture = np.ascontiguousarray(skimage.data.astronaut()[:192, 100:388])  # whole patches
    assert niqe_unblur(np.flip(picture, axis), data_range=255) == pytest.approx(
        niqe_unblur(picture, data_range=255), abs=0.1
    )


def test_the_patches_of_a_photo_have_36_numbers_each():
    picture = torch.from_numpy(skimage.data.astronaut()[:200, :300].copy()).permute(2, 0, 1)
    features = patch_features(picture)
    assert features.shape == (6, 36)
    assert len(patch_features(picture, sharpest=True)) < 6


def test_the_exponent_of_a_gaussian_is_two_of_a_laplacian_one():
    moments = torch.tensor([2 / np.pi, 0.5, 0.75])  # (mean |x|)² / mean x², the last of an even distribution
    assert exponent_of(moments.double()).tolist() == pytest.approx([2, 1, 10], abs=2e-3)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_flat_picture_has_a_score_and_it_is_bad(value):
    flat = niqe_unblur(np.full((192, 192, 3), value, np.uint8), data_range=255)
    assert np.isfinite(flat)
    assert flat > niqe_unblur(skimage.data.astronaut()[:192, 100:292], data_range=255) + 5


def test_pictures_without_a_whole_patch_are_refused():
    with pytest.raises(PhotoError, match="at least 96 px a side, not 120x95"):
        niqe_unblur(np.zeros((95, 120, 3), np.uint8), data_range=255)
