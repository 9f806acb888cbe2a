"""Whether a data set is whole: what is missing, extra, unreadable, of unequal size or of mixed colours.

Everything is looked at before anything is said, and a split that is missing does not stop the others. Only headers are
read, by many threads, so that thousands of files take seconds; `deep` decodes them all.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from unblur.data.catalog import DATA_SETS, DataSet, Split, parse_name
from unblur.data.layouts import Found
from unblur.data.sources import FilePicture, Pair, Picture, first_ten
from unblur.errors import DataError, PhotoError, UnknownName
from unblur.images import find_photos

THREADS = 16

Progress = Callable[[int, int], None]
"""Is told (pictures looked at, pictures in all)."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file: missing, twice, unreadable, unequal size, mixed colours; extra ones do no harm."""

    kind: str
    file: str
    """Relative to the set's folder."""
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.file}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True)
class SplitCount:
    """How many pictures, or pairs, of a split are there, and how many should be (None: any number)."""

    name: str
    """gopro/test; the set's alone where it has no splits."""
    found: int
    expected: int | None
    unit: str
    looked_for: str

    @property
    def is_short(self) -> bool:
        """Whether some are missing."""
        return self.found < (1 if self.expected is None else self.expected)

    def __str__(self) -> str:
        expected = "" if self.expected is None else f" of {self.expected:,}"
        line = f"{self.name}: {self.found:,}{expected} {self.unit}"
        if self.expected is not None and self.is_short:
            line += f", {self.expected - self.found:,} missing"
        return line + (f"; looked for {self.looked_for}" if self.found == 0 else "")


@dataclass(frozen=True)
class Check:
    """What a check found."""

    name: str
    folder: Path
    counts: tuple[SplitCount, ...]
    problems: tuple[Problem, ...]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is short; extra files do no harm."""
        return not any(count.is_short for count in self.counts) and all(p.kind == "extra" for p in self.problems)

    def lines(self) -> Iterator[str]:
        """Yield the report: a line for each split, for each file, and the sum."""
        for count in self.counts:
            yield str(count)
        yield from map(str, self.problems)
        kinds = dict.fromkeys(problem.kind for problem in self.problems)
        sums = [f"{sum(p.kind == kind for p in self.problems):,} {kind}" for kind in kinds]
        verdict = "whole" if self.is_whole else "not whole"
        yield f"{self.name} in {self.folder} is {verdict}" + (f": {', '.join(sums)}" if sums else "")


def check_dataset(name: str, folder: Path, *, deep: bool = False, progress: Progress | None = None) -> Check:
    """Return what is wrong with a data set in a folder; `name` is an id, or id/split or id/split/variant for a part.

    `deep` decodes every picture. Raises `UnknownName` for the name, `DataError` for a folder that does not exist.
    """
    named = parse_name(name)
    if named is None:
        raise UnknownName("data set", name, DATA_SETS)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. It should hold {named.dataset.layout}.")
    splits = [named.dataset.split(named.split)] if named.split else [s for s in named.dataset.splits if s.only is None]
    variant = named.dataset.variant(named.variant)
    counts: list[SplitCount] = []
    problems: list[Problem] = []
    pairs: list[tuple[Picture, ...]] = []
    for split in splits:
        try:
            found = split.find(folder, variant)
        except DataError as error:  # a damaged list or batch: the other splits are looked at all the same
            problems.append(Problem("unreadable", split.name, str(error)))
            found = None
        counts.append(_count(f"{named.dataset.name}/{split.name}".rstrip("/"), split, found))
        problems += [Problem(kind, _relative(path, folder)) for kind, path in _wrong_names(found)]
        pairs += _together(found)
    for kind, picture, detail in _wrong_pictures(pairs, deep, progress):
        problems.append(Problem(kind, _relative(picture, folder), detail))
    if not named.split:
        problems += [Problem("extra", _relative(path, folder)) for path in _extra(named.dataset, folder)]
    return Check(name, folder, tuple(counts), tuple(problems))


def require_alike(pairs: Sequence[Pair]) -> None:
    """Raise `DataError` with the first ten pairs whose two pictures differ in size or colours, or cannot be opened.

    Only headers are read; pictures that are no files of their own are passed over.
    """
    together = [tuple(picture for picture in (pair.blurred, pair.sharp) if picture is not None) for pair in pairs]
    wrong = [f"{picture}: {detail}" for _, picture, detail in _wrong_pictures(together, deep=False, progress=None)]
    if wrong:
        raise DataError(f"{len(wrong)} pictures do not make pairs: {first_ten(wrong)}")


@dataclass(frozen=True)
class Header:
    """What a picture's header says: its size once it is upright, and its colours: grey or colour, with alpha or not."""

    width: int
    height: int
    colours: str


def read_header(path: Path) -> Header:
    """Return what a file's header says; `PhotoError` where it is none, or where the file ends too early."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            width, height = image.size
            if image.format == "PNG" and not _ends_as_png(path):
                raise PhotoError(f"{path} is truncated.")
            # Pillow decodes a whole PNG to look for EXIF behind the pixels; what stands before them is in `info`. The
            # size that it gives of a TIFF is upright already.
            may_be_turned = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
            if may_be_turned and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8):
                width, height = height, width
            colours = "grey" if image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I") else "colour"
            return Header(width, height, colours + (" and alpha" if image.has_transparency_data else ""))
    except PhotoError:
        raise
    except FileNotFoundError:
        raise PhotoError(f"{path} does not exist.") from None
    except Exception as error:  # decoders raise nearly everything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PhotoError(f"{path} cannot be read: {reason.rstrip('.')}.") from error


def _ends_as_png(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 64))  # some programs leave a few bytes behind the end
        return b"IEND" in file.read()


def _count(name: str, split: Split, found: Found | None) -> SplitCount:
    unit = "pictures" if all(layout.rows[0] == "" for layout in split.layouts) else "pairs"
    looked_for = "; or ".join(" and ".join(row for row in layout.rows if row) for layout in split.layouts)
    names = set() if found is None else found.sharp.keys() & (found.sharp if found.blurred is None else found.blurred)
    gone = set(found.missing) if found else set()
    whole = [name for name in names if found and not _files_of(found, name) & gone]
    return SplitCount(name, len(whole), split.count, unit, looked_for)


def _files_of(found: Found, name: str) -> set[Path]:
    pictures = (found.sharp[name], found.blurred[name] if found.blurred else None)
    return {picture.path for picture in pictures if isinstance(picture, FilePicture)}


def _wrong_names(found: Found | None) -> Iterator[tuple[str, Path]]:
    if found is not None:
        yield from (("missing", path) for path in sorted(found.missing))
        yield from (("twice", path) for path in sorted(found.twice))


def _together(found: Found | None) -> Iterator[tuple[Picture, ...]]:
    """Yield the pictures that belong together: pairs, or single ones."""
    if found is None:
        return
    gone = set(found.missing)
    sides = [side for side in (found.blurred, found.sharp) if side is not None]
    for name in dict.fromkeys(name for side in sides for name in side):
        pictures = [side[name] for side in sides if name in side]
        yield tuple(p for p in pictures if not (isinstance(p, FilePicture) and p.path in gone))


def _wrong_pictures(
    together: Sequence[tuple[Picture, ...]], deep: bool, progress: Progress | None
) -> Iterator[tuple[str, Picture, str]]:
    """Yield (kind of problem, picture, detail) of pictures that cannot be read or do not fit their partner."""

    def look_at(pictures: tuple[Picture, ...]) -> list[tuple[str, Picture, str]]:
        headers: list[tuple[Picture, Header]] = []
        wrong: list[tuple[str, Picture, str]] = []
        for picture in pictures:
            try:
                if isinstance(picture, FilePicture):
                    headers.append((picture, read_header(picture.path)))
                if deep:
                    picture.read()
            except PhotoError as error:
                wrong.append(("unreadable", picture, str(error)))
        if len(headers) == 2:
            (first, one), (_, other) = headers
            if (one.width, one.height) != (other.width, other.height):
                detail = f"{one.width}x{one.height}, its partner {other.width}x{other.height}"
                wrong.append(("unequal size", first, detail))
            if one.colours != other.colours:
                wrong.append(("mixed colours", first, f"{one.colours}, its partner {other.colours}"))
        return wrong

    with ThreadPoolExecutor(THREADS) as pool:
        for done, wrong in enumerate(pool.map(look_at, together), start=1):
            yield from wrong
            if progress:
                progress(done, len(together))


def _extra(dataset: DataSet, folder: Path) -> list[Path]:
    """Return the pictures below the folder that belong to no layout of any split and variant."""
    known: set[Path] = set()
    for split in dataset.splits:
        for layout in split.layouts if split.only is None else ():
            for variant in dataset.variants:
                try:
                    found = layout.find(folder, variant)
                except DataError:
                    continue
                known.update(_all_files(found))
    return [path for path in find_photos(folder) if path not in known]


def _all_files(found: Found | None) -> Iterator[Path]:
    if found is None:
        return
    pictures: list[Any] = [*(found.blurred or {}).values(), *found.sharp.values()]
    for picture in pictures:
        if (path := getattr(picture, "path", None)) is not None:
            yield path
    yield from found.twice


def _relative(what: Picture | Path, folder: Path) -> str:
    path = what.path if isinstance(what, FilePicture) else what
    return path.relative_to(folder).as_posix() if isinstance(path, Path) and path.is_relative_to(folder) else str(path)
