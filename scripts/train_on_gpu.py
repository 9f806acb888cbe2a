"""Train on a GPU that is lent for minutes: use them from the first second, end in time, go on the next time.

    python scripts/train_on_gpu.py experiments/sharp/wiener_nafnet_everyday.yaml --photos photos.tar --minutes 9
        --out runs/default --bring home --set compile=true schedule.steps=60_000

`photos.tar` is what `scripts/pack_photos.py` wrote; it is unpacked and decoded once, to the device. The rest is `unblur
train --resume`: blur on the device, bf16 where the GPU has it, channels last. Before the time is up, at the end of a
step, the training is saved. A run folder that is there goes on; where there is none, but `--bring DIR` holds the pieces
of one, it goes on from these.

`--bring DIR` gets, every few minutes and at the end, what is needed at home: `best.safetensors` in fp16, and
`last.state` in pieces below 16 MiB (`scripts/pieces.py`). Each minute a line says how many pictures a second the
training sees, and what share of the GPU's peak that is: forward and backward are taken as three times the network's
multiply-accumulates.
"""

import argparse
import csv
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

import pieces
from unblur import experiment, weights, zoo
from unblur.errors import UnblurError
from unblur.experiment import Experiment
from unblur.inference import keep_freed_memory
from unblur.training.run import TrainingResult, train

PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "RTX 4090": 165}
"""Dense bf16 by the makers' data sheets, by a part of the device's name; the first that fits counts."""

SAVING_SECONDS = 20
"""Kept free at the end for a look at the validation pictures and for saving."""


def main() -> None:
    """Train for the minutes that the command line gives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--photos", type=Path, nargs="+", required=True, metavar="TAR")
    parser.add_argument("--minutes", type=float, required=True, help="from now on, saving included")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="run folder")
    parser.add_argument("--bring", type=Path, metavar="DIR", help="what is to be brought home, and comes back")
    parser.add_argument("--every", type=float, default=2.0, metavar="MINUTES", help="between two (%(default)s)")
    parser.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[])
    options = parser.parse_args()
    keep_freed_memory()
    try:
        settings = experiment.load(options.experiment, ["data.resident=true", *options.set])
        result = train_for(
            60 * options.minutes - SAVING_SECONDS,
            settings,
            options.photos,
            options.out,
            bring=options.bring,
            every_seconds=60 * options.every,
        )
    except UnblurError as error:
        sys.exit(str(error))
    print(f"{result.stopped} at step {result.step} of {result.total_steps}")


def train_for(
    seconds: float,
    settings: Experiment,
    photos: Sequence[Path],
    out: Path,
    *,
    bring: Path | None = None,
    every_seconds: float = 120.0,
    tell: Callable[[str], None] = lambda line: print(line, flush=True),
) -> TrainingResult:
    """Train until the seconds are over or the training is done, and return what came of it.

    Raises what `train` raises, and `DataError` for pieces in `bring` that do not fit together.
    """
    began = time.monotonic()
    data_root = unpacked(photos, out)
    if bring is not None:
        take_up(bring, out)
    speed = Speed(settings, out)
    report_at, bring_at = time.monotonic() + 60, time.monotonic() + every_seconds

    def look() -> None:
        nonlocal report_at, bring_at
        now = time.monotonic()
        if now >= report_at:
            tell(speed.line())
            report_at = now + 60
        if bring is not None and now >= bring_at:
            bring_home(out, bring)
            bring_at = now + every_seconds

    with _beside(look):
        left = seconds - (time.monotonic() - began)
        result = train(settings, out, data_root=data_root, resume=True, stop_after=left, tell=tell)
    tell(speed.line())
    if bring is not None:
        bring_home(out, bring)
    return result


def unpacked(photos: Sequence[Path], out: Path) -> Path:
    """Return the folder of data sets that the tars hold; they are unpacked into a folder beside the run."""
    folder = out.with_name(f"{out.name}-data")
    for file in photos:
        with tarfile.open(file, "r:") as tar:
            tar.extractall(folder, filter="data")
    return folder


def bring_home(run: Path, folder: Path) -> None:
    """Put the best weights in fp16 and the pieces of the state into a folder, where a run has them."""
    if (run / "best.safetensors").is_file():
        model, checkpoint = weights.open_weights(run / "best.safetensors")
        weights.save(model, folder / "best.safetensors", checkpoint.facts, half=True)
    if (run / "last.state").is_file():
        pieces.cut(run / "last.state", folder)


def take_up(folder: Path, run: Path) -> None:
    """Put what `bring_home` left back into a run folder, unless a training is there already."""
    if (run / "last.state").exists() or not pieces.pieces_of(folder, "last.state"):
        return
    pieces.join(folder, "last.state", run / "last.state")
    if (folder / "best.safetensors").is_file():
        (run / "best.safetensors").write_bytes((folder / "best.safetensors").read_bytes())


class Speed:
    """How fast a run is going, from its log."""

    def __init__(self, settings: Experiment, run: Path) -> None:
        self.log = run / "log" / "train.csv"
        self.device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        self.flops = flops_of_a_picture(settings)

    def line(self) -> str:
        """Return "step 1200: 3500 pictures a second, 21.3% of the peak of NVIDIA H200"."""
        rows = list(csv.DictReader(self.log.read_text(encoding="utf-8").splitlines())) if self.log.is_file() else []
        if not rows:
            return "no ten steps yet"
        rate = float(rows[-1]["images_per_second"])
        peak = next((tflops for name, tflops in PEAK_TFLOPS.items() if name in self.device), None)
        line = f"step {rows[-1]['step']}: {rate:.4g} pictures a second"
        if peak is not None and self.flops is not None:
            line += f", {rate * self.flops / (peak * 1e12):.1%} of the peak of {self.device}"
        return f"{line}, {float(rows[-1]['waiting']):.1%} of it waiting"


def flops_of_a_picture(settings: Experiment) -> float | None:
    """Return the operations of forward and backward for one picture of a batch; None where pictures differ in size."""
    if settings.data.crop_px is None:
        return None
    cost = zoo.count(settings.model.name, settings.model.options)
    return 3 * 2 * cost.macs_256 * (settings.data.crop_px / zoo.MACS_SIZE_PX) ** 2


@contextmanager
def _beside(work: Callable[[], None]) -> Iterator[None]:
    """Do the work again and again, beside what is done within."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(0.1):
            work()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    main()
