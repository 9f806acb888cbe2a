"""A budget keeps the shape of a training: fewer steps, everything in proportion, told before it starts."""

from pathlib import Path
from typing import Any

import pytest

from training_pictures import TINY, settings, write_pictures
from unblur.errors import SettingsError
from unblur.experiment import Experiment, Optimizer
from unblur.training.budget import Budget, parse, scaled
from unblur.training.run import within_budget
from unblur.training.schedules import learning_rate

TABLE = [{"steps": 60, "crop_px": 16, "batch_size": 8}, {"steps": 40, "crop_px": 32, "batch_size": 2}]


def planned(**changes: Any) -> Experiment:
    """Return a plan of 1000 steps of 32 pictures."""
    return settings(**{
        "data": {**TINY["data"], "batch_size": 32},
        "schedule": {"name": "cosine", "steps": 1000, "warmup_steps": 100, "hold": 300, "final_lr": 1e-5},
        "validation": {"every_steps": 200},
        **changes,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("30min", Budget(seconds=1800)),
        ("1.5h batch=4", Budget(seconds=5400, batch_size=4)),
        ("90 s", Budget(seconds=90)),
        ("2_000steps,batch=2", Budget(steps=2000, batch_size=2)),
        ("0.1", Budget(share=0.1)),
        ("10%", Budget(share=0.1)),
        ("1 batch=8", Budget(share=1.0, batch_size=8)),
    ],
)
def test_a_budget_is_read(text: str, budget: Budget) -> None:
    assert parse(text) == budget


@pytest.mark.parametrize("text", ["", "1 GPU", "30", "0", "0min", "-5min", "10% batch=0", "two hours", "10%batch"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="is not a budget"):
        parse(text)


def test_a_share_of_the_pictures_shrinks_every_length_alike() -> None:
    result, lines = scaled(planned(), "10%", num_pictures=50)
    assert (result.schedule.steps, result.schedule.warmup_steps, result.schedule.hold) == (100, 10, 30)
    assert result.validation.every_steps == 20
    assert result.optimizer == planned().optimizer
    assert "1,000 steps of 1 x 32 pictures: 32,000 pictures seen" in lines[0]
    assert "100 steps of 1 x 32 pictures: 3,200 pictures seen, 10.0%" in lines[1]
    rates = [
        learning_rate(step * scale, 100 * scale, schedule, Optimizer(lr=1e-2))
        for scale, schedule in ((1, result.schedule), (10, planned().schedule))
        for step in range(10, 101)
    ]
    assert rates[:91] == pytest.approx(rates[91:])


def test_gathered_batches_keep_the_pictures_of_a_step_and_the_rate() -> None:
    result, lines = scaled(planned(), "500steps batch=4", num_pictures=50)
    assert (result.data.batch_size, result.accumulate, result.schedule.steps) == (4, 8, 500)
    assert result.optimizer == planned().optimizer
    assert "500 steps of 8 x 4 pictures: 16,000 pictures seen, 50.0%" in lines[1]
    with pytest.raises(SettingsError, match="choose 1, 2, 4, 8, 16"):
        scaled(planned(), "500steps batch=5", num_pictures=50)


@pytest.mark.parametrize(("scaling", "factor"), [("linear", 1 / 4), ("sqrt", 1 / 2)])
def test_a_smaller_batch_lowers_the_rate_by_the_named_rule_and_takes_more_steps(scaling: str, factor: float) -> None:
    result, lines = scaled(planned(scaling=scaling), "1 batch=8", num_pictures=50)
    assert (result.data.batch_size, result.accumulate, result.schedule.steps) == (8, 1, 4000)
    assert result.optimizer.lr == pytest.approx(2e-3 * factor)
    assert result.schedule.final_lr == pytest.approx(1e-5 * factor)
    assert f"({scaling})" in lines[2]


def test_epochs_become_steps() -> None:
    schedule = {"name": "multi_step", "epochs": 10, "at": [5, 8], "factor": 0.1}
    result, _ = scaled(planned(schedule=schedule), "50%", num_pictures=320)
    assert (result.schedule.steps, result.schedule.epochs, result.schedule.at) == (50, None, (25, 40))


def test_the_stages_of_a_progressive_training_shrink() -> None:
    data = {**TINY["data"], "crop_px": None, "progressive": TABLE}
    result, lines = scaled(planned(data=data, schedule={"steps": 100}), "50%", num_pictures=50)
    assert result.data.progressive is not None
    assert [stage.steps for stage in result.data.progressive] == [30, 20]
    assert "280 pictures seen, 50.0%" in lines[1]


def test_a_time_becomes_the_steps_that_fit_into_it(tmp_path: Path) -> None:
    result, lines = scaled(planned(), "10s batch=8", num_pictures=50, seconds_per_step=lambda e: 0.1 * e.accumulate)
    assert result.schedule.steps == 25
    assert "at 0.4 s a step" in lines[1]
    write_pictures(tmp_path / "sharp")
    measured, _ = within_budget(settings(), "20s", data_root=tmp_path)
    assert measured.schedule.steps is not None
    assert 20 < measured.schedule.steps < 20_000
