"""What a metric takes and what it refuses, before anything is computed.

Torch tensors (C, H, W) or (B, C, H, W), or numpy arrays (H, W) or (H, W, C); C is 1 or 3; float, uint8 or uint16.
`data_range` is the distance from black to white: 1 for our tensors, 255 for uint8, 65535 for uint16. Pictures that
cannot be meant so are refused with a `ValueError`: a wrong peak shifts every PSNR by the same amount (48 dB for
255 in place of 1), and nothing in the result shows it.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

Picture = Tensor | np.ndarray[Any, Any]

Score = Callable[[Tensor, Tensor, float], float]
"""A formula for one pair: two (C, H, W) tensors of any dtype on the CPU, and their white."""


def scores(score: Score, restored: Picture, sharp: Picture, data_range: float) -> float | Tensor:
    """Return `score` of each picture, once it is certain that the two can be compared.

    A single picture gives a float, a batch a (B,) float64 tensor with one value a picture.
    """
    white = float(data_range)
    if not (math.isfinite(white) and white > 0):
        raise ValueError(
            f"data_range is {data_range}; it is the distance from black to white, such as 1, 255 or 65535."
        )
    restored_kind, sharp_kind = _kind(restored), _kind(sharp)
    if isinstance(restored, Tensor) != isinstance(sharp, Tensor):
        raise ValueError("One picture is a torch tensor, the other is not; give two of the same kind.")
    if tuple(restored.shape) != tuple(sharp.shape):
        raise ValueError(f"The restored picture is {tuple(restored.shape)}, the sharp one {tuple(sharp.shape)}.")
    if restored_kind != sharp_kind:
        raise ValueError(f"The restored picture is {restored.dtype}, the sharp one {sharp.dtype}; convert one of them.")
    restored_batch, sharp_batch = _as_batch(restored), _as_batch(sharp)
    for name, batch in (("restored", restored_batch), ("sharp", sharp_batch)):
        _check_range(name, batch, restored_kind, white)
    values = [score(a, b, white) for a, b in zip(restored_batch, sharp_batch, strict=True)]
    is_batch = isinstance(restored, Tensor) and restored.ndim == 4
    return torch.tensor(values, dtype=torch.float64) if is_batch else values[0]


def _kind(picture: Picture) -> str:
    """Return "uint8", "uint16" or "float"; floats of all widths compare with each other."""
    if isinstance(picture, Tensor):
        kind = "float" if picture.is_floating_point() else str(picture.dtype).removeprefix("torch.")
    elif isinstance(picture, np.ndarray):
        kind = "float" if picture.dtype.kind == "f" else picture.dtype.name
    else:
        raise ValueError(f"A picture is a torch tensor or a numpy array, not {type(picture).__name__}.")
    if kind not in ("float", "uint8", "uint16"):
        raise ValueError(f"A picture holds float, uint8 or uint16 values, not {kind}; convert it first.")
    return kind


def _as_batch(picture: Picture) -> Tensor:
    """Return the picture or batch as (B, C, H, W) on the CPU, without a copy where its dtype allows."""
    shape = tuple(picture.shape)
    if isinstance(picture, Tensor):
        if len(shape) not in (3, 4) or shape[-3] not in (1, 3):
            raise ValueError(f"A tensor is (C, H, W) or (B, C, H, W) with 1 or 3 channels, not {shape}.")
        batch = picture.detach().cpu().reshape(-1 if picture.numel() else 0, *shape[-3:])
    else:
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
            raise ValueError(f"An array is (H, W) or (H, W, C) with 1 or 3 channels, not {shape}.")
        # torch shares memory only with arrays that are contiguous, writable and in the machine's byte order.
        array = np.require(picture, _torch_dtype(picture.dtype), ["C_CONTIGUOUS", "WRITEABLE"])
        batch = torch.from_numpy(array.reshape(1, *shape[:2], -1 if array.size else 1)).permute(0, 3, 1, 2)
    if batch.numel() == 0:
        raise ValueError(f"The pictures are empty: {shape}.")
    return batch.int() if batch.dtype == torch.uint16 else batch  # torch knows hardly any operation on uint16


def _torch_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float64) if dtype.itemsize > 8 else dtype.newbyteorder("=")


def _check_range(name: str, batch: Tensor, kind: str, white: float) -> None:
    """Refuse values that cannot be meant with this white: they would give a score that looks well and is wrong."""
    if kind != "float":
        highest_possible = 255 if kind == "uint8" else 65535
        if white != highest_possible:
            raise ValueError(f"{kind} pictures need data_range={highest_possible}, not {white:g}.")
        return
    low, high = (float(value) for value in torch.aminmax(batch))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"The {name} picture holds values that are not finite (NaN or infinity).")
    if low <= -0.5 * white or high >= 1.5 * white:
        raise ValueError(
            f"The {name} picture has values from {low:g} to {high:g}, far outside [0, {white:g}]. "
            "Give the data_range that is meant, or undo the normalisation first."
        )
    if white >= 255 and low >= 0 and high <= 1 and not torch.equal(batch, batch.round()):
        raise ValueError(
            f"The {name} picture lies within [0, 1] (highest value {high:g}), so data_range={white:g} "
            "would add 48 dB or more that are not there; use data_range=1."
        )
