"""Point-spread functions lose no light and shift nothing; the convolution agrees with SciPy's."""

import math

import cv2
import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor

from unblur.blur.kernels import (
    TRAJECTORY_STEPS,
    convolve,
    defocus_kernel,
    draw_shake,
    draw_trajectory,
    drawn_path,
    fitted_path,
    gaussian_kernel,
    motion_kernel,
    shake_kernel,
)

SIGMAS = torch.tensor([0.0, 0.3, 1.0, 2.5])
RADII = torch.tensor([0.0, 0.3, 0.7, 1.0, 2.5, 6.2])
LENGTHS = torch.tensor([0.0, 1.0, 2.0, 5.5, 9.0, 15.0])
ANGLES = torch.tensor([0.0, 20.0, 45.0, 90.0, 137.0, 180.0])


def shakes(count: int, extent_px: float, smoothness: float, size: int) -> Tensor:
    """Return `count` kernels of different hand-shakes, (count, size, size)."""
    generator = torch.Generator().manual_seed(1)
    draws = torch.stack([draw_shake(generator) for _ in range(count)])
    return shake_kernel(torch.full((count,), extent_px), torch.full((count,), smoothness), draws, size)


def trajectories(count: int, anxiety: float) -> Tensor:
    """Return `count` random trajectories, (count, TRAJECTORY_STEPS, 2)."""
    generator = torch.Generator().manual_seed(1)
    return torch.stack([draw_trajectory(anxiety, generator) for _ in range(count)])


def point_symmetric_kernels() -> dict[str, Tensor]:
    return {
        "gaussian": gaussian_kernel(SIGMAS, 21),
        "gaussian-of-three-sizes": gaussian_kernel(torch.tensor([0.3, 1.0, 1.6]), torch.tensor([3, 7, 11]), 15),
        "defocus": defocus_kernel(RADII, 15),
        "motion": motion_kernel(LENGTHS, ANGLES, 19),
    }


def all_kernels() -> dict[str, Tensor]:
    return point_symmetric_kernels() | {
        "shake": shakes(50, 12.0, 1.8, 41),
        "rough-shake": shakes(50, 3.0, 1.0, 15),
        "trajectory": drawn_path(fitted_path(trajectories(50, 0.001), 20.0), 41),
    }


EVERY = pytest.mark.parametrize("kernels", all_kernels().values(), ids=all_kernels().keys())
POINT_SYMMETRIC = pytest.mark.parametrize(
    "kernels", point_symmetric_kernels().values(), ids=point_symmetric_kernels().keys()
)


def centre_of_mass(kernels: Tensor) -> tuple[Tensor, Tensor]:
    """Return (x to the right, y upwards) from the middle, each (B,)."""
    offsets = torch.arange(kernels.shape[-1]) - (kernels.shape[-1] - 1) / 2
    return (kernels.sum(-2) * offsets).sum(-1), -(kernels.sum(-1) * offsets).sum(-1)


def delta(size: int) -> Tensor:
    kernel = torch.zeros(size, size)
    kernel[size // 2, size // 2] = 1
    return kernel


# -- What all kernels obey ---------------------------------------------------------------------------------------------


@EVERY
def test_a_kernel_sums_to_one_and_is_nowhere_negative(kernels):
    torch.testing.assert_close(kernels.sum(dim=(1, 2)), torch.ones(len(kernels)))
    assert kernels.min() >= 0


@EVERY
def test_a_kernel_shifts_nothing(kernels):
    x, y = centre_of_mass(kernels)
    assert x.abs().max() < 1e-4
    assert y.abs().max() < 1e-4


@POINT_SYMMETRIC
def test_optics_and_straight_motion_look_the_same_turned_by_half_a_turn(kernels):
    torch.testing.assert_close(kernels, kernels.rot90(2, dims=(1, 2)), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "kernels", [gaussian_kernel(SIGMAS, 21), defocus_kernel(RADII, 15)], ids=["gaussian", "defocus"]
)
def test_a_lens_blurs_alike_in_all_directions(kernels):
    for other in (kernels.mT, kernels.flip(1), kernels.flip(2)):
        torch.testing.assert_close(kernels, other, atol=1e-7, rtol=0)


def test_a_batch_of_kernels_equals_the_single_ones():
    generator = torch.Generator().manual_seed(3)
    draws = torch.stack([draw_shake(generator) for _ in range(4)])
    torch.testing.assert_close(gaussian_kernel(SIGMAS, 9), torch.stack([gaussian_kernel(float(s), 9) for s in SIGMAS]))
    torch.testing.assert_close(defocus_kernel(RADII, 9), torch.stack([defocus_kernel(float(r), 9) for r in RADII]))
    singles = [motion_kernel(float(n), float(a), 9) for n, a in zip(LENGTHS, ANGLES, strict=True)]
    torch.testing.assert_close(motion_kernel(LENGTHS, ANGLES, 9), torch.stack(singles))
    batch = shake_kernel(torch.arange(1.0, 5.0), torch.arange(1.0, 5.0), draws, 9)
    torch.testing.assert_close(batch, torch.stack([shake_kernel(i + 1.0, i + 1.0, draws[i], 9) for i in range(4)]))


@pytest.mark.parametrize(
    "kernel", [gaussian_kernel(9.0, 5), defocus_kernel(9.0, 5), motion_kernel(30.0, 30.0, 5), shakes(1, 9.0, 2.0, 5)[0]]
)
def test_a_kernel_that_is_cut_off_still_sums_to_one(kernel):
    assert kernel.shape == (5, 5)
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-6)


# -- Gaussian ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "sigma"), [(3, 0.3), (7, 1.0), (11, 1.6), (21, 2.5), (5, 10.0)])
def test_the_gaussian_is_that_of_opencv(size, sigma):
    line = cv2.getGaussianKernel(size, sigma)
    np.testing.assert_allclose(gaussian_kernel(sigma, size).numpy(), line @ line.T, atol=1e-7)


def test_a_gaussian_of_sigma_0_does_not_blur():
    torch.testing.assert_close(gaussian_kernel(0.0, 7), delta(7))


def test_a_gaussian_on_a_larger_canvas_is_the_same_with_zeros_around():
    kernel = gaussian_kernel(1.6, 7, canvas=11)
    torch.testing.assert_close(kernel[2:-2, 2:-2], gaussian_kernel(1.6, 7))
    assert torch.count_nonzero(kernel) == 49


# -- Defocus -----------------------------------------------------------------------------------------------------------


def test_the_disc_covers_the_area_of_a_circle():
    radii = torch.arange(1.0, 8.0, 0.5)
    brightest = defocus_kernel(radii, 19)[:, 9, 9]  # inside the disc each pixel holds 1 / area
    torch.testing.assert_close(1 / brightest, math.pi * radii**2, rtol=0.04, atol=0)


def test_a_larger_radius_spreads_the_light_further():
    kernels = defocus_kernel(torch.arange(0.3, 7.0, 0.4), 15)
    effective_area = 1 / kernels.square().sum(dim=(1, 2))
    assert (effective_area.diff() > -1e-6).all()
    assert effective_area[-1] > 100


def test_a_radius_below_half_a_pixel_does_not_blur():
    torch.testing.assert_close(defocus_kernel(0.4, 5), delta(5))


# -- Straight motion ---------------------------------------------------------------------------------------------------


def test_a_motion_of_9_pixels_to_the_right_is_nine_equal_pixels():
    kernel = motion_kernel(9.0, 0.0, 11)
    expected = torch.zeros(11, 11)
    expected[5, 1:10] = 1 / 9
    torch.testing.assert_close(kernel, expected)


def test_a_motion_upwards_is_the_transpose_of_one_to_the_right():
    torch.testing.assert_close(motion_kernel(9.0, 90.0, 11), motion_kernel(9.0, 0.0, 11).T, atol=1e-6, rtol=0)


def test_a_motion_of_one_pixel_does_not_blur():
    torch.testing.assert_close(motion_kernel(1.0, 0.0, 5), delta(5))


def test_the_angle_turns_anti_clockwise():
    kernel = motion_kernel(9.0, 45.0, 9)
    assert kernel[2, 6] > 0.05  # upper right
    assert kernel[2, 2] == 0  # upper left
    assert kernel[6, 2] > 0.05  # lower left


@pytest.mark.parametrize("angle_deg", [0.0, 10.0, 33.0, 60.0, 90.0, 120.0, 175.0])
def test_the_light_of_a_motion_lies_along_its_angle_and_as_far_as_its_length(angle_deg):
    kernel = motion_kernel(21.0, angle_deg, 27).numpy()
    offsets = np.arange(27) - 13
    xx = (kernel * offsets[None, :] ** 2).sum()
    yy = (kernel * offsets[:, None] ** 2).sum()
    xy = (kernel * -offsets[:, None] * offsets[None, :]).sum()
    angle = math.degrees(0.5 * math.atan2(2 * xy, xx - yy)) % 180
    assert abs((angle - angle_deg + 90) % 180 - 90) < 0.5
    along = (xx + yy) / 2 + math.hypot((xx - yy) / 2, xy)
    assert math.sqrt(12 * along) == pytest.approx(21, abs=0.5)  # an even line of length L has the variance L² / 12


# -- Hand-shake --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extent_px", [2.0, 7.5, 20.0])
def test_the_longer_side_of_a_shake_is_its_extent(extent_px):
    lit = shakes(100, extent_px, 1.8, 61) > 0
    sides = torch.stack([lit.any(1).sum(1), lit.any(2).sum(1)]).amax(0) - 1  # bilinear drawing adds less than 2 pixels
    assert (sides >= extent_px - 1).all()
    assert (sides <= extent_px + 2).all()


def test_a_higher_smoothness_makes_the_path_calmer():
    lit = [
        (shakes(200, 20.0, smoothness, 61) > 0).float().sum(dim=(1, 2)).mean() for smoothness in (1.0, 1.5, 2.0, 3.0)
    ]
    assert lit == sorted(lit, reverse=True)
    assert lit[-1] < 0.7 * lit[0]


def test_no_two_shakes_are_alike_and_the_same_generator_repeats_them():
    first, second = shakes(2, 10.0, 1.8, 21)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(torch.stack([first, second]), shakes(2, 10.0, 1.8, 21), atol=0, rtol=0)


def test_drawing_a_shake_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    draw_shake(torch.Generator().manual_seed(1))
    assert torch.equal(before, torch.get_rng_state())


# -- Random trajectories -----------------------------------------------------------------------------------------------


def test_the_point_of_a_trajectory_keeps_its_speed():
    steps = trajectories(50, 0.002).diff(dim=1).norm(dim=2)
    torch.testing.assert_close(steps, torch.full_like(steps, 1 / TRAJECTORY_STEPS), atol=1e-6, rtol=0)


def test_without_anxiety_a_trajectory_is_a_straight_line_in_any_direction():
    paths = trajectories(200, 0.0)
    ways = paths[:, -1] - paths[:, 0]
    length = (TRAJECTORY_STEPS - 1) / TRAJECTORY_STEPS
    torch.testing.assert_close(ways.norm(dim=1), torch.full((200,), length), atol=1e-5, rtol=0)
    assert float((ways / length).mean(dim=0).norm()) < 0.2


def test_more_anxiety_bends_a_trajectory_more():
    reached = [
        float((p[:, -1] - p[:, 0]).norm(dim=1).mean())
        for p in (trajectories(100, a) for a in (0.0, 0.0001, 0.0005, 0.003))
    ]
    assert reached == sorted(reached, reverse=True)
    assert reached[-1] < 0.5 * reached[0]


def test_only_an_anxious_trajectory_turns_about_suddenly():
    turns = []
    for anxiety in (0.0001, 0.003):
        ways = trajectories(200, anxiety).diff(dim=1)
        cosine = (ways[:, 1:] * ways[:, :-1]).sum(dim=2) * TRAJECTORY_STEPS**2
        turns.append(int((cosine < -0.5).sum()))
    assert turns[0] <= 5 * 200 * 0.02
    assert 20 <= turns[1] <= 400  # 2000 steps × 0.003 × a tenth on average: 0.6 a path


@pytest.mark.parametrize("extent_px", [1.0, 7.5, 20.0])
def test_a_fitted_path_has_its_extent_as_longer_side(extent_px):
    path = fitted_path(trajectories(30, 0.001), torch.full((30,), extent_px))
    sides = path.amax(dim=1) - path.amin(dim=1)
    torch.testing.assert_close(sides.amax(dim=1), torch.full((30,), extent_px))


def test_drawing_a_trajectory_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    trajectories(1, 0.001)
    assert torch.equal(before, torch.get_rng_state())


# -- Convolution -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel_size", [1, 3, 11])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 6), (2, 3), (5, 4), (16, 33), (40, 31)])
def test_convolving_equals_scipy_with_mirrored_borders(height, width, kernel_size):
    random = np.random.default_rng(7)
    images, kernels = random.random((2, 3, height, width)), random.random((2, kernel_size, kernel_size))
    expected = np.stack(
        [
            [scipy.ndimage.convolve(plane, k, mode="mirror") for plane in image]
            for image, k in zip(images, kernels, strict=True)
        ]
    )
    double = convolve(torch.from_numpy(images), torch.from_numpy(kernels)).numpy()
    np.testing.assert_allclose(double, expected, rtol=1e-12)
    sums = kernels.sum(axis=(1, 2))[:, None, None, None]
    single = convolve(torch.from_numpy(images).float(), torch.from_numpy(kernels).float()).numpy()
    np.testing.assert_allclose(single / sums, expected / sums, atol=1e-5)


@pytest.mark.parametrize("margin", [1, 4, 5, 6, 11])
@pytest.mark.parametrize("kind", ["gaussian", "motion"])
def test_a_margin_gives_its_light_and_is_cut_off(kind, margin):
    images = torch.rand(2, 3, 23, 32, generator=torch.Generator().manual_seed(1))
    sizes = torch.tensor([1.0, 2.0])
    kernels = gaussian_kernel(sizes, 11) if kind == "gaussian" else motion_kernel(5 * sizes, torch.tensor(30.0), 11)
    expected = convolve(images.double(), kernels.double())[..., margin:-margin, margin:-margin]
    torch.testing.assert_close(convolve(images.double(), kernels.double(), margin), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(convolve(images, kernels, margin).double(), expected, atol=1e-6, rtol=0)


def test_a_point_of_light_becomes_the_kernel_itself_and_not_its_mirror_image():
    kernel = torch.rand(5, 5, generator=torch.Generator().manual_seed(1))
    point = torch.zeros(1, 3, 11, 11)
    point[..., 5, 5] = 1
    torch.testing.assert_close(convolve(point, kernel)[0, 1, 3:8, 3:8], kernel, atol=1e-6, rtol=0)


def test_an_even_picture_stays_as_it_is():
    even = torch.full((6, 3, 9, 13), 0.4)
    torch.testing.assert_close(convolve(even, motion_kernel(LENGTHS, ANGLES, 19)), even, atol=1e-6, rtol=0)


def test_a_delta_returns_the_picture(photograph):
    torch.testing.assert_close(convolve(photograph[None], delta(9))[0], photograph, atol=1e-6, rtol=0)


def test_each_picture_of_a_batch_meets_its_own_kernel(photograph):
    images = torch.stack([photograph, photograph.flip(1), photograph.flip(2)])
    kernels = motion_kernel(torch.tensor([3.0, 9.0, 15.0]), torch.tensor([0.0, 30.0, 90.0]), 17)
    singles = torch.cat([convolve(images[i : i + 1], kernels[i]) for i in range(3)])
    torch.testing.assert_close(convolve(images, kernels), singles, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (40, 31), (97, 53)])
def test_gaussians_are_the_same_in_two_passes_as_by_fourier_transform(height, width):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(3, 3, height, width, generator=generator)
    kernels = gaussian_kernel(torch.tensor([0.0, 0.8, 2.5]), 21)
    kernels[1, 10, :] = 0  # no longer the same along every row
    kernels[1, 10, 10] = 1 - kernels[1].sum()
    exact = convolve(images.double(), kernels.double())
    torch.testing.assert_close(convolve(images, kernels).double(), exact, atol=1e-6, rtol=0)


def test_unlike_weights_along_rows_and_columns_keep_their_direction(photograph):
    kernel = torch.outer(torch.tensor([0.1, 0.2, 0.7]), torch.tensor([0.0, 0.4, 0.6]))
    expected = convolve(photograph[None].double(), kernel.double())
    torch.testing.assert_close(convolve(photograph[None], kernel).double(), expected, atol=1e-6, rtol=0)
