"""Training against critics: a network that restores, and others that learn to tell its pictures from sharp ones.

A step has two sides. The network's: one pass through it, and the gradient of the weighted losses, the adversarial one
by the critics as they are now. The critics': `adversarial.steps` steps on the pictures of that same pass. Then the
network moves too. The authors of DeblurGAN and DeblurGAN-v2 let the critics move before the network's gradient is
taken; here both use one pass, with `accumulate` too, and the network learns from the critics of the step before.

With `adversarial.reblur` a second network learns to blur what was restored, for the loss `cycle`; it belongs to the
network's side. It also learns to blur the sharp pictures (l1, with the weight of `cycle`): otherwise two networks that
both do nothing would be a perfect cycle.

Logged besides the losses by their names, of the critics' last step: `critic/loss`, `critic/separation` (mean score of
the sharp minus that of the restored pictures), `critic/penalty`, and each critic's mean scores, `critic/NAME/restored`
and `critic/NAME/sharp`.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from unblur import losses, models
from unblur.blur.recipes import sample_seed
from unblur.errors import UnknownName
from unblur.experiment import Critic, Experiment, Optimizer, Schedule, WarmUp
from unblur.losses.adversarial import ADVERSARIAL, Scores, gradient_penalty
from unblur.losses.pixel import l1, psnr
from unblur.models import critics
from unblur.models.layers import channels_last
from unblur.training.batches import Batch
from unblur.training.networks import (
    Outputs,
    Trained,
    TrainingPrecision,
    computing_in,
    final,
    moving_average,
    new_network,
)
from unblur.training.optimizers import Mover
from unblur.training.processes import mean_over_processes
from unblur.training.schedules import Plateau, learning_rate
from unblur.training.way import StepReport, first_bad


class Adversarial:
    """One network that learns from pairs and from critics that learn beside it; see `training.way.Way`."""

    def __init__(self, experiment: Experiment, total_steps: int, fabric: Fabric) -> None:
        assert experiment.adversarial is not None
        self.experiment, self.settings, self.fabric = experiment, experiment.adversarial, fabric
        self.loss = losses.build(experiment.loss, vgg=experiment.vgg, stages=experiment.stages).to(fabric.device)
        ((name, self.weight),) = self.loss.adversarial.items()
        self.game = ADVERSARIAL[name]

        self.network = new_network(experiment).to(fabric.device)
        self.average = moving_average(self.network, experiment.ema)
        restoring = Trained(self.network, experiment.precision)
        if experiment.compile:
            restoring.compile()
        reblur = self.settings.reblur
        reblurring = models.create(reblur.name, **reblur.options) if reblur else None
        self.generator = _Side(
            Generator(restoring, Trained(reblurring, experiment.precision) if reblurring else None),
            experiment.optimizer,
            experiment.schedule,
            experiment,
            total_steps,
            fabric,
        )
        self.frozen = _frozen(self.network, self.settings.warmup)

        self.critics = Critics(self.settings.critics, experiment.precision)
        self.critic = _Side(
            self.critics,
            self.settings.optimizer or experiment.optimizer,
            self.settings.schedule or experiment.schedule,
            experiment,
            total_steps,
            fabric,
        )

    def kept(self) -> nn.Module:
        """Return the moving average where there is one, otherwise the network that restores."""
        return self.average.module if self.average is not None else self.network

    def step(self, batches: Sequence[Batch], step: int) -> StepReport:
        """Take the critics' steps and the network's; where either is not finite, neither."""
        before = self.critic.remembered()
        values, pairs = self._gather(batches)
        problem = first_bad(values)
        if problem is None:
            told, problem = self._teach_critics(pairs, step)
            values |= told
        if problem is None:
            problem = self._move(step)
        if problem is None:
            if self.average is not None:
                self.average.update_parameters(self.network)
        else:
            self.generator.mover.undo()
            self.critic.go_back(before)
        return StepReport({**values, **self.generator.told(step), **self.critic.told(step, "critic/")}, problem)

    def looked(self, loss: float) -> None:
        """Reduce the learning rates that go by the validation loss."""
        self.generator.looked(loss)
        self.critic.looked(loss)

    def state(self) -> dict[str, Any]:
        """Return weights, optimisers and plateaus of both sides, and the moving average."""
        average = self.average.state_dict() if self.average is not None else None
        return {"generator": self.generator.state(), "critic": self.critic.state(), "average": average}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned; a moving average that is new begins with the present weights."""
        self.generator.load_state(state["generator"])
        self.critic.load_state(state["critic"])
        if self.average is not None:
            if state["average"] is not None:
                self.average.load_state_dict(state["average"])
            else:
                self.average.module.load_state_dict(self.network.state_dict())

    def _gather(self, batches: Sequence[Batch]) -> tuple[dict[str, Tensor], list[tuple[Tensor, Tensor]]]:
        """Gather the network's gradient; return the losses by name, and the pictures as (restored, sharp)."""
        self.generator.mover.begin()
        self.critics.requires_grad_(False)  # nor would DDP understand their gradients here
        sums: dict[str, Tensor] = {}
        pairs = []
        for batch in batches:
            sharp = batch["sharp"]
            outputs, restored, sharp_reblurred = self.generator.run(batch["blurred"], sharp)
            total, parts = self.loss(outputs, sharp, batch["blurred"], clip=batch.get("clip"))
            convincing = self._convincing(restored, sharp)
            total = total + self.weight * convincing
            if sharp_reblurred is not None:
                reblur = l1(sharp_reblurred, batch["blurred"])
                total, parts = total + self.loss.weights["cycle"] * reblur, {**parts, "reblur": reblur}
            self.generator.mover.backward(total / len(batches), last=batch is batches[-1])
            restored = restored.detach()
            shown = {"loss": total, **parts, self.game.name: convincing, "psnr": -psnr(restored.clamp(0, 1), sharp)}
            _add(sums, shown, 1 / len(batches))
            pairs.append((restored, sharp))
        self.critics.requires_grad_(True)
        return mean_over_processes(sums, self.fabric), pairs

    def _convincing(self, restored: Tensor, sharp: Tensor) -> Tensor:
        """Return the network's part of the adversarial loss, the mean over the critics by their weights."""
        with torch.no_grad():
            of_sharp = self.critics(sharp)
        of_restored = self.critics(restored)
        return self._mean({name: self.game.generator(of_restored[name], of_sharp[name]) for name in of_sharp})

    def _teach_critics(self, pairs: Sequence[tuple[Tensor, Tensor]], step: int) -> tuple[dict[str, Tensor], str | None]:
        """Take the critics' steps; return what is told of the last one, and what was not finite."""
        told: dict[str, Tensor] = {}
        for turn in range(self.settings.steps):
            self.critic.mover.begin()
            sums: dict[str, Tensor] = {}
            for index, (restored, sharp) in enumerate(pairs):
                draw = self._draws(step, turn, index)
                total, parts = self._telling_apart(restored, sharp, draw)
                self.critic.mover.backward(total / len(pairs), last=index == len(pairs) - 1)
                _add(sums, {"critic/loss": total, **parts}, 1 / len(pairs))
            told = mean_over_processes(sums, self.fabric)
            problem = first_bad(told, "critic/loss") or self.critic.mover.move(self.critic.rate(step))
            if problem is not None:
                return told, problem
            if self.game.weight_limit is not None:
                _clamp(self.critics, self.game.weight_limit)
        return told, None

    def _telling_apart(
        self, restored: Tensor, sharp: Tensor, draw: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the critics' loss and its parts by name."""
        scores = self.critic.run(torch.cat([restored, sharp]))  # one pass: no critic looks from picture to picture
        halves = {name: _halves(of_both) for name, of_both in scores.items()}
        total = self._mean({name: self.game.critic(*pair) for name, pair in halves.items()})
        means = {
            name: (_mean_score(of_restored), _mean_score(of_sharp)) for name, (of_restored, of_sharp) in halves.items()
        }
        told = {"critic/separation": self._mean({name: high - low for name, (low, high) in means.items()})}
        if self.game.penalty_weight is not None:
            penalty = self._mean(
                {
                    name: gradient_penalty(critic, restored, sharp, draw, self.game.penalty_weight)
                    for name, critic in self.critics.networks.items()
                }
            )
            total, told["critic/penalty"] = total + penalty, penalty
        for name, (low, high) in means.items():
            told |= {f"critic/{name}/restored": low, f"critic/{name}/sharp": high}
        return total, told

    def _move(self, step: int) -> str | None:
        """Move the network, save for what is frozen while warming up."""
        warmup = self.settings.warmup
        if warmup is not None and step < warmup.steps:
            for parameter in self.frozen:
                parameter.grad = None  # without `requires_grad`, which DDP does not let go
        return self.generator.mover.move(self.generator.rate(step))

    def _mean(self, of_critics: Mapping[str, Tensor]) -> Tensor:
        """Return the mean over the critics, by their weights."""
        weights = {name: self.settings.critics[name].weight for name in of_critics}
        parts = [weight / sum(weights.values()) * of_critics[name] for name, weight in weights.items()]
        return torch.stack(parts).sum()

    def _draws(self, step: int, turn: int, index: int) -> torch.Generator:
        """Return a source of random numbers of a turn's own, in each process another."""
        seed = self.experiment.seed
        for number in (step, self.fabric.global_rank, turn, index):
            seed = sample_seed(seed, number)
        return torch.Generator().manual_seed(seed)


class Generator(nn.Module):
    """The networks of one side: what restores, and what blurs again, if anything does."""

    def __init__(self, restoring: Trained, reblurring: Trained | None) -> None:
        super().__init__()
        self.restoring, self.reblurring = restoring, reblurring

    def forward(self, blurred: Tensor, sharp: Tensor) -> tuple[Outputs, Tensor, Tensor | None]:
        """Return what the losses compare, the restored pictures and, blurred again, the sharp ones."""
        outputs = self.restoring(blurred)
        restored = final(outputs)
        if self.reblurring is None:
            return outputs, restored, None
        stages = {"restored": outputs} if isinstance(outputs, Tensor) else outputs
        return {**stages, "reblurred": final(self.reblurring(restored))}, restored, final(self.reblurring(sharp))


class Critics(nn.Module):
    """The networks of the other side, in the experiment's precision."""

    def __init__(self, settings: Mapping[str, Critic], precision: TrainingPrecision) -> None:
        super().__init__()
        made = {name: critics.create(critic.name, **critic.options) for name, critic in settings.items()}
        self.networks, self.precision = nn.ModuleDict(made), precision

    def forward(self, pictures: Tensor) -> dict[str, Sequence[Tensor]]:
        """Return the scores of each critic, a tensor for each of the sizes that it judges at."""
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        with computing_in(self.precision, pictures.device):
            scores: dict[str, Scores] = {name: critic(pictures) for name, critic in self.networks.items()}
        return {name: [of_one] if isinstance(of_one, Tensor) else of_one for name, of_one in scores.items()}


class _Side:
    """The networks of one side, how they move, and at what rate."""

    def __init__(
        self,
        networks: nn.Module,
        optimizer: Optimizer,
        schedule: Schedule,
        experiment: Experiment,
        total_steps: int,
        fabric: Fabric,
    ) -> None:
        self.networks = channels_last(networks.to(fabric.device))
        self.optimizer, self.schedule, self.total_steps = optimizer, schedule, total_steps
        self.run = fabric.setup_module(networks)
        self.mover = Mover(networks, self.run, optimizer, experiment, fabric)
        self.plateau = Plateau()

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        rate = learning_rate(step, self.total_steps, self.schedule, self.optimizer)
        return self.plateau.applied(rate, self.schedule)

    def told(self, step: int, prefix: str = "") -> dict[str, float]:
        """Return what is logged of the last move."""
        return {f"{prefix}learning_rate": self.rate(step), f"{prefix}gradient_norm": self.mover.norm}

    def looked(self, loss: float) -> None:
        """Reduce the rate where it goes by the validation loss."""
        if self.schedule.name == "plateau":
            self.plateau.look(loss, self.schedule)

    def remembered(self) -> dict[str, Any]:
        """Return a copy of weights and moments, to go back to."""
        return copy.deepcopy({"networks": self.networks.state_dict(), "optimizer": self.mover.optimizer.state_dict()})

    def go_back(self, before: dict[str, Any]) -> None:
        """Take back what moved since `remembered`; the loss scale of fp16 stays, as it has learnt from the failure."""
        self.networks.load_state_dict(before["networks"])
        self.mover.optimizer.load_state_dict(before["optimizer"])

    def state(self) -> dict[str, Any]:
        """Return all that resuming needs."""
        return {"networks": self.networks.state_dict(), "plateau": asdict(self.plateau), **self.mover.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        self.networks.load_state_dict(state["networks"])
        self.plateau = Plateau(**state["plateau"])
        self.mover.load_state(state)


def _frozen(network: nn.Module, warmup: WarmUp | None) -> list[nn.Parameter]:
    """Return the parameters that wait while warming up; `UnknownName` for a beginning that none has."""
    named = dict(network.named_parameters(remove_duplicate=False))
    found = []
    for start in warmup.frozen if warmup else ():
        starting = [parameter for name, parameter in named.items() if name.startswith(start)]
        if not starting:
            starts = {name.rpartition(".")[0] for name in named}
            raise UnknownName("part of the network (adversarial.warmup.frozen)", start, starts)
        found += starting
    return found


def _add(sums: dict[str, Tensor], values: Mapping[str, Tensor], share: float) -> None:
    for name, value in values.items():
        sums[name] = sums.get(name, 0) + share * value.detach()


def _halves(scores: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the scores of the restored and of the sharp pictures, which went through a critic together."""
    pairs = [of_both.chunk(2) for of_both in scores]
    return [restored for restored, _ in pairs], [sharp for _, sharp in pairs]


def _mean_score(scores: Sequence[Tensor]) -> Tensor:
    return torch.stack([score.float().mean() for score in scores]).mean()


@torch.no_grad()
def _clamp(networks: nn.Module, limit: float) -> None:
    """Limit every weight (Arjovsky et al. 2017, algorithm 1)."""
    for parameter in networks.parameters():
        parameter.clamp_(-limit, limit)
