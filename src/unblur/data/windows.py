"""Windows: sharp frames of a video that follow each other, cut out of folders of numbered frames.

The mean of such frames is the blur of things that really moved, and the middle one is its sharp picture
(`blur.recipes.blur_windows`). A folder holds frames as a player would write them, `CLIP/000047.png`, or several
stretches of one clip, `CLIP/00_07.webp`: the last number counts the frames, whatever stands before it names the
stretch, and a number that is missing ends it. Each stretch gives as many windows as fit.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from unblur.data.catalog import find_dataset
from unblur.data.sources import FilePicture, Window
from unblur.errors import DataError
from unblur.images import find_photos


def open_windows(
    name_or_dir: str | Path, data_root: Path | None = None, *, frames: int = 11, stride: int | None = None
) -> list[Window]:
    """Return the windows of `frames` frames (odd) in all folders of numbered frames below a data set or folder.

    `stride`: so many frames further the next window of a stretch begins; without it, where the one before ends. What is
    left at the end of a stretch is not used. A window has the name of its first frame. Raises `ValueError` for numbers
    that make no windows, and `DataError` where no stretch is long enough.
    """
    stride = frames if stride is None else stride
    if frames % 2 == 0 or frames < 1 or stride < 1:
        raise ValueError(f"frames {frames} must be odd, so that one is in the middle, and stride {stride} 1 or more")
    folder = find_dataset(name_or_dir, data_root)
    stretches = list(_stretches(folder))
    windows = [
        Window(stretch[first].name, tuple(stretch[first : first + frames]))
        for stretch in stretches
        for first in range(0, len(stretch) - frames + 1, stride)
    ]
    if not windows:
        longest = max(map(len, stretches), default=0)
        raise DataError(
            f"{folder} holds no {frames} frames in a row; the longest run has {longest}. Frames are numbered files "
            "such as CLIP/000047.png or CLIP/00_07.webp; `windows_frames` asks for fewer."
        )
    return windows


def _stretches(folder: Path) -> Iterator[Sequence[FilePicture]]:
    """Yield the frames of each stretch in the order of their numbers, stretches sorted by name."""
    found: dict[str, dict[int, FilePicture]] = {}
    for path in find_photos(folder):
        match = re.fullmatch(r"(.*?)(\d+)", path.stem)
        if match is None:
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        frames = found.setdefault(name.removesuffix(match[2]), {})
        number = int(match[2])
        if number in frames:
            raise DataError(f"{frames[number]} and {path} are the same frame; keep one of them.")
        frames[number] = FilePicture(path, name)
    for _, frames in sorted(found.items()):
        numbered = enumerate(sorted(frames))
        for _, run in groupby(numbered, key=lambda place_and_number: place_and_number[1] - place_and_number[0]):
            yield [frames[number] for _, number in run]
