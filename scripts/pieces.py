"""Cut a large file into pieces for a way that takes only small ones, and join them again.

    python scripts/pieces.py cut runs/default/last.state -o pieces
    python scripts/pieces.py join pieces last.state -o runs/default/last.state

A piece is called `last.state.HASH.2of8`: pieces of two versions of a file are never joined, and what is joined has the
hash that its pieces name.
"""

import argparse
import hashlib
import re
import sys
from pathlib import Path

from unblur.errors import DataError, UnblurError
from unblur.files import written_whole

PIECE_BYTES = 15 * 2**20
HASH_DIGITS = 12


def main() -> None:
    """Cut or join, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    cutting, joining = commands.add_parser("cut"), commands.add_parser("join")
    cutting.add_argument("file", type=Path)
    cutting.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")
    joining.add_argument("folder", type=Path)
    joining.add_argument("name", help="the name of the file that was cut")
    joining.add_argument("-o", "--out", type=Path, required=True, metavar="FILE")
    options = parser.parse_args()
    try:
        if options.command == "cut":
            print(f"{len(cut(options.file, options.out))} pieces in {options.out}")
        else:
            join(options.folder, options.name, options.out)
            print(options.out)
    except UnblurError as error:
        sys.exit(str(error))


def cut(file: Path, folder: Path, piece_bytes: int = PIECE_BYTES) -> list[Path]:
    """Write the pieces of a file into a folder, in place of those of an earlier version, and return them."""
    content = file.read_bytes()
    earlier = pieces_of(folder, file.name)
    digest = hashlib.sha256(content).hexdigest()[:HASH_DIGITS]
    count = max(1, -(-len(content) // piece_bytes))
    written = [folder / f"{file.name}.{digest}.{number}of{count}" for number in range(1, count + 1)]
    for path in earlier:
        if path not in written:
            path.unlink()
    for number, path in enumerate(written):
        with written_whole(path) as temporary:
            temporary.write_bytes(content[number * piece_bytes : (number + 1) * piece_bytes])
    return written


def join(folder: Path, name: str, file: Path) -> None:
    """Write the file whose pieces are in a folder. Raises `DataError` where some are missing, damaged or too many."""
    found = pieces_of(folder, name)
    versions = {path.name.rpartition(".")[0] for path in found}
    if len(versions) != 1:
        raise DataError(f"{folder} holds pieces of {len(versions)} versions of {name}; those of one are needed.")
    digest, _, numbered = found[0].name.removeprefix(f"{name}.").partition(".")
    count = int(numbered.partition("of")[2])
    by_number = {int(path.name.rpartition(".")[2].partition("of")[0]): path for path in found}
    missing = sorted(set(range(1, count + 1)) - by_number.keys())
    if missing:
        raise DataError(f"{folder} lacks pieces {', '.join(map(str, missing))} of the {count} of {name}.")
    content = b"".join(by_number[number].read_bytes() for number in range(1, count + 1))
    if not hashlib.sha256(content).hexdigest().startswith(digest):
        raise DataError(f"The pieces of {name} in {folder} are damaged: together they have another hash.")
    with written_whole(file) as temporary:
        temporary.write_bytes(content)


def pieces_of(folder: Path, name: str) -> list[Path]:
    """Return the pieces of a file of that name that a folder holds, sorted by name; none where there is no folder."""
    pattern = re.compile(rf"{re.escape(name)}\.[0-9a-f]{{{HASH_DIGITS}}}\.\d+of\d+")
    return sorted(path for path in folder.glob(f"{name}.*") if pattern.fullmatch(path.name))


if __name__ == "__main__":
    main()
