"""Where results go: for the inputs of a command, the file that each becomes.

Planning comes before doing, so that two inputs with one output, or an output on top of an input, show before any
time is spent.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unblur.errors import OutputError, PhotoError
from unblur.images import PHOTO_SUFFIXES, find_photos


@dataclass(frozen=True)
class PlannedFile:
    """An input, and where its result will lie."""

    source: Path
    target: Path


@dataclass(frozen=True)
class FailedFile:
    """A planned file that came to nothing, and why; the others are done all the same."""

    source: Path
    error: PhotoError | OutputError


def plan_outputs(paths: Sequence[Path], output: Path | None = None) -> list[PlannedFile]:
    """Return what a command would write for PATH... and -o OUT; nothing is read or written.

    Folders are searched as `find_photos` does. For one input file, an `output` that ends in a picture suffix is the
    file; otherwise it is a folder, where every file keeps its name and its path below the folder that was given.
    Without `output` the result is NAME-restored.EXT beside the input; of the inputs, those that are such results of
    others already are left out. So are, of the inputs below a folder, those in `output`.

    A file that does not exist stays in the plan and fails when its turn comes. Raises `PhotoError` for a folder without
    pictures; `OutputError` where two inputs have the same output, or an output is one of the inputs.
    """
    if output is not None and len(paths) == 1 and not paths[0].is_dir() and output.suffix.lower() in PHOTO_SUFFIXES:
        plan = [PlannedFile(paths[0], output)]
    elif output is not None:
        if output.exists() and not output.is_dir():
            raise OutputError(f"{output} is a file; for a folder or several inputs -o must name a folder.")
        plan = [PlannedFile(source, output / source.relative_to(top)) for top, source in _sources(paths, output)]
    else:
        sources = [source for _, source in _sources(paths, None)]
        earlier = {_beside(source).absolute() for source in sources}
        plan = [PlannedFile(source, _beside(source)) for source in sources if source.absolute() not in earlier]
    _check_plan(plan)
    return plan


def _sources(paths: Sequence[Path], output: Path | None) -> list[tuple[Path, Path]]:
    """Return (folder, file) for every input file, once; the folder is the one given, or that of a given file."""
    found: dict[Path, tuple[Path, Path]] = {}
    for path in paths:
        if not path.is_dir():
            found.setdefault(path.absolute(), (path.parent, path))
            continue
        photos = find_photos(path)
        if output is not None and path.resolve() in output.resolve().parents:  # earlier results below the inputs
            photos = [photo for photo in photos if output.resolve() not in photo.resolve().parents]
        if not photos:
            raise PhotoError(f"{path} has no pictures ({', '.join(sorted(PHOTO_SUFFIXES))}) in it.")
        for photo in photos:
            found.setdefault(photo.absolute(), (path, photo))
    return list(found.values())


def _beside(source: Path) -> Path:
    return source.with_name(f"{source.stem}-restored{source.suffix}")


def _check_plan(plan: list[PlannedFile]) -> None:
    folds_case = sys.platform in ("win32", "darwin")
    inputs = {_identity(file.source): file.source for file in plan}
    outputs: dict[str, Path] = {}
    for source, target in ((file.source, file.target) for file in plan):
        name = str(target.absolute())
        other = outputs.setdefault(name.casefold() if folds_case else name, source)
        if other != source:
            raise OutputError(f"{other} and {source} would both become {target}; restore them into different folders.")
        if os.path.exists(target) and _identity(target) in inputs:
            raise OutputError(f"{target} is an input, and inputs are never overwritten; give another folder with -o.")


def _identity(path: Path) -> object:
    """Return what is equal for two paths to the same file, be it by a link or by upper and lower case."""
    try:
        status = os.stat(path)
    except OSError:
        return path
    return status.st_dev, status.st_ino
