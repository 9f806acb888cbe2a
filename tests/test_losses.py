"""Losses are the formulas they are named after, with gradients that training can use."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import entropy, norm
from skimage.metrics import structural_similarity
from torch import Tensor

from unblur.errors import TrainingError, UnknownName
from unblur.losses import FEATURES, LOSSES, PICTURES, build, check_names
from unblur.losses.consistency import cycle, order_invariant
from unblur.losses.latent import kld
from unblur.losses.structure import laplacian

EVERY = pytest.mark.parametrize("name", PICTURES)
BY_PIXEL = ("bce", "charbonnier", "l1", "mse", "psnr")


def batches() -> tuple[Tensor, Tensor]:
    """Two batches (2, 3, 14, 15) that differ, the second picture more than the first, and leave [0, 1]."""
    generator = torch.Generator().manual_seed(1)
    sharp = torch.rand(2, 3, 14, 15, generator=generator)
    error = torch.randn(2, 3, 14, 15, generator=generator) * torch.tensor([0.02, 0.3]).reshape(2, 1, 1, 1)
    return sharp + error, sharp


def by_numpy(name: str, restored: Tensor, sharp: Tensor) -> float:
    x, y = restored.double().numpy(), sharp.double().numpy()
    error = x - y
    probable = np.clip(x, 2**-20, 1 - 2**-20)
    return {
        "bce": lambda: -np.mean(y * np.log(probable) + (1 - y) * np.log1p(-probable)),
        "charbonnier": lambda: np.mean(np.hypot(error, 1e-3)),
        "edge": lambda: np.mean(np.hypot(laplacian_by_scipy(x) - laplacian_by_scipy(y), 1e-3)),
        "frequency": lambda: np.mean(np.abs(np.stack([(s := spectrum_by_matrices(error)).real, s.imag]))),
        "l1": lambda: np.mean(np.abs(error)),
        "mse": lambda: np.mean(error**2),
        "psnr": lambda: np.mean([-10 * np.log10(1 / np.mean(picture**2)) for picture in error]),
        "ssim": lambda: 1 - np.mean([ssim_by_scikit_image(*pair) for pair in zip(x, y, strict=True)]),
    }[name]()


def laplacian_by_scipy(pictures: np.ndarray) -> np.ndarray:
    """Burt and Adelson's REDUCE and EXPAND, by scipy, whose "mirror" is about the outermost pixel."""
    weights = np.outer([1, 5, 8, 5, 1], [1, 5, 8, 5, 1])[None, None] / 400
    reduced = ndimage.convolve(pictures, weights, mode="mirror")[..., ::2, ::2]
    expanded = np.zeros_like(pictures)
    expanded[..., ::2, ::2] = reduced
    return pictures - 4 * ndimage.convolve(expanded, weights, mode="mirror")


def spectrum_by_matrices(pictures: np.ndarray) -> np.ndarray:
    def waves(length: int) -> np.ndarray:
        return np.exp(-2j * np.pi * np.outer(np.arange(length), np.arange(length)) / length)

    height, width = pictures.shape[-2:]
    return waves(height) @ pictures @ waves(width)


def ssim_by_scikit_image(x: np.ndarray, y: np.ndarray) -> float:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    _, found = structural_similarity(x, y, channel_axis=0, full=True, **options)
    return float(found[:, 5:-5, 5:-5].mean())


@EVERY
def test_a_loss_is_the_formula_of_its_name(name):
    restored, sharp = batches()
    assert float(PICTURES[name](restored, sharp)) == pytest.approx(by_numpy(name, restored, sharp), rel=1e-4)


@EVERY
def test_a_loss_is_lowest_where_the_picture_is_perfect(name):
    restored, sharp = batches()
    perfect = PICTURES[name](sharp, sharp)
    assert perfect < PICTURES[name](0.5 * restored + 0.5 * sharp, sharp) < PICTURES[name](restored, sharp)
    assert perfect.shape == ()


@pytest.mark.parametrize(
    ("name", "least"), [("mse", 0), ("l1", 0), ("ssim", 0), ("frequency", 0), ("charbonnier", 1e-3), ("edge", 1e-3)]
)
def test_a_perfect_picture_costs_nothing_or_epsilon(name, least):
    _, sharp = batches()
    assert float(PICTURES[name](sharp, sharp)) == pytest.approx(least, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in PICTURES if name != "bce"])
def test_restored_and_sharp_may_change_places(name):
    restored, sharp = batches()
    torch.testing.assert_close(PICTURES[name](restored, sharp), PICTURES[name](sharp, restored))


@pytest.mark.parametrize(("name", "factor"), [("mse", 4), ("l1", 2), ("frequency", 2)])
def test_a_loss_grows_with_the_error_as_its_formula_does(name, factor):
    restored, sharp = batches()
    twice = sharp + 2 * (restored - sharp)
    torch.testing.assert_close(PICTURES[name](twice, sharp), factor * PICTURES[name](restored, sharp))


@EVERY
def test_the_gradient_is_finite_even_where_the_picture_is_perfect(name):
    black_and_white = torch.eye(14).expand(2, 3, 14, 14)
    for pair in (batches(), (batches()[1], batches()[1]), (black_and_white, black_and_white)):
        restored = pair[0].clone().requires_grad_(True)
        PICTURES[name](restored, pair[1]).backward()
        assert restored.grad is not None
        assert torch.isfinite(restored.grad).all()


@EVERY
def test_a_small_step_against_the_gradient_lowers_the_loss(name):
    restored, sharp = batches()
    restored = restored.double().clamp(0.05, 0.95).requires_grad_(True)
    before = PICTURES[name](restored, sharp.double())
    before.backward()
    assert restored.grad is not None
    step = 1e-4 / restored.grad.abs().max()
    after = PICTURES[name](restored.detach() - step * restored.grad, sharp.double())
    foreseen = step * restored.grad.square().sum()
    assert ((before - after) / foreseen).item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", BY_PIXEL)
def test_the_gradient_points_away_from_the_truth(name):
    restored, sharp = batches()
    restored = restored.clone().requires_grad_(True)
    PICTURES[name](restored, sharp).backward()
    assert restored.grad is not None
    assert (restored.grad * (restored.detach() - sharp) >= 0).all()


@EVERY
def test_pictures_of_different_shapes_are_refused_and_not_stretched(name):
    restored, sharp = batches()
    with pytest.raises(ValueError, match=r"\(2, 3, 14, 15\).*\(1, 3, 14, 15\)"):
        PICTURES[name](restored, sharp[:1])


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 30)])
def test_structure_is_compared_in_the_smallest_pictures_too(size):
    x, y = torch.rand(2, 1, 3, *size, generator=torch.Generator().manual_seed(2))
    for name in ("ssim", "edge", "frequency"):
        assert PICTURES[name](x, y) > PICTURES[name](y, y)


def test_psnr_averages_decibels_and_not_errors():
    restored, sharp = batches()
    singles = [PICTURES["psnr"](restored[i : i + 1], sharp[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(PICTURES["psnr"](restored, sharp), torch.stack(singles).mean())


@pytest.mark.parametrize("size", [(12, 16), (13, 17)])
def test_an_even_picture_has_no_edges_not_even_at_its_borders(size):
    torch.testing.assert_close(laplacian(torch.full((1, 3, *size), 0.7)), torch.zeros(1, 3, *size))


def test_brightness_is_no_edge_and_a_lost_line_is_one():
    line = torch.zeros(1, 3, 16, 16)
    line[..., 8] = 1
    assert PICTURES["edge"](line + 0.1, line) == pytest.approx(1e-3, abs=1e-6)
    assert PICTURES["edge"](torch.zeros_like(line), line) > 0.05


def test_frequency_hears_a_shift_that_is_spread_over_the_picture():
    sharp = torch.zeros(1, 3, 16, 16)
    one_pixel, everywhere = sharp.clone(), sharp + 1 / 256
    one_pixel[..., 5, 5] = 1
    assert PICTURES["l1"](one_pixel, sharp) == pytest.approx(float(PICTURES["l1"](everywhere, sharp)))
    assert PICTURES["frequency"](one_pixel, sharp) > 50 * PICTURES["frequency"](everywhere, sharp)


def test_kld_is_the_divergence_that_numbers_give():
    mean, log_variance = torch.tensor([[0.3, -1.0], [0.0, 2.0]]), torch.tensor([[0.5, -0.7], [0.0, 0.1]])
    places = np.linspace(-15, 15, 20001)
    expected = []
    for means, logs in zip(mean.double().numpy(), log_variance.double().numpy(), strict=True):
        densities = [norm(m, np.exp(v / 2)).pdf(places) for m, v in zip(means, logs, strict=True)]
        expected.append(sum(entropy(density, norm.pdf(places)) for density in densities))
    assert float(kld(mean, log_variance)) == pytest.approx(np.mean(expected), rel=1e-5)


def test_kld_is_zero_for_the_standard_distribution_and_flat_there():
    mean, log_variance = torch.zeros(2, 4, requires_grad=True), torch.zeros(2, 4, requires_grad=True)
    divergence = kld(mean, log_variance)
    assert divergence == 0
    divergence.backward()
    assert mean.grad is not None
    assert log_variance.grad is not None
    assert not mean.grad.any()
    assert not log_variance.grad.any()
    with pytest.raises(ValueError, match="log_variance is"):
        kld(torch.zeros(2, 4), torch.zeros(2, 3))


def test_cycle_is_the_mean_distance_of_what_came_back():
    there, back = batches()
    assert float(cycle(back, there)) == pytest.approx(float(np.abs(back.numpy() - there.numpy()).mean()))
    assert cycle(there, there) == 0
    with pytest.raises(ValueError, match="what came back is"):
        cycle(there[:1], back)


@pytest.mark.parametrize("frames", [2, 3, 7])
def test_a_clip_may_run_backwards_in_pairs_of_frames(frames):
    generator = torch.Generator().manual_seed(3)
    restored, sharp = torch.rand(2, 2, frames, 3, 6, 5, generator=generator)
    loss = order_invariant(restored, sharp)
    torch.testing.assert_close(order_invariant(restored.flip(1), sharp), loss)
    torch.testing.assert_close(order_invariant(restored, sharp.flip(1)), loss)
    one_pair = restored.clone()
    one_pair[:, [0, frames - 1]] = restored[:, [frames - 1, 0]]
    torch.testing.assert_close(order_invariant(one_pair, sharp), loss)
    torch.testing.assert_close(order_invariant(sharp.flip(1), sharp), torch.zeros(()))


def test_order_invariant_is_the_sum_of_both_distances_over_the_pairs():
    a, b, x, y = np.random.default_rng(4).random((4, 1, 3, 6, 5))
    middle = np.ones_like(a)
    restored, sharp = (
        torch.from_numpy(np.stack(clip, axis=1)) for clip in ((a, middle, b), (x, 0 * middle, y))
    )  # (1, 3, 3, 6, 5)
    expected = np.abs(a + b - x - y).mean() + np.abs(np.abs(a - b) - np.abs(x - y)).mean()
    assert float(order_invariant(restored, sharp)) == pytest.approx(expected)


def test_order_invariant_has_gradients_at_equality_and_refuses_single_pictures():
    _, sharp = batches()
    clip = sharp[None].clone().requires_grad_(True)
    order_invariant(clip, sharp[None]).backward()
    assert clip.grad is not None
    assert torch.isfinite(clip.grad).all()
    with pytest.raises(ValueError, match="clips"):
        order_invariant(sharp, sharp)
    with pytest.raises(ValueError, match="2 frames or more"):
        order_invariant(sharp[None, :1], sharp[None, :1])


def test_the_names_are_those_that_experiment_files_may_use():
    names = (
        "mse l1 ssim psnr bce kld charbonnier edge contrastive perceptual style frequency gan lsgan ragan_ls wgan "
        "wgan_gp cycle order_invariant"
    )
    assert sorted(LOSSES) == sorted(names.split())
    assert set(check_names(dict.fromkeys(LOSSES, 1.0))) == set(LOSSES)
    assert len(build(dict.fromkeys(LOSSES, 1.0), vgg="random").weights) == len(LOSSES) - 5


# -- The sum -----------------------------------------------------------------------------------------------------------


def test_a_sum_is_its_parts_with_their_weights_and_parts_carry_no_gradient():
    restored, sharp = batches()
    restored = restored.clone().requires_grad_(True)
    total, parts = build({"l1": 2.0, "edge": 0.5, "ssim": 1.0})(restored, sharp, sharp)
    assert list(parts) == ["l1", "edge", "ssim"]
    torch.testing.assert_close(total.detach(), 2 * parts["l1"] + 0.5 * parts["edge"] + parts["ssim"])
    assert total.requires_grad
    assert not any(part.requires_grad for part in parts.values())


def test_stages_are_compared_with_the_sharp_picture_reduced_to_their_size():
    restored, sharp = batches()
    half = sharp.reshape(2, 3, 7, 2, 15)[..., :14].reshape(2, 3, 7, 2, 7, 2).mean(dim=(3, 5))
    half_px = sharp[..., :14]
    outputs = {"half": half + 0.25, "full": restored[..., :14]}
    total, parts = build({"l1": 3.0})(outputs, half_px, half_px)
    assert list(parts) == ["l1/half", "l1/full", "l1"]
    assert float(parts["l1/half"]) == pytest.approx(0.25, abs=1e-6)
    torch.testing.assert_close(parts["l1"], parts["l1/half"] + parts["l1/full"])
    torch.testing.assert_close(total, 3 * parts["l1"])


def test_stages_that_do_not_divide_are_rounded_up_and_others_are_refused():
    _, sharp = batches()  # 14 x 15
    loss = build({"mse": 1.0})
    loss({"quarter": torch.zeros(2, 3, 4, 4), "half": torch.zeros(2, 3, 7, 8), "full": sharp}, sharp, sharp)
    for wrong in ((8, 7), (7, 7), (28, 30), (14, 8)):
        with pytest.raises(ValueError, match="divided by the same whole number"):
            loss({"half": torch.zeros(2, 3, *wrong), "full": sharp}, sharp, sharp)
    with pytest.raises(ValueError, match=r"\(2, 3, 7, 8\)"):
        loss({"full": sharp, "half": torch.zeros(2, 3, 7, 8)}, sharp, sharp)
    with pytest.raises(ValueError, match=r"\(1, 3, 7, 8\)"):
        loss({"half": torch.zeros(1, 3, 7, 8), "full": sharp}, sharp, sharp)


def test_stages_have_weights_by_their_names():
    restored, sharp = batches()
    outputs = {"one": restored, "two": sharp + 0.5, "three": sharp}
    total, parts = build({"mse": 2.0}, stages={"two": 0.1})(outputs, sharp, sharp)
    torch.testing.assert_close(parts["mse"], parts["mse/one"] + 0.1 * parts["mse/two"] + parts["mse/three"])
    torch.testing.assert_close(total, 2 * parts["mse"])
    with pytest.raises(UnknownName, match="Did you mean 'two'"):
        build({"mse": 1.0}, stages={"tow": 0.1})(outputs, sharp, sharp)


def test_one_stage_alone_has_no_second_name():
    restored, sharp = batches()
    assert list(build({"mse": 1.0})({"full": restored}, sharp, sharp)[1]) == ["mse"]


def test_a_variational_network_is_judged_by_its_picture_and_its_distribution():
    restored, sharp = batches()
    mean, log_variance = torch.ones(2, 4), torch.zeros(2, 4)
    outputs = {"restored": restored, "mean": mean, "log_variance": log_variance}
    total, parts = build({"bce": 1.0, "kld": 0.1})(outputs, sharp, sharp)
    assert list(parts) == ["bce", "kld"]
    torch.testing.assert_close(parts["kld"], kld(mean, log_variance))
    torch.testing.assert_close(total, PICTURES["bce"](restored, sharp) + 0.1 * parts["kld"])
    with pytest.raises(TrainingError, match=r"'kld' reads mean and log_variance .* gives restored"):
        build({"kld": 1.0})(restored, sharp, sharp)


def test_cycle_compares_what_was_blurred_again_with_the_blurred_picture():
    restored, sharp = batches()
    blurred, reblurred = sharp - 0.5, sharp - 0.25
    _, parts = build({"cycle": 1.0, "l1": 1.0})({"restored": restored, "reblurred": reblurred}, sharp, blurred)
    assert parts["cycle"] == pytest.approx(0.25)
    torch.testing.assert_close(parts["l1"], PICTURES["l1"](restored, sharp))


def test_frames_of_clips_are_pictures_to_all_other_losses():
    generator = torch.Generator().manual_seed(5)
    restored, sharp = torch.rand(2, 2, 3, 3, 12, 13, generator=generator)
    blurred = torch.rand(2, 3, 12, 13, generator=generator)
    loss = build({"psnr": 1.0, "ssim": 1.0, "order_invariant": 1.0, "contrastive": 1.0}, vgg="random")
    outputs = {"clip": restored, "restored": restored}
    _, parts = loss(outputs, sharp, blurred, sharp)
    torch.testing.assert_close(parts["psnr"], PICTURES["psnr"](restored.flatten(0, 1), sharp.flatten(0, 1)))
    torch.testing.assert_close(parts["order_invariant"], order_invariant(restored, sharp))
    repeated = blurred[:, None].expand(2, 3, 3, 12, 13)
    torch.testing.assert_close(loss(outputs, sharp, repeated, sharp)[1], parts)
    with pytest.raises(TrainingError, match="needs the sharp frames of each exposure"):
        loss(outputs, sharp, blurred)


def test_validation_sees_the_final_picture_only():
    restored, sharp = batches()
    loss = build({"l1": 2.0, "kld": 1.0, "cycle": 1.0, "wgan_gp": 1.0})
    total, parts = loss.final(restored, sharp, sharp)
    assert list(parts) == ["l1"]
    torch.testing.assert_close(total, 2 * PICTURES["l1"](restored, sharp))
    assert build({"gan": 1.0}).final(restored, sharp, sharp) == (0, {})


def test_adversarial_losses_are_known_and_left_to_the_training_that_has_a_critic():
    restored, sharp = batches()
    loss = build({"mse": 0.5, "ragan_ls": 0.01})
    assert loss.adversarial == {"ragan_ls": 0.01}
    assert list(loss(restored, sharp, sharp)[1]) == ["mse"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_sum_is_computed_in_float32_within_autocast_and_of_half_precision(dtype):
    restored, sharp = batches()
    restored = restored.to(dtype)
    loss = build(dict.fromkeys((*PICTURES, *FEATURES), 1.0), vgg="random")
    expected, _ = loss(restored.float(), sharp, sharp)
    with torch.autocast("cpu", dtype):
        total, parts = loss(restored, sharp, sharp)
        assert torch.equal(loss.final(restored, sharp, sharp)[0], expected)
    assert torch.equal(total, expected)
    assert all(part.dtype == torch.float32 for part in parts.values())


def test_the_sum_refuses_pictures_that_would_be_stretched():
    restored, sharp = batches()
    loss = build({"mse": 1.0})
    for call in (loss, loss.final):
        with pytest.raises(ValueError, match=r"restored is \(2, 3, 14, 15\) and sharp is \(1, 3, 14, 15\)"):
            call(restored, sharp[:1], sharp[:1])
        with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
            call(restored[0], sharp[0], sharp[0])


def test_the_sum_returns_its_parts_without_their_weights():
    restored, sharp = batches()
    total, parts = build({"l1": 2.0, "mse": 0.5})(restored, sharp, sharp)
    assert list(parts) == ["l1", "mse"]
    torch.testing.assert_close(parts["l1"], PICTURES["l1"](restored, sharp))
    torch.testing.assert_close(total, 2 * parts["l1"] + 0.5 * parts["mse"])


def test_an_unknown_loss_is_answered_with_the_nearest_one():
    with pytest.raises(UnknownName, match=r"No loss is called 'charbonier'. Did you mean 'charbonnier'\?"):
        check_names({"l1": 1.0, "charbonier": 1.0})
    with pytest.raises(UnknownName, match="Did you mean 'psnr'"):
        build({"psrn": 1.0})
    with pytest.raises(UnknownName, match="Did you mean 'wgan_gp'"):
        build({"wgan-gp": 1.0})
    with pytest.raises(ValueError, match="no loss is named"):
        build({})
