"""Every layout of every known set is found in a small tree of it, and its files are paired by name."""

from pathlib import Path

import numpy as np
import pytest

from data_trees import PAIRED, make_set, make_shard, pixels, put
from unblur.data.catalog import DATA_SETS, open_dataset, open_within
from unblur.data.layouts import Folders, ListFile
from unblur.errors import DataError


@pytest.mark.parametrize("name", PAIRED)
def test_a_set_opens_as_the_pairs_that_lie_in_it(tmp_path, name):
    made = make_set(tmp_path, name)
    pairs = open_dataset(name, tmp_path)
    folder = tmp_path / name.split("/")[0]
    assert [pair.name for pair in pairs] == sorted(shared for _, _, shared in made)
    for pair in pairs:
        blurred, sharp = next((b, s) for b, s, shared in made if shared == pair.name)
        assert np.array_equal(pair.sharp.read(), _read(folder / sharp))
        assert np.array_equal(pair.blurred.read(), _read(folder / blurred))


FOLDERS = [
    (dataset, split, layout, variant)
    for dataset in DATA_SETS.values()
    for split in dataset.splits
    for layout in split.layouts
    if isinstance(layout, Folders) and layout.blurred
    for variant in layout.variants or dataset.variants
]


@pytest.mark.parametrize(
    ("dataset", "split", "layout", "variant"), FOLDERS, ids=lambda value: getattr(value, "name", "")
)
def test_every_pattern_of_folders_opens_where_it_is_all_that_lies_there(tmp_path, dataset, split, layout, variant):
    made = {}
    names = {"half-train": ("024/00000059", "239/00000099"), "half-test": ("000/00000059", "023/00000099")}
    for number, name in enumerate(names.get(split.name, ("000/00000009", "029/00000099"))):
        blurred, sharp = (
            tmp_path / dataset.name / f"{_filled(pattern, name, variant)}.png"
            for pattern in (layout.blurred, layout.sharp)
        )
        made[put(blurred, number)] = put(sharp, 10 + number)
    pairs = open_dataset("/".join(filter(None, (dataset.name, split.name, variant))), tmp_path)
    assert {pair.blurred.path: pair.sharp.path for pair in pairs} == made


def _filled(pattern: str, name: str, variant: str) -> str:
    """Return the path that a pattern makes of a name of two pieces; a single star takes the last one."""
    first, last = name.split("/")
    pattern = pattern.replace("{variant}", variant).replace("{test-close-ups,test-long-shot}", "test-long-shot")
    if "**" in pattern:
        return pattern.replace("**", name)
    return pattern.replace("*", first, pattern.count("*") - 1).replace("*", last)


def test_variants_and_splits_of_one_folder_are_kept_apart(tmp_path):
    for name in PAIRED:
        make_set(tmp_path, name)
    for name, made in PAIRED.items():
        assert len(open_dataset(name, tmp_path)) == len(made), name


@pytest.mark.parametrize("name", ["gopro/train", "hide/test", "realblur-j/test", "rsblur/train", "kohler"])
def test_a_repack_with_input_and_target_opens_too(tmp_path, name):
    dataset, _, split = name.partition("/")
    for number in (1, 2):
        put(tmp_path / dataset / (split or "test") / f"input/{number}.png", number)
        put(tmp_path / dataset / (split or "test") / f"target/{number}.png", number)
    assert [pair.name for pair in open_dataset(name, tmp_path)] == ["1", "2"]


def test_a_repack_does_not_pass_for_another_kind_of_blur(tmp_path):
    put(tmp_path / "gopro/train/input/1.png")
    put(tmp_path / "gopro/train/target/1.png")
    with pytest.raises(DataError, match="holds nothing of 'gopro/train/blur_gamma'"):
        open_dataset("gopro/train/blur_gamma", tmp_path)


def test_a_set_opens_from_tar_shards_of_its_split(tmp_path):
    make_shard(tmp_path / "gopro/train-000.tar", {"a.blur.png": pixels(1), "a.sharp.png": pixels(2)})
    make_shard(tmp_path / "gopro/test-000.tar", {"b.blur.png": pixels(1), "b.sharp.png": pixels(2)})
    assert [pair.name for pair in open_dataset("gopro/train", tmp_path)] == ["a"]
    assert [pair.name for pair in open_dataset("gopro/test", tmp_path)] == ["b"]


def test_the_archive_of_reds_may_have_a_folder_around_it(tmp_path):
    put(tmp_path / "reds/train/train_blur/000/00000000.png")
    put(tmp_path / "reds/train/train_sharp/000/00000000.png")
    assert [pair.name for pair in open_dataset("reds/train", tmp_path)] == ["000/00000000"]


def test_sharp_pictures_alone_open_even_where_blurred_ones_are_not_there(tmp_path):
    put(tmp_path / "reds/train_sharp/000/00000000.png")
    pairs = open_dataset("reds/train", tmp_path, sharp_only=True)
    assert [(pair.blurred, pair.name) for pair in pairs] == [(None, "000/00000000")]


def test_files_without_a_partner_are_an_error_that_lists_the_first_ten(tmp_path):
    for number in range(13):
        put(tmp_path / f"gopro/test/GOPR1/blur/{number:06}.png")
    put(tmp_path / "gopro/test/GOPR1/sharp/000000.png")
    with pytest.raises(DataError, match=r"12 files of pairs are missing: .* and 2 more") as caught:
        open_dataset("gopro/test", tmp_path)
    assert str(caught.value).count("/sharp/") == 10
    assert "GOPR1/sharp/000001.png" in str(caught.value)


def test_two_files_of_one_name_are_an_error(tmp_path):
    for name in ("blur/a.png", "blur/a.jpg", "sharp/a.png"):
        put(tmp_path / "pairs" / name)
    with pytest.raises(DataError, match=r"1 files have the name of another: .*blur/a"):
        open_dataset("pairs", tmp_path)


def test_a_file_that_a_list_names_and_that_is_not_there_is_an_error(tmp_path):
    make_set(tmp_path, "realblur-j/test")
    (tmp_path / "realblur-j/RealBlur-J_ECC/scene230/gt/gt_2.png").unlink()
    with pytest.raises(DataError, match=r"1 files of pairs are missing: .*gt_2.png"):
        open_dataset("realblur-j/test", tmp_path)


def test_a_list_may_name_the_blurred_file_first(tmp_path):
    make_set(tmp_path, "realblur-j/test")
    listed = tmp_path / "realblur-j/RealBlur_J_test_list.txt"
    turned = [" ".join(line.split()[1::-1]) for line in listed.read_text().splitlines()]
    expected = open_dataset("realblur-j/test", tmp_path)
    listed.write_text("\n".join(turned))
    assert open_dataset("realblur-j/test", tmp_path) == expected


def test_a_line_of_a_list_with_one_file_is_named(tmp_path):
    (tmp_path / "list.txt").write_text("a/gt/1.png a/blur/1.png\n\na/gt/2.png\n")
    with pytest.raises(DataError, match=r"list.txt, line 3: 'a/gt/2.png' names one file"):
        ListFile("list.txt").find(tmp_path, "").pairs()


def test_patterns_do_not_cross_folders_unless_they_say_so(tmp_path):
    for name in ("s/a.png", "s/deep/b.png", "s/x_S.png", "t/c.png"):
        put(tmp_path / name)

    def names(pattern: str) -> list[str]:
        found = Folders(None, pattern).find(tmp_path, "")
        return sorted(found.sharp) if found else []

    assert names("s/*") == ["a", "x_S"]
    assert names("s/**") == ["a", "deep/b", "x_S"]
    assert names("s/*_S") == ["x"]
    assert names("{s,t}/*") == ["a", "c", "x_S"]
    assert names("nowhere/*") == []


def test_a_folder_under_any_name_opens_as_the_set_that_it_is_said_to_be(tmp_path):
    make_set(tmp_path, "gopro/test")
    (tmp_path / "gopro").rename(tmp_path / "GOPRO_Large")
    assert len(open_within(tmp_path / "GOPRO_Large", "gopro/test")) == len(PAIRED["gopro/test"])


def test_every_set_is_tried_by_these_tests():
    assert {name.split("/")[0] for name in PAIRED} | {"cifar10", "sharp", "windows"} == set(DATA_SETS)


def _read(path: Path) -> np.ndarray:
    from unblur.images import read_rgb8

    return read_rgb8(path)
