"""Two processes that train together take the steps that one takes with the joint batch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from training_pictures import settings, write_pictures
from unblur.training.run import train
from unblur.training.state import read_state

SETTINGS: dict[str, Any] = {
    "precision": "fp32",
    "optimizer": {"name": "sgd", "lr": 0.5},
    "schedule": {"name": "plateau", "steps": 4, "factor": 0.5, "patience": 1},
    "validation": {"every_steps": 2, "max_pictures": 3, "crop_px": 32},
    "accumulate": 2,
    "ema": None,
}


def together(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run `unblur` in two processes, as `torchrun` starts them."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "unblur"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command + arguments, capture_output=True, text=True, timeout=240, env=environment)


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.full)])
def test_two_processes_train_as_one_with_the_joint_batch_and_one_goes_on(tmp_path: Path, strategy: str) -> None:
    write_pictures(tmp_path / "data" / "sharp")
    joint = settings(strategy=strategy, **SETTINGS)
    (tmp_path / "joint.yaml").write_text(yaml.safe_dump(joint.model_dump(mode="json", exclude_none=True)))
    two, data = tmp_path / "two", tmp_path / "data"
    run = ["train", str(tmp_path / "joint.yaml"), "--data-root", str(data), "--out", str(two)]
    done = together([*run, "--set", "schedule.steps=2"])
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("validation loss") == 1  # only the first process tells
    halfway = settings(strategy=strategy, **{**SETTINGS, "schedule": {**SETTINGS["schedule"], "steps": 2}})
    for steps in (halfway, joint):
        train(steps, tmp_path / "one", data_root=data, resume=True)
        if steps is joint:
            train(steps, two, data_root=data, resume=True)
        ours, theirs = (load_file(tmp_path / run / "last.safetensors") for run in ("one", "two"))
        assert all(torch.allclose(ours[key], theirs[key], atol=1e-6) for key in ours)
    one, other = (read_state(tmp_path / run / "last.state")[1] for run in ("one", "two"))
    assert (one.step, other.step) == (4, 4)
    assert one.best_loss == pytest.approx(other.best_loss, rel=1e-5)
