"""Blurred copies of photographs on disk: `unblur blur`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from unblur.blur.recipes import Recipe, blur_batch, sample_seed
from unblur.errors import OutputError, PhotoError
from unblur.images import DEFAULT_MAX_PIXELS, Photo, check_output, read_photo, write_photo
from unblur.outputs import FailedFile, PlannedFile


@dataclass(frozen=True)
class BlurredFile:
    """The files that were made of one photograph: one, or one for each level of the recipe."""

    source: Path
    targets: tuple[Path, ...]


def blur_photo(photo: Photo, recipe: Recipe, seed: int, *, kind: int | None = None) -> Photo:
    """Return the photo blurred by the recipe, rounded to 8 bit; `kind` and `seed` as in `recipes.blur_batch`.

    Alpha stays sharp. What lies under fully transparent places does not spread into the visible ones.
    """
    return photo.with_rgb(blur_batch(photo.visible_rgb()[None], recipe, [seed], kind=kind)[0])


def blur_files(
    plan: Iterable[PlannedFile],
    recipe: Recipe,
    seed: int = 0,
    *,
    overwrite: bool = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Iterator[BlurredFile | FailedFile]:
    """Blur the planned files and yield what became of each; one that fails does not stop the others.

    The n-th file is blurred with `sample_seed(seed, n)`. Where the recipe's kinds are levels, each is written,
    as NAME-LEVEL.EXT; those before an error may have been written, whole.
    """
    for index, file in enumerate(plan):
        try:
            targets = tuple(_target(file.target, label) for _, label in recipe.levels)
            for target in targets:
                check_output(target, overwrite=overwrite)
            photo = read_photo(file.source, max_pixels=max_pixels)
            for (kind, _), target in zip(recipe.levels, targets, strict=True):
                blurred = blur_photo(photo, recipe, sample_seed(seed, index), kind=kind)
                write_photo(blurred, target, overwrite=overwrite)
            yield BlurredFile(file.source, targets)
        except (PhotoError, OutputError) as error:
            yield FailedFile(file.source, error)


def _target(path: Path, label: str | None) -> Path:
    return path if label is None else path.with_name(f"{path.stem}-{label}{path.suffix}")
