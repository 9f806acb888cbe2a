"""What can go wrong that a user can mend.

* UnblurError
  x PhotoError            a picture cannot be read, or does not fit
    + PhotoTooLarge       more pixels than the limit allows
  x OutputError           a result cannot be written (exists, no right, disk full)
  x UnknownName           no model, recipe, data set, metric, ... of that name
  x SettingsError         a YAML file or `--set` says something that cannot be meant
  x WeightsError          a file of weights is missing, damaged or does not fit
  x DataError             a data set is missing, incomplete or inconsistent
  x TrainingError         a training cannot start or go on
  x MissingExtra          an optional part of the package is not installed

The command line prints these without a traceback and ends with exit code 1. A wrong argument in Python is a
`ValueError`; what only our own bug could break is an `assert`.
"""

import difflib
from collections.abc import Iterable
from typing import Any


class UnblurError(Exception):
    """Base of all errors that a user can mend; `except unblur.UnblurError` catches every one of them."""


class PhotoError(UnblurError):
    """A picture is missing, damaged, empty, or of a kind that cannot be restored."""


class PhotoTooLarge(PhotoError):
    """A picture has more pixels than `max_pixels`; raise the limit if you trust the file."""


class OutputError(UnblurError):
    """A result could not be written: it exists already, the folder is not writable, or the disk is full."""


class UnknownName(UnblurError):
    """A name that is in no list; the message gives the nearest one that is."""

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "") -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        self.where = where
        super().__init__(f"No {kind} is called '{name}'.{suggestion(name, self.known)}{where and ' ' + where}")

    def __reduce__(self) -> tuple[Any, ...]:
        return UnknownName, (self.kind, self.name, self.known, self.where)  # crosses from process to process


class SettingsError(UnblurError):
    """A settings file has an unknown key, a value out of range, or two keys that contradict each other."""


class WeightsError(UnblurError):
    """A file of weights is missing, damaged, of unknown origin, or does not fit its network."""


class DataError(UnblurError):
    """A data set is missing, incomplete, or its files do not belong together."""


class TrainingError(UnblurError):
    """A training cannot start or go on; what was saved before is kept."""


class MissingExtra(UnblurError):
    """An optional part of the package is needed; the message gives the command that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        self.what, self.extra = what, extra
        super().__init__(f"{what} needs packages that are not installed: pip install 'unblur[{extra}]'")

    def __reduce__(self) -> tuple[Any, ...]:
        return MissingExtra, (self.what, self.extra)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or " Known: ..." where none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    if near:
        return f" Did you mean '{near[0]}'?"
    return f" Known: {', '.join(known)}." if known else ""
