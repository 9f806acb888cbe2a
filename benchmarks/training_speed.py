"""Measure training steps a second against the plainest PyTorch loop: `benchmarks/results/speed/training.json`.

    UNBLUR_DATA=... python benchmarks/training_speed.py [--threads 2] [--steps 60] [--rounds 2]

The plain loop is what one writes first for the same experiment: photographs opened by Pillow for each sample, a blur of
its own for each by `nn.Conv2d`, float32 in PyTorch's default memory layout, Adam, and clipping and averaging where the
experiment has them. Ours is `unblur train`, counted from when every photograph has been read once. Both take turns in
the same run, each in a process of its own because settings of the memory allocator hold for a whole process; of each
the best round counts. Nothing else should run meanwhile.
"""

import argparse
import csv
import json
import math
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
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from unblur import create_model, experiment
from unblur.data.catalog import find_dataset
from unblur.images import find_photos
from unblur.inference import keep_freed_memory
from unblur.provenance import versions
from unblur.training import run

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).with_name("results") / "speed" / "training.json"
EVERYDAY = ROOT / "experiments/sharp/wiener_nafnet_everyday.yaml"
TRAININGS: dict[str, tuple[Path, list[str]]] = {
    "reduced_deblurnet on gaussian-triple": (ROOT / "experiments/gaussian_triple/reduced_deblurnet.yaml", []),
    "default on everyday": (EVERYDAY, ["data.share=0.2"]),  # fewer photographs are read before the counting begins
}
"""Experiments, and what is set otherwise."""
PLAIN_FIRST_STEPS = 5
"""What comes before is not counted: memory is taken for the first time."""


class PlainPhotos(Dataset[torch.Tensor]):
    """What one writes first: open the photograph, resize or crop it, make a tensor."""

    def __init__(self, settings: experiment.Data, margin_px: int) -> None:
        self.files, self.settings, self.margin_px = find_photos(find_dataset(settings.train)), settings, margin_px

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        photo = Image.open(self.files[index]).convert("RGB")
        if self.settings.size:
            photo = photo.resize(self.settings.size)
        elif self.settings.crop_px:
            side = self.settings.crop_px + 2 * self.margin_px
            cut = min(round(side * random.uniform(*self.settings.shrink)), *photo.size)
            left, top = random.randint(0, photo.width - cut), random.randint(0, photo.height - cut)
            photo = photo.crop((left, top, left + cut, top + cut)).resize((side, side))
        return torch.from_numpy(np.array(photo)).permute(2, 0, 1).float() / 255


def main() -> None:
    """Measure, print, write; or, as a child, measure one thing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60, help="that are counted, a multiple of ten (%(default)s)")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="trainings with this in their names; adds to the file"
    )
    parser.add_argument("--child", nargs=2, metavar=("WAY", "YAML"), help=argparse.SUPPRESS)
    parser.add_argument("--set", nargs="*", default=[], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, path = options.child
        print(json.dumps(WAYS[way](experiment.load(path, options.set), options.steps)))
        return
    if not os.environ.get("UNBLUR_DATA"):
        sys.exit("Set UNBLUR_DATA to the folder that holds sharp/.")
    before = json.loads(RESULT.read_text(encoding="utf-8"))["trainings"] if options.only and RESULT.is_file() else {}
    kept = {name: row for name, row in before.items() if name in TRAININGS}
    result: dict[str, Any] = {"threads": options.threads, "versions": versions(), "trainings": kept}
    for name, (path, changes) in TRAININGS.items():
        if options.only not in name:
            continue
        rounds: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way, measured in rounds.items():
                measured.append(_in_child(way, path, changes, options.threads, options.steps))
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


def plain(settings: experiment.Experiment, steps: int) -> dict[str, float]:
    """Return the steps a second of the plain loop, which does what the experiment says."""
    model = create_model(settings.model.name, **settings.model.options)
    optimizer = torch.optim.Adam(model.parameters(), settings.optimizer.lr)
    averaging = get_ema_multi_avg_fn(settings.ema or 0.0)  # type: ignore[no-untyped-call]
    average = AveragedModel(model, multi_avg_fn=averaging) if settings.ema else None
    assert settings.blur is not None
    cropped = settings.data.crop_px is not None
    margin = settings.blur.margin_px if cropped else 0
    size = 2 * settings.blur.margin_px + 1
    blur = nn.Conv2d(3, 3, size, padding=0 if cropped else size // 2, groups=3, bias=False)
    loader = DataLoader(PlainPhotos(settings.data, margin), settings.data.batch_size, shuffle=True, drop_last=True)
    started, done = time.perf_counter(), -PLAIN_FIRST_STEPS
    while True:
        for photos in loader:
            blurred = []
            for photo in photos:  # each has a blur of its own
                with torch.no_grad():
                    blur.weight.copy_(_gaussian(random.uniform(0.3, 3.0), size).expand_as(blur.weight))
                    blurred.append(blur(photo[None]))
            sharp = photos[:, :, margin : photos.shape[2] - margin, margin : photos.shape[3] - margin]
            loss = (model(torch.cat(blurred)) - sharp).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            if settings.clip_grad_norm:
                nn.utils.clip_grad_norm_(model.parameters(), settings.clip_grad_norm)
            optimizer.step()
            if average is not None:
                average.update_parameters(model)
            done += 1
            if done == 0:
                started = time.perf_counter()
            elif done == steps:
                return {"steps_per_second": steps / (time.perf_counter() - started)}


def ours(settings: experiment.Experiment, steps: int) -> dict[str, float]:
    """Return the steps a second of our training once it has read every photograph, and the share that is waiting."""
    keep_freed_memory()
    num_photos = math.ceil(settings.data.share * len(find_photos(find_dataset(settings.data.train))))
    first = 10 * math.ceil(num_photos / settings.data.batch_size / 10)
    changes = {
        "schedule": settings.schedule.model_copy(update={"steps": first + steps}),
        "validation": settings.validation.model_copy(update={"every_steps": first + steps, "max_pictures": 1}),
        "checkpoint_steps": first + steps,
    }
    with tempfile.TemporaryDirectory() as folder:
        run.train(settings.model_copy(update=changes), Path(folder) / "run")
        with (Path(folder) / "run" / "log" / "train.csv").open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) > first]
    took = [10 * settings.data.batch_size / float(row["images_per_second"]) for row in rows]
    waiting = sum(t * float(row["waiting"]) for t, row in zip(took, rows, strict=True)) / sum(took)
    return {"steps_per_second": 10 * len(rows) / sum(took), "waiting": waiting}


WAYS: dict[str, Callable[[experiment.Experiment, int], dict[str, float]]] = {"plain": plain, "ours": ours}


def _in_child(way: str, path: Path, changes: list[str], threads: int, steps: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", way, str(path), "--steps", str(steps), "--set", *changes]
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
