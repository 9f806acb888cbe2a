"""Make the pictures of the weights' card: what each set makes of a few photographs, good and bad.

    python scripts/card_pictures.py

One row a photograph: blurred, then restored by each of the weights, then sharp, where there is such a picture. The
photographs come with scikit-image's wheel. Prints the captions, with PSNR over the whole photograph.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import skimage.data
import torch
from PIL import Image

import unblur
from unblur.blur.recipes import Recipe, blur_batch
from unblur.images import Photo, as_photo
from unblur.inference import keep_freed_memory

GAP_PX = 6
SIDE_PX = 190


@dataclass(frozen=True)
class Case:
    """A photograph, what happens to it, and the upper left corner of the square that is shown."""

    title: str
    photo: str
    recipe: dict[str, Any] | None
    left: int
    top: int


GOOD = (
    Case("out of focus (disc of radius 3)", "coffee", {"kinds": [{"blur": "defocus", "radius_px": 3}]}, 60, 60),
    Case("shaken (14 px)", "chelsea", {"kinds": [{"blur": "shake", "extent_px": 14}]}, 110, 70),
    Case("soft (Gaussian, sigma 1.6)", "astronaut", {"kinds": [{"blur": "gaussian", "sigma": 1.6}]}, 130, 40),
)
BAD = (
    Case("shaken far (50 px)", "coffee", {"kinds": [{"blur": "shake", "extent_px": 50}]}, 60, 60),
    Case(
        "soft, and noisy beyond what was learnt",
        "chelsea",
        {"kinds": [{"blur": "gaussian", "sigma": 2}], "noise": {"read": 0.05}},
        110,
        70,
    ),
    Case("really moved, by some 70 px", "clock", None, 60, 60),
)


def main() -> None:
    """Write both pictures and print the captions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--weights", nargs="+", default=["fast", "default", "best"])
    options = parser.parse_args()
    keep_freed_memory()
    restorers = {name: unblur.Restorer(name) for name in options.weights}
    for name, cases in (("good", GOOD), ("bad", BAD)):
        rows = [_row(case, restorers) for case in cases]
        sheet = Image.new("RGB", (max(row.width for row in rows), len(rows) * (SIDE_PX + GAP_PX) - GAP_PX), "white")
        for index, row in enumerate(rows):
            sheet.paste(row, (0, index * (SIDE_PX + GAP_PX)))
        sheet.save(options.out / f"weights-{name}.png", optimize=True)


def _row(case: Case, restorers: dict[str, unblur.Restorer]) -> Image.Image:
    """Return the row of a case, and print its caption."""
    photo = as_photo(getattr(skimage.data, case.photo)())
    sharp = photo if case.recipe else None
    blurred = photo.with_rgb(_blurred(photo.rgb, case.recipe)) if case.recipe else photo
    restored = {name: restorer.restore(blurred) for name, restorer in restorers.items()}
    if sharp is not None:
        scores = {"blurred": blurred, **restored}
        told = ", ".join(f"{name} {unblur.psnr(one.rgb, sharp.rgb):.1f}" for name, one in scores.items())
        print(f"{case.title}: {told} dB")
    shown = [blurred, *restored.values(), *([] if sharp is None else [sharp])]
    row = Image.new("RGB", (len(shown) * (SIDE_PX + GAP_PX) - GAP_PX, SIDE_PX), "white")
    for index, part in enumerate(_squares(shown, case)):
        row.paste(part, (index * (SIDE_PX + GAP_PX), 0))
    return row


def _blurred(rgb: torch.Tensor, recipe: dict[str, Any]) -> torch.Tensor:
    """Return a picture (3, H, W) blurred by a recipe; each case has the seed 1."""
    return blur_batch(rgb[None], Recipe(name="case", **recipe), [1])[0]


def _squares(photos: list[Photo], case: Case) -> Iterator[Image.Image]:
    """Yield the part of each photograph that is shown."""
    for photo in photos:
        rgb = photo.rgb[:, case.top : case.top + SIDE_PX, case.left : case.left + SIDE_PX]
        yield Image.fromarray((rgb * 255).round().byte().permute(1, 2, 0).numpy())


if __name__ == "__main__":
    main()
