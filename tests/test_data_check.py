"""A check says everything that is wrong with a data set, by file, and takes seconds for thousands of files."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from data_trees import PAIRED, cifar_rows, make_cifar_atlas, make_cifar_binary, make_set, make_shard, pixels, put
from unblur.data.catalog import open_dataset
from unblur.data.check import check_dataset, read_header, require_alike
from unblur.errors import DataError, PhotoError, UnknownName
from unblur.images import read_rgb8


@pytest.fixture
def gopro(tmp_path: Path) -> Path:
    """The folder of a small GoPro, both splits."""
    make_set(tmp_path, "gopro/train")
    make_set(tmp_path, "gopro/test")
    return tmp_path / "gopro"


def report(name: str, folder: Path, **options: bool) -> list[str]:
    return list(check_dataset(name, folder, **options).lines())


@pytest.mark.parametrize("name", [name for name in PAIRED if name.count("/") < 2])
def test_every_layout_is_counted_against_the_known_number(tmp_path, name):
    made = make_set(tmp_path, name)
    check = check_dataset(name, tmp_path / name.split("/")[0])
    assert [count.found for count in check.counts] == [len(made)]
    assert not check.problems
    assert check.is_whole == (name == "pairs")  # the others have thousands
    if name == "gopro/test":
        assert "gopro/test: 2 of 1,111 pairs, 1,109 missing" in list(check.lines())


def test_a_missing_partner_is_named_by_its_path(gopro):
    (gopro / "test/GOPR0384_11_00/sharp/000002.png").unlink()
    (gopro / "train/GOPR0372_07_00/blur/000047.png").unlink()
    lines = report("gopro", gopro)
    assert "missing: test/GOPR0384_11_00/sharp/000002.png" in lines
    assert "missing: train/GOPR0372_07_00/blur/000047.png" in lines
    assert lines[0].startswith("gopro/train: 3 of 2,103 pairs")
    assert lines[1].startswith("gopro/test: 1 of 1,111 pairs")


def test_a_missing_split_does_not_stop_the_other_checks(gopro):
    shutil.rmtree(gopro / "train")
    (gopro / "test/GOPR0384_11_00/sharp/000002.png").write_bytes(b"")
    lines = report("gopro", gopro)
    assert lines[0].startswith("gopro/train: 0 of 2,103 pairs, 2,103 missing; looked for train/*/{variant}/*")
    assert any(line.startswith("unreadable: test/GOPR0384_11_00/sharp/000002.png") for line in lines)


def test_extra_pictures_are_named_but_do_no_harm(tmp_path):
    make_set(tmp_path, "pairs")
    put(tmp_path / "pairs/other/more.png")
    check = check_dataset("pairs", tmp_path / "pairs")
    assert [str(problem) for problem in check.problems] == ["extra: other/more.png"]
    assert check.is_whole


def test_other_variants_are_not_extra(gopro):
    make_set(gopro.parent, "gopro/train/blur_gamma")
    assert not check_dataset("gopro", gopro).problems


def test_unequal_sizes_and_mixed_colours_are_named(tmp_path):
    make_set(tmp_path, "pairs")
    put(tmp_path / "pairs/blur/a.png", size=(24, 41))
    Image.fromarray(pixels(1)[..., 0]).save(tmp_path / "pairs/sharp/deep/b.jpg")
    lines = report("pairs", tmp_path / "pairs")
    assert "unequal size: blur/a.png (41x24, its partner 40x24)" in lines
    assert "mixed colours: blur/deep/b.png (colour, its partner grey)" in lines
    assert lines[-1].endswith("is not whole: 1 unequal size, 1 mixed colours")


def test_two_files_of_one_name_are_named(tmp_path):
    make_set(tmp_path, "pairs")
    put(tmp_path / "pairs/blur/a.webp")
    assert "twice: blur/a.webp" in report("pairs", tmp_path / "pairs")


def test_what_only_decoding_finds_is_found_deep(tmp_path):
    path = put(tmp_path / "sharp/a.jpg", size=(200, 200))
    path.write_bytes(path.read_bytes()[:3000])
    put(tmp_path / "sharp/b.jpg")
    assert check_dataset("sharp", tmp_path / "sharp").is_whole
    problems = check_dataset("sharp", tmp_path / "sharp", deep=True).problems
    assert [problem.file for problem in problems] == ["a.jpg"]


def test_a_truncated_png_is_found_by_its_end_alone(tmp_path):
    path = put(tmp_path / "sharp/a.png")
    path.write_bytes(path.read_bytes()[:-20])
    assert [problem.kind for problem in check_dataset("sharp", tmp_path / "sharp").problems] == ["unreadable"]


def test_the_pictures_of_cifar_are_counted(tmp_path):
    make_cifar_atlas(tmp_path, "train", cifar_rows(70), list(range(70)))
    make_cifar_binary(tmp_path / "test_batch.bin", cifar_rows(10))
    lines = report("cifar10", tmp_path)
    assert lines[0] == "cifar10/train: 70 of 50,000 pictures, 49,930 missing"
    assert lines[1] == "cifar10/test: 10 of 10,000 pictures, 9,990 missing"
    assert not any(line.startswith("extra") for line in lines)


def test_a_damaged_batch_does_not_stop_the_other_split(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(b"x")
    make_cifar_binary(tmp_path / "test_batch.bin", cifar_rows(10))
    lines = report("cifar10", tmp_path)
    assert lines[1].startswith("cifar10/test: 10 of")
    assert any("data_batch_1.bin (has 1 bytes" in line for line in lines)


def test_the_whole_batches_of_a_split_are_counted_beside_a_damaged_one(tmp_path):
    make_cifar_binary(tmp_path / "cifar-10-batches-bin/data_batch_1.bin", cifar_rows(10))
    (tmp_path / "cifar-10-batches-bin/data_batch_2.bin").write_bytes(b"x")
    lines = report("cifar10/train", tmp_path)
    assert lines[0].startswith("cifar10/train: 10 of")
    assert lines[1].startswith("unreadable: cifar-10-batches-bin/data_batch_2.bin (has 1 bytes, not a multiple")


def test_every_damaged_shard_is_named_and_the_others_are_counted(tmp_path):
    for number in range(3):
        make_shard(tmp_path / f"{number}.tar", {f"{number}.blur.png": pixels(1), f"{number}.sharp.png": pixels(2)})
    make_shard(tmp_path / "0.tar", {"0.png": pixels(1)}, "w:gz")
    (tmp_path / "2.tar").write_bytes((tmp_path / "2.tar").read_bytes()[:700])
    lines = report("pairs", tmp_path)
    assert lines[0] == "pairs: 1 pairs"
    assert [line.split(" (")[0] for line in lines[1:3]] == ["unreadable: 0.tar", "unreadable: 2.tar"]


def test_a_list_that_is_no_text_is_named_and_the_other_split_is_counted(tmp_path):
    make_set(tmp_path, "realblur-j/test")
    (tmp_path / "realblur-j/RealBlur_J_train_list.txt").write_bytes(b"\xff\xfe\x00\x01")
    lines = report("realblur-j", tmp_path / "realblur-j")
    assert lines[1].startswith("realblur-j/test: 2 of")
    assert any(line.startswith("unreadable: RealBlur_J_train_list.txt (") for line in lines)


def test_a_line_of_a_list_that_names_one_file_is_told_by_its_number(tmp_path):
    make_set(tmp_path, "realblur-j/test")
    with open(tmp_path / "realblur-j/RealBlur_J_test_list.txt", "a") as listed:
        listed.write("lonely.png\n")
    lines = report("realblur-j/test", tmp_path / "realblur-j")
    assert lines[1] == "unreadable: RealBlur_J_test_list.txt (line 3: 'lonely.png' names one file, not a pair.)"


def test_pairs_in_shards_are_compared_too(tmp_path):
    small, grey = pixels(1, (20, 20)), pixels(1)[..., 0]
    members = {"a.blur.png": small, "a.sharp.png": pixels(1), "b.blur.png": grey, "b.sharp.png": pixels(2)}
    make_shard(tmp_path / "0.tar", {**members, "c.blur.png": b"no picture", "c.sharp.png": pixels(2)})
    lines = report("pairs", tmp_path)
    assert "unequal size: 0.tar:a (20x20, its partner 40x24)" in lines
    assert "mixed colours: 0.tar:b (grey, its partner colour)" in lines
    assert "unreadable: 0.tar:c (holds no picture.)" in lines


def test_a_file_is_named_once_a_line(tmp_path):
    for name, content in (("a.png", b"no picture"), ("b.png", b""), ("c.jpg", b"\xff\xd8\xff")):
        put(tmp_path / "sharp" / name).write_bytes(content)
    lines = report("sharp", tmp_path / "sharp")
    assert lines[1:4] == [f"unreadable: {name} (holds no picture.)" for name in ("a.png", "b.png", "c.jpg")]


def test_every_problem_is_a_line_of_its_own(tmp_path):
    for number in range(25):
        put(tmp_path / f"pairs/blur/{number}.png")
    put(tmp_path / "pairs/sharp/0.png")
    assert sum(line.startswith("missing: sharp/") for line in report("pairs", tmp_path / "pairs")) == 24


def test_an_unknown_set_and_a_missing_folder_are_refused(tmp_path):
    with pytest.raises(UnknownName, match="Did you mean 'gopro'"):
        check_dataset("gorpo", tmp_path)
    with pytest.raises(DataError, match=r"is not a folder\. It should hold"):
        check_dataset("gopro", tmp_path / "nowhere")


def test_pairs_that_are_not_alike_are_listed_ten_at_most(tmp_path):
    for number in range(12):
        put(tmp_path / f"blur/{number:02}.png", size=(24, 24))
        put(tmp_path / f"sharp/{number:02}.png", size=(24, 25))
    with pytest.raises(DataError, match=r"12 pairs differ in size or colours: .*00.png \(24x24, .*and 2 more"):
        require_alike(open_dataset(tmp_path))
    require_alike(open_dataset(tmp_path, sharp_only=True))


def test_pairs_of_grey_and_colour_are_refused_in_shards_as_in_files(tmp_path):
    make_shard(tmp_path / "tar/0.tar", {"a.blur.png": pixels(1)[..., 0], "a.sharp.png": pixels(1)})
    Image.fromarray(pixels(1)[..., 0]).save(put(tmp_path / "files/blur/a.png"))
    put(tmp_path / "files/sharp/a.png")
    for folder in ("tar", "files"):
        with pytest.raises(DataError, match=r"1 pairs differ in size or colours: .*grey, its partner colour"):
            require_alike(open_dataset(tmp_path / folder))


def test_a_damaged_picture_does_not_keep_a_training_from_beginning(tmp_path):
    for side in ("blur", "sharp"):
        put(tmp_path / side / "a.png").write_bytes(b"no picture" * (side == "blur"))
    require_alike(open_dataset(tmp_path))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_header_tells_the_size_of_the_upright_picture(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels(1)).save(path, exif=exif)
    header = read_header(path)
    assert (header.height, header.width) == read_rgb8(path).shape[:2]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_header_is_read_without_decoding_the_picture(tmp_path, monkeypatch, suffix):
    path = put(tmp_path / f"a.{suffix}")

    def refuse(self: object) -> None:
        raise AssertionError("the picture was decoded")

    for kind in (ImageFile.ImageFile, PngImagePlugin.PngImageFile, TiffImagePlugin.TiffImageFile):
        monkeypatch.setattr(kind, "load", refuse)
    monkeypatch.setattr(WebPImagePlugin.WebPImageFile, "load", refuse)
    assert read_header(path).width == 40


@pytest.mark.parametrize(
    ("array", "colours"),
    [
        (np.zeros((4, 4), np.uint8), "grey"),
        (np.zeros((4, 4), np.uint16), "grey"),
        (np.zeros((4, 4, 3), np.uint8), "colour"),
        (np.zeros((4, 4, 4), np.uint8), "colour and alpha"),
    ],
)
def test_a_header_tells_the_colours(tmp_path, array, colours):
    Image.fromarray(array).save(tmp_path / "a.png")
    assert read_header(tmp_path / "a.png").colours == colours


def test_a_header_of_no_picture_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    for name in ("a.png", "nowhere.png"):
        with pytest.raises(PhotoError, match=name):
            read_header(tmp_path / name)


def test_two_thousand_pairs_take_seconds(tmp_path):
    first = put(tmp_path / "pairs/blur/0000.png")
    (tmp_path / "pairs/sharp").mkdir()
    for side in ("blur", "sharp"):
        for number in range(2000):
            if side == "sharp" or number:
                (tmp_path / f"pairs/{side}/{number:04}.png").hardlink_to(first)
    started = time.process_time()
    check = check_dataset("pairs", tmp_path / "pairs")
    assert check.is_whole
    assert check.counts[0].found == 2000
    assert time.process_time() - started < 8
