"""Objects found in pictures: frames with a class and a score, which of them are right, and what that comes to.

A found object is right where a true one of the same class lies under it well enough, by intersection over union. Found
ones choose one after the other, the best score first; each takes the true one that it overlaps most of those not taken
yet, so that a second frame around the same object counts as wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels of the picture: the first pixel reaches from 0 to 1."""


@dataclass(frozen=True)
class Found:
    """An object as a detector reports it; a higher score is a surer one, 1 at most."""

    label: str
    score: float
    box: Box


@dataclass(frozen=True)
class Counts:
    """How many objects were found, how many are true, and how many of both belong together."""

    matched: int = 0
    found: int = 0
    true: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.matched + other.matched, self.found + other.found, self.true + other.true)

    @property
    def precision(self) -> float | None:
        """The share of the found ones that is right; None where nothing was found."""
        return self.matched / self.found if self.found else None

    @property
    def recall(self) -> float | None:
        """The share of the true ones that was found; None where there are none."""
        return self.matched / self.true if self.true else None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of both; None where nothing was found and nothing is true."""
        return 2 * self.matched / (self.found + self.true) if self.found + self.true else None

    def to_json(self) -> dict[str, Any]:
        """Return counts and shares as plain data."""
        shares = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {**shares, "matched": self.matched, "found": self.found, "true": self.true}


def count_by_class(found: Sequence[Found], true: Sequence[Found], min_iou: float) -> Mapping[str, Counts]:
    """Return the counts of one picture for each class that was found in it or is true."""
    right = [found[index].label for index, _ in match(found, true, min_iou)]
    in_found, in_true = ([one.label for one in objects] for objects in (found, true))
    return {
        label: Counts(right.count(label), in_found.count(label), in_true.count(label))
        for label in sorted({*in_found, *in_true})
    }


def match(found: Sequence[Found], true: Sequence[Found], min_iou: float) -> list[tuple[int, int]]:
    """Return the pairs (index of a found object, index of its true one), the best score first.

    Both are of one class and their intersection is at least `min_iou` of their union. Of equal scores the first one
    chooses first.
    """
    free = set(range(len(true)))
    pairs = []
    for index in sorted(range(len(found)), key=lambda i: -found[i].score):
        overlaps = {i: iou(found[index].box, true[i].box) for i in free if true[i].label == found[index].label}
        best = max(sorted(overlaps), key=lambda i: overlaps[i], default=None)
        if best is not None and overlaps[best] >= min_iou:
            pairs.append((index, best))
            free.remove(best)
    return pairs


def iou(one: Box, other: Box) -> float:
    """Return the intersection of two boxes over their union: 1 for equal ones, 0 for apart ones and empty ones."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = _area(one) + _area(other) - shared
    return shared / union if union > 0 else 0.0


def found_in(
    boxes: np.ndarray[Any, Any],
    scores: np.ndarray[Any, Any],
    labels: Sequence[str],
    size: tuple[int, int],
    classes: Sequence[str],
) -> list[Found]:
    """Return the objects of a picture of `size` (height, width), the best score first; equal runs, equal order.

    `boxes` (N, 4) are cut at the picture's edge; those that have no area then, and labels other than `classes` (empty
    for all), are left out.
    """
    height, width = size
    cut = np.clip(np.asarray(boxes, dtype=float).reshape(-1, 4), 0, [width, height, width, height]).tolist()
    objects = [
        Found(label, float(score), tuple(box))
        for box, score, label in zip(cut, scores, labels, strict=True)
        if _area(box) > 0 and (not classes or label in classes)
    ]
    return sorted(objects, key=lambda one: (-one.score, one.label, one.box))


def _area(box: Box) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)
