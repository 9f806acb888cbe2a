"""Losses are the formulas they are named after, with gradients that training can use."""

import numpy as np
import pytest
import torch
from torch import Tensor

from unblur.errors import UnknownName
from unblur.losses import LOSSES, check_names, weighted_sum

EVERY = pytest.mark.parametrize("name", LOSSES)


def batches() -> tuple[Tensor, Tensor]:
    """Two batches (2, 3, 8, 9) that differ, the second picture more than the first, and leave [0, 1]."""
    generator = torch.Generator().manual_seed(1)
    sharp = torch.rand(2, 3, 8, 9, generator=generator)
    error = torch.randn(2, 3, 8, 9, generator=generator) * torch.tensor([0.02, 0.3]).reshape(2, 1, 1, 1)
    return sharp + error, sharp


def by_numpy(name: str, restored: Tensor, sharp: Tensor) -> float:
    error = restored.double().numpy() - sharp.double().numpy()
    return {
        "mse": lambda: np.mean(error**2),
        "l1": lambda: np.mean(np.abs(error)),
        "charbonnier": lambda: np.mean(np.hypot(error, 1e-3)),
        "psnr": lambda: np.mean([-10 * np.log10(1 / np.mean(picture**2)) for picture in error]),
    }[name]()


@EVERY
def test_a_loss_is_the_formula_of_its_name(name):
    restored, sharp = batches()
    assert float(LOSSES[name](restored, sharp)) == pytest.approx(by_numpy(name, restored, sharp), rel=1e-4)


@EVERY
def test_a_loss_is_lowest_where_the_picture_is_perfect(name):
    restored, sharp = batches()
    perfect = LOSSES[name](sharp, sharp)
    assert perfect < LOSSES[name](0.5 * restored + 0.5 * sharp, sharp) < LOSSES[name](restored, sharp)
    assert perfect.shape == ()


@EVERY
def test_the_gradient_is_finite_even_where_the_picture_is_perfect(name):
    for restored, sharp in (batches(), (batches()[1], batches()[1])):
        restored = restored.clone().requires_grad_(True)
        LOSSES[name](restored, sharp).backward()
        assert restored.grad is not None
        assert torch.isfinite(restored.grad).all()


@EVERY
def test_the_gradient_points_away_from_the_truth(name):
    restored, sharp = batches()
    restored = restored.clone().requires_grad_(True)
    LOSSES[name](restored, sharp).backward()
    assert restored.grad is not None
    assert (restored.grad * (restored.detach() - sharp) >= 0).all()


def test_psnr_averages_decibels_and_not_errors():
    restored, sharp = batches()
    singles = [LOSSES["psnr"](restored[i : i + 1], sharp[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(LOSSES["psnr"](restored, sharp), torch.stack(singles).mean())


def test_the_weighted_sum_returns_its_parts_without_their_weights():
    restored, sharp = batches()
    total, parts = weighted_sum({"l1": 2.0, "mse": 0.5}, restored, sharp)
    assert list(parts) == ["l1", "mse"]
    torch.testing.assert_close(parts["l1"], LOSSES["l1"](restored, sharp))
    torch.testing.assert_close(total, 2 * parts["l1"] + 0.5 * parts["mse"])


def test_an_unknown_loss_is_answered_with_the_nearest_one():
    with pytest.raises(UnknownName, match=r"No loss is called 'charbonier'. Did you mean 'charbonnier'\?"):
        check_names({"l1": 1.0, "charbonier": 1.0})
    with pytest.raises(UnknownName, match="Did you mean 'psnr'"):
        weighted_sum({"psrn": 1.0}, *batches())
