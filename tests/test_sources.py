"""A picture reads the same wherever it lies: a file, a tar shard, an address."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from data_trees import make_shard, pixels, put
from unblur.data.catalog import open_dataset
from unblur.data.pairs import Positions, TrainingCrops, hold_out
from unblur.data.shards import found_in_shards
from unblur.data.sources import FilePicture, Pair, as_picture, decode_rgb8, subset
from unblur.errors import DataError, PhotoError
from unblur.images import read_rgb8


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two tar files with five pairs and what WebDataset puts beside them."""
    for shard, keys in enumerate(("abc", "de")):
        members = {}
        for key in keys:
            members |= {f"{key}.blur.png": pixels(ord(key)), f"{key}.sharp.png": pixels(ord(key) + 100)}
            members |= {f"{key}.json": b"{}"}
        make_shard(tmp_path / f"train-{shard:03}.tar", members)
    return tmp_path


@pytest.fixture
def memory():
    """An address of fsspec, cleared afterwards."""
    system = pytest.importorskip("fsspec").filesystem("memory")
    yield "memory://unblur-tests"
    system.rm("/unblur-tests", recursive=True)


def upload(address: str, folder: Path) -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            system.pipe_file(f"{address}/{path.relative_to(folder).as_posix()}", path.read_bytes())


# -- Files and bytes ---------------------------------------------------------------------------------------------------


def test_a_file_is_a_picture_of_its_own_name(tmp_path):
    path = put(tmp_path / "deep/a.1.png", 3)
    picture = as_picture(path)
    assert picture.name == "a.1"
    assert np.array_equal(picture.read(), pixels(3))
    assert as_picture(picture) is picture


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3), (7, 9, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bytes_decode_as_the_file_does(tmp_path, shape, dtype):
    import cv2

    array = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype)
    cv2.imwrite(str(tmp_path / "a.png"), array)
    assert np.array_equal(decode_rgb8((tmp_path / "a.png").read_bytes(), "a"), read_rgb8(tmp_path / "a.png"))


def test_bytes_that_are_no_picture_are_named():
    with pytest.raises(PhotoError, match=r"shard\.tar:a"):
        decode_rgb8(b"no picture", "shard.tar:a")


# -- Shares ------------------------------------------------------------------------------------------------------------


def frames(folders: int, each: int) -> list[Pair]:
    names = [f"{folder:03}/{frame:08}" for folder in range(folders) for frame in range(each)]
    return [Pair(None, FilePicture(Path(name + ".png"), name)) for name in names]


def test_a_share_takes_the_same_part_of_each_folder():
    part = subset(frames(24, 100), 0.1, seed=1)
    assert len(part) == 240
    folders = [pair.name.split("/")[0] for pair in part]
    assert {folders.count(f"{folder:03}") for folder in range(24)} == {10}
    assert part == sorted(part, key=lambda pair: pair.name)


def test_a_share_is_the_same_for_the_same_seed_and_another_for_another():
    pairs = frames(5, 40)
    assert subset(pairs, 0.1, 1) == subset(pairs, 0.1, 1)
    assert subset(pairs, 0.1, 1) != subset(pairs, 0.1, 2)
    assert subset(pairs, 1.0, 1) == pairs
    assert len(subset(pairs, 0.0001, 1)) == 1
    with pytest.raises(DataError, match="share of 0"):
        subset(pairs, 0.0, 1)


def test_the_frames_of_a_scene_are_held_out_together():
    kept, held = hold_out(frames(60, 5), 0.2)
    scenes = [{pair.name.split("/")[0] for pair in part} for part in (kept, held)]
    assert scenes[1]
    assert not scenes[0] & scenes[1]


def test_a_picture_is_held_out_by_its_name_as_its_file_is():
    paths = [Path(f"some/where/{number}.jpg") for number in range(200)]
    held = hold_out(paths, 0.2)[1]
    assert [picture.path for picture in hold_out([FilePicture(p, p.stem) for p in paths], 0.2)[1]] == held


# -- Tar shards --------------------------------------------------------------------------------------------------------


def test_the_pairs_of_tar_shards_are_read_at_random(shards):
    pairs = open_dataset(shards)
    assert [pair.name for pair in pairs] == list("abcde")
    for pair in reversed(pairs):
        assert np.array_equal(pair.blurred.read(), pixels(ord(pair.name)))
        assert np.array_equal(pair.sharp.read(), pixels(ord(pair.name) + 100))
    assert [pair.blurred for pair in open_dataset(shards, sharp_only=True)] == [None] * 5


def test_one_tar_file_is_a_data_set(shards):
    assert [pair.name for pair in open_dataset(shards / "train-001.tar")] == ["d", "e"]


def test_a_tar_of_two_folders_holds_pairs(tmp_path):
    make_shard(tmp_path / "a.tar", {"./blur/s/1.png": pixels(1), "./sharp/s/1.png": pixels(2), "._x.png": b"mac"})
    assert [pair.name for pair in open_dataset(tmp_path)] == ["s/1"]


def test_a_tar_of_single_pictures_holds_sharp_ones(tmp_path):
    make_shard(tmp_path / "sharp/a.tar", {"0.jpg": pixels(1), "1.png": pixels(2), "1.cls": b"3"})
    assert [(pair.blurred, pair.name) for pair in open_dataset("sharp", tmp_path)] == [(None, "0"), (None, "1")]


def test_a_key_without_a_partner_or_twice_is_an_error(tmp_path):
    make_shard(tmp_path / "a.tar", {"0.blur.png": pixels(1), "0.sharp.png": pixels(1), "1.blur.png": pixels(1)})
    with pytest.raises(DataError, match=r"1 files of pairs are missing: 1.sharp"):
        open_dataset(tmp_path)
    for name in ("a.tar", "b.tar"):
        make_shard(tmp_path / name, {"0.png": pixels(1)})
    with pytest.raises(DataError, match=r"1 files have the name of another: .*b.tar:0"):
        open_dataset(tmp_path)


def test_a_compressed_tar_is_refused_with_the_way_out(tmp_path):
    make_shard(tmp_path / "a.tar", {"0.png": pixels(1)}, "w:gz")
    with pytest.raises(DataError, match=r"a.tar is no plain tar file .*gunzip"):
        open_dataset(tmp_path)


def test_a_damaged_member_is_named(tmp_path):
    shard = make_shard(tmp_path / "a.tar", {"0.png": b"no picture", "1.png": pixels(1)})
    (broken, whole) = (pair.sharp for pair in open_dataset(tmp_path))
    whole.read()
    with pytest.raises(PhotoError, match=r"a\.tar:0"):
        broken.read()
    shard.unlink()
    with pytest.raises(PhotoError, match="cannot be read: No such file"):
        whole.read()


def test_a_tar_without_pictures_is_nothing(tmp_path):
    make_shard(tmp_path / "a.tar", {"notes.txt": b"none"})
    assert found_in_shards([str(tmp_path / "a.tar")]) is None
    with pytest.raises(DataError, match="holds no photographs"):
        open_dataset(tmp_path)


# -- Addresses ---------------------------------------------------------------------------------------------------------


def test_a_folder_of_pairs_behind_an_address_opens(tmp_path, memory):
    for name in ("blur/a.png", "sharp/a.png", "blur/s/b.png", "sharp/s/b.png"):
        put(tmp_path / name, len(name))
    upload(memory, tmp_path)
    pairs = open_dataset(memory)
    assert [pair.name for pair in pairs] == ["a", "s/b"]
    assert np.array_equal(pairs[1].blurred.read(), pixels(len("blur/s/b.png")))


def test_sharp_pictures_behind_an_address_open(tmp_path, memory):
    put(tmp_path / "x/a.png", 1)
    put(tmp_path / "b.jpg", 2)
    (tmp_path / "notes.txt").write_text("no picture")
    upload(memory, tmp_path)
    assert [(pair.blurred, pair.name) for pair in open_dataset(memory)] == [(None, "b"), (None, "x/a")]


def test_tar_shards_behind_an_address_open(shards, memory):
    upload(memory, shards)
    here, there = open_dataset(shards), open_dataset(memory)
    assert [pair.name for pair in here] == [pair.name for pair in there]
    assert np.array_equal(there[4].sharp.read(), here[4].sharp.read())
    assert [pair.name for pair in open_dataset(f"{memory}/train-000.tar")] == ["a", "b", "c"]


def test_an_address_that_cannot_be_had_is_named(memory):
    upload(memory, Path(__file__).parent / "nowhere")
    import fsspec

    fsspec.filesystem("memory").pipe_file(f"{memory}/a.png", b"x")
    with pytest.raises(DataError, match="unknown://x cannot be read"):
        open_dataset("unknown://x")
    (pair,) = open_dataset(memory)
    fsspec.filesystem("memory").pipe_file(f"{memory}/b.png", b"x")
    fsspec.filesystem("memory").rm(f"{memory}/a.png")
    with pytest.raises(PhotoError, match=r"a.png cannot be read"):
        pair.sharp.read()


# -- The same order for the same seed ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("place", ["tar", "address"])
def test_the_order_depends_on_the_seed_alone_not_on_workers_or_processes(shards, place):
    pairs = open_dataset(shards if place == "tar" else f"file://{shards}")

    def samples(workers: int, rank: int = 0, world_size: int = 1) -> list[tuple[str, bytes]]:
        crops = TrainingCrops(pairs, seed=3, crop_px=8, flips=True)
        positions = Positions(0, 12, rank=rank, world_size=world_size)
        loader = DataLoader(crops, 2, sampler=positions, num_workers=workers)
        return [
            (name, sample.numpy().tobytes())
            for batch in loader
            for name, sample in zip(batch["name"], batch["sharp"], strict=True)
        ]

    alone = samples(0)
    assert len({name for name, _ in alone[:5]}) == 5
    assert samples(2) == alone
    ranks = [samples(0, rank, 2) for rank in range(2)]
    assert [sample for both in zip(*ranks, strict=True) for sample in both] == alone


def test_pictures_in_shards_are_small_to_send(shards):
    pairs = open_dataset(shards)
    assert len(pickle.dumps(pairs)) < 300 * len(pairs)
    assert pickle.loads(pickle.dumps(pairs)) == pairs
