"""What a sensor adds: the response curve is undone, noise has the stated variance, JPEG is Pillow's JPEG."""

import io

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from unblur.blur.camera import (
    WHITE,
    add_noise,
    average_frames,
    beyond_white,
    from_linear_light,
    jpeg,
    round_to_8bit,
    to_linear_light,
)


def picture(name: str) -> np.ndarray:
    """A photograph, (256, 300, 3) uint8."""
    return np.ascontiguousarray(getattr(skimage.data, name)()[:256, :300])


def as_batch(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def as_pixels(batch: Tensor) -> np.ndarray:
    return (batch[0].permute(1, 2, 0) * 255).round().byte().numpy()


def pillows_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=2)  # 2: chroma halved both ways, 4:2:0
    return np.asarray(Image.open(file))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


# -- Light -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2])
def test_linear_light_and_back_gives_the_picture(photograph, gamma):
    there_and_back = from_linear_light(to_linear_light(photograph[None], gamma), gamma)
    torch.testing.assert_close(there_and_back[0], photograph, atol=1e-6, rtol=0)


def test_black_and_white_are_the_same_in_linear_light_and_grey_is_darker():
    light = to_linear_light(torch.tensor([0.0, 0.5, 1.0]))
    assert light[0] == 0
    assert light[2] == 1
    assert float(light[1]) == pytest.approx(0.5**2.2)


def test_light_beyond_white_saturates_and_below_black_is_black():
    assert from_linear_light(torch.tensor([-0.5, 1.0, 7.0])).tolist() == [0, 1, 1]
    assert to_linear_light(torch.tensor([-0.5])).tolist() == [0]


def test_each_picture_may_have_its_own_gamma(photograph):
    gamma = torch.tensor([1.0, 2.2]).reshape(2, 1, 1, 1)
    light = to_linear_light(photograph.expand(2, -1, -1, -1), gamma)
    torch.testing.assert_close(light[0], photograph)
    torch.testing.assert_close(light[1], to_linear_light(photograph))


# -- Beyond white ------------------------------------------------------------------------------------------------------


def test_only_what_is_clipped_gets_light_beyond_white():
    values = torch.tensor([0.0, 0.5, 0.9, WHITE, 1.0]).reshape(1, 1, 1, 5).expand(2, 3, 1, 5)
    light = to_linear_light(values)
    bright = beyond_white(light, values, torch.tensor([1.0, 4.0]))
    torch.testing.assert_close(bright[0], light[0], atol=0, rtol=0)
    torch.testing.assert_close(bright[1, ..., :4], light[1, ..., :4], atol=0, rtol=0)
    torch.testing.assert_close(bright[1, ..., 4], torch.full((3, 1), 4.0))


def test_what_is_clipped_does_not_change_without_blur(photograph):
    made = from_linear_light(beyond_white(to_linear_light(photograph[None]), photograph[None], 6.0))[0]
    torch.testing.assert_close(made, photograph.where(photograph < WHITE, made), atol=1e-6, rtol=0)
    assert (made >= photograph - 1e-6).all()


# -- Frames ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [1.0, 2.2])
def test_the_mean_of_frames_is_the_mean_of_their_light(gamma):
    frames = torch.rand(5, 3, 6, 7, generator=torch.Generator().manual_seed(1))
    expected = (frames.double() ** gamma).mean(dim=0) ** (1 / gamma)
    torch.testing.assert_close(average_frames(frames, gamma), expected.float(), atol=1e-5, rtol=0)


def test_frames_may_come_one_by_one(photograph):
    frames = [photograph, photograph.flip(1), photograph.flip(2)]
    together = average_frames(torch.stack(frames), 2.2)
    torch.testing.assert_close(average_frames(iter(frames), 2.2), together, atol=0, rtol=0)


def test_a_curve_that_is_a_gamma_averages_as_the_gamma_does():
    frames = torch.randint(0, 256, (7, 3, 8, 8), generator=torch.Generator().manual_seed(1)) / 255
    curve = (torch.arange(256) / 255) ** 2.2
    torch.testing.assert_close(average_frames(frames, curve), average_frames(frames, 2.2), atol=2e-4, rtol=0)


@pytest.mark.parametrize("response", [2.2, 1.0, torch.linspace(0, 1, 256).sqrt()])
def test_equal_frames_average_to_themselves(photograph, response):
    mean = average_frames(photograph.expand(11, -1, -1, -1), response)
    torch.testing.assert_close(mean, photograph, atol=1e-5, rtol=0)


def test_without_frames_there_is_no_mean():
    with pytest.raises(ValueError, match="no frames"):
        average_frames([])


# -- Noise -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", [0.0, 0.25, 1.0])
@pytest.mark.parametrize(("read", "shot"), [(0.01, 0.0), (0.0, 0.002), (0.02, 0.001)])
def test_the_variance_of_noise_is_read_squared_plus_shot_times_signal(signal, read, shot):
    clean = torch.full((1, 3, 200, 200), signal)
    noisy = add_noise(clean, read, shot, torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)))
    expected = read**2 + shot * signal
    assert float((noisy - clean).var()) == pytest.approx(expected, rel=0.02, abs=1e-12)
    assert float((noisy - clean).mean()) == pytest.approx(0, abs=5 * (expected / clean.numel()) ** 0.5)


def test_each_picture_of_a_batch_has_its_own_noise_level():
    clean = torch.full((3, 3, 50, 50), 0.5)
    noise = torch.randn(3, 50, 50, generator=torch.Generator().manual_seed(2)).expand(3, -1, -1, -1)
    noisy = add_noise(clean, torch.tensor([0.0, 0.01, 0.05]), torch.zeros(3), noise)
    torch.testing.assert_close(noisy[0], clean[0])
    torch.testing.assert_close((noisy - clean)[2], 5 * (noisy - clean)[1], atol=1e-6, rtol=0)


def test_rounding_to_8_bit_clamps_and_changes_no_8_bit_value():
    values = torch.arange(256) / 255
    torch.testing.assert_close(round_to_8bit(values), values, atol=0, rtol=0)
    assert round_to_8bit(torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 2.0])).tolist() == pytest.approx([0, 0, 1 / 255, 1])


# -- JPEG --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [30, 70, 95])
@pytest.mark.parametrize("name", ["astronaut", "coffee", "rocket"])
def test_jpeg_is_that_of_pillow(name, quality):
    sharp = picture(name)
    ours, pillows = as_pixels(jpeg(as_batch(sharp), quality)), pillows_jpeg(sharp, quality)
    assert psnr(ours, pillows) > 42
    assert psnr(ours, sharp) == pytest.approx(psnr(pillows, sharp), abs=0.3)


def test_a_lower_quality_destroys_more():
    sharp = picture("astronaut")[:96, :96]
    scores = [psnr(as_pixels(jpeg(as_batch(sharp), quality)), sharp) for quality in (5, 20, 50, 70, 85, 95, 100)]
    assert scores == sorted(scores)


def test_each_picture_of_a_batch_has_its_own_quality(photograph):
    both = jpeg(photograph.expand(2, -1, -1, -1), torch.tensor([30.0, 90.0]))
    for packed, quality in zip(both, (30, 90), strict=True):
        torch.testing.assert_close(packed, jpeg(photograph[None], quality)[0], atol=1 / 254, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 9), (8, 8), (16, 16), (17, 33)])
def test_a_picture_of_any_size_goes_through_jpeg(height, width):
    sharp = picture("coffee")[:height, :width]
    packed = jpeg(as_batch(sharp), 90)
    assert packed.shape == (1, 3, height, width)
    assert psnr(as_pixels(packed), pillows_jpeg(sharp, 90)) > 38


def test_jpeg_returns_8_bit_values_within_range(photograph):
    packed = jpeg(photograph[None], 20)
    torch.testing.assert_close(packed, round_to_8bit(packed), atol=0, rtol=0)
    assert packed.min() >= 0
    assert packed.max() <= 1


def test_grey_stays_grey_and_an_even_picture_even():
    grey = torch.full((1, 3, 20, 20), 120 / 255)
    torch.testing.assert_close(jpeg(grey, 70), grey, atol=1.01 / 255, rtol=0)
    ramp = (torch.arange(32.0) / 31).expand(1, 3, 32, 32)
    packed = jpeg(ramp, 60)
    torch.testing.assert_close(packed[:, :1].expand(-1, 3, -1, -1), packed, atol=1.01 / 255, rtol=0)
