"""What a lent GPU needs: photographs in one small file, a training that ends in time and goes on from its pieces."""

import csv
import sys
import tarfile
from functools import partial
from pathlib import Path

import pytest

from training_pictures import same, settings, write_pictures, write_windows
from unblur.data.catalog import open_dataset
from unblur.data.windows import open_windows
from unblur.errors import DataError
from unblur.images import read_rgb8
from unblur.training.run import train
from unblur.training.state import read_state

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import pack_photos
import pieces
import train_on_gpu


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with twelve photographs, of which one has no licence, and windows."""
    folder = tmp_path / "data"
    names = [path.name for path in write_pictures(folder / "sharp")]
    write_manifest(folder / "sharp", ["file", "licence", "source"], [[n, "CC0", "somebody"] for n in names[:-1]])
    write_windows(folder / "windows", clips=1)
    write_manifest(folder / "windows", ["item", "licence", "source_repo"], [["clip_0/00_*.png", "CC BY 4.0", "a clip"]])
    return folder


def write_manifest(folder: Path, columns: list[str], rows: list[list[str]]) -> None:
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


# -- Pieces ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 250])
def test_pieces_are_small_and_make_the_same_file_again(tmp_path, size):
    content = bytes(number % 251 for number in range(size))
    (tmp_path / "last.state").write_bytes(content)
    written = pieces.cut(tmp_path / "last.state", tmp_path / "pieces", piece_bytes=100)
    assert all(path.stat().st_size <= 100 for path in written)
    assert len(written) == max(1, -(-size // 100))
    pieces.join(tmp_path / "pieces", "last.state", tmp_path / "joined")
    assert (tmp_path / "joined").read_bytes() == content


def test_a_later_version_takes_the_place_of_the_pieces_of_an_earlier_one(tmp_path):
    file = tmp_path / "last.state"
    for content in (b"a" * 350, b"b" * 150):
        file.write_bytes(content)
        pieces.cut(file, tmp_path / "pieces", piece_bytes=100)
    assert len(list((tmp_path / "pieces").iterdir())) == 2
    pieces.join(tmp_path / "pieces", "last.state", tmp_path / "joined")
    assert (tmp_path / "joined").read_bytes() == b"b" * 150


def test_pieces_that_are_missing_damaged_or_of_two_versions_are_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"a" * 250)
    folder, joined = tmp_path / "pieces", tmp_path / "joined"
    _, two, _ = pieces.cut(tmp_path / "x", folder, piece_bytes=100)
    content = two.read_bytes()
    two.unlink()
    with pytest.raises(DataError, match="lacks pieces 2 of the 3 of x"):
        pieces.join(folder, "x", joined)
    two.write_bytes(b"c" * 100)
    with pytest.raises(DataError, match="damaged"):
        pieces.join(folder, "x", joined)
    two.write_bytes(content)
    (folder / "x.0123456789ab.1of1").write_bytes(b"")
    with pytest.raises(DataError, match="pieces of 2 versions of x"):
        pieces.join(folder, "x", joined)
    assert not joined.exists()


# -- Packing -----------------------------------------------------------------------------------------------------------


def test_packed_photographs_are_read_as_a_data_set_under_the_same_names(data, tmp_path):
    packed = pack_photos.pack(data, tmp_path / "photos.tar", 200_000)
    assert packed.bytes == (tmp_path / "photos.tar").stat().st_size <= 200_000
    root = train_on_gpu.unpacked([tmp_path / "photos.tar"], tmp_path / "run")
    before = [pair.name for pair in open_dataset(data / "sharp")]
    assert [pair.name for pair in open_dataset("sharp", root)] == before[:-1]
    assert [window.name for window in open_windows(root / "windows", frames=7)] == ["clip_0/00_00"]


def test_a_picture_without_a_licence_is_left_out_and_the_licences_of_the_others_are_listed(data, tmp_path):
    packed = pack_photos.pack(data, tmp_path / "photos.tar", 200_000)
    assert (packed.pictures, packed.left_out) == (11 + 7, 1)
    with tarfile.open(tmp_path / "photos.tar") as tar:
        names = tar.getnames()
        lines = tar.extractfile("LICENCES-sharp-windows.csv").read().decode().splitlines()
    assert lines[:2] == ["file,licence,source", "sharp/00.webp,CC0,somebody"]
    assert "windows/clip_0/00_06.webp,CC BY 4.0,a clip" in lines
    assert [line.split(",")[0] for line in lines[1:]] == names[1:]


def test_less_room_means_a_lower_quality_and_too_little_is_said(data, tmp_path):
    roomy = pack_photos.pack(data, tmp_path / "roomy.tar", 200_000)
    tight = pack_photos.pack(data, tmp_path / "tight.tar", roomy.bytes - 5_000)
    assert tight.quality < roomy.quality == max(pack_photos.QUALITIES)
    assert tight.bytes <= roomy.bytes - 5_000
    with pytest.raises(DataError, match="do not fit even at WebP quality 40"):
        pack_photos.pack(data, tmp_path / "none.tar", 20_000)
    assert not (tmp_path / "none.tar").exists()


def test_what_is_larger_can_be_reduced_and_one_set_packed_alone(data, tmp_path):
    packed = pack_photos.pack(data, tmp_path / "photos.tar", 200_000, ["sharp"], longest_px=28)
    assert packed.pictures == 11
    root = train_on_gpu.unpacked([tmp_path / "photos.tar"], tmp_path / "run")
    assert read_rgb8(root / "sharp/00.webp").shape == (24, 28, 3)
    assert not (root / "windows").exists()


def test_what_is_webp_already_is_taken_as_it_is(data, tmp_path):
    pack_photos.pack(data, tmp_path / "once.tar", 200_000)
    root = train_on_gpu.unpacked([tmp_path / "once.tar"], tmp_path / "run")
    rows = [["*.webp", "CC0", "somebody"]]
    write_manifest(root / "sharp", ["file", "licence", "source"], rows)
    again = pack_photos.pack(root, tmp_path / "twice.tar", 200_000)
    assert again.quality is None
    twice = train_on_gpu.unpacked([tmp_path / "twice.tar"], tmp_path / "again")
    assert (twice / "sharp/00.webp").read_bytes() == (root / "sharp/00.webp").read_bytes()
    assert read_rgb8(twice / "sharp/00.webp").shape == (48, 56, 3)


# -- Training in minutes -----------------------------------------------------------------------------------------------


def test_a_training_that_is_stopped_and_goes_on_from_its_pieces_ends_like_one_that_was_not(data, tmp_path, monkeypatch):
    pack_photos.pack(data, tmp_path / "photos.tar", 200_000)
    monkeypatch.setattr(pieces, "cut", partial(pieces.cut, piece_bytes=50_000))
    length = {"schedule": {"name": "cosine", "steps": 60}, "validation": {"every_steps": 60, "max_pictures": 1}}
    chosen = settings(**length, data={**settings().data.model_dump(), "resident": True})
    told: list[str] = []

    def part(seconds: float, run: str) -> train_on_gpu.TrainingResult:
        home = tmp_path / "home"
        return train_on_gpu.train_for(
            seconds, chosen, [tmp_path / "photos.tar"], tmp_path / run, bring=home, tell=told.append
        )

    first = part(0, "first")
    assert first.stopped == "time is up"
    assert 1 <= first.step < 60
    second = part(300, "second")  # another folder: all it knows are the pieces
    assert (second.step, second.stopped) == (60, "done")
    assert f"resumed at step {first.step} of 60" in told
    straight = train(chosen, tmp_path / "straight", data_root=tmp_path / "second-data")
    assert second.best_loss == straight.best_loss
    assert same(read_state(tmp_path / "second/last.state")[2], read_state(tmp_path / "straight/last.state")[2])
    assert len(pieces.pieces_of(tmp_path / "home", "last.state")) == 3


def test_the_share_of_the_peak_counts_forward_and_backward_of_a_crop(data, tmp_path, monkeypatch):
    chosen = settings()
    cost = train_on_gpu.zoo.count("nafnet", chosen.model.options)
    assert train_on_gpu.flops_of_a_picture(chosen) == pytest.approx(6 * cost.macs_256 / 256)  # 16 px a side
    log = tmp_path / "run/log/train.csv"
    log.parent.mkdir(parents=True)
    log.write_text("step,images_per_second,waiting\n10,1000,0.5\n20,4000,0.25\n")
    speed = train_on_gpu.Speed(chosen, tmp_path / "run")
    speed.device, speed.flops = "NVIDIA H200", 989e12 / 40_000
    assert speed.line() == "step 20: 4000 pictures a second, 10.0% of the peak of NVIDIA H200, 25.0% of it waiting"
    speed.device = "cpu"
    assert speed.line() == "step 20: 4000 pictures a second, 25.0% of it waiting"
