"""A data set is found by its id below one folder, and what is missing is said with a way out."""

import pytest

from unblur.data.catalog import DATA_ROOT_VARIABLE, DATA_SETS, find_dataset
from unblur.errors import DataError, UnknownName

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
