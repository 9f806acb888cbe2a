"""The protocol of RealBlur forgives what two cameras differ in, and nothing else; protocols by name."""

import cv2
import numpy as np
import pytest
import skimage.data
import skimage.metrics

from unblur.errors import UnknownName
from unblur.metrics import METRICS, psnr, psnr_float, psnr_realblur, score_pair, ssim_realblur
from unblur.metrics.protocols import PLAIN, PROTOCOLS, find_protocol, protocol_of_data


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """A real picture with room around it, (140, 160, 3) uint8."""
    return np.ascontiguousarray(skimage.data.astronaut()[20:160, 150:310])


@pytest.fixture(scope="module")
def sharp(scene: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(scene[20:-20, 20:-20])


@pytest.fixture(scope="module")
def blurred(scene: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(cv2.GaussianBlur(scene, (0, 0), 1.0)[20:-20, 20:-20])


def by_the_script(restored: np.ndarray, sharp: np.ndarray) -> tuple[float, float]:
    """The steps that RealBlur's page describes, with OpenCV and scikit-image alone."""
    x, z = sharp.astype(np.float64) / 255, restored.astype(np.float64) / 255
    zs = ((x * z).sum() / (z * z).sum() * z).astype(np.float32)
    grey = [cv2.cvtColor(picture.astype(np.float32), cv2.COLOR_RGB2GRAY) for picture in (x, zs)]
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 0)
    _, matrix = cv2.findTransformECC(*grey, np.eye(3, dtype=np.float32), cv2.MOTION_HOMOGRAPHY, criteria, None, 5)
    size = (x.shape[1], x.shape[0])
    moved = cv2.warpPerspective(
        zs, matrix, size, flags=cv2.INTER_CUBIC + cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
    )
    mask = cv2.warpPerspective(np.ones_like(zs), matrix, size, flags=cv2.INTER_NEAREST + cv2.WARP_INVERSE_MAP)
    moved, kept = moved.astype(np.float64) * mask, x * mask
    error = ((moved - kept) ** 2).sum() / mask.sum()
    _, ssim = skimage.metrics.structural_similarity(
        kept, moved, channel_axis=2, gaussian_weights=True, use_sample_covariance=False, data_range=1.0, full=True
    )
    inside = np.s_[5:-5, 5:-5]
    per_channel = (ssim * mask)[inside].sum((0, 1)) / mask[inside].sum((0, 1))
    return 10 * np.log10(1 / error), per_channel.mean()


@pytest.mark.parametrize("change", ["none", "shifted", "darker", "turned"])
def test_both_scores_are_those_of_the_scripts_steps(scene, sharp, blurred, change):
    restored = changed(scene, blurred, change)
    expected = by_the_script(restored, sharp)
    scores = score_pair(restored, sharp, ["psnr-realblur", "ssim-realblur"], data_range=255)
    assert list(scores.values()) == pytest.approx(expected, abs=1e-6)
    assert psnr_realblur(restored, sharp, data_range=255) == scores["psnr-realblur"]
    assert ssim_realblur(restored, sharp, data_range=255) == scores["ssim-realblur"]


def changed(scene: np.ndarray, blurred: np.ndarray, change: str) -> np.ndarray:
    soft = cv2.GaussianBlur(scene, (0, 0), 1.0)
    if change == "shifted":
        return np.ascontiguousarray(soft[22:-18, 19:-21])
    if change == "darker":
        return (blurred * 0.7).astype(np.uint8)
    if change == "turned":
        turn = cv2.getRotationMatrix2D((80, 70), 1.5, 1.0)
        return np.ascontiguousarray(cv2.warpAffine(soft, turn, (160, 140), flags=cv2.INTER_CUBIC)[20:-20, 20:-20])
    return blurred


@pytest.mark.parametrize(("change", "gain_db"), [("shifted", 4), ("darker", 8), ("turned", 2)])
def test_another_viewpoint_or_exposure_hardly_counts(scene, sharp, blurred, change, gain_db):
    restored = changed(scene, blurred, change)
    aligned, plain = psnr_realblur(restored, sharp, data_range=255), psnr_float(restored, sharp, data_range=255)
    assert aligned > plain + gain_db
    assert abs(aligned - psnr_float(blurred, sharp, data_range=255)) < 1.5


def test_more_blur_is_still_a_worse_score(sharp):
    scores = [psnr_realblur(cv2.GaussianBlur(sharp, (0, 0), s), sharp, data_range=255) for s in (0.7, 1.5, 3)]
    assert scores == sorted(scores, reverse=True)


def test_identical_pictures_score_100_db_and_one(sharp):
    assert score_pair(sharp, sharp, ["psnr-realblur", "ssim-realblur"], data_range=255) == pytest.approx(
        {"psnr-realblur": 100.0, "ssim-realblur": 1.0}
    )


def test_a_picture_that_cannot_be_aligned_is_scored_as_it_lies(sharp):
    flat = np.full_like(sharp, 100)
    factor = (sharp / 255 * (100 / 255)).sum() / ((100 / 255) ** 2 * sharp.size)
    expected = psnr_float(np.full(sharp.shape, 100 / 255 * factor), sharp / 255)
    assert psnr_realblur(flat, sharp, data_range=255) == pytest.approx(expected, abs=1e-3)
    assert psnr_realblur(np.zeros_like(sharp), sharp, data_range=255) == pytest.approx(
        psnr(np.zeros_like(sharp), sharp, data_range=255), abs=1e-6
    )


def test_a_grey_picture_scores_like_three_equal_planes(sharp, blurred):
    a, b = blurred[..., 1], sharp[..., 1]
    of_planes = psnr_realblur(np.dstack([a] * 3), np.dstack([b] * 3), data_range=255)
    assert psnr_realblur(a, b, data_range=255) == pytest.approx(of_planes, abs=0.01)


def test_a_picture_below_11_px_has_no_such_ssim(sharp):
    with pytest.raises(ValueError, match="11x11, not 20x10"):
        ssim_realblur(sharp[:10, :20], sharp[:10, :20], data_range=255)


# -- Protocols by name -------------------------------------------------------------------------------------------------


def test_every_protocol_asks_for_metrics_that_there_are():
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert set(protocol.metrics) <= set(METRICS)
        assert "\n" not in protocol.about


def test_both_kinds_of_ssim_stand_side_by_side_for_gopro_and_hide():
    for name in ("gopro", "hide"):
        assert find_protocol(name).metrics == ("psnr", "ssim-matlab3d", "ssim-wang")


@pytest.mark.parametrize(
    ("data", "protocol"),
    [
        ("gopro/test", "gopro"),
        ("gopro", "gopro"),
        ("hide/test", "hide"),
        ("realblur-j/test", "realblur"),
        ("rsblur/test", "realblur"),
        ("reds/val-300/blur_jpeg", "reds-val-300"),
        ("dpdd/test", "dpdd"),
        ("pairs", "plain"),
        ("my/gopro", "plain"),
    ],
)
def test_a_data_set_has_the_protocol_of_its_benchmark_and_a_folder_the_plain_one(data, protocol):
    assert protocol_of_data(data) is PROTOCOLS[protocol]


def test_reds_val_300_takes_every_tenth_frame_and_the_plain_protocol_all():
    frames = [f"{clip:03}/{frame:08}" for clip in range(30) for frame in range(100)]
    taken = [name for name in frames if find_protocol("reds-val-300").takes(name)]
    assert len(taken) == 300
    assert taken[:2] == ["000/00000009", "000/00000019"]
    assert all(PLAIN.takes(name) for name in frames)


def test_an_unknown_protocol_is_an_error_that_names_the_nearest_one():
    with pytest.raises(UnknownName, match=r"No protocol is called 'goprro'\. Did you mean 'gopro'\?"):
        find_protocol("goprro")
