"""Measure training steps a second against the plainest PyTorch loop: `benchmarks/results/speed/training.json`.

    UNBLUR_DATA=... python benchmarks/training_speed.py [--threads 2] [--seconds 60] [--rounds 2]

The plain loop is what one writes first: photographs opened by Pillow for each sample, a random Gaussian blur by
`nn.Conv2d`, float32 in PyTorch's default memory layout, Adam. Ours is `unblur train` on the same network, batch and
crop. Both take turns in the same run, each in a process of its own because settings of the memory allocator hold for a
whole process; of each the best round counts. Nothing else should run meanwhile.
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from unblur import create_model, experiment
from unblur.data.catalog import find_dataset
from unblur.images import find_photos
from unblur.inference import keep_freed_memory
from unblur.provenance import versions
from unblur.training import run

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).with_name("results") / "speed" / "training.json"
TRAININGS = {
    "reduced_deblurnet on gaussian-triple": ROOT / "experiments/gaussian_triple/reduced_deblurnet.yaml",
    "default on everyday": ROOT / "experiments/sharp/nafnet_everyday.yaml",
}
KERNEL_PX = {"gaussian-triple": 11, "everyday": 33}
FIRST_STEPS = 20
"""What comes before is not counted: caches fill, memory is taken for the first time."""


class PlainPhotos(Dataset[torch.Tensor]):
    """What one writes first: open the photograph, resize or crop it, make a tensor."""

    def __init__(self, settings: experiment.Data) -> None:
        self.files, self.settings = find_photos(find_dataset(settings.train)), settings

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        photo = Image.open(self.files[index]).convert("RGB")
        if self.settings.size:
            photo = photo.resize(self.settings.size)
        elif self.settings.crop_px:
            side = self.settings.crop_px
            left, top = random.randint(0, photo.width - side), random.randint(0, photo.height - side)
            photo = photo.crop((left, top, left + side, top + side))
        return torch.from_numpy(np.array(photo)).permute(2, 0, 1).float() / 255


def main() -> None:
    """Measure, print, write; or, as a child, measure one thing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", nargs=2, metavar=("WAY", "YAML"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, path = options.child
        print(json.dumps(WAYS[way](experiment.load(path), options.seconds)))
        return
    if not os.environ.get("UNBLUR_DATA"):
        sys.exit("Set UNBLUR_DATA to the folder that holds sharp/.")
    result: dict[str, Any] = {"threads": options.threads, "versions": versions(), "trainings": {}}
    for name, path in TRAININGS.items():
        rounds: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way, measured in rounds.items():
                measured.append(_in_child(way, path, options.threads, options.seconds))
        best = {way: max(measured, key=lambda one: one["steps_per_second"]) for way, measured in rounds.items()}
        ratio = best["ours"]["steps_per_second"] / best["plain"]["steps_per_second"]
        result["trainings"][name] = {**best, "times_plain": ratio}
        print(
            f"{name}: ours {best['ours']['steps_per_second']:.2f} steps a second, plain "
            f"{best['plain']['steps_per_second']:.2f}, {ratio:.2f} times; "
            f"{best['ours']['waiting']:.1%} of our steps is waiting for pictures and blur",
            flush=True,
        )
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8", newline="\n")


def plain(settings: experiment.Experiment, seconds: float) -> dict[str, float]:
    """Return the steps a second of the plain loop."""
    model = create_model(settings.model.name, **settings.model.options)
    optimizer = torch.optim.Adam(model.parameters(), settings.optimizer.lr)
    assert settings.data.recipe is not None
    size = KERNEL_PX[settings.data.recipe]
    blur = nn.Conv2d(3, 3, size, padding=size // 2, groups=3, bias=False)
    loader = DataLoader(PlainPhotos(settings.data), settings.data.batch_size, shuffle=True, drop_last=True)
    started, steps = time.perf_counter(), 0
    while True:
        for sharp in loader:
            with torch.no_grad():
                blur.weight.copy_(_gaussian(random.uniform(0.3, 3.0), size).expand_as(blur.weight))
                blurred = blur(sharp)
            loss = (model(blurred) - sharp).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            if steps == FIRST_STEPS // 4:
                started = time.perf_counter()
            elif steps > FIRST_STEPS // 4 and time.perf_counter() - started > seconds:
                return {"steps_per_second": (steps - FIRST_STEPS // 4) / (time.perf_counter() - started)}


def ours(settings: experiment.Experiment, seconds: float) -> dict[str, float]:
    """Return the steps a second of our training, and the share of its steps that is waiting."""
    keep_freed_memory()
    steps = FIRST_STEPS + 30
    while True:
        changes = {
            "schedule": settings.schedule.model_copy(update={"steps": steps}),
            "validation": settings.validation.model_copy(update={"every_steps": steps, "max_pictures": 1}),
            "checkpoint_steps": steps,
        }
        with tempfile.TemporaryDirectory() as folder:
            run.train(settings.model_copy(update=changes), Path(folder) / "run")
            with (Path(folder) / "run" / "log" / "train.csv").open(encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        counted = [row for row in rows if int(row["step"]) > FIRST_STEPS]
        took = [10 * settings.data.batch_size / float(row["images_per_second"]) for row in counted]
        if sum(took) >= 0.7 * seconds:
            waiting = sum(t * float(row["waiting"]) for t, row in zip(took, counted, strict=True)) / sum(took)
            return {"steps_per_second": 10 * len(counted) / sum(took), "waiting": waiting}
        steps = FIRST_STEPS + max(2 * (steps - FIRST_STEPS), int(10 * len(counted) * seconds / sum(took)) // 10 * 10)


WAYS: dict[str, Callable[[experiment.Experiment, float], dict[str, float]]] = {"plain": plain, "ours": ours}


def _in_child(way: str, path: Path, threads: int, seconds: float) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", way, str(path), "--seconds", str(seconds)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _gaussian(sigma: float, size: int) -> torch.Tensor:
    places = torch.arange(size) - size // 2
    line = torch.exp(-(places**2) / (2 * sigma**2))
    kernel = torch.outer(line, line)
    return kernel / kernel.sum()


if __name__ == "__main__":
    main()
