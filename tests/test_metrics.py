"""PSNR and SSIM: what they must obey, and that independent implementations agree."""

import math

import numpy as np
import pytest
import scipy.ndimage
import skimage.data
import skimage.metrics
import torch

from unblur.errors import UnknownName
from unblur.metrics import (
    DEFAULT_METRICS,
    METRICS,
    find_metric,
    mae,
    mse,
    psnr,
    psnr_float,
    score_pair,
    ssim_matlab3d,
    ssim_uniform,
    ssim_wang,
    strongest_channel,
)

VALUE_BY_VALUE = [
    METRICS[name]
    for name in ("psnr", "psnr-float", "ssim-wang", "ssim-matlab3d", "ssim-uniform", "mse", "mae", "strongest-channel")
]
ALL = pytest.mark.parametrize("metric", VALUE_BY_VALUE, ids=lambda metric: metric.name)
PSNRS = pytest.mark.parametrize("metric", [psnr, psnr_float])
SSIMS = pytest.mark.parametrize("metric", [ssim_wang, ssim_matlab3d, ssim_uniform])


@pytest.fixture(scope="module")
def sharp() -> np.ndarray:
    """A real picture, (96, 130, 3) uint8."""
    return np.ascontiguousarray(skimage.data.astronaut()[60:156, 160:290])


@pytest.fixture(scope="module")
def restored(sharp: np.ndarray) -> np.ndarray:
    """The same picture, blurred and noisy."""
    return blurred_and_noisy(sharp, noise=2)


def blurred_and_noisy(picture: np.ndarray, noise: float) -> np.ndarray:
    blurred = scipy.ndimage.gaussian_filter(picture.astype(np.float64), (1.2, 1.2, 0))
    noisy = blurred + noise * np.random.default_rng(1).standard_normal(picture.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def as_tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1).float() / 255


# -- Identity, symmetry, order -----------------------------------------------------------------------------------------


@PSNRS
def test_identical_pictures_score_exactly_100_db(metric, sharp):
    assert metric(sharp, sharp, data_range=255) == 100.0
    assert metric(as_tensor(sharp), as_tensor(sharp)) == 100.0


def test_pictures_that_differ_only_before_rounding_score_100_db_in_psnr_but_not_in_psnr_float(sharp):
    nearly = as_tensor(sharp) + 0.3 / 255
    assert psnr(nearly, as_tensor(sharp)) == 100.0
    assert psnr_float(nearly, as_tensor(sharp)) == pytest.approx(20 * math.log10(255 / 0.3), abs=1e-3)


@SSIMS
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_identical_pictures_have_an_ssim_of_exactly_one(metric, sharp, value):
    assert metric(sharp, sharp, data_range=255) == 1.0
    flat = torch.full((3, 20, 20), value)
    assert metric(flat, flat) == 1.0


def test_identical_pictures_have_no_error(sharp):
    assert mse(sharp, sharp, data_range=255) == mae(sharp, sharp, data_range=255) == 0.0


@ALL
def test_restored_and_sharp_may_change_places(metric, restored, sharp):
    there = metric.function(restored, sharp, data_range=255)
    back = metric.function(sharp, restored, data_range=255)
    assert there == pytest.approx(back, rel=1e-12)


@ALL
def test_more_noise_is_a_worse_score(metric, sharp):
    scores = [metric.function(blurred_and_noisy(sharp, noise), sharp, data_range=255) for noise in (1, 4, 9, 25)]
    assert scores == sorted(scores, reverse=metric.higher_is_better)
    assert len(set(scores)) == 4


# -- Known values ------------------------------------------------------------------------------------------------------


@PSNRS
@pytest.mark.parametrize("step", [1, 2, 10, 100])
def test_a_constant_difference_of_k_grey_levels_gives_20_log_255_over_k(metric, step):
    dark = np.full((40, 30, 3), 50, np.uint8)
    assert metric(dark + np.uint8(step), dark, data_range=255) == pytest.approx(20 * math.log10(255 / step), abs=1e-9)
    assert metric(as_tensor(dark) + step / 255, as_tensor(dark)) == pytest.approx(20 * math.log10(255 / step), abs=1e-4)


def test_white_against_black_scores_zero_db_and_full_error():
    black, white = torch.zeros(3, 16, 16), torch.ones(3, 16, 16)
    assert psnr(white, black) == psnr_float(white, black) == 0
    assert mse(white, black) == mae(white, black) == 1


def test_mse_and_mae_of_a_constant_difference_are_its_square_and_itself():
    grey = torch.full((1, 9, 9), 0.25, dtype=torch.float64)
    assert mse(grey + 0.5, grey) == 0.25
    assert mae(grey - 0.125, grey) == 0.125


def test_psnr_rounds_halves_away_from_zero_and_clips():
    halves = np.array([[0.5, 1.5, 126.5, 254.5, -20.0, 290.0]])
    rounded = np.array([[1, 2, 127, 255, 0, 255]], np.uint8)
    assert psnr(halves, rounded.astype(np.float64), data_range=255) == 100.0
    assert psnr(halves / 255, rounded / 255) == 100.0


def test_ssim_of_two_flat_pictures_is_the_luminance_term_alone():
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    for metric in (ssim_wang, ssim_matlab3d, ssim_uniform):
        flat = torch.full((3, 30, 30), 0.2, dtype=torch.float64)
        assert metric(flat, flat + 0.4) == pytest.approx(expected, abs=1e-9)


@ALL
def test_the_score_depends_on_values_relative_to_the_data_range_only(metric, restored, sharp):
    score = metric.function(restored, sharp, data_range=255)
    at_255 = metric.function(restored.astype(np.float32), sharp.astype(np.float32), data_range=255)
    at_1 = metric.function(restored / 255, sharp / 255)
    at_65535 = metric.function(restored.astype(np.uint16) * 257, sharp.astype(np.uint16) * 257, data_range=65535)
    assert [at_255, at_1, at_65535] == pytest.approx([score] * 3, rel=1e-9)


def test_strongest_channel_is_the_share_of_pixels_with_the_same_strongest_colour():
    sharp = np.array([[[9, 1, 1], [1, 9, 1], [1, 1, 9], [5, 5, 5]]], np.uint8)
    restored = np.array([[[7, 6, 6], [7, 6, 6], [1, 1, 2], [4, 3, 3]]], np.uint8)
    assert strongest_channel(restored, sharp, data_range=255) == 0.75  # of equal colours the first one counts
    assert strongest_channel(restored[..., 0], sharp[..., 0], data_range=255) == 1.0


@pytest.mark.parametrize("brightness", [0.3, 1.0])
def test_strongest_channel_does_not_see_brightness(sharp, brightness):
    picture = as_tensor(sharp)
    assert strongest_channel(picture * brightness, picture) == 1.0


# -- Independent implementations ---------------------------------------------------------------------------------------


def test_psnr_is_scikit_images_on_8_bit_and_psnr_float_on_any_values(restored, sharp):
    assert psnr(restored, sharp, data_range=255) == pytest.approx(
        skimage.metrics.peak_signal_noise_ratio(sharp, restored), abs=1e-9
    )
    a, b = restored / 255 + 0.001, sharp / 255
    assert psnr_float(a, b) == pytest.approx(skimage.metrics.peak_signal_noise_ratio(b, a, data_range=1), abs=1e-9)


def scikit_ssim(restored: np.ndarray, sharp: np.ndarray) -> float:
    """Mean of the map over the valid region, float64, at a data range of 1."""
    _, ssim_map = skimage.metrics.structural_similarity(
        sharp, restored, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        channel_axis=2, full=True,
    )  # fmt: skip
    return float(ssim_map[5:-5, 5:-5].mean())


@pytest.mark.parametrize(("height", "width"), [(96, 130), (11, 11), (12, 40), (47, 13)])
def test_ssim_wang_is_scikit_images_gaussian_ssim_on_the_valid_region(restored, sharp, height, width):
    a, b = restored[:height, :width] / 255, sharp[:height, :width] / 255
    assert ssim_wang(a, b) == pytest.approx(scikit_ssim(a, b), abs=1e-9)


def test_ssim_wang_takes_unrounded_values_as_they_are(restored, sharp):
    a, b = restored / 255 + 0.2 / 255, sharp / 255
    assert ssim_wang(a, b) == pytest.approx(scikit_ssim(a, b), abs=1e-9)


@pytest.mark.parametrize(("height", "width"), [(96, 130), (7, 7), (8, 40)])
def test_ssim_uniform_is_scikit_images_default_ssim(restored, sharp, height, width):
    a, b = restored[:height, :width] / 255, sharp[:height, :width] / 255
    expected = skimage.metrics.structural_similarity(b, a, data_range=1.0, channel_axis=2)
    assert ssim_uniform(a, b) == pytest.approx(expected, abs=1e-9)


def test_the_values_of_one_pair_lie_where_each_convention_was_measured():
    # astronaut, Gaussian of sigma 1.2, noise of 2 grey levels: the noise differs, hence the tolerance
    picture = skimage.data.astronaut()
    noisy = blurred_and_noisy(picture, 2)
    measured = {"psnr": 28.110, "ssim-wang": 0.8668, "ssim-uniform": 0.8770, "ssim-matlab3d": 0.9279}
    scores = score_pair(noisy, picture, list(measured), data_range=255)
    assert scores["psnr"] == pytest.approx(measured.pop("psnr"), abs=0.05)
    for name, value in measured.items():
        assert scores[name] == pytest.approx(value, abs=1.5e-3)


def ssim_of_a_volume(restored: np.ndarray, sharp: np.ndarray) -> float:
    """Matlab's documented algorithm for a 3-D array, written with scipy's n-dimensional Gaussian."""

    def blur(volume: np.ndarray) -> np.ndarray:
        return scipy.ndimage.gaussian_filter(volume, 1.5, mode="nearest", radius=5)

    x, y = restored.astype(np.float64), sharp.astype(np.float64)
    mu_x, mu_y = blur(x), blur(y)
    var_x, var_y, cov = blur(x * x) - mu_x**2, blur(y * y) - mu_y**2, blur(x * y) - mu_x * mu_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(((2 * mu_x * mu_y + c1) * (2 * cov + c2) / ((mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2))).mean())


@pytest.mark.parametrize(("height", "width"), [(96, 130), (11, 11), (3, 40), (1, 1)])
def test_ssim_matlab3d_is_the_ssim_of_a_volume_with_replicated_edges(restored, sharp, height, width):
    a, b = restored[:height, :width], sharp[:height, :width]
    assert ssim_matlab3d(a, b, data_range=255) == pytest.approx(ssim_of_a_volume(a, b), abs=1e-9)


def test_ssim_matlab3d_of_a_grey_picture_is_two_dimensional(restored, sharp):
    a, b = restored[..., 1], sharp[..., 1]
    assert ssim_matlab3d(a, b, data_range=255) == pytest.approx(ssim_of_a_volume(a, b), abs=1e-9)


def test_a_tall_picture_is_the_same_in_many_strips_as_in_scikit_image():
    picture = skimage.data.astronaut()  # several strips of rows
    noisy = blurred_and_noisy(picture, 2)
    assert ssim_wang(noisy / 255, picture / 255) == pytest.approx(scikit_ssim(noisy / 255, picture / 255), abs=1e-9)
    assert ssim_matlab3d(noisy, picture, data_range=255) == pytest.approx(ssim_of_a_volume(noisy, picture), abs=1e-9)
    # The field's conventions on one pair lie this far apart (the reason why the protocol is in the name).
    assert ssim_matlab3d(noisy, picture, data_range=255) - ssim_wang(noisy, picture, data_range=255) > 0.04


# -- Shapes and kinds --------------------------------------------------------------------------------------------------


@ALL
def test_a_batch_gives_one_float64_score_a_picture(metric, restored, sharp):
    noisier = as_tensor(blurred_and_noisy(sharp, 20))
    scores = metric.function(torch.stack([as_tensor(restored), noisier]), torch.stack([as_tensor(sharp)] * 2))
    assert scores.dtype == torch.float64
    assert scores.shape == (2,)
    singles = [metric.function(picture, as_tensor(sharp)) for picture in (as_tensor(restored), noisier)]
    assert scores.tolist() == pytest.approx(singles, rel=1e-12)


@ALL
def test_a_single_picture_gives_a_python_float(metric, sharp, restored):
    assert type(metric.function(as_tensor(restored), as_tensor(sharp))) is float
    assert type(metric.function(restored, sharp, data_range=255)) is float
    assert metric.function(as_tensor(restored)[None], as_tensor(sharp)[None]).shape == (1,)


@ALL
def test_array_and_tensor_of_one_picture_score_alike(metric, restored, sharp):
    of_arrays = metric.function(restored, sharp, data_range=255)
    of_tensors = metric.function(
        torch.from_numpy(restored).permute(2, 0, 1), torch.from_numpy(sharp).permute(2, 0, 1), data_range=255
    )
    assert of_tensors == of_arrays


@ALL
def test_three_equal_planes_score_like_the_one_grey_plane(metric, restored, sharp):
    a, b = restored[..., 0], sharp[..., 0]
    of_plane = metric.function(a, b, data_range=255)
    assert metric.function(a[..., None], b[..., None], data_range=255) == of_plane
    assert metric.function(np.dstack([a] * 3), np.dstack([b] * 3), data_range=255) == pytest.approx(of_plane, rel=1e-9)


@ALL
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (7, 3), (10, 200)])
def test_every_size_from_one_pixel_up_has_a_score(metric, height, width):
    torch.manual_seed(0)
    a, b = torch.rand(3, height, width), torch.rand(3, height, width)
    assert math.isfinite(metric.function(a, b))
    perfect = {"psnr": 100.0, "psnr-float": 100.0, "mse": 0.0, "mae": 0.0}.get(metric.name, 1.0)
    assert metric.function(a, a) == perfect


@ALL
def test_views_read_only_and_byte_swapped_arrays_are_taken_as_they_are(metric, restored, sharp):
    expected = metric.function(restored, sharp, data_range=255)
    backwards = restored[::-1, :, ::-1], sharp[::-1, :, ::-1]
    if metric.name not in ("ssim-matlab3d", "strongest-channel"):  # the order of the channels matters to these
        assert metric.function(*backwards, data_range=255) == pytest.approx(expected, rel=1e-9)
    frozen = restored.copy()
    frozen.flags.writeable = False
    assert metric.function(frozen, sharp, data_range=255) == expected
    swapped = (restored.astype(">f4"), sharp.astype(">f4"))
    assert metric.function(*swapped, data_range=255) == pytest.approx(expected, rel=1e-9)


@ALL
def test_scoring_changes_neither_picture_nor_gradient(metric, restored, sharp):
    a, b = as_tensor(restored).requires_grad_(), as_tensor(sharp)
    before = a.detach().clone(), b.clone()
    metric.function(a, b)
    assert a.grad is None
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])


# -- Refusals ----------------------------------------------------------------------------------------------------------


@ALL
def test_different_shapes_are_refused(metric):
    with pytest.raises(ValueError, match=r"\(3, 20, 20\).*\(3, 20, 21\)"):
        metric.function(torch.rand(3, 20, 20), torch.rand(3, 20, 21))
    with pytest.raises(ValueError, match="restored picture is"):
        metric.function(torch.rand(1, 3, 20, 20), torch.rand(3, 20, 20))


@ALL
def test_two_kinds_of_values_are_refused(metric, sharp):
    with pytest.raises(ValueError, match=r"uint8.*float64"):
        metric.function(sharp, sharp / 255, data_range=255)
    with pytest.raises(ValueError, match=r"uint16.*uint8"):
        metric.function(sharp.astype(np.uint16), sharp, data_range=255)
    with pytest.raises(ValueError, match="torch tensor"):
        metric.function(as_tensor(sharp), sharp)


def test_float_types_of_different_width_are_one_kind(restored, sharp):
    score = psnr(as_tensor(restored), as_tensor(sharp))
    assert psnr(as_tensor(restored).double(), as_tensor(sharp)) == pytest.approx(score, abs=1e-9)


@ALL
@pytest.mark.parametrize("data_range", [1, 1.0, 254, 256, 65535])
def test_8_bit_values_with_another_range_are_refused(metric, sharp, data_range):
    with pytest.raises(ValueError, match="data_range=255"):
        metric.function(sharp, sharp, data_range=data_range)


@ALL
def test_16_bit_values_with_another_range_are_refused(metric, sharp):
    with pytest.raises(ValueError, match="data_range=65535"):
        metric.function(sharp.astype(np.uint16), sharp.astype(np.uint16), data_range=255)


@ALL
@pytest.mark.parametrize("data_range", [0, -1, math.nan, math.inf])
def test_a_range_that_is_no_positive_number_is_refused(metric, data_range):
    with pytest.raises(ValueError, match="data_range is"):
        metric.function(torch.rand(3, 12, 12), torch.rand(3, 12, 12), data_range=data_range)


@ALL
def test_normalised_tensors_are_refused_whatever_the_range(metric, sharp):
    normalised = (as_tensor(sharp) - 0.5) / 0.25
    with pytest.raises(ValueError, match="outside"):
        metric.function(normalised, normalised)
    minus_one_to_one = as_tensor(sharp) * 2 - 1
    with pytest.raises(ValueError, match="outside"):
        metric.function(minus_one_to_one, minus_one_to_one)


@ALL
def test_floats_from_0_to_255_with_the_default_range_are_refused(metric, sharp):
    with pytest.raises(ValueError, match=r"values from .* to 255, far outside \[0, 1\]"):
        metric.function(sharp.astype(np.float32), sharp.astype(np.float32))


@ALL
def test_floats_from_0_to_1_with_a_range_of_255_are_refused(metric, restored, sharp):
    with pytest.raises(ValueError, match="use data_range=1"):
        metric.function(as_tensor(restored), as_tensor(sharp), data_range=255)


def test_a_nearly_black_picture_of_whole_numbers_is_taken_at_a_range_of_255():
    black, one_level_up = np.zeros((20, 20, 3)), np.ones((20, 20, 3))
    assert psnr(black, one_level_up, data_range=255) == pytest.approx(20 * math.log10(255))


def test_a_network_that_overshoots_a_little_is_taken():
    picture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    overshooting = picture * 1.4 - 0.2
    assert psnr(overshooting, picture) == psnr(overshooting.clamp(0, 1), picture)
    assert psnr_float(overshooting, picture) < psnr_float(overshooting.clamp(0, 1), picture)


@ALL
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(metric, value):
    broken = torch.rand(3, 12, 12)
    broken[1, 3, 4] = value
    with pytest.raises(ValueError, match="restored picture holds values that are not finite"):
        metric.function(broken, torch.rand(3, 12, 12))
    with pytest.raises(ValueError, match="sharp picture holds values that are not finite"):
        metric.function(torch.rand(3, 12, 12), broken)


@ALL
@pytest.mark.parametrize("shape", [(3, 0, 5), (0, 3, 5, 5), (3, 5, 0)])
def test_empty_pictures_are_refused(metric, shape):
    with pytest.raises(ValueError, match="empty"):
        metric.function(torch.zeros(shape), torch.zeros(shape))


@ALL
def test_empty_arrays_are_refused(metric):
    for shape in ((0, 5), (0, 5, 3), (5, 0, 3)):
        with pytest.raises(ValueError, match="empty"):
            metric.function(np.zeros(shape), np.zeros(shape))


@ALL
@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((8, 8, 4)),
        np.zeros((3, 8, 8)),
        np.zeros(8),
        torch.zeros(8, 8),
        torch.zeros(8, 8, 3),
        torch.zeros(2, 8, 8),
    ],
    ids=["alpha", "planes first", "a row", "no channels", "channels last", "two channels"],
)
def test_shapes_that_are_no_pictures_are_refused(metric, picture):
    with pytest.raises(ValueError, match="1 or 3 channels"):
        metric.function(picture, picture)


@ALL
@pytest.mark.parametrize(
    "picture",
    [np.zeros((8, 8), np.int32), torch.zeros(3, 8, 8, dtype=torch.int64), np.zeros((8, 8), bool), [[0.0]], "photo.png"],
    ids=["int32", "int64 tensor", "bool", "list", "path"],
)
def test_values_that_are_no_pictures_are_refused(metric, picture):
    with pytest.raises(ValueError, match="picture"):
        metric.function(picture, picture)


# -- The list ----------------------------------------------------------------------------------------------------------


def test_every_metric_is_listed_under_its_own_name_with_a_one_line_protocol():
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.function.__name__ == name.replace("-", "_")
        assert find_metric(name) is metric
        assert metric.protocol
        assert "\n" not in metric.protocol
    assert set(DEFAULT_METRICS) <= set(METRICS)


def test_an_unknown_metric_is_an_error_that_names_the_nearest_one():
    with pytest.raises(UnknownName, match=r"No metric is called 'ssim_wang'\. Did you mean 'ssim-wang'\?"):
        find_metric("ssim_wang")
