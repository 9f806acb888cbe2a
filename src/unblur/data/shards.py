"""Tar shards in the layout of WebDataset: many pictures in a few large files, read at random all the same.

A member's name up to the first dot is the sample's key, the rest says what it is: `0001.blur.png` and `0001.sharp.png`
(or `input` and `target`) are a pair, `0001.jpg` is a sharp picture. A tar of two folders `blur/` and `sharp/` is taken
too. The headers are read once, to learn where each picture begins; from then on a picture is one read, so that the
order is shuffled over all shards, like that of files.
"""

import tarfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from unblur.data.layouts import Found
from unblur.data.remote import RemotePicture, list_files, opened, read_bytes
from unblur.data.sources import Picture, Pixels, decode_rgb8
from unblur.errors import DataError, PhotoError
from unblur.images import PHOTO_SUFFIXES

BLURRED, SHARP = ("blur", "blurred", "input"), ("sharp", "target")
THREADS = 16


@dataclass(frozen=True)
class TarPicture:
    """A picture within an uncompressed tar file, on this computer or behind an address."""

    shard: str
    offset: int
    size: int
    name: str

    def __str__(self) -> str:
        return f"{self.shard}:{self.name}"

    def read(self) -> Pixels:
        """Return the pixels: one read of the picture's bytes."""
        try:
            return decode_rgb8(read_bytes(self.shard, self.offset, self.size), str(self))
        except DataError as error:
            raise PhotoError(str(error)) from error


@dataclass(frozen=True)
class TarShards:
    """The layout: all tar files of a folder that follow a pattern."""

    pattern: str = "*.tar"
    variants: tuple[str, ...] | None = None
    """The only kinds of blur that are packed so; None for all."""
    paired: bool = True

    @property
    def rows(self) -> tuple[str, str]:
        """The members' names."""
        if self.paired:
            return f"{self.pattern} with KEY.blur.png", f"{self.pattern} with KEY.sharp.png"
        return "", f"{self.pattern} with KEY.png"

    def find(self, folder: Path, variant: str) -> Found | None:
        """Return the pictures of all shards; None where there is no shard, or none of this kind."""
        if self.variants is not None and variant not in self.variants:
            return None
        shards = [str(path) for path in sorted(folder.glob(self.pattern)) if path.is_file()]
        found = found_in_shards(shards) if shards else None
        if found is None or not (found.sharp or found.blurred):
            return found
        return found if (found.blurred is not None) == self.paired else None


def found_in_shards(shards: Iterable[str]) -> Found | None:
    """Return the pictures of tar files, by name, and which of these are damaged; None where they hold none."""
    listed: list[tuple[str, Picture]] = []
    damaged: dict[Path, str] = {}
    shards = list(shards)
    with ThreadPoolExecutor(THREADS) as pool:  # far away, waiting is most of the time
        for shard, members in zip(shards, pool.map(_pictures_of, shards), strict=True):
            if isinstance(members, DataError):
                damaged[Path(shard)] = str(members)
            else:
                listed += members
    found = _found(listed) or Found(None)
    found.damaged.update(damaged)
    return found if listed or damaged else None


def found_at(address: str) -> Found | None:
    """Return the pictures behind an address of fsspec: of a tar file, of the tar files of a folder, or a folder's."""
    files = list_files(address)
    shards = [where for path, where in files if path.endswith(".tar")]
    if shards:
        return found_in_shards(shards)
    return _found([(path, RemotePicture(where, _key(path))) for path, where in files if _is_picture(path)])


def _pictures_of(shard: str) -> list[tuple[str, Picture]] | DataError:
    """Return (path within, picture) of a tar file's pictures, from its headers; or why they cannot be read."""
    found: list[tuple[str, Picture]] = []
    try:
        with opened(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.isfile() and _is_picture(member.name):
                    path = member.name.removeprefix("./")
                    found.append((path, TarPicture(shard, member.offset_data, member.size, _key(path))))
    except tarfile.TarError as error:
        return DataError(f"{shard} is no plain tar file ({error}); unpack a compressed one (gunzip) first.")
    except DataError as error:
        return error
    return found


def _found(listed: list[tuple[str, Picture]]) -> Found | None:
    sides: dict[str, dict[str, Picture]] = {"blurred": {}, "sharp": {}, "": {}}
    twice: dict[Path, str] = {}
    for path, picture in listed:
        side = sides[_role(path)]
        if picture.name in side:
            twice[Path(str(picture))] = picture.name
        side[picture.name] = picture
    blurred, sharp, alone = sides.values()
    if not blurred:
        pictures = {**alone, **sharp}
        return Found(None, pictures, twice) if pictures else None
    missing = {Path(f"{name}.sharp"): name for name in blurred if name not in sharp}
    missing |= {Path(f"{name}.blur"): name for name in sharp if name not in blurred}
    return Found(blurred, sharp, twice, missing)


def _is_picture(path: str) -> bool:
    parts = PurePosixPath(path)
    return parts.suffix.lower() in PHOTO_SUFFIXES and not any(p.startswith(".") for p in parts.parts if p != ".")


def _role(path: str) -> str:
    """Return "blurred", "sharp" or "" for a picture that does not say: by its last name but one, or by its folder."""
    parts = PurePosixPath(path)
    said = [*parts.name.lower().split(".")[1:-1], *parts.parts[:1]]
    return "blurred" if set(said) & set(BLURRED) else "sharp" if set(said) & set(SHARP) else ""


def _key(path: str) -> str:
    """Return what a pair's two pictures share: `scene/0001` for `scene/0001.blur.png` and for `blur/scene/0001.png`."""
    parts = PurePosixPath(path)
    folders = parts.parts[:-1]
    if folders and folders[0] in (*BLURRED, *SHARP):
        folders = folders[1:]
    return "/".join((*folders, parts.name.partition(".")[0]))
