"""Pairs of blurred and sharp pictures, for training and for scoring.

Either two folders with the same names, or sharp pictures alone, which are blurred by a recipe on the device. For
training, a sample is addressed by its position in an endless, seeded series: position -> epoch and place -> picture,
crop and flips. Nothing else is random, so the same seed gives the same samples whatever the number of workers, and a
training that stopped after n samples goes on with sample n.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from unblur.blur.recipes import Recipe, blur_batch, sample_seed
from unblur.errors import DataError
from unblur.images import find_photos, read_rgb8

CACHE_BYTES = 3 * 1024**3
"""Decoded pictures are kept up to this size, in each process that loads."""

Picture = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class PhotoPair:
    """The files of one pair and the name they share (relative to their folders, without suffix)."""

    name: str
    blurred: Path
    sharp: Path


def sharp_files(folder: Path) -> list[Path]:
    """Return all photographs below the folder, sorted; `DataError` where there are none."""
    files = find_photos(folder)
    if not files:
        raise DataError(f"{folder} holds no photographs.")
    return files


def hold_out(files: Sequence[Path], share: float) -> tuple[list[Path], list[Path]]:
    """Return (files to train on, files held out for choosing).

    A file's name alone decides, so that adding files moves none of the others. Detail tiles (`NAME_t0_576.jpg`) go with
    the photograph they were cut from.
    """
    kept: list[Path] = []
    held: list[Path] = []
    for path in files:
        (held if _place(re.sub(r"_t\d+(_\d+)?$", "", path.stem)) < share else kept).append(path)
    return kept, held


def paired_files(folder: Path) -> list[PhotoPair]:
    """Return the pairs of `blur/` and `sharp/` (or `input/` and `target/`) below the folder."""
    for blurred, sharp in (("blur", "sharp"), ("input", "target")):
        if (folder / blurred).is_dir() and (folder / sharp).is_dir():
            return matched_files(folder / blurred, folder / sharp)
    raise DataError(f"{folder} holds neither blur/ and sharp/ nor input/ and target/.")


def matched_files(blurred: Path, sharp: Path) -> list[PhotoPair]:
    """Return the pairs of two folders, or of two files: by relative name without suffix, never by position.

    Raises `DataError` that lists the first ten files without a partner, or of one name twice.
    """
    if blurred.is_file() and sharp.is_file():
        return [PhotoPair(blurred.stem, blurred, sharp)]
    for path in (blurred, sharp):
        if not path.exists():
            raise DataError(f"{path} does not exist.")
    for path in (blurred, sharp):
        if not path.is_dir():
            raise DataError(f"{path} is a file; give two folders or two files.")
    left, right = _by_name(blurred), _by_name(sharp)
    if not left and not right:
        raise DataError(f"{blurred} and {sharp} hold no photographs.")
    lonely = [f"{blurred}/{name}" for name in left.keys() - right.keys()]
    lonely += [f"{sharp}/{name}" for name in right.keys() - left.keys()]
    if lonely:
        raise DataError(f"{len(lonely)} files have no partner of the same name: {_first_ten(lonely)}")
    return [PhotoPair(name, left[name], right[name]) for name in sorted(left)]


def resized(picture: Picture, size: tuple[int, int] | None) -> Picture:
    """Return an 8-bit picture (H, W, 3) reduced to `size` (width, height) by area, its aspect not kept; None leaves
    it.
    """
    if size is None or (picture.shape[1], picture.shape[0]) == size:
        return picture
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def to_batch(pictures: Sequence[Picture]) -> Tensor:
    """Return 8-bit pictures of one size (H, W, 3) as a uint8 batch (B, 3, H, W)."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


class TrainingCrops(Dataset[dict[str, Any]]):
    """Samples by position: {"sharp": uint8 (3, S, S), "name", "seed"} and, from pairs, "blurred" of the same crop.

    `pairs` holds (blurred or None, sharp) files. `crop_px` None takes whole pictures, which must then be of one size.
    `shrink` (lowest, highest): crops are cut larger by such a factor and reduced by area, which makes them sharper.
    `margin_px` is added around sharp crops, so that a recipe's blur has real surroundings; whoever blurs cuts it off.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Path | None, Path]],
        *,
        seed: int,
        crop_px: int | None,
        margin_px: int = 0,
        resize: tuple[int, int] | None = None,
        shrink: tuple[float, float] = (1.0, 1.0),
        flips: bool = False,
        rotations: bool = False,
    ) -> None:
        self.pairs, self.seed = list(pairs), seed
        self.crop_px, self.margin_px, self.resize = crop_px, margin_px if crop_px else 0, resize
        self.shrink, self.flips, self.rotations = shrink, flips, rotations
        self._cache: dict[Path, Picture] = {}
        self._cached_bytes = 0
        self._order: tuple[int, list[int]] = (-1, [])

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Return the sample at a position of the endless series."""
        seed = sample_seed(self.seed, position)
        choose = random.Random(seed)
        blurred_file, sharp_file = self.pairs[self._picture_at(position)]
        files = [sharp_file] if blurred_file is None else [sharp_file, blurred_file]
        pictures = [self._read(path) for path in files]
        if len({picture.shape for picture in pictures}) > 1:
            raise DataError(f"{files[0]} and {files[1]} differ in size: {pictures[0].shape} and {pictures[1].shape}")
        if self.crop_px:
            side = self.crop_px + 2 * self.margin_px
            pictures = [_at_least(picture, side) for picture in pictures]
            height, width = pictures[0].shape[:2]
            cut = max(side, min(round(side * choose.uniform(*self.shrink)), height, width))
            top, left = choose.randint(0, height - cut), choose.randint(0, width - cut)
            pictures = [resized(p[top : top + cut, left : left + cut], (side, side)) for p in pictures]
        if self.flips and choose.random() < 0.5:
            pictures = [picture[:, ::-1] for picture in pictures]
        if self.flips and choose.random() < 0.5:
            pictures = [picture[::-1] for picture in pictures]
        if self.rotations and choose.random() < 0.5:
            pictures = [picture.swapaxes(0, 1) for picture in pictures]
        tensors = [torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1) for picture in pictures]
        sample: dict[str, Any] = {"sharp": tensors[0], "name": sharp_file.stem, "seed": seed}
        if blurred_file is not None:
            sample["blurred"] = tensors[1]
        return sample

    def _picture_at(self, position: int) -> int:
        epoch, place = divmod(position, len(self.pairs))
        if self._order[0] != epoch:
            order = list(range(len(self.pairs)))
            random.Random(sample_seed(self.seed, -1 - epoch)).shuffle(order)
            self._order = (epoch, order)
        return self._order[1][place]

    def _read(self, path: Path) -> Picture:
        picture = self._cache.get(path)
        if picture is None:
            picture = resized(read_rgb8(path), self.resize)
            if self._cached_bytes + picture.nbytes <= CACHE_BYTES:
                self._cache[path] = picture
                self._cached_bytes += picture.nbytes
        return picture


class Positions(Sampler[int]):
    """The positions from `start` to `stop` in order: the sampler of `TrainingCrops`."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop

    def __iter__(self) -> Iterator[int]:
        """Iterate over the positions."""
        return iter(range(self.start, self.stop))

    def __len__(self) -> int:
        """Return how many there are."""
        return self.stop - self.start


def complete_batch(samples: dict[str, Any], recipe: Recipe | None, margin_px: int) -> dict[str, Any]:
    """Return collated samples as a batch: `blurred` and `sharp` (B, 3, H, W) float32 in [0, 1], and `name`.

    Runs on the samples' device: blurs by the recipe where there are no blurred pictures, and cuts the margin off.
    """
    sharp = samples["sharp"].float() / 255
    if recipe is None:
        return {"blurred": samples["blurred"].float() / 255, "sharp": sharp, "name": samples["name"]}
    blurred = blur_batch(sharp, recipe, samples["seed"].tolist())
    inside = (..., slice(margin_px, -margin_px or None), slice(margin_px, -margin_px or None))
    return {"blurred": blurred[inside], "sharp": sharp[inside], "name": samples["name"]}


def _at_least(picture: Picture, side: int) -> Picture:
    """Return the picture, reflected at the right and the bottom where it is smaller than `side`."""
    missing = [(0, max(0, side - length)) for length in picture.shape[:2]]
    return np.pad(picture, (*missing, (0, 0)), mode="reflect") if any(m for _, m in missing) else picture


def _place(name: str) -> float:
    """Return a number in [0, 1) that depends on the name alone."""
    return sample_seed(0, int.from_bytes(name.encode(), "big")) / 2**56


def _by_name(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in find_photos(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            raise DataError(f"{files[name]} and {path} have the same name; pairs are made by name without suffix.")
        files[name] = path
    return files


def _first_ten(names: list[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
