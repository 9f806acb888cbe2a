"""Measure how fast training samples are loaded against a plain `Dataset`: `benchmarks/results/speed/loading.json`.

    python benchmarks/loading.py [--pictures 24] [--rounds 3]

Aligned 256-px crops of pairs of 720p PNGs, made of scikit-image's photographs with some noise. All ways take turns in
the same run, in one process with one thread; of each the best round counts. CPU seconds are given beside the time that
passed, because they do not depend on what else the computer does.
"""

import argparse
import json
import random
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, default_collate

from unblur.data import pairs as pairs_module
from unblur.data.catalog import open_dataset
from unblur.data.pairs import Positions, TrainingCrops
from unblur.data.resident import ResidentCrops
from unblur.provenance import versions

RESULT = Path(__file__).with_name("results") / "speed" / "loading.json"
CROP_PX, BATCH_SIZE = 256, 8


class PlainPairs(Dataset[dict[str, Any]]):
    """What one writes first: open both pictures with Pillow, crop, make tensors."""

    def __init__(self, folder: Path) -> None:
        self.names = sorted(path.name for path in (folder / "sharp").iterdir())
        self.folder = folder

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        blurred, sharp = (
            Image.open(self.folder / side / self.names[index]).convert("RGB") for side in ("blur", "sharp")
        )
        left, top = random.randint(0, sharp.width - CROP_PX), random.randint(0, sharp.height - CROP_PX)
        box = (left, top, left + CROP_PX, top + CROP_PX)
        tensors = (torch.from_numpy(np.array(picture.crop(box))).permute(2, 0, 1) for picture in (blurred, sharp))
        return dict(zip(("blurred", "sharp"), tensors, strict=True))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_pairs(folder / "pairs", options.pictures)
        write_shard(folder / "pairs", folder / "shards" / "pairs.tar")
        ways = ways_to_load(folder, options.pictures)
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, load in ways.items():
                rates[name].append(timed(load))
        bytes_each = sum(p.stat().st_size for p in (folder / "pairs").rglob("*.png")) / (2 * options.pictures)
    result = {
        "what": f"pairs of {CROP_PX}-px crops of 720p PNGs ({bytes_each / 1e6:.2f} MB each) a second, one process",
        "pictures": options.pictures,
        "rounds": options.rounds,
        "per_second": {name: max(wall for wall, _ in found) for name, found in rates.items()},
        "per_cpu_second": {name: max(cpu for _, cpu in found) for name, found in rates.items()},
        "versions": versions(),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8", newline="\n")
    plain = result["per_cpu_second"]["plain Dataset with Pillow"]
    for name, rate in result["per_cpu_second"].items():
        print(
            f"{name:45} {result['per_second'][name]:8.1f} a second, {rate:8.1f} a CPU second, {rate / plain:6.2f} times"
        )


def ways_to_load(folder: Path, pictures: int) -> dict[str, Callable[[], int]]:
    """Return the ways; each loads some samples and returns how many."""
    on_disk, in_shards = open_dataset(folder / "pairs"), open_dataset(folder / "shards")

    def crops(pairs: Any, **options: Any) -> TrainingCrops:
        return TrainingCrops(pairs, seed=1, crop_px=CROP_PX, flips=True, **options)

    def epoch(samples: Dataset[Any], count: int, start: int = 0) -> int:
        loader = DataLoader(samples, BATCH_SIZE, sampler=Positions(start, start + count))
        return sum(len(batch["sharp"]) for batch in loader)

    def cold(pairs: Any, per_picture: int = 1) -> int:
        kept, pairs_module.CACHE_BYTES = pairs_module.CACHE_BYTES, 0  # as if the set were larger than the cache
        try:
            return epoch(crops(pairs, crops_per_picture=per_picture), pictures * per_picture)
        finally:
            pairs_module.CACHE_BYTES = kept

    cached = crops(on_disk)
    epoch(cached, pictures)
    resident = ResidentCrops.load(crops(on_disk), "cpu")
    assert resident is not None
    return {
        "plain Dataset with Pillow": lambda: epoch(PlainPairs(folder / "pairs"), pictures),
        "ours, nothing cached": lambda: cold(on_disk),
        "ours, nothing cached, 2 crops a picture": lambda: cold(on_disk, 2),
        "ours, tar shards, nothing cached": lambda: cold(in_shards),
        "ours, decoded pictures in the cache": lambda: epoch(cached, 20 * pictures, pictures),
        "ours, resident on the device (here the CPU)": lambda: sum(
            len(batch["sharp"]) for batch in resident.batches(0, 20 * pictures, BATCH_SIZE)
        ),
        "collating alone": lambda: collating(20 * pictures),
    }


def collating(count: int) -> int:
    """Put ready samples together, the part that no way of loading can leave out."""
    sample = {side: torch.zeros(3, CROP_PX, CROP_PX, dtype=torch.uint8) for side in ("blurred", "sharp")}
    return sum(len(default_collate([sample] * BATCH_SIZE)["sharp"]) for _ in range(count // BATCH_SIZE))


def timed(load: Callable[[], int]) -> tuple[float, float]:
    """Return samples a second that passed, and a second of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    count = load()
    return count / (time.perf_counter() - wall), count / (time.process_time() - cpu)


def write_pairs(folder: Path, count: int) -> None:
    """Write pairs of 720p PNGs: photographs enlarged, with the noise of a camera, which is most of a PNG's bytes."""
    photographs = [getattr(skimage.data, name)() for name in ("astronaut", "coffee", "rocket")]
    draw = np.random.default_rng(1)
    for number in range(count):
        large = cv2.resize(photographs[number % 3], (1280, 720), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        for side, picture in (("sharp", large), ("blur", cv2.GaussianBlur(large, (0, 0), 2.5))):
            noisy = (picture + draw.normal(0, 1.5, picture.shape)).clip(0, 255).astype(np.uint8)
            (folder / side).mkdir(parents=True, exist_ok=True)
            Image.fromarray(noisy).save(folder / side / f"{number:04}.png")


def write_shard(folder: Path, shard: Path) -> None:
    """Write the same pairs as one tar file."""
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as tar:
        for path in sorted((folder / "sharp").iterdir()):
            for side in ("blur", "sharp"):
                tar.add(folder / side / path.name, f"{path.stem}.{side}.png")


if __name__ == "__main__":
    main()
