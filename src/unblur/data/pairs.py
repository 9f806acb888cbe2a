"""Pairs of blurred and sharp pictures, for training and for scoring.

Either two folders with the same names, or sharp pictures alone, which are blurred by a recipe on the device, or windows
of sharp frames (`data.windows`), which blur by themselves. For training, a sample is addressed by its position in an
endless, seeded series: position -> epoch and place -> picture, crop and flips. Nothing else is random, so the same seed
gives the same samples whatever the number of workers and processes, and a training that stopped after n samples goes on
with sample n.
"""

import random
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, default_collate, get_worker_info

from unblur.blur.kernels import inside
from unblur.blur.recipes import Recipe, blur_batch, blur_windows, sample_seed
from unblur.data.patches import chosen_place
from unblur.data.sources import Pair, Picture, Pixels, Window, as_picture, first_ten, place_of
from unblur.errors import DataError, PhotoError
from unblur.images import find_photos

CACHE_BYTES = 3 * 1024**3
"""Decoded pictures of a series of samples are kept up to this size, by all processes of a loader together."""

MAX_BAD_PICTURES = 10
"""So many pictures that cannot be read are skipped, in each process that loads; with one more the loading stops."""

Item = TypeVar("Item", bound="Path | Picture | Pair | Window")


@dataclass(frozen=True)
class PhotoPair:
    """The files of one pair and the name they share (relative to their folders, without suffix)."""

    name: str
    blurred: Path
    sharp: Path


def hold_out(items: Sequence[Item], share: float) -> tuple[list[Item], list[Item]]:
    """Return (pictures to train on, pictures held out for choosing): files, pictures, pairs or windows, in their order.

    The name alone decides, so that adding pictures moves none of the others. Detail tiles (`NAME_t0_576.jpg`) go with
    the photograph they were cut from, and numbered frames of one folder (`SCENE/000047`, `CLIP/00_07`) all go together.
    """
    kept: list[Item] = []
    held: list[Item] = []
    for item in items:
        (held if place_of(_group(item)) / 2**56 < share else kept).append(item)
    return kept, held


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
        raise DataError(f"{len(lonely)} files have no partner of the same name: {first_ten(lonely)}")
    return [PhotoPair(name, left[name], right[name]) for name in sorted(left)]


def resized(picture: Pixels, size: tuple[int, int] | None) -> Pixels:
    """Return an 8-bit picture (H, W, 3) reduced to `size` (width, height) by area, its aspect not kept; None leaves
    it.
    """
    if size is None or (picture.shape[1], picture.shape[0]) == size:
        return picture
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def to_batch(pictures: Sequence[Pixels]) -> Tensor:
    """Return 8-bit pictures of one size (H, W, 3) as a uint8 batch (B, 3, H, W)."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


class Cut(NamedTuple):
    """What is taken of a picture: a square, how it is turned, and the seed of its blur."""

    top: int
    left: int
    side: int
    """Of the square within the picture; 0 takes the whole picture."""
    mirrored: bool
    upside_down: bool
    swapped: bool
    """Rows and columns change places, after the flips."""


class TrainingCrops(Dataset[dict[str, Any]]):
    """Samples by position: {"sharp": uint8 (3, S, S), "name", "seed"} and, from pairs, "blurred" of the same crop.

    `items` holds (blurred or None, sharp): files or pictures; or windows, whose samples have "frames" (T, 3, S, S) of
    the same crop in place of "sharp". `crop_px` None takes whole pictures, which must then be of one size.
    `crops_per_picture`: so many samples that follow each other are cut from one picture, which is decoded once for
    them; an epoch is longer by that factor.
    `shrink` (lowest, highest): crops are cut larger by such a factor and reduced by area, which makes them sharper.
    `margin_px` is added around sharp crops, so that a recipe's blur has real surroundings; whoever blurs cuts it off.
    `max_ssim`: of up to `max_tries` random crops of a pair the first one whose two pictures are less alike than this
    is taken (SSIM, `patches.patch_ssim`), or else the last one.

    A picture that cannot be read is named in a warning and replaced by the next one, up to `MAX_BAD_PICTURES`; then a
    `DataError` lists them.
    """

    _cache: dict[Pair | Window, list[Pixels]]
    _last: dict[Pair | Window, list[Pixels]]  # the one that was read last: the next crop may be of the same
    _bad: dict[Pair | Window, str]
    _cached_bytes: int
    _order: tuple[int, list[int]]  # the epoch and the order of its items

    def __init__(
        self,
        items: Sequence[tuple[Path | Picture | None, Path | Picture] | Window],
        *,
        seed: int,
        crop_px: int | None,
        margin_px: int = 0,
        resize: tuple[int, int] | None = None,
        shrink: tuple[float, float] = (1.0, 1.0),
        flips: bool = False,
        rotations: bool = False,
        crops_per_picture: int = 1,
        max_ssim: float | None = None,
        max_tries: int = 10,
    ) -> None:
        self.items = [item if isinstance(item, Window) else _as_pair(*item) for item in items]
        both = all(isinstance(item, Pair) and item.blurred is not None for item in self.items)
        if max_ssim is not None and (crop_px is None or not both):
            raise ValueError("max_ssim chooses crops of pairs: give crop_px, and pairs with a blurred picture")
        if crops_per_picture < 1 or max_tries < 1:
            raise ValueError(f"crops_per_picture {crops_per_picture} and max_tries {max_tries} must be 1 or more")
        self.seed = seed
        self.crop_px, self.margin_px, self.resize = crop_px, margin_px if crop_px else 0, resize
        self.shrink, self.flips, self.rotations = shrink, flips, rotations
        self.crops_per_picture, self.max_ssim, self.max_tries = crops_per_picture, max_ssim, max_tries
        self._forget()

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Return the sample at a position of the endless series."""
        item, pictures = self._readable(self.index_at(position))
        cut = self.cut_at(position, pictures)
        pieces = [_turned(piece, cut) for piece in self._pieces(pictures, cut)]
        return {**named_sides(item, pieces), "name": item.name, "seed": self.seed_at(position)}

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs: not the decoded pictures."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_cache", "_last", "_bad")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin with an empty cache."""
        self.__dict__.update(state)
        self._forget()

    @property
    def side_px(self) -> int:
        """The side of a sample, its margin included; 0 where whole pictures are taken."""
        return self.crop_px + 2 * self.margin_px if self.crop_px else 0

    def seed_at(self, position: int) -> int:
        """Return the seed of the sample at a position: of its cut and of its blur."""
        return sample_seed(self.seed, position)

    def index_at(self, position: int) -> int:
        """Return which of the items the sample at a position is cut from: every epoch in another order."""
        epoch, place = divmod(position // self.crops_per_picture, len(self.items))
        if self._order[0] != epoch:
            order = list(range(len(self.items)))
            random.Random(sample_seed(self.seed, -1 - epoch)).shuffle(order)
            self._order = (epoch, order)
        return self._order[1][place]

    def cut_at(self, position: int, pictures: Sequence[Pixels]) -> Cut:
        """Return what the sample at a position takes of its pictures, sharp one first, all of one size."""
        choose = random.Random(self.seed_at(position))
        top = left = cut = 0
        if self.crop_px:
            height, width = (max(length, self.side_px) for length in pictures[0].shape[:2])

            def draw() -> tuple[int, int, int]:
                side = max(self.side_px, min(round(self.side_px * choose.uniform(*self.shrink)), height, width))
                return choose.randint(0, height - side), choose.randint(0, width - side), side

            if self.max_ssim is None:
                top, left, cut = draw()
            else:
                top, left, cut = chosen_place(
                    (draw() for _ in range(self.max_tries)),
                    lambda place: self._pieces(pictures, Cut(*place, False, False, False)),
                    self.max_ssim,
                )
        mirrored, upside_down, swapped = (
            allowed and choose.random() < 0.5 for allowed in (self.flips, self.flips, self.rotations)
        )
        return Cut(top, left, cut, mirrored, upside_down, swapped)

    def _pieces(self, pictures: Sequence[Pixels], cut: Cut) -> list[Pixels]:
        if not cut.side:
            return list(pictures)
        rows, columns = slice(cut.top, cut.top + cut.side), slice(cut.left, cut.left + cut.side)
        size = (self.side_px, self.side_px)
        return [resized(_at_least(picture, self.side_px)[rows, columns], size) for picture in pictures]

    def _readable(self, index: int) -> tuple[Pair | Window, list[Pixels]]:
        """Return an item and its pictures: that of the index, or the next one that can be read."""
        for step in range(len(self.items)):
            item = self.items[(index + step) % len(self.items)]
            if item in self._bad:
                continue
            try:
                return item, self._kept(item)
            except PhotoError as error:
                self._bad[item] = str(error)
                if len(self._bad) > MAX_BAD_PICTURES:
                    break
                warnings.warn(f"skipped, the next picture takes its place: {error}", stacklevel=2)
        listed = "\n  ".join(sorted(self._bad.values()))
        raise DataError(f"{len(self._bad)} pictures cannot be read; mend or remove them:\n  {listed}")

    def decoded(self, item: Pair | Window) -> list[Pixels]:
        """Return the pictures of a pair, sharp one first, or of a window, of one size, reduced to `resize`; they are
        read anew.
        """
        pictures = [resized(picture.read(), self.resize) for picture in item.pictures]
        for picture, pixels in zip(item.pictures, pictures, strict=True):
            if pixels.shape != pictures[0].shape:
                first, other = (f"{shape[1]}x{shape[0]}" for shape in (pictures[0].shape, pixels.shape))
                kind = "window" if isinstance(item, Window) else "pair"
                files = f"{item.pictures[0]} is {first}, {picture} {other}"
                raise DataError(f"The {kind} '{item.name}' differs in size: {files}.")
        return pictures

    def _kept(self, item: Pair | Window) -> list[Pixels]:
        """Return the pictures of an item, from the cache where they are in it."""
        pictures = self._cache.get(item) or self._last.get(item)
        if pictures is None:
            pictures = self.decoded(item)
            worker = get_worker_info()
            num_bytes = sum(picture.nbytes for picture in pictures)
            if self._cached_bytes + num_bytes <= CACHE_BYTES // (worker.num_workers if worker else 1):
                self._cache[item] = pictures
                self._cached_bytes += num_bytes
            self._last = {item: pictures}
        return pictures

    def _forget(self) -> None:
        self._cache, self._last, self._bad = {}, {}, {}
        self._cached_bytes, self._order = 0, (-1, [])


class Positions(Sampler[int]):
    """The positions from `start` to `stop` in order: the sampler of `TrainingCrops`.

    Of several processes that train together each takes every `world_size`-th position, beginning with its `rank`, so
    that their batches of one step together are those of one process with a batch as large.
    """

    def __init__(self, start: int, stop: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.start, self.stop = start, stop
        self._positions = range(start + rank, stop, world_size)

    def __iter__(self) -> Iterator[int]:
        """Iterate over the positions."""
        return iter(self._positions)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._positions)


def named_sides(item: Pair | Window, sides: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the pieces of an item's pictures, (..., 3, S, S), as samples name them: those of a window in one stack."""
    if isinstance(item, Window):
        return {"frames": torch.stack(list(sides), dim=-4)}
    return dict(zip(("sharp", "blurred"), sides, strict=False))


def collated(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return samples as a batch whose pictures lie channels-last in memory, as they are decoded and as networks are
    trained.
    """
    rest = default_collate([{key: sample[key] for key in ("name", "seed")} for sample in samples])
    kinds = [key for key in ("sharp", "blurred", "frames") if key in samples[0]]
    return rest | {
        kind: torch.stack([sample[kind].movedim(-3, -1) for sample in samples]).movedim(-1, -3) for kind in kinds
    }


def complete_batch(
    samples: dict[str, Any], recipe: Recipe | None, margin_px: int, *, clips: bool = False
) -> dict[str, Any]:
    """Return collated samples as a batch: `blurred` and `sharp` (B, 3, H, W) float32 in [0, 1], and `name`.

    Runs on the samples' device: blurs by the recipe where there are no blurred pictures, and cuts the margin off. With
    `clips` a batch of windows also has all their frames, `clip` (B, T, 3, H, W).
    """
    if "frames" in samples:
        assert recipe is not None
        frames = samples["frames"].float() / 255
        blurred, sharp = blur_windows(frames, recipe, samples["seed"].tolist())
        return {"blurred": blurred, "sharp": sharp, "name": samples["name"], **({"clip": frames} if clips else {})}
    sharp = samples["sharp"].float().div_(255)
    if recipe is None:
        return {"blurred": samples["blurred"].float().div_(255), "sharp": sharp, "name": samples["name"]}
    blurred = blur_batch(sharp, recipe, samples["seed"].tolist(), margin_px=margin_px)
    return {"blurred": blurred, "sharp": inside(sharp, margin_px), "name": samples["name"]}


def _as_pair(blurred: Path | Picture | None, sharp: Path | Picture) -> Pair:
    return Pair(None if blurred is None else as_picture(blurred), as_picture(sharp))


FLIPS = {(True, False): 1, (False, True): 0, (True, True): -1}
"""OpenCV's numbers for (mirrored, upside down)."""


def _turned(piece: Pixels, cut: Cut) -> Tensor:
    """Return a piece as a tensor (3, S, S) that shares no memory with it, flipped as the cut says."""
    if cut.mirrored or cut.upside_down:
        piece = np.asarray(cv2.flip(piece, FLIPS[cut.mirrored, cut.upside_down]), dtype=np.uint8)
    if cut.swapped:
        piece = np.asarray(cv2.transpose(piece), dtype=np.uint8)
    return torch.from_numpy(np.array(piece, order="C")).permute(2, 0, 1)


def _at_least(picture: Pixels, side: int) -> Pixels:
    """Return the picture, reflected at the right and the bottom where it is smaller than `side`."""
    missing = [(0, max(0, side - length)) for length in picture.shape[:2]]
    return np.pad(picture, (*missing, (0, 0)), mode="reflect") if any(m for _, m in missing) else picture


def _group(item: Path | Picture | Pair | Window) -> str:
    """Return what decides whether a picture is held out: its own name, or its folder's if it is one frame of many."""
    if isinstance(item, Path):
        folder, name = "", item.stem
    else:
        folder, _, name = item.name.rpartition("/")
    is_frame = folder and re.fullmatch(r"(blur_|gt_)?\d+(_\d+)?", name)
    return folder if is_frame else re.sub(r"_t\d+(_\d+)?$", "", name)


def _by_name(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in find_photos(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            raise DataError(f"{files[name]} and {path} have the same name; pairs are made by name without suffix.")
        files[name] = path
    return files
