"""A file is written whole or not at all, whatever happens on the way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unblur.errors import OutputError
from unblur.files import written_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(path: Path, text: str, *, overwrite: bool = True) -> None:
    with written_whole(path, overwrite=overwrite) as temporary:
        temporary.write_text(text)


def write_half(path: Path, interruption: BaseException, *, overwrite: bool = True) -> None:
    with written_whole(path, overwrite=overwrite) as temporary:
        temporary.write_text("half")
        raise interruption


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "a.txt"
    with written_whole(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent  # so that renaming never copies
        assert temporary.name.startswith(".")  # hidden from those who list the folder meanwhile
    assert path.read_text() == "half"
    assert names(tmp_path) == ["a.txt"]


def test_missing_folders_are_made(tmp_path):
    write(tmp_path / "b" / "c" / "a.txt", "new")
    assert (tmp_path / "b" / "c" / "a.txt").read_text() == "new"


def test_an_existing_file_is_replaced_where_that_is_allowed(tmp_path):
    write(tmp_path / "a.txt", "old")
    write(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("overwrite", [True, False])
def test_an_interruption_leaves_nothing_behind(tmp_path, interruption, overwrite):
    with pytest.raises(interruption):
        write_half(tmp_path / "a.txt", interruption(), overwrite=overwrite)
    assert names(tmp_path) == []


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_leaves_the_old_file(tmp_path, interruption):
    write(tmp_path / "a.txt", "old")
    with pytest.raises(interruption):
        write_half(tmp_path / "a.txt", interruption())
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_an_existing_file_is_refused_before_any_work_is_done(tmp_path):
    write(tmp_path / "a.txt", "old")
    with (
        pytest.raises(OutputError, match=r"a.txt exists already; give --overwrite to replace it"),
        written_whole(tmp_path / "a.txt", overwrite=False),
    ):
        pytest.fail("work was done")
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_file_that_appeared_meanwhile_is_kept(tmp_path):
    def write_while_another_does(path: Path) -> None:
        with written_whole(path, overwrite=False) as temporary:
            temporary.write_text("ours")
            path.write_text("theirs")

    with pytest.raises(OutputError, match="exists already"):
        write_while_another_does(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "theirs"
    assert names(tmp_path) == ["a.txt"]


def test_without_overwriting_a_new_file_is_written(tmp_path):
    write(tmp_path / "a.txt", "new", overwrite=False)
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_system_without_hard_links_will_do(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write(tmp_path / "a.txt", "new", overwrite=False)
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "a.txt"
    with written_whole(path) as first, written_whole(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert names(tmp_path) == ["a.txt"]


# -- What cannot be written --------------------------------------------------------------------------------------------


def test_a_folder_is_no_file_name(tmp_path):
    with pytest.raises(OutputError, match="is a folder, not a file name"):
        write(tmp_path, "new")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "b").write_text("a file")
    with pytest.raises(OutputError, match=r"a.txt could not be written"):
        write(tmp_path / "b" / "a.txt", "new")
    assert (tmp_path / "b").read_text() == "a file"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="every folder is writable for root")
def test_a_folder_without_the_right_to_write_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            write(tmp_path / "a.txt", "new")
    finally:
        tmp_path.chmod(0o700)


def test_an_error_of_the_system_while_writing_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match=r"a.txt could not be written: No space left on device"):
        write_half(tmp_path / "a.txt", OSError(28, "No space left on device"))
    assert names(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are Unix's")
def test_a_full_disk_leaves_the_old_file(tmp_path):
    write(tmp_path / "a.txt", "old")
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from unblur.errors import OutputError\n"
        "from unblur.files import written_whole\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    with written_whole(Path(sys.argv[1])) as temporary:\n"
        "        temporary.write_bytes(bytes(5000))\n"
        "except OutputError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "a.txt could not be written: File too large" in done.stdout
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_writer_that_writes_nothing_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="could not be written"), written_whole(tmp_path / "a.txt"):
        pass
    assert names(tmp_path) == []
