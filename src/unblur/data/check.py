"""Whether a data set is whole: what is missing, extra, unreadable, of unequal size or of mixed colours.

Everything is looked at before anything is said, and a split that is missing does not stop the others. Only headers are
read, by many threads, so that thousands of files take seconds; `deep` decodes them all.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from PIL import ExifTags, Image, UnidentifiedImageError

from unblur.data.catalog import DATA_SETS, DataSet, Split, parse_name
from unblur.data.layouts import Found
from unblur.data.remote import is_address, read_bytes
from unblur.data.shards import TarPicture
from unblur.data.sources import FilePicture, Pair, Picture, first_ten
from unblur.errors import DataError, PhotoError, UnknownName
from unblur.images import find_photos

THREADS = 16

_PNG = b"\x89PNG\r\n\x1a\n"

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
        found = split.find(folder, variant)
        counts.append(_count(f"{named.dataset.name}/{split.name}".rstrip("/"), split, found))
        problems += _wrong_names(found, folder)
        pairs += _together(found)
    for kind, picture, detail in _wrong_pictures(pairs, deep, progress):
        problems.append(Problem(kind, _relative(picture, folder), detail))
    if not named.split:
        problems += [Problem("extra", _relative(path, folder)) for path in _extra(named.dataset, folder)]
    return Check(name, folder, tuple(counts), tuple(problems))


def require_alike(pairs: Sequence[Pair]) -> None:
    """Raise `DataError` with the first ten pairs whose two pictures differ in size or colours.

    Only headers are read. Pictures that have none to read are passed over, and those that cannot be opened: whoever
    reads them says so.
    """
    together = [(pair.blurred, pair.sharp) for pair in pairs if pair.blurred is not None]
    wrong = [
        f"{picture} ({detail})"
        for kind, picture, detail in _wrong_pictures(together, deep=False, progress=None)
        if kind != "unreadable"
    ]
    if wrong:
        raise DataError(
            f"{len(wrong)} pairs differ in size or colours: {first_ten(wrong)}. `unblur data check` lists every one."
        )


@dataclass(frozen=True)
class Header:
    """What a picture's header says: its size once it is upright, and its colours: grey or colour, with alpha or not."""

    width: int
    height: int
    colours: str


def read_header(path: Path) -> Header:
    """Return what a file's header says; `PhotoError` where it is none, or where the file ends too early."""
    try:
        with open(path, "rb") as file:
            return _header(file, str(path))
    except FileNotFoundError:
        raise PhotoError(f"{path} does not exist.") from None
    except OSError as error:
        raise PhotoError(f"{path} cannot be read: {error.strerror or error}.") from error


def _header_of(picture: Picture) -> Header | None:
    """Return the header of a picture that has one here: not of a row of an array, nor of what lies far away."""
    if isinstance(picture, FilePicture):
        return read_header(picture.path)
    if isinstance(picture, TarPicture) and not is_address(picture.shard):
        return _header(BytesIO(read_bytes(picture.shard, picture.offset, picture.size)), str(picture))
    return None


def _header(file: BinaryIO, where: str) -> Header:
    if file.read(len(_PNG)) == _PNG and not _ends_as_png(file):
        raise PhotoError(f"{where} is truncated.")
    file.seek(0)
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file) as image:
            width, height = image.size
            # Pillow decodes a whole PNG to look for EXIF behind the pixels; what stands before them is in `info`. The
            # size that it gives of a TIFF is upright already.
            may_be_turned = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
            if may_be_turned and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8):
                width, height = height, width
            colours = "grey" if image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I") else "colour"
            return Header(width, height, colours + (" and alpha" if image.has_transparency_data else ""))
    except UnidentifiedImageError:
        raise PhotoError(f"{where} holds no picture.") from None
    except Exception as error:  # decoders raise nearly everything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PhotoError(f"{where} cannot be read: {reason.rstrip('.')}.") from error


def _ends_as_png(file: BinaryIO) -> bool:
    file.seek(max(0, file.seek(0, os.SEEK_END) - 64))  # some programs leave a few bytes behind the end
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


def _wrong_names(found: Found | None, folder: Path) -> Iterator[Problem]:
    if found is not None:
        for path, why in sorted(found.damaged.items()):
            yield Problem("unreadable", _relative(path, folder), _without_name(why, path))
        yield from (Problem("missing", _relative(path, folder)) for path in sorted(found.missing))
        yield from (Problem("twice", _relative(path, folder)) for path in sorted(found.twice))


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
                header = _header_of(picture)
                if header is not None:
                    headers.append((picture, header))
                if deep:
                    picture.read()
            except (PhotoError, DataError) as error:
                wrong.append(("unreadable", picture, _without_name(str(error), picture)))
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
                known.update(_all_files(layout.find(folder, variant)))
    return [path for path in find_photos(folder) if path not in known]


def _all_files(found: Found | None) -> Iterator[Path]:
    if found is None:
        return
    pictures: list[Any] = [*(found.blurred or {}).values(), *found.sharp.values()]
    for picture in pictures:
        if (path := getattr(picture, "path", None)) is not None:
            yield path
    yield from found.twice
    yield from found.damaged


def _relative(what: Picture | Path, folder: Path) -> str:
    path = Path(str(what))
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _without_name(sentence: str, what: Picture | Path) -> str:
    """Return a sentence that begins with a file's name without it, for lines that begin with that already."""
    return sentence.removeprefix(str(what)).lstrip(", ")
