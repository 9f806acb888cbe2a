"""Goldens: what the authors' code returns with weights that a formula fills in, so that no weights need to be stored.

A golden is a `.safetensors` file with `inputN` and `outputN`; its metadata has the gain of the formula and the noise
floor of the authors' own float32. The formula is "fill rule v1".
"""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn


@dataclass(frozen=True)
class Golden:
    """One file: pairs of input and expected output, how the weights are filled and how exact the output can be."""

    config: dict[str, Any]
    gain: float
    tolerance: float
    cases: tuple[tuple[Tensor, Tensor], ...]


def read_golden(path: Path) -> Golden:
    with safe_open(path, framework="pt") as file:
        facts = file.metadata()
        names = sorted(name for name in file.keys() if name.startswith("input"))  # noqa: SIM118 (it is no dict)
        cases = tuple((file.get_tensor(name), file.get_tensor(name.replace("input", "output"))) for name in names)
    floor = max(json.loads(facts["float32_vs_float64_max_abs_diff"]).values(), default=0.0)
    return Golden(json.loads(facts["config"]), float(facts["gain"]), max(2e-5, 10 * floor), cases)


def fill(model: nn.Module, gain: float = 0.7) -> nn.Module:
    """Set every parameter and running statistic by the rule; return the model, in eval mode."""
    parameters = {
        name for name, _ in model.named_parameters(remove_duplicate=False)
    }  # of several names the last decides
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if key in parameters or key.endswith(("running_mean", "running_var")):
                value.copy_(torch.from_numpy(fill_value(key, tuple(value.shape), gain)))
    return model.eval()


def fill_value(key: str, shape: tuple[int, ...], gain: float) -> np.ndarray:
    """Return the values of the tensor `key`: even noise from a 32-bit hash of key and place, scaled by the fan-in."""
    count = int(np.prod(shape))
    h = (np.arange(count, dtype=np.uint64) * 2654435761 + zlib.crc32(key.encode())) % (1 << 32)
    h ^= h >> 16
    h = h * 0x7FEB352D % (1 << 32)
    h ^= h >> 15
    h = h * 0x846CA68B % (1 << 32)
    h ^= h >> 16
    even = (h.astype(np.float64) / 2**31 - 1.0).reshape(shape)  # [-1, 1)
    leaf = key.split(".")[-1]
    if leaf == "running_var":
        value = 1.0 + 0.5 * np.abs(even)
    elif leaf == "running_mean":
        value = 0.1 * even
    elif len(shape) <= 1:
        value = 0.1 * even if "bias" in leaf else 1.0 + 0.5 * even
    else:
        value = gain * np.sqrt(3.0 * shape[0] / count) * even
    return value.astype(np.float32)
