"""Windows of consecutive frames: found by their numbers, cut alike, and mixed with photographs by position alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from training_pictures import same, write_pictures, write_windows
from unblur.blur.camera import average_frames, round_to_8bit
from unblur.blur.recipes import load_recipe
from unblur.data.mixture import BLOCK, MixedCrops, Order, collated_by_kind, complete_mixture
from unblur.data.pairs import TrainingCrops, complete_batch, hold_out
from unblur.data.resident import ResidentCrops, ResidentMixture
from unblur.data.sources import Window
from unblur.data.windows import open_windows
from unblur.errors import DataError

EVERYDAY = load_recipe("handheld")


def put(folder: Path, *names: str, size: tuple[int, int] = (30, 20)) -> None:
    """Write pictures (width, height) whose red is the column, green the row, blue the number in the name."""
    for name in names:
        rows, columns = np.mgrid[: size[1], : size[0]]
        number = np.full_like(rows, int(name.rpartition("_")[2].rpartition("/")[2]))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([columns, rows, number], axis=2).astype(np.uint8)).save(folder / f"{name}.png")


def frames_of(windows: list[Window]) -> list[list[str]]:
    return [[picture.name for picture in window.pictures] for window in windows]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data root with twelve photographs and four clips."""
    folder = tmp_path_factory.mktemp("data")
    write_pictures(folder / "sharp")
    write_windows(folder / "windows")
    return folder


def crops(items: list[Any], **options: Any) -> TrainingCrops:
    return TrainingCrops(items, **{"seed": 1, "crop_px": 16, "flips": True, "rotations": True, **options})


def mixture(root: Path, share: float = 0.4) -> MixedCrops:
    photographs = crops([(None, path) for path in sorted((root / "sharp").iterdir())], margin_px=EVERYDAY.margin_px)
    return MixedCrops(photographs, crops(open_windows("windows", root, frames=7)), share, seed=5)


# -- Finding them ------------------------------------------------------------------------------------------------------


def test_windows_are_cut_by_length_and_stride(tmp_path: Path) -> None:
    put(tmp_path, *(f"clip/{number:06}" for number in range(8)))
    numbers = [[int(name[-1]) for name in window] for window in frames_of(open_windows(tmp_path, frames=3, stride=2))]
    assert numbers == [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
    numbers = [[int(name[-1]) for name in window] for window in frames_of(open_windows(tmp_path, frames=3))]
    assert numbers == [[0, 1, 2], [3, 4, 5]]


def test_no_window_reaches_over_a_missing_frame_nor_from_one_stretch_to_the_next(tmp_path: Path) -> None:
    put(tmp_path, "a/7", "a/8", "a/9", "a/10", "a/12", "a/13", "a/14", "b/00_0", "b/00_1", "b/01_2", "b/01_3", "b/01_4")
    found = frames_of(open_windows(tmp_path, frames=3))
    assert found == [["a/7", "a/8", "a/9"], ["a/12", "a/13", "a/14"], ["b/01_2", "b/01_3", "b/01_4"]]


def test_frames_may_lie_in_the_folder_itself_and_other_files_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "frame_1", "frame_2", "frame_3")
    (tmp_path / "frame_1.png").rename(tmp_path / "cover.png")
    put(tmp_path, "frame_1")
    (window,) = open_windows(tmp_path, frames=3)
    assert (window.name, len(window.pictures)) == ("frame_1", 3)


def test_what_makes_no_window_is_refused_with_its_reason(tmp_path: Path) -> None:
    put(tmp_path, "clip/0", "clip/1", "clip/2")
    with pytest.raises(DataError, match=r"no 5 frames in a row; the longest run has 3"):
        open_windows(tmp_path, frames=5)
    with pytest.raises(ValueError, match="must be odd"):
        open_windows(tmp_path, frames=4)
    put(tmp_path, "clip/00")
    with pytest.raises(DataError, match=r"are the same frame"):
        open_windows(tmp_path, frames=3)


def test_windows_of_a_clip_are_held_out_together() -> None:
    windows = [Window(f"clip_{clip}/{n:02}_00", ()) for clip in range(60) for n in range(3)]
    kept, held = ({window.name.split("/")[0] for window in part} for part in hold_out(windows, 0.3))
    assert kept
    assert held
    assert not kept & held


def test_the_real_windows_are_found(data_root: Path) -> None:
    windows = open_windows("windows", data_root)
    assert len(windows) >= 40
    assert {len(window.pictures) for window in windows} == {11}
    assert len(open_windows("windows", data_root, frames=7, stride=4)) == 2 * len(windows)


# -- Samples -----------------------------------------------------------------------------------------------------------


def test_all_frames_of_a_window_are_cut_and_turned_alike(tmp_path: Path) -> None:
    put(tmp_path, *(f"clip/{number}" for number in range(5)))
    samples = crops(open_windows(tmp_path, frames=5))
    seen = set()
    for position in range(30):
        frames = samples[position]["frames"]
        assert frames.shape == (5, 3, 16, 16)
        assert frames.dtype == torch.uint8
        assert (frames[:, :2] == frames[:1, :2]).all()
        assert frames[:, 2, 0, 0].tolist() == [0, 1, 2, 3, 4]
        seen.add(tuple(frames[0, :2, 0, 0].tolist()))
    assert len(seen) > 10


def test_frames_of_several_sizes_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "clip/0", "clip/1")
    put(tmp_path, "clip/2", size=(31, 20))
    with pytest.raises(DataError, match=r"The window 'clip/0' differs in size: .*0.png is 30x20, .*2.png 31x20"):
        crops(open_windows(tmp_path, frames=3))[0]


def test_a_frame_that_cannot_be_read_leaves_its_window_out(tmp_path: Path) -> None:
    put(tmp_path, *(f"clip/{number}" for number in range(6)))
    (tmp_path / "clip/1.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"1\.png"):
        assert {sample["name"] for sample in map(crops(open_windows(tmp_path, frames=3)).__getitem__, range(6))} == {
            "clip/3"
        }


def test_a_clip_is_the_frames_and_its_blurred_picture_their_mean(root: Path) -> None:
    samples = crops(open_windows("windows", root, frames=7))
    sharp = load_recipe("sharp")
    recipe = sharp.model_copy(update={"windows": sharp.windows.model_copy(update={"frames": (7, 7)})})
    batch = complete_batch(collated_windows(samples, 4), recipe, 0, clips=True)
    assert batch["clip"].shape == (4, 7, 3, 16, 16)
    assert torch.equal(batch["sharp"], batch["clip"][:, 3])
    expected = torch.stack([round_to_8bit(average_frames(clip, 2.2)) for clip in batch["clip"]])
    assert torch.equal(batch["blurred"], expected)
    assert "clip" not in complete_batch(collated_windows(samples, 4), recipe, 0)


def collated_windows(samples: TrainingCrops, count: int) -> dict[str, Any]:
    return torch.utils.data.default_collate([samples[position] for position in range(count)])


# -- Mixing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.25, 0.4, 1 / 3, 0.5, 0.97])
def test_the_share_is_kept_and_each_kind_goes_through_its_own_series_in_order(share: float) -> None:
    order, blocks = Order(share, seed=3), 40
    places: dict[bool, list[int]] = {False: [], True: []}
    for position in range(BLOCK * blocks):
        is_window, place = order.at(position)
        places[is_window].append(place)
        if (position + 1) % BLOCK == 0:
            assert abs(len(places[True]) - share * (position + 1)) < 0.51
    for of_kind in places.values():
        assert of_kind == list(range(len(of_kind)))


def test_processes_get_their_part_of_the_windows_each() -> None:
    order = Order(0.5, seed=3)
    for rank in range(4):
        windows = sum(order.at(position)[0] for position in range(rank, 4000, 4))
        assert 400 < windows < 600


def test_another_seed_gives_another_order() -> None:
    one, other = ([Order(0.4, seed).at(position)[0] for position in range(60)] for seed in (1, 2))
    assert one != other


def test_a_mixed_batch_is_its_samples_each_as_if_it_were_alone(root: Path) -> None:
    samples = mixture(root)
    batch = complete_mixture(
        collated_by_kind([samples[position] for position in range(8)]), EVERYDAY, EVERYDAY.margin_px
    )
    assert batch["blurred"].shape == batch["sharp"].shape == (8, 3, 16, 16)
    kinds = [samples.order.at(position)[0] for position in range(8)]
    assert set(kinds) == {False, True}
    assert [name.startswith("clip_") for name in batch["name"]] == kinds
    for position in range(8):
        alone = complete_mixture(collated_by_kind([samples[position]]), EVERYDAY, EVERYDAY.margin_px)
        assert batch["name"][position] == alone["name"][0]
        assert torch.equal(batch["sharp"][position], alone["sharp"][0])
        torch.testing.assert_close(batch["blurred"][position], alone["blurred"][0], rtol=0, atol=1.1 / 255)


def test_resident_windows_and_photographs_give_the_same_batches(root: Path) -> None:
    samples = mixture(root)
    resident = ResidentMixture.load(samples, "cpu")
    assert resident is not None
    for first in (0, 5, 33):
        positions = range(first, first + 5)
        assert same(resident.batch(positions), collated_by_kind([samples[position] for position in positions]))
    windows = ResidentCrops.load(samples.windows, "cpu")
    assert windows is not None
    assert same(windows.batch(range(3, 7))["frames"], torch.stack([samples.windows[n]["frames"] for n in range(3, 7)]))
