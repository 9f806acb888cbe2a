"""`last.state`: all that resuming needs, as tensors and plain data, written whole or not at all.

| key | what |
|---|---|
| format | 2 (1, without the seconds and with the way's parts beside the rest, is read too) |
| experiment | the settings, as JSON has them |
| progress | how many steps are done, and what came of them: `Progress` |
| way | what the way of training keeps: networks, averages, optimisers, scalers, plateau |

Random state is not in it: every step seeds torch's generator anew, from the experiment's seed and its own number.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from unblur.errors import OutputError, TrainingError
from unblur.experiment import Experiment
from unblur.files import written_whole


@dataclass
class Progress:
    """How far a training has come."""

    step: int = 0
    best_loss: float = float("inf")
    best_psnr: float = float("-inf")
    looks_since_best: int = 0
    bad_steps: int = 0
    """Steps skipped because something was not finite."""
    bad_in_a_row: int = 0
    first_bad: str = ""
    """What was not finite in the first of those in a row, and at which step."""
    seconds: float = 0.0
    """Time on the clock, over all resumes."""
    cpu_seconds: float = 0.0
    """Time of the processors, of the first process and its threads."""


def save_state(path: Path, experiment: Experiment, progress: Progress, way: dict[str, Any]) -> None:
    """Write the state; a crash or a full disk leaves the one before. Raises `OutputError`."""
    state = {
        "format": 2,
        "experiment": experiment.model_dump(mode="json"),
        "progress": asdict(progress),
        "way": way,
    }
    with written_whole(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # torch's archive writer says so of a full disk
            raise OutputError(f"{path} could not be written: {error}") from None


def read_state(path: Path) -> tuple[dict[str, Any], Progress, dict[str, Any]]:
    """Return the experiment as it was then, the progress and the way's part. Raises `TrainingError`."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if state["format"] == 1:
            state = _from_format_1(state)
        return state["experiment"], Progress(**state["progress"]), state["way"]
    except Exception as error:  # a damaged archive raises a dozen kinds
        raise TrainingError(f"{path} cannot be read, the training cannot be resumed: {error}") from None


def _from_format_1(state: dict[str, Any]) -> dict[str, Any]:
    best = state["best"]
    progress = Progress(state["step"], best["loss"], best["psnr"], best["looks_since"])
    way = {key: state[key] for key in ("network", "average", "optimizer")}
    return {"experiment": state["experiment"], "progress": asdict(progress), "way": way}
