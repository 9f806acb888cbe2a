"""Clips: frame after frame as upright RGB, never more than one in memory.

A clip is a video file (PyAV reads it: `pip install 'unblur[video]'`) or a folder of pictures that are its frames. A
clip that was filmed upright with a turned camera says so in its file, and its frames are turned. Frames come in the
order in which they are shown, one for each that the file holds, whatever the time between them.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unblur.errors import MissingExtra, PhotoError
from unblur.images import PHOTO_SUFFIXES, read_rgb8

Frame = np.ndarray[Any, np.dtype[np.uint8]]
"""(H, W, 3) RGB."""


def read_frames(clip: Path) -> Iterator[Frame]:
    """Yield the frames of a video file, or of a folder's pictures in the order of their names (9 before 10).

    Pictures below further folders are not frames. Raises `PhotoError` for what is no clip, is damaged, or has frames of
    more than one size, and `MissingExtra` where a video file needs PyAV.
    """
    first = None
    for name, frame in _frames_of_folder(clip) if clip.is_dir() else _frames_of_file(clip):
        first = first or frame.shape
        if frame.shape != first:
            sizes = [f"{width}×{height}" for height, width, _ in (frame.shape, first)]
            raise PhotoError(f"{name} is {sizes[0]}, the frames before it are {sizes[1]}; a clip has one size.")
        yield frame
    if first is None:
        raise PhotoError(f"{clip} has no frames.")


def _frames_of_folder(folder: Path) -> Iterator[tuple[str, Frame]]:
    files = [path for path in folder.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES and path.name[0] != "."]
    for path in sorted(files, key=_natural):
        yield str(path), read_rgb8(path)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts numbers in names by their value."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", path.name)]


def _frames_of_file(path: Path) -> Iterator[tuple[str, Frame]]:
    if not path.exists():
        raise PhotoError(f"{path} does not exist.")
    try:
        import av
    except ImportError:
        raise MissingExtra("Reading video files", "video") from None
    number = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise PhotoError(f"{path} has no pictures in it, only sound.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for number, frame in enumerate(container.decode(stream)):
                upright = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                yield f"{path}, frame {number},", np.ascontiguousarray(upright)
    except av.FFmpegError as error:
        raise PhotoError(f"{path} cannot be read as a video (after {number} frames): {error.strerror}.") from error
