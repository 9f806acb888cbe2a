"""Photographs and windows of frames in one series of samples, a stated share of them windows.

Which of both a position takes is decided by the position alone, and each kind goes through its own series in order, so
that an epoch of photographs still has every one of them once. Batches differ in shape until they are blurred, for
photographs have a margin and windows have frames; they are therefore collated by kind and put in order afterwards.
"""

import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from unblur.blur.recipes import Recipe, sample_seed
from unblur.data.pairs import TrainingCrops, collated, complete_batch

BLOCK = 20
"""In so many positions the share is kept as nearly as whole numbers can; their order in it is random."""


@dataclass(frozen=True)
class Order:
    """Which positions of a series are windows, and which photograph or window of its own series each is."""

    share: float
    """Of the windows, below 1."""
    seed: int

    def at(self, position: int) -> tuple[bool, int]:
        """Return whether the sample at a position is a window, and its position among those of its kind."""
        block, place = divmod(position, BLOCK)
        before, until = (round(self.share * BLOCK * count) for count in (block, block + 1))
        # Not evenly spaced: of two processes that take every second position one would have all the windows.
        places = sorted(random.Random(sample_seed(self.seed, block)).sample(range(BLOCK), until - before))
        earlier = bisect_left(places, place)
        if place in places:
            return True, before + earlier
        return False, position - before - earlier


class MixedCrops(Dataset[dict[str, Any]]):
    """Samples of both by position; each is that of its own `TrainingCrops`."""

    def __init__(self, photographs: TrainingCrops, windows: TrainingCrops, share: float, seed: int) -> None:
        self.photographs, self.windows, self.order = photographs, windows, Order(share, seed)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Return the sample at a position of the endless series."""
        is_window, place = self.order.at(position)
        return (self.windows if is_window else self.photographs)[place]


def collated_by_kind(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return samples of `MixedCrops` as a batch, see `mixed`."""
    photographs, windows = ([sample for sample in samples if ("frames" in sample) is kind] for kind in (False, True))
    return mixed(
        ["frames" in sample for sample in samples],
        collated(photographs) if photographs else None,
        collated(windows) if windows else None,
    )


def mixed(
    are_windows: Sequence[bool], photographs: dict[str, Any] | None, windows: dict[str, Any] | None
) -> dict[str, Any]:
    """Return {"photographs", "windows", "order"}: collated samples of each kind, and where each sample of the batch is
    among them, photographs first. A kind that has none is left out.
    """
    order = torch.tensor(are_windows, dtype=torch.uint8).argsort(stable=True).argsort()
    parts = {"photographs": photographs, "windows": windows}
    return {name: part for name, part in parts.items() if part is not None} | {"order": order}


def complete_mixture(samples: dict[str, Any], recipe: Recipe | None, margin_px: int) -> dict[str, Any]:
    """Return a batch of both as `complete_batch` does, in the order of the positions."""
    parts = [complete_batch(samples[k], recipe, margin_px) for k in ("photographs", "windows") if k in samples]
    order: Tensor = samples["order"]
    names = [name for part in parts for name in part["name"]]
    batch = {key: torch.cat([part[key] for part in parts])[order] for key in ("blurred", "sharp")}
    return {**batch, "name": [names[place] for place in order.tolist()]}
