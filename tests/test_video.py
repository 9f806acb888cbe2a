"""Frames come in the order they are shown, upright, one at a time, from files and folders alike."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unblur import video
from unblur.errors import MissingExtra, PhotoError
from unblur.video import read_frames


def write_clip(path: Path, frames: list[np.ndarray], *, seconds: list[float] | None = None) -> Path:
    """Write a lossless clip; `seconds` are the times of the frames, a thirtieth apart without."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr0"
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0")
            frame.pts = index if seconds is None else round(seconds[index] * 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def pictures(count: int, height: int = 32, width: int = 48) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def test_the_frames_of_a_file_come_whole_and_in_order(tmp_path):
    frames = pictures(7)
    read = list(read_frames(write_clip(tmp_path / "clip.mkv", frames)))
    assert [frame.dtype for frame in read] == [np.uint8] * 7
    assert all(np.array_equal(a, b) for a, b in zip(read, frames, strict=True))


def test_every_frame_comes_once_whatever_the_time_between_them(tmp_path):
    frames = pictures(5)
    path = write_clip(tmp_path / "clip.mkv", frames, seconds=[0.0, 0.1, 0.5, 0.6, 2.0])
    assert all(np.array_equal(a, b) for a, b in zip(read_frames(path), frames, strict=True))


def test_the_pictures_of_a_folder_are_its_frames_and_9_comes_before_10(tmp_path):
    frames = pictures(12)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"frame{index}.png")
    (tmp_path / "blur").mkdir()
    Image.fromarray(frames[0]).save(tmp_path / "blur" / "earlier.png")
    (tmp_path / "notes.txt").write_text("no frame", encoding="utf-8")
    assert all(np.array_equal(a, b) for a, b in zip(read_frames(tmp_path), frames, strict=True))


def test_frames_are_read_one_at_a_time(tmp_path, monkeypatch):
    for index, frame in enumerate(pictures(6)):
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
    reads = []
    monkeypatch.setattr(video, "read_rgb8", lambda path: reads.append(path) or np.zeros((4, 4, 3), np.uint8))
    frames = read_frames(tmp_path)
    next(frames), next(frames)
    assert len(reads) == 2


def test_a_clip_that_was_filmed_with_a_turned_camera_comes_upright(data_root):
    pytest.importorskip("av")
    clip = data_root / "clips" / "keyboard_rot90_sound.mp4"
    if not clip.is_file():
        pytest.skip(f"no {clip}")
    assert next(read_frames(clip)).shape == (640, 360, 3)


def test_a_clip_of_variable_frame_rate_gives_all_its_frames(data_root):
    pytest.importorskip("av")
    clip = data_root / "clips" / "gopro_walk_sound_vfr.mp4"
    if not clip.is_file():
        pytest.skip(f"no {clip}")
    assert sum(1 for _ in read_frames(clip)) == 59


def test_frames_of_two_sizes_are_no_clip(tmp_path):
    for name, shape in (("a.png", (4, 6)), ("b.png", (4, 7))):
        Image.fromarray(np.zeros((*shape, 3), np.uint8)).save(tmp_path / name)
    with pytest.raises(PhotoError, match=r"b.png is 7×4, the frames before it are 6×4"):
        list(read_frames(tmp_path))


def test_what_is_no_clip_is_named(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PhotoError, match=r"broken.mp4 cannot be read as a video"):
        list(read_frames(tmp_path / "broken.mp4"))
    with pytest.raises(PhotoError, match="empty has no frames"):
        list(read_frames(tmp_path / "empty"))
    with pytest.raises(PhotoError, match=r"gone.mp4 does not exist"):
        list(read_frames(tmp_path / "gone.mp4"))


def test_a_clip_that_breaks_off_gives_the_frames_that_are_there(tmp_path):
    frames = pictures(20)
    path = write_clip(tmp_path / "clip.mkv", frames)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    read = list(read_frames(path))
    assert 5 <= len(read) <= 10
    assert all(np.array_equal(a, b) for a, b in zip(read, frames, strict=False))


def test_without_pyav_a_video_file_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "clip.mp4").write_bytes(b"x")
    with pytest.raises(MissingExtra, match=r"pip install 'unblur\[video\]'"):
        next(read_frames(tmp_path / "clip.mp4"))
