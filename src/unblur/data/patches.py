"""Which patches of a pair are worth training on: those where blurred and sharp differ.

In a moving scene much stands still, and a patch whose blurred picture equals the sharp one teaches nothing but to copy.
The patch is taken where the SSIM of the two is below a threshold, and anywhere where a few tries find none.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from unblur.data.sources import Pixels
from unblur.metrics import ssim_wang

Place = TypeVar("Place")


def patch_ssim(blurred: Pixels, sharp: Pixels) -> float:
    """Return the SSIM of two patches (H, W, 3) uint8, as `metrics.ssim_wang`: 1 where they are equal."""
    return float(ssim_wang(blurred, sharp, data_range=255))


def chosen_place(places: Iterable[Place], cut: Callable[[Place], Sequence[Pixels]], max_ssim: float) -> Place:
    """Return the first place whose two patches, as `cut` gives them, have an SSIM below `max_ssim`; else the last."""
    place = None
    for place in places:
        first, second = cut(place)
        if patch_ssim(second, first) < max_ssim:
            break
    assert place is not None  # there is a try at least
    return place
