"""CIFAR-10, 32×32 pictures by index, from the archives as they are: nothing is unpacked or prepared.

Three layouts, in the set's folder or in the subfolder that the archive makes:

    cifar-10-batches-py/   data_batch_1 ... data_batch_5, test_batch                  pickles of 10,000 pictures
    cifar-10-batches-bin/  data_batch_1.bin ... data_batch_5.bin, test_batch.bin      a label, 1024 R, 1024 G, 1024 B
    train_exact.webp, test_exact.webp    lossless atlases of some of the pictures, 64 a row; `exact_labels.npz` has the
                                         original index of each

Pickles can hold code; ours are read by an unpickler that knows arrays and nothing else.
"""

import pickle
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from unblur.data.sources import Pixels
from unblur.errors import DataError, PhotoError
from unblur.images import read_rgb8

SIDE = 32
IN_A_ROW = 64
RECORD_BYTES = 1 + 3 * SIDE * SIDE
FILES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}


@dataclass(frozen=True)
class CifarPicture:
    """One picture of a file that holds many; `index` counts within the whole split, `row` within the file."""

    path: Path
    row: int
    index: int

    @property
    def name(self) -> str:
        """The index in the split, five digits."""
        return f"{self.index:05d}"

    def __str__(self) -> str:
        return f"{self.path} (picture {self.row})"

    def read(self) -> Pixels:
        """Return the pixels, (32, 32, 3); the file is read once in each process and stays in memory."""
        return _rows(self.path)[self.row].copy()


def cifar_pictures(folder: Path, split: str) -> tuple[list[CifarPicture], dict[Path, str]]:
    """Return (pictures of "train" or "test" by index, files that are damaged and why), of the first layout there is.

    Batches that are missing or damaged leave gaps; the others keep their indices.
    """
    for home in (folder, folder / "cifar-10-batches-py", folder / "cifar-10-batches-bin"):
        for suffix in ("", ".bin"):
            batches = [(place, home / f"{name}{suffix}") for place, name in enumerate(FILES[split])]
            batches = [(place, path) for place, path in batches if path.is_file()]
            if batches:
                return _of_batches(batches)
    atlas = folder / f"{split}_exact.webp"
    if not atlas.is_file():
        return [], {}
    try:
        return [CifarPicture(atlas, row, index) for row, index in enumerate(_indices_of(atlas))], {}
    except (DataError, PhotoError) as error:
        return [], {atlas: str(error)}


def _of_batches(batches: list[tuple[int, Path]]) -> tuple[list[CifarPicture], dict[Path, str]]:
    """Return the pictures of batches, given with their places in the split, and which ones are damaged."""
    pictures: list[CifarPicture] = []
    damaged: dict[Path, str] = {}
    for place, path in batches:
        try:
            pictures += [CifarPicture(path, row, place * 10_000 + row) for row in range(len(_rows(path)))]
        except DataError as error:
            damaged[path] = str(error)
    return pictures, damaged


@lru_cache(maxsize=16)
def _rows(path: Path) -> Pixels:
    """Return all pictures of a file, (N, 32, 32, 3)."""
    if path.suffix == ".webp":
        return _from_atlas(path)
    planes = _from_binary(path) if path.suffix == ".bin" else _from_pickle(path)
    return np.ascontiguousarray(planes.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))


def _from_atlas(path: Path) -> Pixels:
    atlas = read_rgb8(path)
    rows = atlas.shape[0] // SIDE
    tiles = atlas[: rows * SIDE, : IN_A_ROW * SIDE].reshape(rows, SIDE, -1, SIDE, 3)  # (rows, 32, 64, 32, 3)
    return np.ascontiguousarray(tiles.transpose(0, 2, 1, 3, 4).reshape(-1, SIDE, SIDE, 3))


def _indices_of(atlas: Path) -> list[int]:
    """Return the original index of each picture of an atlas, whose last row need not be full."""
    split = atlas.name.partition("_")[0]
    file = atlas.with_name("exact_labels.npz")
    try:
        with np.load(file, allow_pickle=False) as labels:
            indices: list[int] = labels[f"{split}_index"].tolist()
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{file} does not give the original index of each picture of {atlas.name}: {error}") from None
    if len(indices) > len(_rows(atlas)):
        raise DataError(f"{file} names {len(indices)} pictures, {atlas} has room for {len(_rows(atlas))}.")
    return indices


def _from_binary(path: Path) -> Pixels:
    content = np.fromfile(path, np.uint8)
    if content.size == 0 or content.size % RECORD_BYTES:
        raise DataError(f"{path} has {content.size:,} bytes, not a multiple of {RECORD_BYTES}; fetch it again.")
    return content.reshape(-1, RECORD_BYTES)[:, 1:]


def _from_pickle(path: Path) -> Pixels:
    try:
        with open(path, "rb") as file:
            batch: Any = _ArraysOnly(file, encoding="bytes").load()
        data = batch[b"data"]
        if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != RECORD_BYTES - 1:
            raise ValueError(f"its data are {data.dtype} {data.shape}")
    except Exception as error:  # a damaged pickle raises a dozen kinds
        raise DataError(f"{path} is no batch of CIFAR-10 ({error}); fetch it again.") from None
    return np.asarray(data)


class _ArraysOnly(pickle.Unpickler):
    """An unpickler for numpy arrays and plain data; whatever else a pickle wants to call is refused."""

    def find_class(self, module: str, name: str) -> Any:
        reconstruct = np.empty(0).__reduce__()[0]  # its module has moved between versions of numpy
        allowed = {"_reconstruct": reconstruct, "ndarray": np.ndarray, "dtype": np.dtype}
        if module.split(".")[0] == "numpy" and name in allowed:
            return allowed[name]
        if (module, name) == ("_codecs", "encode"):  # how newer Pythons write bytes in the old protocol
            return _encoded
        raise pickle.UnpicklingError(f"it wants to call {module}.{name}")


def _encoded(text: str, encoding: str) -> bytes:
    return text.encode("latin1")
