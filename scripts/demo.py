"""Blur real photographs, restore them, and restore one that is really blurred: one line each.

The photographs come with scikit-image's wheel; nothing is downloaded. Results lie in `demo/`, each as three files:
what was sharp (where there is such a picture), what was blurred and what was restored.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import skimage.data

import unblur
from unblur.blur.recipes import blur_batch, load_recipe, sample_seed
from unblur.images import Photo, as_photo
from unblur.inference import keep_freed_memory

SYNTHETIC = [
    ("astronaut", "gaussian-2.5"),
    ("coffee", "defocus-2.5"),
    ("rocket", "motion-9"),
    ("astronaut", "handheld"),
]


def main() -> None:
    """Write the pictures and print what came of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    out = parser.parse_args().out
    keep_freed_memory()
    restorer = unblur.Restorer()
    for name, blurred, sharp in pictures():
        started = time.perf_counter()
        restored = restorer.restore(blurred)
        seconds = time.perf_counter() - started
        target = out / f"{name}-restored.png"
        restored.save(target, overwrite=True)
        blurred.save(out / f"{name}-blurred.png", overwrite=True)
        scores = "no sharp picture to compare with"
        if sharp is not None:
            sharp.save(out / f"{name}-sharp.png", overwrite=True)
            scores = f"{compared(blurred, restored, sharp, unblur.psnr, 'PSNR', ' dB', 2)}, "
            scores += compared(blurred, restored, sharp, unblur.ssim_wang, "SSIM", "", 4)
        print(f"{name:<24} {scores:<56} {seconds:5.2f} s  {target}")


def pictures() -> Iterator[tuple[str, Photo, Photo | None]]:
    """Yield (name, blurred, sharp or None)."""
    for index, (picture, recipe) in enumerate(SYNTHETIC):
        sharp = as_photo(getattr(skimage.data, picture)())
        blurred = blur_batch(sharp.rgb[None], load_recipe(recipe), [sample_seed(1, index)])[0]
        yield f"{picture}-{recipe}", sharp.with_rgb(blurred), sharp
    yield "clock-really-moved", as_photo(skimage.data.clock()), None  # type: ignore[no-untyped-call]


def compared(blurred: Photo, restored: Photo, sharp: Photo, score: object, name: str, unit: str, digits: int) -> str:
    """Return "PSNR 27.12 -> 30.45 dB"."""
    assert callable(score)
    before, after = (score(photo.rgb, sharp.rgb) for photo in (blurred, restored))
    return f"{name} {before:.{digits}f} -> {after:.{digits}f}{unit}"


if __name__ == "__main__":
    main()
