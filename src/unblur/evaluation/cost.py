"""What restoring costs, measured in the run that is scored: parameters, multiply-accumulates, seconds, memory.

A row's memory is its own: what the network's weights take, and what the process (on a GPU, the device) needed at the
highest beyond what it held when the row began. So it depends neither on what runs beside nor on which row comes first.
"""

import contextlib
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
import torch.nn.functional as F
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
    memory: int | None
    """Bytes: the weights, and what restoring took beside them at the highest; None where the system does not tell."""
    device: str
    threads: int

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Taken:
    """What one picture took."""

    seconds: float
    memory: int | None
    """Bytes at the highest, beyond what was held when the row began."""


class Meter:
    """Measures what the pictures of one row take; made when the row begins."""

    def __init__(self, device: torch.device) -> None:
        _give_back_memory()
        if device.type == "cpu":
            _wake_up()
        self._device = device
        self._held = _held(device)

    def measured(self, work: Callable[[], Result]) -> tuple[Result, Taken]:
        """Return what `work` returns, and what it took; a GPU is waited for before the clock is read."""
        known = _forget_peak(self._device)
        _wait(self._device)
        started = time.perf_counter()
        result = work()
        _wait(self._device)
        seconds = time.perf_counter() - started
        peak = _peak(self._device) if known else None
        return result, Taken(seconds, None if peak is None or self._held is None else max(0, peak - self._held))


def total(
    network: nn.Module | None,
    taken: Sequence[Taken],
    sizes: Sequence[tuple[int, int]],
    tile_px: int | None,
    device: str,
) -> Cost:
    """Return the cost of a row: `sizes` are (height, width) of its pictures, `taken` what each of them took."""
    beside = [one.memory for one in taken if one.memory is not None]
    tensors = [*network.parameters(), *network.buffers()] if network else []
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return Cost(
        parameters=sum(p.numel() for p in network.parameters()) if network else 0,
        macs=_mean_macs(network, sizes, tile_px) if network else None,
        seconds=statistics.median(one.seconds for one in taken),
        memory=weights + max(beside) if beside else None,
        device=device,
        threads=torch.get_num_threads(),
    )


def device_name(device: torch.device) -> str:
    """Return the device as a table names it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _mean_macs(network: nn.Module, sizes: Iterable[tuple[int, int]], tile_px: int | None) -> int:
    """Return the multiply-accumulates of a picture on average, counted without memory for weights or values."""
    hollow = copy.deepcopy(network).to("meta").eval()

    @cache
    def of_tile(height: int, width: int) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            hollow(torch.empty(1, 3, height, width, device="meta"))
        return int(counter.get_total_flops() // 2)

    @cache
    def of_picture(height: int, width: int) -> int:
        tiles = inference.tiles_for(network, height, width, tile_px)
        return sum(of_tile(tile.bottom - tile.top, tile.right - tile.left) for tile in tiles)

    return round(statistics.fmean(of_picture(*size) for size in sizes))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _give_back_memory() -> None:
    """Return freed memory to the system, which would hide what the next row takes (glibc only)."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):  # musl, Android
            ctypes.CDLL("libc.so.6").malloc_trim(0)


@cache
def _wake_up() -> None:
    """Let torch load what its first convolution needs (10 MiB on Linux), which is no row's."""
    F.conv2d(torch.zeros(1, 8, 64, 64).contiguous(memory_format=torch.channels_last), torch.zeros(8, 8, 3, 3))


def _held(device: torch.device) -> int | None:
    """Return the bytes that are in use now; None where unknown."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else _of_process("VmRSS", device)


def _peak(device: torch.device) -> int | None:
    """Return the most bytes that were in use since `_forget_peak`; None where unknown."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _of_process("VmHWM", device)


def _forget_peak(device: torch.device) -> bool:
    """Let `_peak` begin anew; return whether that was possible."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # proc(5): reset the peak of resident memory
    except OSError:  # not Linux, or not allowed, as in some containers
        return False
    return True


def _of_process(name: str, device: torch.device) -> int | None:
    if device.type != "cpu":
        return None
    try:
        with open("/proc/self/status") as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
        return int(lines[name].split()[0]) * 1024
    except (OSError, KeyError):  # not Linux
        return None
