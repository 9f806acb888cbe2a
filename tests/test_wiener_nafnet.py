"""The filter for a random blur is Wiener's where nothing is random, and careful where something is; the rest learns."""

import math

import pytest
import torch
import torch.nn.functional as F

from unblur import models
from unblur.blur import deconvolution
from unblur.blur.kernels import convolve, gaussian_kernel
from unblur.models import wiener_nafnet
from unblur.models.wiener_nafnet import (
    KERNEL_PX,
    RandomBlurWiener,
    listed_kernels,
    periodic,
    response,
    without_loss_of_detail,
)

KERNELS = listed_kernels()
SIGMA_1, SIGMA_2 = (int((KERNELS - gaussian_kernel(sigma, KERNEL_PX)).abs().sum((1, 2)).argmin()) for sigma in (1, 2))


@pytest.fixture(scope="module")
def wiener():
    return RandomBlurWiener(KERNELS)


@pytest.fixture
def sharp(photograph):
    return photograph[None, :, :96, :128]


def tiny():
    torch.manual_seed(1)
    return models.create("wiener_nafnet", **models.find("wiener_nafnet").tiny)


def certain(index):
    return F.one_hot(torch.tensor([index]), len(KERNELS)).float()


def noise(ratio):
    return torch.full((1, 2), ratio)


def error(restored, sharp):
    return float((restored - sharp).square().mean())


# -- The list of kernels -----------------------------------------------------------------------------------------------


def test_every_listed_kernel_sums_to_1_and_is_its_own_image_when_turned_by_180_degrees():
    torch.testing.assert_close(KERNELS.sum((1, 2)), torch.ones(len(KERNELS)))
    torch.testing.assert_close(KERNELS, KERNELS.flip(1, 2), atol=1e-6, rtol=0)
    assert (KERNELS >= 0).all()


def test_only_the_first_listed_kernel_does_not_blur_and_no_two_are_alike():
    middle = KERNELS[:, KERNEL_PX // 2, KERNEL_PX // 2]
    assert middle[0] == 1
    assert (middle[1:] < 0.9999).all()
    distances = torch.cdist(KERNELS.flatten(1), KERNELS.flatten(1), p=1)
    assert (distances + torch.eye(len(KERNELS))).min() > 1e-3


@pytest.mark.parametrize("size", [(40, 54), (41, 53)])
def test_the_response_is_the_transform_of_the_centred_kernel(size):
    centred = F.pad(KERNELS, (0, size[1] - KERNEL_PX, 0, size[0] - KERNEL_PX)).roll((-(KERNEL_PX // 2),) * 2, (1, 2))
    torch.testing.assert_close(response(KERNELS, size), torch.fft.fft2(centred).real, atol=1e-5, rtol=0)


# -- The filter --------------------------------------------------------------------------------------------------------


def test_with_a_certain_kernel_the_filter_is_that_of_the_classical_wiener(wiener, sharp):
    blurred = convolve(sharp, KERNELS[SIGMA_1])
    expected = deconvolution.wiener(blurred, KERNELS[SIGMA_1], gradient_weight=1e-3)
    for restored in wiener(blurred, certain(SIGMA_1), noise(1e-3)):
        inner = (restored.clamp(0, 1) - expected)[..., 24:-24, 24:-24]
        assert inner.abs().max() < 2e-3
        assert error(restored.clamp(0, 1), sharp) < 1.1 * error(expected, sharp)  # with the border


def test_what_is_certainly_not_blurred_comes_back(wiener, sharp):
    for restored in wiener(sharp, certain(0), noise(1e-6)):
        assert (restored - sharp).abs().max() < 1e-4


def test_the_two_results_are_those_of_their_own_ratios_of_noise(wiener, sharp):
    first, second = wiener(sharp, certain(SIGMA_1), torch.tensor([[1e-2, 1e-4]]))
    torch.testing.assert_close(first, wiener(sharp, certain(SIGMA_1), noise(1e-2))[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(second, wiener(sharp, certain(SIGMA_1), noise(1e-4))[0], atol=1e-4, rtol=0)
    assert second.diff(dim=-1).square().mean() > first.diff(dim=-1).square().mean()  # less noise: a sharper picture


def test_doubt_between_a_blur_and_none_amplifies_nothing_by_more_than_a_fifth(wiener):
    grain = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    even = (certain(0) + certain(SIGMA_2)) / 2
    assert wiener(grain, even, noise(1e-5))[0].std() < 1.21 * grain.std()  # (1 + h) / (1 + h²) at most, by calculus
    assert wiener(grain, certain(SIGMA_2), noise(1e-5))[0].std() > 3 * grain.std()


def test_in_doubt_between_two_blurs_the_filter_errs_less_than_one_that_is_sure_of_either(wiener, sharp):
    def mean_error(probabilities):
        blurred = [convolve(sharp, KERNELS[index]) for index in (SIGMA_1, SIGMA_2)]
        return sum(error(wiener(picture, probabilities, noise(1e-4))[0], sharp) for picture in blurred)

    even = mean_error((certain(SIGMA_1) + certain(SIGMA_2)) / 2)
    assert even < mean_error(certain(SIGMA_1))
    assert even < mean_error(certain(SIGMA_2))


@pytest.mark.parametrize("length", [8, 100])
def test_a_continued_row_begins_again_without_a_jump(length):
    row = torch.linspace(0, 1, length).expand(1, 1, 1, length)
    wide = periodic(row, -1)
    around = torch.cat([wide, wide[..., :1]], dim=-1).diff(dim=-1).abs()
    assert torch.equal(wide[..., :length], row)
    assert around.max() < 2 / min(length, wiener_nafnet.TAIL_PX)


# -- The estimator -----------------------------------------------------------------------------------------------------


def test_a_change_of_contrast_adds_the_same_to_the_energy_of_all_bands():
    estimator = tiny().estimator
    grain = 20 * torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))  # far above the least energy
    with torch.no_grad():
        change = estimator.log_energies(grain) - estimator.log_energies(grain / 2)
    torch.testing.assert_close(change, torch.full_like(change, math.log(4) / 3), atol=0.02, rtol=0)


def test_a_blurred_picture_has_less_energy_in_every_band(sharp):
    estimator = tiny().estimator
    with torch.no_grad():
        sharper, softer = (estimator.log_energies(picture) for picture in (sharp, convolve(sharp, KERNELS[SIGMA_2])))
    assert (softer.mean((2, 3)) < sharper.mean((2, 3))).all()


def test_a_fresh_estimator_finds_no_blur_as_likely_as_all_others_together(sharp):
    with torch.no_grad():
        probabilities, _ = tiny().estimator(sharp)
    assert float(probabilities[0, 0]) == pytest.approx(0.5)
    assert float(probabilities.sum()) == pytest.approx(1)


def test_the_estimated_kernel_of_a_fresh_network_is_the_mean_of_the_list(sharp):
    with torch.no_grad():
        kernel = tiny().estimated_kernel(sharp)
    torch.testing.assert_close(kernel, (KERNELS[:1] + KERNELS[1:].mean(0)) / 2)


def test_the_blur_is_learnt_from_the_deconvolved_picture_alone(sharp):
    model, blurred = tiny(), convolve(sharp, KERNELS[SIGMA_1])
    optimizer = torch.optim.Adam(model.estimator.parameters(), lr=0.02)
    for _ in range(25):
        loss = (model.training_outputs(blurred)["deconvolved"] - sharp).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * error(blurred, sharp)
    with torch.no_grad():
        assert float((model.estimated_kernel(blurred) - KERNELS[SIGMA_1]).abs().sum()) < 0.5  # at first 1.3


# -- The whole ---------------------------------------------------------------------------------------------------------


def test_a_fresh_network_returns_nearly_its_input(sharp):
    with torch.no_grad():
        assert (tiny()(sharp) - sharp).abs().mean() < 0.02


def test_the_last_training_output_is_the_restored_picture_before_lost_detail_is_put_back(sharp):
    model = tiny()
    with torch.no_grad():
        outputs = model.training_outputs(sharp)
        assert list(outputs) == ["deconvolved", "quarter", "half", "restored"]
        assert torch.equal(without_loss_of_detail(sharp, outputs["restored"]), model(sharp))


@pytest.mark.parametrize(("height", "width"), [(96, 128), (41, 67), (1, 1)])
def test_a_result_with_more_detail_stays_as_it_is(photograph, height, width):
    sharper = photograph[None, :, :height, :width]
    softer = convolve(photograph[None], KERNELS[SIGMA_1])[:, :, :height, :width]
    torch.testing.assert_close(without_loss_of_detail(softer, sharper), sharper)


def test_detail_that_was_smoothed_away_is_put_back_at_its_place_only(photograph):
    blurred = photograph[None, :, :96, :128]
    softer = blurred.clone()
    softer[..., 64:] = convolve(blurred, KERNELS[SIGMA_2])[..., 64:]
    kept = without_loss_of_detail(blurred, softer)
    torch.testing.assert_close(kept, blurred, atol=0.12, rtol=0)
    assert error(kept, blurred) < 0.1 * error(softer, blurred)
    brighter = torch.cat([blurred[..., :64] * 1.1, softer[..., 64:]], dim=-1)
    torch.testing.assert_close(without_loss_of_detail(blurred, brighter)[..., :40], brighter[..., :40])


@pytest.mark.parametrize(("height", "width"), [(96, 128), (50, 39)])
def test_smaller_scales_belong_to_means_of_squares_of_pixels(photograph, height, width):
    picture = photograph[None, :, :height, :width]
    with torch.no_grad():
        outputs = tiny().training_outputs(picture)
    for name, factor in (("half", 2), ("quarter", 4)):
        reduced = F.avg_pool2d(picture, factor, ceil_mode=True)
        assert outputs[name].shape == reduced.shape
        whole = (..., slice(height // factor), slice(width // factor))
        assert (outputs[name][whole] - reduced[whole]).abs().mean() < 0.03  # a fresh network changes little


def test_what_a_coarse_scale_changes_reaches_the_finest():
    model, grey = tiny(), torch.full((1, 3, 64, 64), 0.5)
    with torch.no_grad():
        before = model(grey)
        restored_quarter = model.training_outputs(grey)["quarter"]
        hook = model.refiner.register_forward_hook(
            lambda _, inputs, output: output + 0.2 * (inputs[0].shape[-1] == 16)  # the quarter is made brighter
        )
        brighter = model.training_outputs(grey)
        hook.remove()
    torch.testing.assert_close(brighter["quarter"], restored_quarter + 0.2)
    half_of_half = 0.2 / 4  # a fresh network trusts the coarser scale by a half, twice
    torch.testing.assert_close(brighter["restored"], before + half_of_half, atol=0.01, rtol=0)


def test_one_scale_is_the_finest_alone_and_more_than_three_are_refused():
    torch.manual_seed(1)
    options = models.find("wiener_nafnet").tiny
    single = models.create("wiener_nafnet", **{**options, "scales": 1})
    assert list(single.training_outputs(torch.rand(1, 3, 32, 32))) == ["deconvolved", "restored"]
    assert single.state_dict().keys() == tiny().state_dict().keys()
    for scales in (0, 4):
        with pytest.raises(ValueError, match=f"scales is 1 to 3, not {scales}"):
            models.create("wiener_nafnet", **{**options, "scales": scales})


def test_the_finest_scale_may_have_a_small_refining_part_of_its_own_without_deconvolution(photograph):
    torch.manual_seed(1)
    options = {**models.find("wiener_nafnet").tiny, "finest_width": 12, "finest_blocks": 2}
    model, picture = models.create("wiener_nafnet", **options), photograph[None, :, :50, :39]
    deconvolved, fine = [], []
    model.wiener.register_forward_hook(lambda _, inputs, __: deconvolved.append(inputs[0].shape[-1]))
    model.finest.middle.register_forward_hook(lambda _, inputs, __: fine.append(tuple(inputs[0].shape)))
    with torch.no_grad():
        outputs = model.training_outputs(picture)
    assert (deconvolved, fine) == ([16, 32], [(1, 12, 64 // 4, 64 // 4)])  # it is padded to 64x64
    assert outputs["deconvolved"].shape == outputs["half"].shape == (1, 3, 25, 20)
    assert (outputs["restored"] - picture).abs().mean() < 0.02
    with pytest.raises(ValueError, match="with one scale there is no finest one"):
        models.create("wiener_nafnet", **{**options, "scales": 1})
