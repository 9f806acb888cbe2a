"""How the files of a data set lie: patterns of paths, or a list file. Both find pictures and give them names.

In a pattern `*` is a piece of one folder's or file's name, `**` any number of folders and the file's name, `{a,b}` one
of two; suffixes are left out. What the stars stand for, joined by "/", is the picture's name: `train/*/blur/*` and
`train/*/sharp/*` make a pair of `train/GOPR0372/blur/000047.png` and `train/GOPR0372/sharp/000047.png`, both called
`GOPR0372/000047`. Files are paired by these names and never by their position.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from unblur.data.cifar10 import cifar_pictures
from unblur.data.sources import FilePicture, Pair, Picture, first_ten
from unblur.errors import DataError
from unblur.images import find_photos


@dataclass
class Found:
    """What a layout found in a folder: pictures by name, and what is wrong with the names."""

    blurred: dict[str, Picture] | None
    """None in a layout of sharp pictures alone."""
    sharp: dict[str, Picture] = field(default_factory=dict)
    twice: dict[Path, str] = field(default_factory=dict)
    """Files whose name another one has already, with that name."""
    missing: dict[Path, str] = field(default_factory=dict)
    """Files that a list names, or that pictures found lack as their partners, with their names."""
    damaged: dict[Path, str] = field(default_factory=dict)
    """Lists, shards and batches that cannot be read, with a sentence why; nothing of theirs is in the other fields."""

    @property
    def has_both_sides(self) -> bool:
        """Whether there is anything blurred and anything sharp, or sharp pictures are all that is wanted."""
        return bool(self.sharp) and self.blurred != {}

    def pairs(self, *, sharp_only: bool = False) -> list[Pair]:
        """Return the pairs by name, or the sharp pictures alone; `DataError` lists the first ten of what is wrong."""
        if self.damaged:
            raise DataError(first_ten([*self.damaged.values()]))
        if self.twice:
            raise DataError(f"{len(self.twice)} files have the name of another: {first_ten([*self.twice])}")
        if sharp_only or self.blurred is None:
            return [Pair(None, self.sharp[name]) for name in sorted(self.sharp)]
        if self.missing:
            raise DataError(f"{len(self.missing)} files of pairs are missing: {first_ten([*self.missing])}")
        return [Pair(self.blurred[name], self.sharp[name]) for name in sorted(self.sharp)]

    def only(self, names: str) -> "Found":
        """Return what has names that match the regular expression whole."""

        def kept(pictures: dict[str, Picture]) -> dict[str, Picture]:
            return {name: picture for name, picture in pictures.items() if re.fullmatch(names, name)}

        twice, missing = (
            {path: name for path, name in files.items() if re.fullmatch(names, name)}
            for files in (self.twice, self.missing)
        )
        blurred = None if self.blurred is None else kept(self.blurred)
        return Found(blurred, kept(self.sharp), twice, missing, self.damaged)


class Layout(Protocol):
    """A way in which files may lie."""

    def find(self, folder: Path, variant: str) -> Found | None:
        """Return what lies below a set's folder in this way; None where nothing does."""

    @property
    def rows(self) -> tuple[str, str]:
        """What a table says of it: where the blurred and where the sharp pictures are."""

    @property
    def variants(self) -> tuple[str, ...] | None:
        """The only kinds of blur that lie so; None for all."""


@dataclass(frozen=True)
class Folders:
    """Pictures whose paths follow patterns; `{variant}` stands for the kind of blur that is asked for.

    `variants`: the only kinds of blur that lie so; None for all. `spare_sharp`: sharp pictures without a blurred one
    belong to another split and are passed over.
    """

    blurred: str | None
    sharp: str
    variants: tuple[str, ...] | None = None
    spare_sharp: bool = False

    @property
    def rows(self) -> tuple[str, str]:
        """The patterns."""
        return self.blurred or "", self.sharp

    def find(self, folder: Path, variant: str) -> Found | None:
        """Return the pictures that follow the patterns; None where none does."""
        if self.variants is not None and variant not in self.variants:
            return None
        twice: dict[Path, str] = {}
        sharp_pattern, blurred_pattern = (
            (pattern or "").replace("{variant}", variant) for pattern in (self.sharp, self.blurred)
        )
        sharp = _by_name(folder, sharp_pattern, twice)
        if self.blurred is None:
            return Found(None, _as_pictures(sharp), twice) if sharp else None
        blurred = _by_name(folder, blurred_pattern, twice)
        if self.spare_sharp:
            sharp = {name: path for name, path in sharp.items() if name in blurred}
        if not sharp and not blurred:
            return None
        missing = {
            _partner(folder, pattern, name, path): name
            for pattern, there, here in ((sharp_pattern, blurred, sharp), (blurred_pattern, sharp, blurred))
            for name, path in there.items()
            if name not in here
        }
        return Found(_as_pictures(blurred), _as_pictures(sharp), twice, missing)


@dataclass(frozen=True)
class ListFile:
    """A text file with a pair of paths a line, relative to the folder it lies in; more columns are passed over.

    Which of the two is sharp is told by its folder, `gt` or `sharp`, or else by its place in the line: sharp first.
    """

    path: str
    variants: None = None

    @property
    def rows(self) -> tuple[str, str]:
        """The list twice: it names both."""
        return f"second column of {self.path}", f"first column of {self.path}"

    def find(self, folder: Path, variant: str) -> Found | None:
        """Return the pictures that the list names, whether they exist or not; None where there is no list."""
        listed = next((file for file in sorted(folder.glob(self.path)) if file.is_file()), None)
        if listed is None:
            return None
        try:
            lines = listed.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            return Found({}, damaged={listed: f"{listed} cannot be read as a list of files: {error}."})
        blurred: dict[str, Path] = {}
        sharp: dict[str, Path] = {}
        twice: dict[Path, str] = {}
        for number, line in enumerate(lines, start=1):
            columns = line.split()
            if not columns:
                continue
            if len(columns) < 2:
                reason = f"{listed}, line {number}: '{line}' names one file, not a pair."
                return Found({}, damaged={listed: reason})
            first, second = columns[:2]
            if re.search(r"(^|/)(gt|sharp)/", second):
                first, second = second, first
            name = _name_in_list(second)
            if name in blurred:
                twice[listed.parent / second] = name
            sharp[name], blurred[name] = listed.parent / first, listed.parent / second
        missing = {path: name for side in (blurred, sharp) for name, path in side.items() if not path.is_file()}
        return Found(_as_pictures(blurred), _as_pictures(sharp), twice, missing)


@dataclass(frozen=True)
class CifarBatches:
    """CIFAR-10's archives, see `cifar10.py`."""

    split: str
    variants: None = None

    @property
    def rows(self) -> tuple[str, str]:
        """The archives' files."""
        files = "data_batch_[1-5]" if self.split == "train" else "test_batch"
        return "", f"cifar-10-batches-py/{files}, cifar-10-batches-bin/{files}.bin, or {self.split}_exact.webp"

    def find(self, folder: Path, variant: str) -> Found | None:
        """Return the pictures by index."""
        pictures, damaged = cifar_pictures(folder, self.split)
        found = Found(None, {picture.name: picture for picture in pictures}, damaged=damaged)
        return found if pictures or damaged else None


def _as_pictures(files: dict[str, Path]) -> dict[str, Picture]:
    return {name: FilePicture(path, name) for name, path in files.items()}


def _by_name(folder: Path, pattern: str, twice: dict[Path, str]) -> dict[str, Path]:
    """Return the files that follow a pattern, by the name that its stars make; more of one name go to `twice`."""
    fixed = list(_until_a_star(pattern.split("/")[:-1]))
    home = folder.joinpath(*fixed)
    if not home.is_dir():
        return {}
    form = re.compile(_as_expression("/".join(pattern.split("/")[len(fixed) :])))
    files: dict[str, Path] = {}
    for path in find_photos(home):
        match = form.fullmatch(path.relative_to(home).with_suffix("").as_posix())
        if match is None:
            continue
        name = "/".join(match.groups())
        if name in files:
            twice[path] = name
        files[name] = path
    return files


def _until_a_star(parts: Iterable[str]) -> Iterator[str]:
    for part in parts:
        if "*" in part or "{" in part:
            return
        yield part


def _as_expression(pattern: str) -> str:
    """Return the regular expression of a pattern, with a group for each star."""
    translated = {"**": "(.+)", "*": "([^/]+)", "{": "(?:", "}": ")", ",": "|"}
    return "".join(translated.get(part) or re.escape(part) for part in re.split(r"(\*\*|[*{},])", pattern))


def _partner(folder: Path, pattern: str, name: str, path: Path) -> Path:
    """Return where the partner of a file should lie: the stars of its pattern replaced by the name's pieces."""
    pieces = re.split(r"\*\*?", pattern)
    stars = name.split("/", len(pieces) - 2)
    return folder / ("".join(p + s for p, s in zip(pieces, stars, strict=False)) + pieces[-1] + path.suffix)


def _name_in_list(path: str) -> str:
    """Return `scene230/blur_1` for `RealBlur-J_ECC/scene230/blur/blur_1.png`: scene and file, the kind left out."""
    parts = [part for part in path.split("/") if part not in ("blur", "gt", "sharp", "input", "target")]
    return re.sub(r"\.\w+$", "", "/".join(parts[-2:]))
