"""The classical answers: exact where nothing is lost, better than nothing elsewhere."""

import math
import sys

import pytest
import torch
from torch import Tensor

from unblur.blur.deconvolution import richardson_lucy, unsharp_mask, unsupervised_wiener, wiener
from unblur.blur.kernels import convolve, defocus_kernel, gaussian_kernel, motion_kernel
from unblur.blur.recipes import blur_batch, kernel_of, load_recipe
from unblur.errors import MissingExtra

KERNELS = {
    "gaussian": gaussian_kernel(torch.tensor(1.0), 7),
    "defocus": defocus_kernel(torch.tensor(2.0), 5),
    "motion": motion_kernel(torch.tensor(7.0), torch.tensor(30.0), 9),
}
EVERY_KERNEL = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())


@pytest.fixture
def sharp(photograph: Tensor) -> Tensor:
    """A real picture as a batch of one, (1, 3, 96, 128)."""
    return photograph[None]


def psnr(restored: Tensor, sharp: Tensor) -> float:
    return -10 * math.log10(float((restored - sharp).square().mean()))


def rounded(picture: Tensor) -> Tensor:
    return (picture.clamp(0, 1) * 255).round() / 255


@EVERY_KERNEL
def test_wiener_with_the_true_kernel_gains_much_also_after_rounding_to_8_bit(sharp, kernel):
    blurred = rounded(convolve(sharp, kernel))
    assert psnr(wiener(blurred, kernel), sharp) > psnr(blurred, sharp) + 5


def test_without_noise_a_mild_gaussian_is_undone_up_to_the_border(sharp):
    kernel = gaussian_kernel(torch.tensor(0.6), 5)
    restored = wiener(convolve(sharp.double(), kernel.double()), kernel, gradient_weight=1e-12)
    assert float((restored - sharp).abs().max()) < 1e-4


@EVERY_KERNEL
def test_the_border_is_restored_like_the_middle(sharp, kernel):
    blurred = rounded(convolve(sharp, kernel))
    restored = wiener(blurred, kernel)
    edge = torch.ones(96, 128, dtype=torch.bool)
    edge[8:-8, 8:-8] = False
    before, after = ((picture - sharp).square()[..., edge].mean() for picture in (blurred, restored))
    assert after < 0.7 * before


def test_a_larger_weight_gives_a_smoother_picture(sharp):
    blurred = rounded(convolve(sharp, KERNELS["gaussian"]))
    roughness = [
        float(wiener(blurred, KERNELS["gaussian"], gradient_weight=weight).diff(dim=-1).abs().mean())
        for weight in (1e-4, 1e-2, 1)
    ]
    assert roughness == sorted(roughness, reverse=True)


@pytest.mark.parametrize("kernel", [torch.ones(1, 1), KERNELS["gaussian"], KERNELS["motion"]], ids=["none", "g", "m"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (2, 3), (33, 8)])
def test_a_flat_picture_of_every_size_stays_as_it_is(kernel, height, width):
    flat = torch.full((1, 3, height, width), 0.4)
    assert torch.allclose(wiener(flat, kernel), flat, atol=1e-4)
    assert torch.allclose(unsharp_mask(flat), flat, atol=1e-5)


def test_each_picture_of_a_batch_has_its_own_kernel(sharp):
    kernels = torch.stack([gaussian_kernel(torch.tensor(sigma), 9) for sigma in (0.5, 1.5)])
    blurred = convolve(sharp.expand(2, -1, -1, -1), kernels)
    together = wiener(blurred, kernels)
    alone = torch.cat([wiener(blurred[i : i + 1], kernels[i]) for i in range(2)])
    assert torch.allclose(together, alone, atol=1e-6)
    assert together.dtype == torch.float32


def test_the_kernel_of_a_recipe_is_the_one_by_which_it_blurs(sharp):
    for name in ("gaussian-2.5", "motion-9", "gaussian-0-3"):
        recipe = load_recipe(name)
        kernel = kernel_of(recipe, 5)
        assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)
        assert torch.allclose(rounded(convolve(sharp, kernel)), blur_batch(sharp, recipe, [5]), atol=1.01 / 255)
    triple = load_recipe("gaussian-triple")
    blurred = blur_batch(sharp, triple, [0], kind=2)
    assert torch.allclose(rounded(convolve(sharp, kernel_of(triple, 0, 2))), blurred, atol=1.01 / 255)


def test_an_unsharp_mask_makes_edges_steeper_and_no_amount_changes_nothing(sharp):
    blurred = convolve(sharp, KERNELS["gaussian"])
    slope = [float(unsharp_mask(blurred, amount=amount).diff(dim=-1).abs().mean()) for amount in (0, 0.5, 1, 2)]
    assert slope == sorted(slope)
    assert len(set(slope)) == 4
    assert torch.equal(unsharp_mask(blurred, amount=0), blurred)


@pytest.mark.parametrize("restore", [richardson_lucy, unsupervised_wiener])
@pytest.mark.parametrize("name", ["gaussian", "motion"])
def test_scikit_images_methods_sharpen_with_the_true_kernel(sharp, restore, name):
    pytest.importorskip("skimage.restoration")
    blurred = convolve(sharp, KERNELS[name])
    restored = restore(blurred, KERNELS[name])
    assert restored.shape == blurred.shape
    assert restored.dtype == blurred.dtype
    middle = (..., slice(16, -16), slice(16, -16))
    assert psnr(restored[middle], sharp[middle]) > psnr(blurred[middle], sharp[middle]) + 1


def test_more_iterations_of_richardson_lucy_come_nearer_without_noise(sharp):
    pytest.importorskip("skimage.restoration")
    blurred = convolve(sharp, KERNELS["gaussian"])
    scores = [psnr(richardson_lucy(blurred, KERNELS["gaussian"], iterations=n), sharp) for n in (2, 10, 30)]
    assert scores == sorted(scores)


@pytest.mark.parametrize("restore", [richardson_lucy, unsupervised_wiener])
def test_without_scikit_image_the_error_says_what_to_install(monkeypatch, sharp, restore):
    monkeypatch.setitem(sys.modules, "skimage.restoration", None)
    with pytest.raises(MissingExtra, match=r"unblur\[classical\]"):
        restore(sharp, KERNELS["gaussian"])
