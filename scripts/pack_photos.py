"""Pack sharp photographs and windows of video into one tar of WebP files, small enough to be sent to a borrowed GPU.

    python scripts/pack_photos.py DATA -o photos.tar [--megabytes 45] [--longest 640] [--sets sharp windows]

DATA holds `sharp/`, `windows/` or both, each with a `manifest.csv` that says whose the pictures are (columns file or
item, licence, source or source_repo; a file may be a pattern). Pictures without a row are left out. In the tar lie the
sets and `LICENCES-SETS.csv`, so that unpacked it is the folder of data sets that `unblur train --data-root` takes.
Names are kept, and with them which photographs `hold_out` keeps back.

What is WebP already is taken as it is. All else is written as lossy WebP of the highest quality at which everything
fits; where that is low, `--longest` buys quality with size. Lossy WebP has colour at half the resolution, which
`data.shrink` in a training makes up for.
"""

import argparse
import bisect
import csv
import io
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from unblur.data.pairs import resized
from unblur.errors import DataError, UnblurError
from unblur.files import written_whole
from unblur.images import find_photos, read_rgb8

SETS = ("sharp", "windows")
QUALITIES = range(98, 38, -2)
NUM_TRIED = 40
"""Pictures from which the quality is guessed."""

TAR_END = tarfile.RECORDSIZE
"""At most so many bytes of nothing are at a tar's end."""


class Rights(NamedTuple):
    """Whose a picture is."""

    licence: str
    source: str


class Packed(NamedTuple):
    """What came of packing."""

    pictures: int
    quality: int | None
    """Of WebP; None where nothing had to be encoded."""
    bytes: int
    left_out: int
    """Pictures of which the manifests do not say whose they are."""


def main() -> None:
    """Pack, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--megabytes", type=float, default=45.0, help="at most so large (%(default)s)")
    parser.add_argument("--longest", type=int, metavar="PX", help="reduce what is larger to this, by area")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, help="(both)")
    options = parser.parse_args()
    try:
        packed = pack(options.data, options.out, round(options.megabytes * 1e6), options.sets, options.longest)
    except UnblurError as error:
        sys.exit(str(error))
    left_out = f", {packed.left_out} left out for want of a licence" if packed.left_out else ""
    print(f"{options.out}: {packed.pictures} pictures, WebP {packed.quality}, {packed.bytes / 1e6:.1f} MB{left_out}")


def pack(data: Path, out: Path, max_bytes: int, sets: Sequence[str] = SETS, longest_px: int | None = None) -> Packed:
    """Write the tar, whole or not at all. Raises `DataError` where it cannot be made so small, or nothing is there."""
    rights = {path: owned for name in sets for path, owned in rights_of(data / name)}
    if not rights:
        raise DataError(f"{data} holds no pictures in {' or '.join(sets)} whose licence a manifest.csv there says.")
    listed = _as_csv({_place(path, data): owned for path, owned in rights.items()})
    packed = {path: path.read_bytes() for path in rights if path.suffix.lower() == ".webp"}
    left = max_bytes - TAR_END - sum(_in_tar(len(content)) for content in (listed, *packed.values()))
    quality, encoded = _encoded([path for path in rights if path not in packed], left, longest_px)
    contents = {f"LICENCES-{'-'.join(sets)}.csv": listed} | {
        _place(path, data): {**packed, **encoded}[path] for path in rights
    }
    with written_whole(out) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for place, content in contents.items():
            member = tarfile.TarInfo(place)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    there = sum(len(find_photos(data / name)) for name in sets if (data / name).is_dir())
    return Packed(len(rights), quality, out.stat().st_size, there - len(rights))


def rights_of(folder: Path) -> Iterator[tuple[Path, Rights]]:
    """Yield the pictures of a set that its manifest lists, and whose they are; none where there is no set."""
    if not (folder / "manifest.csv").is_file():
        return
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            owned = Rights(row["licence"], row.get("source") or row["source_repo"])
            for path in sorted(folder.glob(row.get("file") or row["item"])):
                yield path, owned


def _encoded(paths: Sequence[Path], max_bytes: int, longest_px: int | None) -> tuple[int | None, dict[Path, bytes]]:
    """Return the highest quality at which the pictures fit, as a few of them let expect, and the pictures."""
    if not paths:
        return None, {}
    few = paths[:: max(1, len(paths) // NUM_TRIED)]
    with ThreadPoolExecutor() as pool:

        def at(quality: int, chosen: Sequence[Path]) -> tuple[int, dict[Path, bytes]]:
            contents = dict(zip(chosen, pool.map(partial(_as_webp, quality, longest_px), chosen), strict=True))
            return sum(_in_tar(len(content)) for content in contents.values()), contents

        share = max_bytes * len(few) / len(paths)
        likely = bisect.bisect_left(QUALITIES, True, key=lambda quality: at(quality, few)[0] <= share)
        for quality in QUALITIES[likely:]:
            size, contents = at(quality, paths)
            if size <= max_bytes:
                return quality, contents
    raise DataError(
        f"{len(paths)} pictures do not fit even at WebP quality {QUALITIES[-1]}. Allow more megabytes, or reduce them."
    )


def _as_webp(quality: int, longest_px: int | None, path: Path) -> bytes:
    pixels, content = read_rgb8(path), io.BytesIO()
    height, width = pixels.shape[:2]
    factor = longest_px / max(height, width) if longest_px else 1
    if factor < 1:
        pixels = resized(pixels, (max(1, round(width * factor)), max(1, round(height * factor))))
    Image.fromarray(pixels).save(content, "WEBP", quality=quality)
    return content.getvalue()


def _place(path: Path, data: Path) -> str:
    return path.relative_to(data).with_suffix(".webp").as_posix()


def _as_csv(rights: Mapping[str, Rights]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", *Rights._fields])
    writer.writerows([place, *owned] for place, owned in rights.items())
    return text.getvalue().encode()


def _in_tar(size: int) -> int:
    """Return what a file of that size takes: a header, and whole blocks."""
    return 512 + -(-size // 512) * 512


if __name__ == "__main__":
    main()
