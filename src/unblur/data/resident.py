"""A whole data set on the device as bytes, where it fits: nothing is decoded or sent there during the training.

The 915 photographs of half a megapixel that a small network learns from are 1.2 GB; a GPU has that to spare, and then
a training step never waits for a disk or a worker. The samples are those of `TrainingCrops`, by position.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unblur.data.mixture import MixedCrops, mixed
from unblur.data.pairs import Cut, TrainingCrops, named_sides
from unblur.data.sources import Pixels
from unblur.errors import DataError, PhotoError

THREADS = 8


class ResidentCrops:
    """Batches of `TrainingCrops`, cut from pictures that lie on the device.

    Equal to the collated samples, save that pieces which are reduced (`shrink`) may differ by one level of 255 in
    rounding. `load` makes it.
    """

    def __init__(self, samples: TrainingCrops, pictures: Sequence[Sequence[Tensor]]) -> None:
        self.samples, self.pictures = samples, pictures
        # A picture of that size which takes no memory: which crop is taken depends on its size alone.
        self._shapes = [torch.empty((), dtype=torch.uint8).expand(*p[0].shape[1:], 3).numpy() for p in pictures]

    @classmethod
    def load(
        cls, samples: TrainingCrops, device: torch.device | str, max_bytes: int | None = None
    ) -> "ResidentCrops | None":
        """Return the pictures of all samples on the device; None where they take more than `max_bytes`.

        Without `max_bytes` a GPU gives half of what it has free, another device takes all. Raises `DataError` that
        lists what cannot be read, and `ValueError` for samples chosen by SSIM, which is computed elsewhere.
        """
        if samples.max_ssim is not None:
            raise ValueError("patches that are chosen by SSIM cannot be cut on the device; leave max_ssim out")
        device = torch.device(device)
        if max_bytes is None:
            max_bytes = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else 2**63
        taken, pictures, bad = 0, [], []
        with ThreadPoolExecutor(THREADS) as pool:
            for read in _in_order(pool, samples):
                if isinstance(read, PhotoError):
                    bad.append(str(read))
                    continue
                taken += sum(pixels.nbytes for pixels in read)
                if taken > max_bytes:
                    return None
                pictures.append([torch.from_numpy(p).permute(2, 0, 1).contiguous().to(device) for p in read])
        if bad:
            listed = "\n  ".join(bad)
            raise DataError(f"{len(bad)} pictures cannot be read; mend or remove them:\n  {listed}")
        return cls(samples, pictures)

    def batch(self, positions: Sequence[int]) -> dict[str, Any]:
        """Return the samples at these positions as one batch on the device, keys as in `TrainingCrops`."""
        indices = [self.samples.index_at(position) for position in positions]
        cuts = [self.samples.cut_at(p, [self._shapes[i]]) for p, i in zip(positions, indices, strict=True)]
        sides = [
            torch.stack([self._piece(self.pictures[i][side], cut) for i, cut in zip(indices, cuts, strict=True)])
            for side in range(len(self.pictures[0]))
        ]
        batch: dict[str, Any] = {
            **named_sides(self.samples.items[0], sides),
            "name": [self.samples.items[index].name for index in indices],
            "seed": torch.tensor([self.samples.seed_at(position) for position in positions]),
        }
        return batch

    def batches(self, start: int, stop: int, batch_size: int) -> Iterator[dict[str, Any]]:
        """Yield the batches of all positions from `start` to `stop`; the last one may be smaller."""
        for first in range(start, stop, batch_size):
            yield self.batch(range(first, min(first + batch_size, stop)))

    def _piece(self, picture: Tensor, cut: Cut) -> Tensor:
        """Return a piece of a picture (3, H, W) uint8, as `TrainingCrops` cuts it."""
        if cut.side:
            side = self.samples.side_px
            for axis, length in ((1, picture.shape[1]), (2, picture.shape[2])):
                if length < side:
                    mirrored = torch.from_numpy(np.pad(np.arange(length), (0, side - length), mode="reflect"))
                    picture = picture.index_select(axis, mirrored.to(picture.device))
            picture = picture[:, cut.top : cut.top + cut.side, cut.left : cut.left + cut.side]
            if cut.side != side:
                weights = _area_weights(cut.side, side).to(picture.device)
                picture = (weights @ picture.float() @ weights.T).add_(0.5).clamp_(0, 255).byte()
        axes = [axis for axis, turned in ((2, cut.mirrored), (1, cut.upside_down)) if turned]
        picture = picture.flip(axes) if axes else picture
        return picture.transpose(1, 2) if cut.swapped else picture


class ResidentMixture:
    """Batches of `MixedCrops`, both parts of which lie on the device; `load` makes it."""

    def __init__(self, samples: MixedCrops, photographs: ResidentCrops, windows: ResidentCrops) -> None:
        self.samples, self.photographs, self.windows = samples, photographs, windows

    @classmethod
    def load(cls, samples: MixedCrops, device: torch.device | str) -> "ResidentMixture | None":
        """Return both parts on the device; None where they do not fit, see `ResidentCrops.load`."""
        photographs = ResidentCrops.load(samples.photographs, device)
        windows = ResidentCrops.load(samples.windows, device) if photographs else None
        return cls(samples, photographs, windows) if photographs and windows else None

    def batch(self, positions: Sequence[int]) -> dict[str, Any]:
        """Return the samples at these positions as one batch on the device, as `mixture.mixed` does."""
        places = [self.samples.order.at(position) for position in positions]
        photographs, windows = ([place for is_window, place in places if is_window is kind] for kind in (False, True))
        return mixed(
            [is_window for is_window, _ in places],
            self.photographs.batch(photographs) if photographs else None,
            self.windows.batch(windows) if windows else None,
        )


def _in_order(pool: ThreadPoolExecutor, samples: TrainingCrops) -> Iterator[list[Pixels] | PhotoError]:
    """Yield the pictures of all items, or why they cannot be read; no more are read ahead than there are threads."""

    def read(index: int) -> list[Pixels] | PhotoError:
        try:
            return samples.decoded(samples.items[index])
        except PhotoError as error:
            return error

    for first in range(0, len(samples.items), THREADS):
        yield from pool.map(read, range(first, min(first + THREADS, len(samples.items))))


def _area_weights(length: int, reduced: int) -> Tensor:
    """Return the matrix (reduced, length) whose row i takes the mean of its share of the line, pixels cut in parts."""
    edges = torch.arange(reduced + 1, dtype=torch.float64) * (length / reduced)
    pixels = torch.arange(length, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return (overlap.clamp(min=0) * (reduced / length)).float()
