"""A data set is found by its id below one folder, and what is missing is said with a way out."""

import re
from pathlib import Path

import pytest

from data_trees import put
from unblur.data.catalog import DATA_ROOT_VARIABLE, DATA_SETS, find_dataset, open_dataset
from unblur.data.overview import facts_table, layouts_table
from unblur.errors import DataError, UnknownName
from unblur.tables import replace_between_marks

EVERY = pytest.mark.parametrize("name", DATA_SETS)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not depend on where the data lie on this computer."""
    monkeypatch.delenv(DATA_ROOT_VARIABLE, raising=False)


@EVERY
def test_a_set_lies_in_the_folder_of_its_name(tmp_path, name):
    (tmp_path / name).mkdir()
    assert find_dataset(name, tmp_path) == tmp_path / name


def test_the_environment_says_where_the_sets_lie(tmp_path, monkeypatch):
    (tmp_path / "sharp").mkdir()
    monkeypatch.setenv("UNBLUR_DATA", str(tmp_path))
    assert find_dataset("sharp") == tmp_path / "sharp"


def test_a_given_root_comes_before_the_environment(tmp_path, monkeypatch):
    (tmp_path / "given" / "sharp").mkdir(parents=True)
    (tmp_path / "other" / "sharp").mkdir(parents=True)
    monkeypatch.setenv("UNBLUR_DATA", str(tmp_path / "other"))
    assert find_dataset("sharp", tmp_path / "given") == tmp_path / "given" / "sharp"


def test_a_folder_of_ones_own_is_taken_as_it_is(tmp_path):
    assert find_dataset(tmp_path) == tmp_path
    assert find_dataset(str(tmp_path)) == tmp_path


def test_an_id_means_the_set_even_where_a_folder_of_that_name_is_at_hand(tmp_path, monkeypatch):
    (tmp_path / "here" / "sharp").mkdir(parents=True)
    (tmp_path / "root" / "sharp").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert find_dataset("sharp", tmp_path / "root") == tmp_path / "root" / "sharp"


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_root_the_way_to_give_one_is_said(monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("UNBLUR_DATA", value)
    with pytest.raises(DataError, match="--data-root, or set UNBLUR_DATA"):
        find_dataset("sharp")


@EVERY
def test_a_set_that_is_not_there_is_described(tmp_path, name):
    with pytest.raises(DataError, match=f"has no folder '{name}'. It should hold"):
        find_dataset(name, tmp_path)


def test_an_unknown_id_is_answered_with_the_nearest_one(tmp_path):
    with pytest.raises(UnknownName, match=r"is called 'shrap'. Did you mean 'sharp'\?"):
        find_dataset("shrap", tmp_path)


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file.txt").write_text("no folder")
    for path in (tmp_path / "file.txt", tmp_path / "nowhere"):
        with pytest.raises(DataError, match="is not a folder"):
            find_dataset(path)


@EVERY
def test_every_set_says_how_its_files_lie(name):
    assert DATA_SETS[name].name == name
    assert len(DATA_SETS[name].layout) > 10


# -- Splits, variants, places ------------------------------------------------------------------------------------------


def test_a_split_with_a_folder_of_its_own_is_that_folder(tmp_path):
    (tmp_path / "gopro/test").mkdir(parents=True)
    assert find_dataset("gopro/test", tmp_path) == tmp_path / "gopro/test"
    assert find_dataset("gopro/test/blur_gamma", tmp_path) == tmp_path / "gopro/test"
    assert find_dataset("gopro/train", tmp_path) == tmp_path / "gopro"


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("gopro/tset", "No split of 'gopro' is called 'tset'. Did you mean 'test'?"),
        ("gopro/test/blur_gama", "No variant of 'gopro' is called 'blur_gama'. Did you mean 'blur_gamma'?"),
    ],
)
def test_a_split_or_variant_that_does_not_exist_is_answered_with_the_nearest(tmp_path, name, answer):
    for ask in (find_dataset, open_dataset):
        with pytest.raises(UnknownName, match=re.escape(answer)):
            ask(name, tmp_path)


def test_a_name_with_too_many_parts_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not id/split/variant"):
        find_dataset("gopro/test/blur/more", tmp_path)


def test_a_set_of_several_splits_wants_one_named(tmp_path):
    (tmp_path / "gopro").mkdir()
    with pytest.raises(DataError, match="has several splits; name one of gopro/train, gopro/test"):
        open_dataset("gopro", tmp_path)


def test_a_set_with_one_split_does_not(tmp_path):
    put(tmp_path / "kaggle-blur/sharp/0_A_S.png")
    put(tmp_path / "kaggle-blur/motion_blurred/0_A_M.png")
    assert open_dataset("kaggle-blur", tmp_path) == open_dataset("kaggle-blur/all/motion", tmp_path)


def test_folders_within_pairs_and_sharp_have_names_too(tmp_path):
    put(tmp_path / "sharp/mountains/a.png")
    put(tmp_path / "sharp/cities/b.png")
    assert [pair.name for pair in open_dataset("sharp/cities", tmp_path)] == ["b"]
    assert len(open_dataset("sharp", tmp_path)) == 2
    with pytest.raises(DataError, match="has no folder 'sharp/lakes'"):
        open_dataset("sharp/lakes", tmp_path)


def test_a_set_that_lies_otherwise_is_described(tmp_path):
    put(tmp_path / "gopro/somewhere/a.png")
    with pytest.raises(DataError, match=r"holds nothing of 'gopro/train'. It should hold .*`unblur data check gopro"):
        open_dataset("gopro/train", tmp_path)


def test_a_folder_of_ones_own_is_pairs_where_it_has_both_sides_and_sharp_pictures_otherwise(tmp_path):
    put(tmp_path / "own/sharp/a.png")
    assert [pair.blurred for pair in open_dataset(tmp_path / "own")] == [None]
    put(tmp_path / "own/blur/a.png")
    (pair,) = open_dataset(tmp_path / "own")
    assert pair.blurred is not None
    (pair,) = open_dataset(tmp_path / "own", sharp_only=True)
    assert (pair.blurred, pair.name) == (None, "a")


def test_a_share_of_a_set_can_be_opened(tmp_path):
    for number in range(20):
        put(tmp_path / f"sharp/{number}.png")
    part = open_dataset("sharp", tmp_path, share=0.1, seed=1)
    assert len(part) == 2
    assert part == open_dataset("sharp", tmp_path, share=0.1, seed=1)


@EVERY
def test_every_set_says_whose_it_is_and_where_to_get_it(name):
    entry = DATA_SETS[name]
    assert entry.licence
    assert entry.source
    assert entry.splits
    assert all(split.layouts for split in entry.splits)
    assert name in ("pairs", "sharp", "windows") or all(split.count for split in entry.splits)
    assert f"| `{name}` |" in facts_table()
    assert re.search(rf"^\| `{name}[/`]", layouts_table(), re.MULTILINE)


def test_the_page_of_data_sets_has_the_tables_of_the_catalogue():
    page = (Path(__file__).parents[1] / "docs/data-sets.md").read_text(encoding="utf-8")
    for name, table in (("data-sets", facts_table()), ("data-layouts", layouts_table())):
        assert replace_between_marks(page, name, table) == page, f"docs/data-sets.md: table {name} is stale"
