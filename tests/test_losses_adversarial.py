"""Adversarial losses reward a critic that separates and a network that convinces it, and critics stay gentle."""

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import Tensor, nn

from unblur.losses import ADVERSARIAL, gradient_penalty
from unblur.models.deblurgan import PatchCritic

EVERY = pytest.mark.parametrize("loss", ADVERSARIAL.values(), ids=ADVERSARIAL)


def scores() -> tuple[Tensor, Tensor]:
    """Scores of restored and of sharp pictures, two pictures of 1 x 3 x 4 patches each."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 1, 3, 4, generator=generator) - 0.5, torch.randn(2, 1, 3, 4, generator=generator) + 0.5


def by_numpy(name: str, restored: np.ndarray, sharp: np.ndarray) -> tuple[float, float]:
    """Return (generator's part, critic's part) as the papers write them."""
    if name == "gan":
        return -np.log(expit(restored)).mean(), -np.log(expit(sharp)).mean() - np.log(1 - expit(restored)).mean()
    if name == "lsgan":
        return 0.5 * np.mean((restored - 1) ** 2), 0.5 * np.mean((sharp - 1) ** 2) + 0.5 * np.mean(restored**2)
    if name == "ragan_ls":
        return (
            np.mean((restored - sharp.mean() - 1) ** 2) + np.mean((sharp - restored.mean() + 1) ** 2),
            np.mean((sharp - restored.mean() - 1) ** 2) + np.mean((restored - sharp.mean() + 1) ** 2),
        )
    return -restored.mean(), restored.mean() - sharp.mean()


@EVERY
def test_both_parts_are_the_formulas_of_the_papers(loss):
    restored, sharp = scores()
    generator, critic = by_numpy(loss.name, restored.double().numpy(), sharp.double().numpy())
    assert float(loss.generator(restored, sharp)) == pytest.approx(generator, rel=1e-5)
    assert float(loss.critic(restored, sharp)) == pytest.approx(critic, rel=1e-5)


@EVERY
def test_a_critic_gains_by_telling_sharp_from_restored_and_the_network_by_convincing_it(loss):
    undecided, low, high = torch.full((2, 1), 0.5), torch.zeros(2, 1), torch.ones(2, 1)
    assert loss.critic(low, high) < loss.critic(undecided, undecided) < loss.critic(high, low)
    assert loss.generator(high, high) < loss.generator(low, high)


@EVERY
def test_the_network_always_feels_which_way_to_go_however_sure_the_critic_is(loss):
    restored = torch.full((2, 1), -30.0, requires_grad=True)
    loss.generator(restored, torch.full((2, 1), 30.0)).backward()
    assert restored.grad is not None
    assert torch.isfinite(restored.grad).all()
    assert (restored.grad < -0.4).all()


@EVERY
def test_several_critics_count_by_their_mean(loss):
    restored, sharp = scores()
    several = ([restored, restored[..., :1]], [sharp, sharp[..., :1]])
    for part in (loss.generator, loss.critic):
        expected = (part(restored, sharp) + part(restored[..., :1], sharp[..., :1])) / 2
        torch.testing.assert_close(part(*several), expected)


@EVERY
def test_scores_of_different_shapes_are_refused(loss):
    restored, sharp = scores()
    with pytest.raises(ValueError, match=r"\(2, 1, 3, 4\) and those of the sharp"):
        loss.critic(restored, sharp[:1])


def test_a_relativistic_critic_does_not_care_what_it_calls_zero():
    restored, sharp = scores()
    loss = ADVERSARIAL["ragan_ls"]
    torch.testing.assert_close(loss.critic(restored + 7, sharp + 7), loss.critic(restored, sharp))
    torch.testing.assert_close(loss.generator(restored, sharp), loss.critic(sharp, restored))


def test_each_wasserstein_critic_is_kept_gentle_in_its_own_way():
    assert (ADVERSARIAL["wgan"].weight_limit, ADVERSARIAL["wgan"].penalty_weight) == (0.01, None)
    assert (ADVERSARIAL["wgan_gp"].weight_limit, ADVERSARIAL["wgan_gp"].penalty_weight) == (None, 10.0)


# -- The gradient penalty ----------------------------------------------------------------------------------------------


class Linear(nn.Module):
    """A critic whose gradient is its weights, whatever the picture."""

    def __init__(self, steepness: float) -> None:
        super().__init__()
        weights = torch.randn(3 * 8 * 9, generator=torch.Generator().manual_seed(2))
        self.line = nn.Linear(3 * 8 * 9, 1)
        self.line.weight = nn.Parameter(steepness * weights / weights.norm())

    def forward(self, pictures: Tensor) -> Tensor:
        return nn.functional.linear(pictures.flatten(1), self.line.weight[None], self.line.bias)


def pictures() -> tuple[Tensor, Tensor]:
    restored, sharp = torch.rand(2, 4, 3, 8, 9, generator=torch.Generator().manual_seed(3))
    return restored, sharp


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(4)


@pytest.mark.parametrize("steepness", [0.25, 1.0, 3.0])
def test_the_penalty_of_a_linear_critic_is_known(steepness):
    critic = Linear(steepness)
    penalty = gradient_penalty(critic, *pictures(), seeded(), weight=10)
    assert penalty.item() == pytest.approx(10 * (steepness - 1) ** 2, abs=1e-5)
    penalty.backward()
    expected = 20 * (steepness - 1) * critic.line.weight.detach() / steepness
    torch.testing.assert_close(critic.line.weight.grad, expected, atol=1e-4, rtol=1e-4)


def test_the_penalty_of_a_square_critic_is_that_at_the_mixed_pictures():
    restored, sharp = pictures()
    share = torch.rand(4, generator=seeded()).reshape(4, 1, 1, 1)
    mixed = (restored + share * (sharp - restored)).double().numpy()
    norms = np.linalg.norm(0.2 * mixed.reshape(4, -1), axis=1)  # of the gradient of 0.1 |x|²
    penalty = gradient_penalty(lambda x: 0.1 * x.square().sum(dim=(1, 2, 3)), restored, sharp, seeded(), weight=5)
    assert penalty.item() == pytest.approx(5 * np.mean((norms - 1) ** 2), rel=1e-4)


def test_patches_and_several_critics_count_by_their_mean_as_in_the_losses():
    one = Linear(2.0)

    def patches(x: Tensor) -> Tensor:
        return one(x)[..., None, None].expand(-1, 1, 5, 6)

    single = gradient_penalty(one, *pictures(), seeded())
    torch.testing.assert_close(gradient_penalty(patches, *pictures(), seeded()), single)
    torch.testing.assert_close(gradient_penalty(lambda x: [one(x), patches(x)], *pictures(), seeded()), single)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_penalty_is_the_same_within_autocast_and_of_half_pictures(dtype):
    restored, sharp = (picture.to(dtype) for picture in pictures())
    critic = PatchCritic(halvings=1, channels=4)
    expected = gradient_penalty(critic, restored.float(), sharp.float(), seeded())
    with torch.autocast("cpu", dtype):
        critic(sharp)  # leaves rounded weights in autocast's cache
        assert torch.equal(gradient_penalty(critic, restored, sharp, seeded()), expected)


def test_the_penalty_draws_from_its_generator_alone():
    critic = PatchCritic(halvings=1, channels=4)
    before = torch.get_rng_state()
    first, again = (gradient_penalty(critic, *pictures(), seeded()) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_penalty_reaches_the_critic_and_never_the_network():
    restored, sharp = pictures()
    restored.requires_grad_(True)
    critic = PatchCritic(halvings=1, channels=4)
    gradient_penalty(critic, restored, sharp, seeded()).backward()
    assert restored.grad is None
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in critic.parameters() if p.ndim > 1)


def test_a_critic_without_any_slope_is_penalised_with_finite_gradients():
    critic = Linear(1.0)
    nn.init.zeros_(critic.line.weight)
    penalty = gradient_penalty(critic, *pictures(), seeded(), weight=10)
    assert penalty == 10
    penalty.backward()
    assert critic.line.weight.grad is not None
    assert torch.isfinite(critic.line.weight.grad).all()


def test_lowering_the_penalty_makes_a_critic_gentle():
    critic, generator = Linear(3.0), seeded()
    optimizer = torch.optim.SGD(critic.parameters(), 0.03)
    for _ in range(25):
        optimizer.zero_grad()
        gradient_penalty(critic, *pictures(), generator).backward()
        optimizer.step()
    assert critic.line.weight.norm().item() == pytest.approx(1, abs=0.01)


def test_the_penalty_refuses_batches_of_different_shapes():
    restored, sharp = pictures()
    with pytest.raises(ValueError, match=r"\(4, 3, 8, 9\).*\(1, 3, 8, 9\)"):
        gradient_penalty(Linear(1.0), restored, sharp[:1], seeded())
