"""Numbers of a recipe: one that is taken as it is, or a range that one is drawn from."""

from typing import Annotated

import torch
from pydantic import Field

Range = Annotated[float | tuple[float, float], Field(union_mode="left_to_right")]
"""A number, or [lowest, highest] of an even distribution."""

Ends = float | tuple[float, float]


def ends(value: Ends) -> tuple[float, float]:
    """Return (lowest, highest)."""
    return value if isinstance(value, tuple) else (value, value)


def drawn(value: Ends, generator: torch.Generator) -> float:
    """Return a number of the range; one is drawn even where the range is a single number, to keep the order."""
    return at(value, float(torch.rand((), generator=generator)))


def at(value: Ends, place: float) -> float:
    """Return the number at `place`, from 0 (lowest) to 1 (highest)."""
    low, high = ends(value)
    return low + (high - low) * place


def text(value: Ends) -> str:
    """Return "2" or "2-15"."""
    return "-".join(f"{number:g}" for number in dict.fromkeys(ends(value)))
