"""Writing files whole or not at all.

A result is written under a temporary, hidden name in the folder where it will lie, and renamed when it is complete: a
crash, a full disk or Ctrl-C leaves either the old file or the new one.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from unblur.errors import OutputError


@contextlib.contextmanager
def written_whole(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary name to write to; on success it becomes `path`, otherwise it is removed.

    Missing folders are made. Raises `OutputError` where `path` exists and may not be overwritten, or where the system
    refuses (no right, no space).
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder, not a file name.")
    if not overwrite and path.exists():
        raise OutputError(f"{path} exists already; give --overwrite to replace it.")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        _rename(temporary, path, overwrite)
    except OSError as error:
        raise OutputError(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _rename(temporary: Path, path: Path, overwrite: bool) -> None:
    """Rename; without `overwrite` a file that appeared meanwhile stays (where the file system has hard links)."""
    if overwrite:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise OutputError(f"{path} exists already; give --overwrite to replace it.") from None
    except OSError:  # FAT, some network drives: no hard links
        os.replace(temporary, path)
