"""Learning rates follow their names: compared with torch's own schedulers, step by step."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from unblur.experiment import Optimizer, Schedule
from unblur.training.schedules import Plateau, learning_rate, total_steps

STEPS = 60
ALL = ["constant", "step", "multi_step", "exponential", "cosine", "cosine_restarts", "linear", "plateau"]
OF_ITS_OWN: dict[str, dict[str, Any]] = {
    "step": {"every": 15, "factor": 0.5},
    "multi_step": {"at": [20, 35], "factor": 0.1},
    "exponential": {"every": 10, "factor": 0.5},
    "cosine_restarts": {"every": 10, "growth": 2},
    "plateau": {"factor": 0.1, "patience": 2},
}
TORCH: dict[str, Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]] = {
    "constant": lambda o: lr_scheduler.ConstantLR(o, factor=1.0),
    "step": lambda o: lr_scheduler.StepLR(o, 15, 0.5),
    "multi_step": lambda o: lr_scheduler.MultiStepLR(o, [20, 35], 0.1),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.5**0.1),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS),
    "cosine_restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 10, 2),
    "linear": lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, STEPS),
}


def rates(name: str, **changes: Any) -> list[float]:
    """Return the rates of all steps, and the one after the last."""
    schedule = Schedule(**{"name": name, "steps": STEPS, **OF_ITS_OWN.get(name, {}), **changes})
    return [learning_rate(step, STEPS, schedule, Optimizer(lr=1e-2)) for step in range(STEPS + 1)]


@pytest.mark.parametrize("name", TORCH)
def test_a_schedule_gives_what_torchs_scheduler_of_that_name_gives(name: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it wants the optimiser to step, too
        scheduler, theirs = TORCH[name](optimizer), []
        for _ in range(STEPS + 1):
            theirs.append(optimizer.param_groups[0]["lr"])
            scheduler.step()
    assert rates(name) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_the_rate_rises_evenly_in_the_warm_up(name: str) -> None:
    warmed = rates(name, warmup_steps=10)
    assert warmed[:10] == pytest.approx([1e-3 * (step + 1) for step in range(10)])
    assert warmed[10] == pytest.approx(1e-2)


@pytest.mark.parametrize("name", ["cosine", "linear", "exponential"])
def test_a_schedule_holds_and_then_falls_to_its_final_rate(name: str) -> None:
    own = {"every": None, "factor": None} if name == "exponential" else {}
    held = rates(name, warmup_steps=10, hold=20, final_lr=1e-5, **own)
    assert held[10:31] == pytest.approx([1e-2] * 21)
    assert held[STEPS] == pytest.approx(1e-5)
    assert held[30:] == sorted(held[30:], reverse=True)
    middle = {"cosine": 5.005e-3, "linear": 5.005e-3, "exponential": math.sqrt(1e-2 * 1e-5)}
    assert held[45] == pytest.approx(middle[name])


@pytest.mark.parametrize("name", ALL)
def test_with_epochs_places_and_periods_are_epochs(name: str) -> None:
    own = {key: 10 if key == "every" else value for key, value in OF_ITS_OWN.get(name, {}).items()}
    if "at" in own:
        own["at"] = [20, 40]
    in_steps = rates(name, **own)
    scaled = {key: value // 10 if key == "every" else value for key, value in own.items()}
    if "at" in own:
        scaled["at"] = [2, 4]
    assert rates(name, steps=None, epochs=6, **scaled) == pytest.approx(in_steps)


def test_an_epoch_is_as_many_steps_as_the_pictures_fill() -> None:
    assert total_steps(Schedule(epochs=3), num_pictures=17, pictures_per_step=8) == 9
    assert total_steps(Schedule(steps=5), num_pictures=17, pictures_per_step=8) == 5


def test_a_plateau_reduces_as_torchs_does() -> None:
    schedule = Schedule(name="plateau", steps=STEPS, factor=0.5, patience=3, final_lr=1e-3)
    losses = [5.0, 4.0, 4.5, 4.2, 4.1, 3.9, 3.9, 3.9, 3.9, 3.0, 3.1, 3.2, 3.3, 3.4, 3.5, 3.6, 3.7, 3.8, 3.9, 4.0]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1e-2)
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, threshold=0, min_lr=1e-3)
    plateau = Plateau()
    for loss in losses:
        plateau.look(loss, schedule)
        theirs.step(loss)
        assert plateau.applied(1e-2, schedule) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert plateau.applied(1e-2, schedule) == 1e-3  # its lowest
    assert plateau.applied(1e-4, schedule) == pytest.approx(1e-4)  # the warm-up lies below
