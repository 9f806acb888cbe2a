"""The pairs of a clip: the mean of frames as light, their middle one, and a warning where things move too far."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from unblur.data.catalog import open_dataset
from unblur.data.from_video import GHOST_PX, pairs_from_video, read_response
from unblur.errors import DataError, OutputError
from unblur.images import read_rgb8


def write_frames(folder: Path, photograph: Tensor, count: int, step_px: int = 1) -> list[np.ndarray]:
    """Write frames of a picture that moves to the left by `step_px` each time, and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = (photograph.repeat(1, 1, 3).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    frames = [np.ascontiguousarray(picture[:, step_px * n : step_px * n + 96]) for n in range(count)]
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index:03}.png")
    return frames


def test_a_blurred_picture_is_the_mean_of_its_frames_and_the_sharp_one_their_middle(tmp_path, photograph):
    frames = write_frames(tmp_path / "walk", photograph, 9)
    (pair,) = pairs_from_video(tmp_path / "walk", tmp_path / "out", frames=9)
    assert pair.middle_frame == 4
    assert np.array_equal(read_rgb8(pair.sharp), frames[4])
    light = np.mean([(frame / 255) ** 2.2 for frame in frames], axis=0)
    expected = light ** (1 / 2.2) * 255
    assert np.abs(read_rgb8(pair.blurred) - expected).max() <= 0.51


def test_windows_follow_each_other_by_the_stride_and_the_rest_is_left(tmp_path, photograph):
    write_frames(tmp_path / "walk", photograph, 30)
    numbers = {
        stride: [
            pair.middle_frame
            for pair in pairs_from_video(tmp_path / "walk", tmp_path / f"out{stride}", frames=11, stride=stride)
        ]
        for stride in (11, 5, 15)
    }
    assert numbers == {11: [5, 16], 5: [5, 10, 15, 20], 15: [5, 20]}


def test_the_written_folder_is_a_set_of_pairs(tmp_path, photograph):
    write_frames(tmp_path / "walk.v2", photograph, 22)
    written = list(pairs_from_video(tmp_path / "walk.v2", tmp_path / "out"))
    found = open_dataset(tmp_path / "out")
    assert [pair.name for pair in found] == ["walk.v2_000005", "walk.v2_000016"]
    assert [(pair.blurred.path, pair.sharp.path) for pair in found] == [(pair.blurred, pair.sharp) for pair in written]


@pytest.mark.parametrize("step_px", [0, 1, 2, 6])
def test_the_measured_motion_is_that_of_the_frames_and_far_motion_is_warned_of(tmp_path, photograph, step_px):
    write_frames(tmp_path / "walk", photograph, 7, step_px)
    (pair,) = pairs_from_video(tmp_path / "walk", tmp_path / "out", frames=7)
    assert pair.motion_px == pytest.approx(step_px, abs=0.6 + 0.1 * step_px)
    if step_px > GHOST_PX:
        assert pair.warning is not None
        assert f"{pair.motion_px:.1f} px from frame to frame" in pair.warning
    else:
        assert pair.warning is None


def test_a_measured_curve_takes_the_place_of_gamma(tmp_path, photograph):
    write_frames(tmp_path / "walk", photograph, 7, 2)
    curve = tmp_path / "curve.txt"
    curve.write_text("\n".join(f"{3 + 40 * (n / 255) ** 2.2:.9f}," for n in range(256)), encoding="utf-8")
    made = []
    for name, response in (("gamma", 2.2), ("curve", read_response(str(curve))), ("grey", read_response("1"))):
        (pair,) = pairs_from_video(tmp_path / "walk", tmp_path / name, frames=7, response=response)
        made.append(read_rgb8(pair.blurred).astype(int))
    assert np.abs(made[0] - made[1]).max() <= 1
    assert (made[0] - made[2]).mean() > 0.5, "light averages brighter than grey values"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "no camera's"),
        ("nan", "no camera's"),
        ("gone.txt", "neither a number nor a file"),
        ("falling.txt", "256, each larger than the last"),
        ("short.txt", "holds 3 numbers"),
        ("words.txt", "cannot be read as a response curve"),
    ],
)
def test_a_response_that_no_camera_has_is_named(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    Path("falling.txt").write_text(" ".join(str(255 - n) for n in range(256)), encoding="utf-8")
    Path("short.txt").write_text("0 1 2", encoding="utf-8")
    Path("words.txt").write_text("dark bright", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_response(text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": 8}, "8 frames cannot be averaged"),
        ({"frames": 5}, "an odd number from 7 to 25"),
        ({"frames": 27}, "an odd number from 7 to 25"),
        ({"stride": 0}, "stride of 0"),
        ({"frames": 11}, "has 9 frames, and a pair needs 11"),
    ],
)
def test_settings_that_cannot_be_meant_are_named(tmp_path, photograph, settings, message):
    write_frames(tmp_path / "walk", photograph, 9)
    with pytest.raises(DataError, match=message):
        list(pairs_from_video(tmp_path / "walk", tmp_path / "out", **settings))
    assert not (tmp_path / "out").exists()


def test_pairs_that_are_there_are_replaced_only_if_asked(tmp_path, photograph):
    write_frames(tmp_path / "walk", photograph, 7)
    list(pairs_from_video(tmp_path / "walk", tmp_path / "out", frames=7))
    with pytest.raises(OutputError, match="--overwrite"):
        list(pairs_from_video(tmp_path / "walk", tmp_path / "out", frames=7))
    assert len(list(pairs_from_video(tmp_path / "walk", tmp_path / "out", frames=7, overwrite=True))) == 1


def test_real_windows_of_sharp_frames_become_pairs_that_differ(tmp_path, data_root):
    folder = data_root / "windows" / "boof_river"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    pairs = list(pairs_from_video(folder, tmp_path))
    assert len(pairs) == 3
    for pair in pairs:
        assert 0.8 < pair.motion_px < 2.5
        assert pair.warning is None
        blurred, sharp = (torch.from_numpy(read_rgb8(path).astype(np.float32)) for path in (pair.blurred, pair.sharp))
        assert blurred.diff(dim=1).abs().mean() < 0.9 * sharp.diff(dim=1).abs().mean()
