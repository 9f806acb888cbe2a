"""A step of one network: the same gradient however it was gathered, clipped as said, or no step at all."""

import shutil

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from training_pictures import TINY, same, settings
from unblur.experiment import Experiment
from unblur.training.optimizers import Mover
from unblur.training.supervised import Supervised

SGD = {"name": "sgd", "lr": 1.0, "momentum": 0.0}


def mover_of(network: nn.Module, optimizer: dict[str, object] = SGD, **changes: object) -> Mover:
    experiment = settings(optimizer=optimizer, **{"clip_grad_norm": None, **changes})
    fabric = Fabric(accelerator="cpu", devices=1)
    return Mover(network, fabric.setup_module(network), experiment.optimizer, experiment, fabric)


def moved_by(gradient: list[float], **changes: object) -> list[float]:
    """Return by how much SGD at rate 1 moves weights with that gradient, with its sign turned."""
    network = nn.Linear(len(gradient), 1, bias=False)
    before = network.weight.detach().clone()
    mover = mover_of(network, **changes)
    mover.begin()
    mover.backward((network.weight * torch.tensor(gradient)).sum())
    assert mover.move(1.0) is None
    return (before - network.weight.detach()).flatten().tolist()


def batches(count: int, size: int) -> list[dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(0)
    both = [torch.rand(2, size, 3, 16, 16, generator=draw) for _ in range(count)]
    return [{"blurred": blurred, "sharp": sharp} for blurred, sharp in both]


def after_steps(experiment: Experiment, steps: list[list[dict[str, Tensor]]]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    way = Supervised(experiment, 10, Fabric(accelerator="cpu", devices=1))
    for number, step in enumerate(steps):
        way.step(step, number)
    return way.network.state_dict()


def test_gradients_are_left_alone_where_nothing_clips_them() -> None:
    assert moved_by([3.0, -4.0]) == pytest.approx([3.0, -4.0])


def test_the_norm_is_clipped_to_its_length() -> None:
    assert moved_by([3.0, -4.0], clip_grad_norm=1.0) == pytest.approx([0.6, -0.8], rel=1e-4)
    assert moved_by([0.3, -0.4], clip_grad_norm=1.0) == pytest.approx([0.3, -0.4])


def test_values_are_clipped_one_by_one_before_the_norm() -> None:
    assert moved_by([3.0, -0.5], clip_grad_value=1.0) == pytest.approx([1.0, -0.5])
    assert moved_by([30.0, -40.0], clip_grad_value=1.0, clip_grad_norm=1.0) == pytest.approx([2**-0.5, -(2**-0.5)])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_moves_nothing_and_is_named(bad: float) -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    mover = mover_of(network, {"name": "adam", "lr": 1.0}, clip_grad_value=1.0)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    mover.begin()
    mover.backward(network(torch.ones(1, 2)).sum() + network[1].bias.sum() * bad)
    assert mover.move(1.0) == "the gradient of 1.bias"
    mover.undo()
    assert same(before, [parameter.detach() for parameter in network.parameters()])
    assert mover.optimizer.state_dict()["state"] == {}


def test_gathered_statistics_are_put_back_with_the_step() -> None:
    network = nn.BatchNorm2d(3)
    mover = mover_of(network)
    mover.begin()
    network(torch.rand(2, 3, 4, 4))
    assert network.running_mean.abs().sum() > 0
    mover.undo()
    assert network.running_mean.abs().sum() == 0
    assert network.num_batches_tracked == 0


def test_accumulated_batches_are_one_step_with_the_joint_batch() -> None:
    small = batches(4, 2)
    joint = [{key: torch.cat([batch[key] for batch in small[i : i + 2]]) for key in small[0]} for i in (0, 2)]
    precise = settings(precision="fp32", optimizer=SGD)
    gathered = after_steps(precise, [small[:2], small[2:]])
    at_once = after_steps(precise, [[joint[0]], [joint[1]]])
    assert all(torch.allclose(gathered[key], at_once[key], atol=1e-6) for key in gathered)
    assert any(not torch.allclose(gathered[key], after_steps(precise, [small[:1]])[key], atol=1e-6) for key in gathered)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_an_optimiser_is_torchs_of_that_name(name: str) -> None:
    chosen = {"name": name, "lr": 0.1, "weight_decay": 0.1, "momentum": 0.5, "betas": [0.8, 0.9]}
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name]
    options = {"momentum": 0.5} if name == "sgd" else {"betas": (0.8, 0.9)}
    ours, theirs = nn.Linear(3, 1), nn.Linear(3, 1)
    theirs.load_state_dict(ours.state_dict())
    mover, optimizer = mover_of(ours, chosen), kind(theirs.parameters(), lr=0.1, weight_decay=0.1, **options)
    for step in range(3):
        mover.begin()
        mover.backward(ours(torch.ones(1, 3) * step).square().sum())
        assert mover.move(0.1 / (step + 1)) is None
        optimizer.zero_grad()
        theirs(torch.ones(1, 3) * step).square().sum().backward()
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
        optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)


@pytest.mark.full
def test_a_network_that_is_compiled_takes_the_same_step() -> None:
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    step = [batches(1, 2)]
    plain, compiled = (
        after_steps(settings(precision="fp32", compile=choice, model={**TINY["model"], "width": 2}), step)
        for choice in (False, True)
    )
    assert plain.keys() == compiled.keys()
    assert all(torch.allclose(plain[key], compiled[key], atol=1e-4) for key in plain)
