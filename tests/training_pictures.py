"""What the tests of training share: a tiny experiment, small pictures, and a comparison of states to the bit."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from unblur.experiment import Experiment

TINY: dict[str, Any] = {
    "model": {"name": "nafnet", "width": 4, "encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [1]},
    "data": {
        "train": "sharp",
        "valid": "sharp",
        "hold_out": 0.3,
        "recipe": "gaussian-2.5",
        "crop_px": 16,
        "batch_size": 2,
    },
    "loss": {"charbonnier": 1.0},
    "optimizer": {"name": "adamw", "lr": 2e-3},
    "schedule": {"name": "cosine", "steps": 20},
    "ema": 0.9,
    "clip_grad_norm": 1.0,
    "validation": {"every_steps": 10, "max_pictures": 2, "crop_px": 32},
    "seed": 3,
}


def settings(**changes: object) -> Experiment:
    """Return the tiny experiment with other values for some of its keys."""
    return Experiment.model_validate({**TINY, **changes})


def write_pictures(folder: Path, size: tuple[int, int] = (56, 48)) -> list[Path]:
    """Write twelve pictures of blobs, (width, height), and return their files."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    files = [folder / f"{index:02}.png" for index in range(12)]
    for file in files:
        coarse = draw.integers(0, 256, (12, 14, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST).save(file)
    return files


def write_pairs(folder: Path, offset: int) -> None:
    """Write four pairs whose blurred pictures are brighter than the sharp ones by `offset` grey values."""
    draw = np.random.default_rng(1)
    for index in range(4):
        picture = draw.integers(0, 200, (24, 24, 3), dtype=np.uint8)
        for name, added in (("blur", offset), ("sharp", 0)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture + np.uint8(added)).save(folder / name / f"{index}.png")


def same(a: object, b: object) -> bool:
    """Return whether two states are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def write_windows(folder: Path, size: tuple[int, int] = (56, 48), clips: int = 4, frames: int = 7) -> None:
    """Write clips of one window each, `clip_N/00_KK.png`: blobs that move to the left by a pixel a frame."""
    draw = np.random.default_rng(2)
    for clip in range(clips):
        (folder / f"clip_{clip}").mkdir(parents=True)
        coarse = draw.integers(0, 256, (12, 18, 3), dtype=np.uint8)
        wide = np.asarray(Image.fromarray(coarse).resize((size[0] + frames, size[1]), Image.Resampling.NEAREST))
        for frame in range(frames):
            Image.fromarray(wide[:, frame : frame + size[0]]).save(folder / f"clip_{clip}/00_{frame:02}.png")
