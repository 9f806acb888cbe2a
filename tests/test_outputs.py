"""Properties of the plan that says where results will lie."""

import os
import sys
from pathlib import Path

import pytest

from unblur.errors import OutputError, PhotoError
from unblur.outputs import PlannedFile, plan_outputs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which relative paths begin."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(name.encode())


def planned(paths: list[str], output: str | None = None) -> dict[str, str]:
    plan = plan_outputs([Path(path) for path in paths], None if output is None else Path(output))
    return {file.source.as_posix(): file.target.as_posix() for file in plan}


def test_without_an_output_the_result_lies_beside_the_input(folder: Path) -> None:
    touch("a.jpg", "sub/b.c.PNG")
    assert planned(["a.jpg", "sub/b.c.PNG"]) == {"a.jpg": "a-restored.jpg", "sub/b.c.PNG": "sub/b.c-restored.PNG"}


@pytest.mark.parametrize("output", ["out.png", "new/out.TIFF", "b.webp"])
def test_for_one_file_an_output_with_a_picture_suffix_is_the_file(folder: Path, output: str) -> None:
    touch("a.jpg")
    assert planned(["a.jpg"], output) == {"a.jpg": output}


@pytest.mark.parametrize("output", ["out", "out/deep", "out.d", "."])
def test_for_one_file_any_other_output_is_a_folder(folder: Path, output: str) -> None:
    touch("sub/a.jpg")
    assert planned(["sub/a.jpg"], output) == {"sub/a.jpg": (Path(output) / "a.jpg").as_posix()}


def test_a_folder_keeps_its_paths_and_full_names_below_the_output(folder: Path) -> None:
    touch("in/a.jpg", "in/a.png", "in/sub/A.JPG", "in/.hidden/c.jpg", "in/.d.jpg", "in/notes.txt")
    expected = {"in/a.jpg": "out/a.jpg", "in/a.png": "out/a.png", "in/sub/A.JPG": "out/sub/A.JPG"}
    assert planned(["in"], "out") == expected
    assert planned(["in/"], "out.jpg") == {
        source: target.replace("out/", "out.jpg/") for source, target in expected.items()
    }


def test_several_inputs_share_the_output_folder(folder: Path) -> None:
    touch("in/sub/a.jpg", "b.png")
    assert planned(["in", "b.png"], "out") == {"in/sub/a.jpg": "out/sub/a.jpg", "b.png": "out/b.png"}


def test_nothing_is_made_by_planning(folder: Path) -> None:
    touch("in/a.jpg")
    planned(["in"], "out")
    assert sorted(path.name for path in folder.rglob("*")) == ["a.jpg", "in"]


def test_a_folder_restored_in_place_again_leaves_out_the_earlier_results(folder: Path) -> None:
    touch(
        "in/a.jpg", "in/a-restored.jpg", "in/b-restored.jpg", "in/sub/a-restored.jpg", "in/c.png", "in/c-restored.jpg"
    )
    assert planned(["in"]) == {
        "in/a.jpg": "in/a-restored.jpg",
        "in/b-restored.jpg": "in/b-restored-restored.jpg",  # nothing here says that it is a result
        "in/c-restored.jpg": "in/c-restored-restored.jpg",
        "in/c.png": "in/c-restored.png",
        "in/sub/a-restored.jpg": "in/sub/a-restored-restored.jpg",
    }
    assert set(planned(["in/a.jpg", str(folder / "in/a-restored.jpg")])) == {"in/a.jpg"}
    assert set(planned(["in/a-restored.jpg"])) == {"in/a-restored.jpg"}


def test_an_output_folder_below_the_input_is_no_input_the_next_time(folder: Path) -> None:
    touch("in/a.jpg", "in/out/a.jpg", "in/out/out/a.jpg")
    assert planned(["in"], "in/out") == {"in/a.jpg": "in/out/a.jpg"}


def test_a_file_named_twice_is_done_once(folder: Path) -> None:
    touch("in/a.jpg")
    assert len(planned(["in", "in/a.jpg", str(folder / "in" / "a.jpg")], "out")) == 1


def test_two_inputs_with_one_output_are_an_error_that_names_all_three(folder: Path) -> None:
    touch("one/a.jpg", "two/a.jpg")
    with pytest.raises(OutputError, match=r"one.a\.jpg and two.a\.jpg .* out.a\.jpg"):
        planned(["one", "two"], "out")


def test_upper_and_lower_case_count_where_the_system_tells_them_apart(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch("one/a.jpg", "two/A.JPG")
    monkeypatch.setattr(sys, "platform", "linux")
    assert len(planned(["one", "two"], "out")) == 2
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(OutputError, match="both"):
        planned(["one", "two"], "out")


@pytest.mark.parametrize(("paths", "output"), [(["in"], "in"), (["in/a.jpg"], "in/a.jpg"), (["in/a.jpg"], "in/../in")])
def test_an_output_on_top_of_an_input_is_an_error(folder: Path, paths: list[str], output: str) -> None:
    touch("in/a.jpg")
    with pytest.raises(OutputError, match="never overwritten"):
        planned(paths, output)


def test_an_output_on_top_of_another_input_is_an_error(folder: Path) -> None:
    touch("in/sub/a.jpg", "in/a.jpg")
    with pytest.raises(OutputError, match="never overwritten"):
        planned(["in/sub/a.jpg", "in/a.jpg"], "in")


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_an_input_is_known_through_links(folder: Path) -> None:
    touch("in/a.jpg")
    Path("link.jpg").symlink_to("in/a.jpg")
    Path("linked").symlink_to("in")
    for paths, output in ((["in/a.jpg"], "link.jpg"), (["link.jpg"], "in/a.jpg"), (["in"], "linked")):
        with pytest.raises(OutputError, match="never overwritten"):
            planned(paths, output)


def test_an_output_folder_that_is_a_file_is_an_error(folder: Path) -> None:
    touch("in/a.jpg", "out")
    with pytest.raises(OutputError, match="out is a file"):
        planned(["in"], "out")


def test_a_folder_without_pictures_is_an_error_that_says_what_is_looked_for(folder: Path) -> None:
    touch("in/notes.txt")
    with pytest.raises(PhotoError, match=r"in has no pictures.*\.webp"):
        planned(["in"])


def test_a_missing_file_stays_in_the_plan_so_that_the_others_are_done(folder: Path) -> None:
    touch("a.jpg")
    assert plan_outputs([Path("missing.jpg"), Path("a.jpg")])[0] == PlannedFile(
        Path("missing.jpg"), Path("missing-restored.jpg")
    )
