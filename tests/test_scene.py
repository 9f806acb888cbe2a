"""Blur that differs from place to place is the uniform one where nothing differs, and what physics says elsewhere."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor

from unblur.blur.kernels import convolve, draw_shake, drawn_path, fitted_path, motion_kernel, shake_path
from unblur.blur.scene import composited, draw_outlines, layer_masks, turned


def shake(extent_px: float, steps: int = 12) -> Tensor:
    """Return one camera path, (1, steps, 2)."""
    draws = draw_shake(torch.Generator().manual_seed(2))
    return fitted_path(shake_path(1.8, draws, steps), extent_px)[None]


def without_turning(path: Tensor) -> Tensor:
    return torch.cat([path, torch.zeros_like(path[..., :1])], dim=-1)


def masks_of(count: int, levels: list[float], height: int = 96, width: int = 128, softness_px: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    draws = torch.stack([draw_outlines(generator) for _ in range(count)])
    softness = torch.full((count,), softness_px)
    return layer_masks(draws, torch.tensor(levels).expand(count, -1), softness, height, width)


# -- A camera that turns -----------------------------------------------------------------------------------------------


def test_a_camera_that_only_moves_blurs_every_place_by_the_kernel_of_its_path(photograph):
    path = shake(9.0)
    moved = turned(photograph[None], without_turning(path))
    torch.testing.assert_close(moved, convolve(photograph[None], drawn_path(path, 21)), atol=1e-5, rtol=0)


def test_a_camera_that_stands_still_sees_the_picture(photograph):
    torch.testing.assert_close(turned(photograph[None], torch.zeros(1, 5, 3))[0], photograph, atol=1e-5, rtol=0)


def test_turning_by_a_right_angle_is_clockwise_and_about_the_middle(photograph):
    square = photograph[None, :, :, :96]
    quarter = torch.tensor([[[0.0, 0.0, math.pi / 2]]])
    torch.testing.assert_close(turned(square, quarter), square.rot90(-1, dims=(2, 3)), atol=1e-4, rtol=0)


def test_each_pixel_collects_the_light_from_where_the_scene_was_at_every_moment():
    random = np.random.default_rng(3)
    picture = random.random((1, 3, 9, 12))
    path = np.concatenate([random.normal(0, 1.5, (1, 6, 2)), random.normal(0, 0.1, (1, 6, 1))], axis=2)
    expected = np.zeros((3, 9, 12))
    for right, down, angle in path[0]:
        scene_moves = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        for row in range(9):
            for column in range(12):
                seen = np.linalg.inv(scene_moves) @ (column - 5.5 - right, row - 4.0 - down)
                place = [[seen[1] + 4.0], [seen[0] + 5.5]]
                for channel in range(3):
                    plane = picture[0, channel]
                    expected[channel, row, column] += scipy.ndimage.map_coordinates(
                        plane, place, order=1, mode="mirror"
                    ).item()
    made = turned(torch.from_numpy(picture), torch.from_numpy(path))[0].numpy()
    np.testing.assert_allclose(made, expected / 6, atol=1e-6)


def test_a_turning_camera_blurs_the_corners_and_not_the_middle(photograph):
    angles = torch.linspace(-0.05, 0.05, 15)
    made = turned(photograph[None], torch.stack([0 * angles, 0 * angles, angles], dim=-1)[None])[0]
    harm = (made - photograph).square().mean(dim=0)
    assert harm[44:52, 60:68].mean() < 0.1 * harm[:16].mean()


# -- Layers ------------------------------------------------------------------------------------------------------------


def test_layers_lie_within_one_another_and_cover_what_their_levels_say():
    masks = masks_of(200, [-1.0, 0.0, 1.0])
    assert masks.min() == 0
    assert masks.max() == 1
    assert (masks[:, 1:] <= masks[:, :-1]).all()
    covered = masks.mean(dim=(0, 2, 3)).tolist()
    assert covered == pytest.approx([0.84, 0.5, 0.16], abs=0.05)


def test_a_larger_softness_widens_the_edges():
    edges = [
        float(((m > 0) & (m < 1)).float().mean()) for m in (masks_of(20, [0.0], softness_px=s) for s in (1, 2, 4, 8))
    ]
    assert edges == sorted(edges)
    assert edges[2] == pytest.approx(2 * edges[1], rel=0.3)


def test_layers_are_alike_at_every_size_of_picture():
    small, large = masks_of(3, [0.2], 48, 64, 2.0), masks_of(3, [0.2], 96, 128, 4.0)
    halved = torch.nn.functional.avg_pool2d(large, 2)
    torch.testing.assert_close(small, halved, atol=0.15, rtol=0)
    assert (small - halved).abs().mean() < 0.01


def test_layers_that_are_not_blurred_are_the_picture_also_at_their_edges(photograph):
    masks = masks_of(1, [-0.5, 0.5])
    delta = motion_kernel(1.0, 0.0, 5).expand(1, 3, 5, 5)
    torch.testing.assert_close(composited(photograph[None], masks, delta)[0], photograph, atol=1e-5, rtol=0)


def test_far_from_an_edge_each_layer_is_the_picture_blurred_by_its_own_kernel(photograph):
    masks = masks_of(1, [-0.5, 0.6])
    kernels = torch.stack([motion_kernel(length, 30.0, 9) for length in (9.0, 3.0, 6.0)])
    made = composited(photograph[None], masks, kernels[None])[0]
    for layer in range(3):
        alone = masks[0, layer - 1] if layer else torch.ones(96, 128)
        if layer < 2:
            alone = alone * (1 - masks[0, layer])
        inside = torch.from_numpy(scipy.ndimage.binary_erosion((alone == 1).numpy(), iterations=9, border_value=1))
        assert inside.sum() > 200
        expected = convolve(photograph[None], kernels[layer])[0]
        torch.testing.assert_close(made[:, inside], expected[:, inside], atol=1e-5, rtol=0)


def test_an_even_scene_stays_even_however_its_layers_move():
    grey = torch.full((1, 3, 96, 128), 0.3)
    kernels = torch.stack([motion_kernel(1.0, 0.0, 15), motion_kernel(15.0, 70.0, 15)])[None]
    torch.testing.assert_close(composited(grey, masks_of(1, [0.0]), kernels), grey, atol=1e-4, rtol=0)


def test_two_layers_are_laid_over_each_other_as_a_direct_reference_says():
    random = np.random.default_rng(5)
    picture, mask = random.random((3, 14, 17)), np.zeros((14, 17))
    mask[4:9, 5:12] = 0.7  # nowhere 1: nothing is wholly hidden, and nothing guessed
    far, near = (motion_kernel(length, angle, 5).double().numpy() for length, angle in ((3.0, 0.0), (5.0, 60.0)))

    def blurred(plane: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        return scipy.ndimage.convolve(plane, kernel, mode="mirror")

    expected = [blurred(p * mask, near) + (1 - blurred(mask, near)) * blurred(p, far) for p in picture]
    light, alpha = torch.from_numpy(picture)[None], torch.from_numpy(mask)[None, None]
    made = composited(light, alpha, torch.from_numpy(np.stack([far, near]))[None])
    np.testing.assert_allclose(made[0].numpy(), np.stack(expected), atol=1e-12)


def test_what_shows_behind_a_moving_object_is_like_its_surroundings_and_not_like_the_object():
    scene = torch.full((1, 3, 64, 64), 0.2)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 20:44, 20:44] = 1
    scene[..., 20:44, 20:44] = 0.9
    still, moving = motion_kernel(1.0, 0.0, 17), motion_kernel(17.0, 0.0, 17)
    made = composited(scene, mask, torch.stack([still, moving])[None])[0, 0]
    ramp = made[32, 12:28]
    assert (ramp.diff() > 0).all(), "from the dark background to the bright object in even steps"
    assert float(made[32, 20]) == pytest.approx(0.2 + 0.7 * 8.5 / 17, abs=0.03)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 30), (9, 7)])
def test_scenes_of_any_size_are_blurred(height, width):
    light = torch.rand(2, 3, height, width)
    kernels = torch.stack([motion_kernel(5.0, 20.0, 9), motion_kernel(9.0, 70.0, 9)]).expand(2, 2, 9, 9)
    layered = composited(light, masks_of(2, [0.0], height, width), kernels)
    rolled = turned(light, torch.randn(2, 8, 3))
    for made in (layered, rolled):
        assert made.shape == light.shape
        assert torch.isfinite(made).all()
        assert made.min() > -1e-5
        assert made.max() < 1 + 1e-5
