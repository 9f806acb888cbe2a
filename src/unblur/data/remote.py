"""Bytes by address: a file on this computer, or anything that fsspec knows (`https://...`, `s3://...`, `memory://...`).

Which packages an address needs beside fsspec (s3fs, gcsfs, ...) is said by fsspec itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from unblur.data.sources import Pixels, decode_rgb8
from unblur.errors import DataError, MissingExtra, PhotoError

HEADER_BLOCK_BYTES = 2**16
"""Read at once of a file far away while its headers are looked through."""


@dataclass(frozen=True)
class RemotePicture:
    """A picture in a file behind an address."""

    address: str
    name: str

    def __str__(self) -> str:
        return self.address

    def read(self) -> Pixels:
        """Return the pixels; the file is fetched anew each time."""
        try:
            return decode_rgb8(read_bytes(self.address), self.address)
        except DataError as error:
            raise PhotoError(str(error)) from error


def is_address(text: str) -> bool:
    """Return whether a text is an address for fsspec rather than a path."""
    return "://" in text


def read_bytes(address: str, start: int | None = None, size: int | None = None) -> bytes:
    """Return the bytes of a file, or `size` of them from `start`; `DataError` where they cannot be had."""
    with _errors_named(address):
        if is_address(address):
            system, path = _system(address)
            stop = None if start is None or size is None else start + size
            return bytes(system.cat_file(path, start=start, end=stop))
        with open(address, "rb") as file:
            file.seek(start or 0)
            return file.read(-1 if size is None else size)


@contextmanager
def opened(address: str) -> Iterator[BinaryIO]:
    """Open a file to look through it, back and forth."""
    with _errors_named(address):
        if is_address(address):
            system, path = _system(address)
            with system.open(path, "rb", block_size=HEADER_BLOCK_BYTES) as file:
                yield cast(BinaryIO, file)
        else:
            with open(address, "rb") as file:
                yield file


def list_files(address: str) -> list[tuple[str, str]]:
    """Return (relative path, address) of all files below an address, sorted; of a file itself (its name, address)."""
    with _errors_named(address):
        system, top = _system(address)
        if system.isfile(top):
            return [(top.rpartition("/")[2], address)]
        prefix = top.rstrip("/") + "/"
        paths = sorted(path for path in system.find(top) if path.startswith(prefix))
        return [(path.removeprefix(prefix), system.unstrip_protocol(path)) for path in paths]


def _system(address: str) -> tuple[Any, str]:
    """Return fsspec's file system of an address and the path in it; cached by fsspec, anew in each process."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise MissingExtra("Reading data from an address", "remote") from None
    system, path = url_to_fs(address)
    return system, path


@contextmanager
def _errors_named(address: str) -> Iterator[None]:
    try:
        yield
    except (MissingExtra, DataError):
        raise
    except (OSError, ValueError, ImportError) as error:  # ValueError: an unknown protocol
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{address} cannot be read: {reason.rstrip('.')}.") from error
