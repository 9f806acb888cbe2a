"""Pairs of blurred and sharp pictures from a clip of one's own: `unblur data from-video`.

The mean of some consecutive frames, as light, is what one long exposure would have seen; the frame in the middle is its
sharp partner. So GoPro and REDS were made, of 240 and 120 frames a second. A clip is good for this if its frames are
sharp and hardly move from one to the next; where they move too far, the mean shows things several times, which no
photograph does, and the pair has a `warning`.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from unblur.blur.camera import average_frames
from unblur.errors import DataError
from unblur.images import Photo, as_photo, check_output, write_photo
from unblur.video import Frame, read_frames

GHOST_PX = 3.0
"""An edge that moves this far between frames leaves steps in the mean, not a smear: frames of video are themselves
unsharp by about 2 pixels, which hides smaller steps."""

FLOW_SIDE_PX = 480
"""Motion is measured on frames whose longer side is reduced to this."""


@dataclass(frozen=True)
class VideoPair:
    """A written pair."""

    blurred: Path
    sharp: Path
    middle_frame: int
    """Number of the sharp frame in the clip, from 0."""
    motion_px: float
    """How far things move from one frame to the next; a twentieth of the picture moves farther."""

    @property
    def warning(self) -> str | None:
        """Return what is to be said of the blurred picture where it probably shows things several times."""
        if self.motion_px <= GHOST_PX:
            return None
        return (
            f"{self.blurred} may show ghosts: things move by {self.motion_px:.1f} px from frame to frame, more than "
            f"{GHOST_PX:g}. Film at a higher frame rate, or reduce the frames first."
        )


def pairs_from_video(
    clip: Path,
    output: Path,
    *,
    frames: int = 11,
    stride: int = 11,
    response: float | Tensor = 2.2,
    overwrite: bool = False,
) -> Iterator[VideoPair]:
    """Write `output`/blur/NAME.png and `output`/sharp/NAME.png for every window of the clip, and yield each pair.

    `clip` is a video file or a folder of frames. A pair is made of `frames` consecutive ones (odd, 7 to 25), and the
    next one starts `stride` frames later; what is left at the end is not used. NAME is the clip's with the number of
    the sharp frame. `response` is the camera's, as in `camera.average_frames`; `read_response` makes it of a text.

    Raises `DataError` for settings out of range and a clip with too few frames, `PhotoError` for what cannot be read,
    `OutputError` for what cannot be written; the pairs before it are whole. Memory holds `frames` frames as bytes.
    """
    if frames % 2 == 0 or not 7 <= frames <= 25:
        raise DataError(f"{frames} frames cannot be averaged; take an odd number from 7 to 25.")
    if stride < 1:
        raise DataError(f"A stride of {stride} would not come forward; take 1 or more.")
    window: deque[Frame] = deque(maxlen=frames)
    count = 0
    for count, frame in enumerate(read_frames(clip), start=1):
        window.append(frame)
        if count >= frames and (count - frames) % stride == 0:
            yield _written_pair(window, clip, output, count - 1 - frames // 2, response, overwrite)
    if count < frames:
        raise DataError(f"{clip} has {count} frames, and a pair needs {frames}; `--frames` takes fewer, down to 7.")


def read_response(text: str) -> float | Tensor:
    """Return the response of a camera: a gamma, or the curve in a file.

    The file holds 256 numbers, with spaces, commas or line breaks between them: the light that makes each 8-bit value,
    rising, in any unit. Raises `DataError` where it does not.
    """
    try:
        gamma = float(text)
    except ValueError:
        return _read_curve(Path(text))
    if not 0 < gamma < 10:
        raise DataError(f"A gamma of {text} is no camera's; 2.2 is usual, 1 means that the values are light already.")
    return gamma


def _read_curve(path: Path) -> Tensor:
    try:
        numbers = [float(word) for word in path.read_text(encoding="utf-8").replace(",", " ").split()]
    except FileNotFoundError:
        raise DataError(f"{path} is neither a number nor a file with a response curve.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a response curve: {error}") from None
    curve = torch.tensor(numbers, dtype=torch.float64)
    if len(numbers) != 256 or not bool(torch.isfinite(curve).all()) or not bool((curve.diff() > 0).all()):
        raise DataError(f"{path} holds {len(numbers)} numbers; a response curve has 256, each larger than the last.")
    return ((curve - curve[0]) / (curve[-1] - curve[0])).float()


def _written_pair(
    window: Iterable[Frame], clip: Path, output: Path, middle: int, response: float | Tensor, overwrite: bool
) -> VideoPair:
    frames = list(window)
    name = f"{clip.absolute().name if clip.is_dir() else clip.stem}_{middle:06}.png"
    blurred, sharp = output / "blur" / name, output / "sharp" / name
    for path in (blurred, sharp):
        check_output(path, overwrite=overwrite)
    mean = average_frames((torch.from_numpy(frame).permute(2, 0, 1).float() / 255 for frame in frames), response)
    write_photo(Photo(mean.contiguous()), blurred, overwrite=overwrite)
    write_photo(as_photo(frames[len(frames) // 2]), sharp, overwrite=overwrite)
    return VideoPair(blurred, sharp, middle, _motion_px(frames))


def _motion_px(frames: list[Frame]) -> float:
    """Return the motion between neighbours, in pixels of the frames: the 99th percentile of the optical flow (DIS,
    Kroeger et al., ECCV 2016, as in OpenCV) of reduced grey frames, on average over the window.
    """
    height, width = frames[0].shape[:2]
    factor = max(1.0, max(height, width) / FLOW_SIDE_PX)
    size = (max(16, round(width / factor)), max(16, round(height / factor)))
    grey = [cv2.cvtColor(cv2.resize(f, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY) for f in frames]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    lengths = []
    for first, second in itertools.pairwise(grey):
        moved = flow.calc(first, second, np.zeros((*first.shape, 2), np.float32))
        lengths.append(float(np.percentile(np.hypot(moved[..., 0], moved[..., 1]), 99)))
    return float(np.mean(lengths)) * factor
