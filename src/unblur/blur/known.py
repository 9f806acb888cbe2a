"""Known kernels: files of kernels that others measured or drew, so that a recipe can name them."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unblur.errors import DataError, MissingExtra, PhotoError
from unblur.images import read_photo

KERNEL_SUFFIXES = (".npy", ".png", ".mat")


def find_kernels(path: str, folder: Path) -> Path:
    """Return where the kernels that a recipe in `folder` names lie: at an absolute path, below that folder, or below
    the folder of the data sets (UNBLUR_DATA). `DataError` where they are in none of them.
    """
    roots = [folder, *(Path(root) for root in [os.environ.get("UNBLUR_DATA")] if root)]
    places = [(root / path).absolute() for root in roots]
    for place in places:
        if place.exists():
            return place
    looked = " or ".join(str(place) for place in dict.fromkeys(places))
    raise DataError(f"No kernels at {looked}; give a path from the recipe's own folder or from $UNBLUR_DATA.")


@cache
def read_kernels(path: str) -> Tensor:
    """Return all kernels of a file or of a folder's files in the order of their names, (N, size, size), size odd.

    Files are .npy (a kernel (h, w) or several (n, h, w)), .png (grey values) and, with SciPy, .mat (every matrix in it,
    cells too). Each kernel is scaled to the sum 1 and shifted by whole pixels so that its centre of mass is in the
    middle of the square: a kernel must blur and not move. Raises `DataError` for what is no kernel.
    """
    place = Path(path)
    files = sorted(f for f in place.iterdir() if f.suffix.lower() in KERNEL_SUFFIXES) if place.is_dir() else [place]
    kernels = [_centred(array, file) for file in files for array in _arrays(file)]
    if not kernels:
        raise DataError(f"{path} holds no kernels ({', '.join(KERNEL_SUFFIXES)}).")
    size = max(len(kernel) for kernel in kernels)
    margins = [(size - len(kernel)) // 2 for kernel in kernels]
    return torch.stack([F.pad(kernel, (margin,) * 4) for kernel, margin in zip(kernels, margins, strict=True)])


def name_of(path: str) -> str:
    """Return what tables call the kernels of a file or folder."""
    return Path(path).stem


def _arrays(file: Path) -> Iterator[np.ndarray[Any, Any]]:
    try:
        if file.suffix.lower() == ".npy":
            array = np.load(file, allow_pickle=False)
            yield from array if array.ndim == 3 else [array]
        elif file.suffix.lower() == ".mat":
            yield from _matrices(file)
        else:
            yield read_photo(file).rgb.double().mean(dim=0).numpy()
    except (OSError, ValueError, PhotoError) as error:
        raise DataError(f"{file} cannot be read as a kernel: {error}") from None


def _matrices(file: Path) -> Iterator[np.ndarray[Any, Any]]:
    try:
        from scipy.io import loadmat
    except ImportError:
        raise MissingExtra("Reading .mat files", "classical") from None
    for name, value in loadmat(file).items():
        if not name.startswith("__"):
            yield from value.ravel() if value.dtype == object else [value]


def _centred(array: np.ndarray[Any, Any], file: Path) -> Tensor:
    """Return the kernel in a square with its centre of mass within half a pixel of the middle."""
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise DataError(f"{file} holds {array.dtype} of shape {array.shape}; a kernel has two dimensions of numbers.")
    kernel = torch.from_numpy(array.astype(np.float64))
    total = float(kernel.sum())
    if not (torch.isfinite(kernel).all() and kernel.min() >= 0 and total > 0):
        raise DataError(f"{file} is no kernel: its values must be finite, not negative, and not all 0.")
    kernel = kernel / total
    lit_rows, lit_columns = (torch.nonzero(kernel.sum(dim=axis)).flatten() for axis in (1, 0))
    rows = slice(int(lit_rows[0]), int(lit_rows[-1]) + 1)
    columns = slice(int(lit_columns[0]), int(lit_columns[-1]) + 1)
    lit = kernel[rows, columns]
    middle = [
        round(float((lit.sum(dim=axis) * torch.arange(lit.shape[1 - axis])).sum())) for axis in (1, 0)
    ]  # row and column of the centre of mass
    radius = max(max(m, n - 1 - m) for m, n in zip(middle, lit.shape, strict=True))
    top, left = radius - middle[0], radius - middle[1]
    side = 2 * radius + 1
    return F.pad(lit, (left, side - lit.shape[1] - left, top, side - lit.shape[0] - top)).float()
