"""What restoring costs, measured in the run that is scored: parameters, multiply-accumulates, seconds, peak memory."""

import copy
import ctypes
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unblur import inference

Result = TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    """Quality has a price: what a row of an evaluation took, a picture on average."""

    parameters: int
    macs: int | None
    """Multiply-accumulates of convolutions and matrix products for the mean picture, at its size and with its tiles;
    None for what is no network."""
    seconds: float
    """The median over the pictures, reading and writing files not counted."""
    peak_memory: int | None
    """Bytes at the highest: of the device's memory on a GPU, of the whole process on a CPU; None where unknown."""
    device: str
    threads: int

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Taken:
    """What one picture took."""

    seconds: float
    peak_memory: int | None


def measured(work: Callable[[], Result], device: torch.device) -> tuple[Result, Taken]:
    """Return what `work` returns, and what it took; a GPU is waited for before the clock is read."""
    _forget_peak(device)
    _wait(device)
    started = time.perf_counter()
    result = work()
    _wait(device)
    return result, Taken(time.perf_counter() - started, _peak(device))


def total(network: nn.Module | None, taken: Sequence[Taken], sizes: Sequence[tuple[int, int]], device: str) -> Cost:
    """Return the cost of a row: `sizes` are (height, width) of its pictures, `taken` what each of them took."""
    peaks = [one.peak_memory for one in taken if one.peak_memory is not None]
    return Cost(
        parameters=sum(p.numel() for p in network.parameters()) if network else 0,
        macs=_mean_macs(network, sizes) if network else None,
        seconds=statistics.median(one.seconds for one in taken),
        peak_memory=max(peaks, default=None),
        device=device,
        threads=torch.get_num_threads(),
    )


def give_back_memory() -> None:
    """Return freed memory to the system, so that one row's peak is not counted for the next (glibc only)."""
    if sys.platform.startswith("linux"):
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        except (OSError, AttributeError):  # musl, Android
            return


def device_name(device: torch.device) -> str:
    """Return the device as a table names it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _mean_macs(network: nn.Module, sizes: Iterable[tuple[int, int]]) -> int | None:
    """Return the multiply-accumulates of a picture on average, counted without memory for weights or values."""
    hollow = copy.deepcopy(network).to("meta").eval()

    @cache
    def of_tile(height: int, width: int) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            hollow(torch.empty(1, 3, height, width, device="meta"))
        return int(counter.get_total_flops() // 2)

    @cache
    def of_picture(height: int, width: int) -> int:
        tiles = inference.tiles_for(network, height, width)
        return sum(of_tile(tile.bottom - tile.top, tile.right - tile.left) for tile in tiles)

    return round(statistics.fmean(of_picture(*size) for size in sizes))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu" and sys.platform.startswith("linux"):
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")  # proc(5): reset the peak of resident memory
        except OSError:  # not allowed in some containers: then the peak is that of the process so far
            return


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu":
        return None
    try:
        with open("/proc/self/status") as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
        return int(lines["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):  # not Linux
        return None
