"""Losses between a network that restores (the generator) and a critic that is to tell restored from sharp pictures.

Both parts are functions of the critic's scores, one a picture or a patch, higher for sharp, before any sigmoid:
`generator` is what the network lowers, `critic` what the critic lowers. E is the mean over pictures and patches. Scores
of several critics (global and local ones, or one that judges at several sizes) are given as a sequence, in the same
order for restored and sharp; the loss is then the mean of theirs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unblur.losses.pixel import check_same_shape

Scores = Tensor | Sequence[Tensor]
Critic = Callable[[Tensor], Scores]


@dataclass(frozen=True)
class AdversarialLoss:
    """Both parts of an adversarial loss, and how the critic is kept from steepening without end."""

    name: str
    generator_part: Callable[[Tensor, Tensor], Tensor]
    critic_part: Callable[[Tensor, Tensor], Tensor]
    weight_limit: float | None = None
    """After each of its steps the critic's parameters are clamped to this distance from 0."""
    penalty_weight: float | None = None
    """`gradient_penalty` is added to the critic's part with this weight."""

    def generator(self, scores_restored: Scores, scores_sharp: Scores) -> Tensor:
        """Return what the network lowers, a scalar. Scores of the sharp ones matter to relativistic losses alone."""
        return _averaged(self.generator_part, scores_restored, scores_sharp)

    def critic(self, scores_restored: Scores, scores_sharp: Scores) -> Tensor:
        """Return what the critic lowers, a scalar; make its `scores_restored` of detached pictures."""
        return _averaged(self.critic_part, scores_restored, scores_sharp)


def gan_generator(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return E[-log sigmoid(restored)], which does not flatten out while the critic wins (Goodfellow et al. 2014,
    section 3, the form that they train with).
    """
    return F.softplus(-restored).mean()


def gan_critic(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return E[-log sigmoid(sharp)] + E[-log(1 - sigmoid(restored))] (Goodfellow et al. 2014, equation 1; document
    C, section 2.2.2).
    """
    return F.softplus(-sharp).mean() + F.softplus(restored).mean()


def lsgan_generator(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return E[(restored - 1)²] / 2 (Mao et al. 2017, equation 9)."""
    return (restored - 1).square().mean() / 2


def lsgan_critic(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return E[(sharp - 1)²] / 2 + E[restored²] / 2 (Mao et al. 2017, equation 9)."""
    return ((sharp - 1).square().mean() + restored.square().mean()) / 2


def ragan_ls_generator(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return the critic's part with restored and sharp in each other's place (DeblurGAN-v2)."""
    return ragan_ls_critic(sharp, restored)


def ragan_ls_critic(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return E[(sharp - E[restored] - 1)²] + E[(restored - E[sharp] + 1)²]: relativistic average least squares
    (Jolicoeur-Martineau 2018; DeblurGAN-v2; document C, section 2.2.3).
    """
    return (sharp - restored.mean() - 1).square().mean() + (restored - sharp.mean() + 1).square().mean()


def wgan_generator(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return -E[restored] (Arjovsky et al. 2017; DeblurGAN, and document C, section 2.2.2, write the sum)."""
    return -restored.mean()


def wgan_critic(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return E[restored] - E[sharp], minus the distance that the critic sees (Arjovsky et al. 2017, equation 2)."""
    return restored.mean() - sharp.mean()


ADVERSARIAL = {
    loss.name: loss
    for loss in (
        AdversarialLoss("gan", gan_generator, gan_critic),
        AdversarialLoss("lsgan", lsgan_generator, lsgan_critic),
        AdversarialLoss("ragan_ls", ragan_ls_generator, ragan_ls_critic),
        AdversarialLoss("wgan", wgan_generator, wgan_critic, weight_limit=0.01),
        AdversarialLoss("wgan_gp", wgan_generator, wgan_critic, penalty_weight=10.0),
    )
}
"""By name; limit and penalty are those of Arjovsky et al. (algorithm 1) and of Gulrajani et al. and DeblurGAN."""


def gradient_penalty(
    critic: Critic, restored: Tensor, sharp: Tensor, generator: torch.Generator, weight: float = 10.0
) -> Tensor:
    """Return weight · E[(|gradient of the critic| - 1)²] between restored and sharp (Gulrajani et al. 2017, equation
    3).

    Pictures are (B, 3, H, W); each pair is mixed by a share of its own, drawn from `generator` (DeblurGAN's authors
    draw one a step). The gradient is that of a picture's mean score, over patches and critics, as the losses take it,
    with respect to all of its pixels. Computed in float32 also under autocast, whose rounding would drown the
    difference; it can be differentiated with respect to the critic alone.
    """
    check_same_shape(restored, sharp)
    share = torch.rand(len(sharp), generator=generator, device=generator.device).to(sharp.device).reshape(-1, 1, 1, 1)
    with torch.autocast(sharp.device.type, enabled=False), torch.enable_grad():
        mixed = torch.lerp(restored.detach().float(), sharp.detach().float(), share).requires_grad_(True)
        scores = _several(critic(mixed))
        means = torch.stack([score.reshape(len(score), -1).mean(dim=1) for score in scores]).mean(dim=0)  # (B,)
        (gradient,) = torch.autograd.grad(means.sum(), mixed, create_graph=True)
        steepness = torch.linalg.vector_norm(gradient, dim=(1, 2, 3))  # (B,); differentiable at 0, unlike a root
        return weight * (steepness - 1).square().mean()


def _averaged(part: Callable[[Tensor, Tensor], Tensor], restored: Scores, sharp: Scores) -> Tensor:
    parts = []
    for of_restored, of_sharp in zip(_several(restored), _several(sharp), strict=True):
        check_same_shape(of_restored, of_sharp, ("the scores of the restored", "those of the sharp"))
        parts.append(part(of_restored.float(), of_sharp.float()))
    return torch.stack(parts).mean()


def _several(scores: Scores) -> Sequence[Tensor]:
    return [scores] if isinstance(scores, Tensor) else scores
