"""The data sets that experiments name, and where they lie on this computer.

An experiment file names a set, never a path. The folder that holds the sets comes from `--data-root` or the
environment variable UNBLUR_DATA, each set in a folder of its own name. Nothing is ever downloaded.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from unblur.errors import DataError, UnknownName

DATA_ROOT_VARIABLE = "UNBLUR_DATA"


@dataclass(frozen=True)
class DataSet:
    """A data set: its id, which is also its folder's name, and how its files lie."""

    name: str
    layout: str


DATA_SETS: dict[str, DataSet] = {
    entry.name: entry
    for entry in (
        DataSet("sharp", "any folder of sharp photographs, searched recursively; blurred by a recipe"),
        DataSet("pairs", "`blur/` and `sharp/` (or `input/` and `target/`) with the same relative names"),
    )
}


def find_dataset(name_or_dir: str | Path, data_root: Path | None = None) -> Path:
    """Return the folder of a data set, given by its id or as a folder.

    `data_root` is the folder that holds the sets; without it UNBLUR_DATA says so. Raises `DataError` with what to do.
    """
    name = str(name_or_dir)
    if name in DATA_SETS:
        root = data_root or _root_from_environment(name)
        if not (root / name).is_dir():
            raise DataError(f"{root} has no folder '{name}'. It should hold {DATA_SETS[name].layout}.")
        return root / name
    if Path(name_or_dir).is_dir():
        return Path(name_or_dir)
    if "/" in name or "\\" in name or Path(name_or_dir).exists():
        raise DataError(f"{name} is not a folder.")
    raise UnknownName("data set or folder", name, DATA_SETS)


def _root_from_environment(name: str) -> Path:
    root = os.environ.get(DATA_ROOT_VARIABLE)
    if not root:
        raise DataError(
            f"Where is the data set '{name}'? Give the folder that holds it with --data-root, "
            f"or set {DATA_ROOT_VARIABLE}."
        )
    return Path(root)
