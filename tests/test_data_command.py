"""`unblur data` prints what the library finds and ends with the exit code that says it."""

import json

import pytest

from data_trees import make_set, put
from unblur.cli import main
from unblur.data.catalog import DATA_SETS, open_dataset


def test_the_list_names_every_set(capsys):
    assert main(["data", "list"]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines() if not line.startswith(" ")] == list(DATA_SETS)
    assert "train 2,103, test 1,111" in printed


def test_a_check_exits_with_1_where_anything_is_short(tmp_path, capsys):
    make_set(tmp_path, "gopro/test")
    (tmp_path / "gopro/test/GOPR0384_11_00/blur/000001.png").unlink()
    assert main(["data", "check", "gopro", str(tmp_path / "gopro")]) == 1
    printed = capsys.readouterr()
    assert "missing: test/GOPR0384_11_00/blur/000001.png" in printed.out.splitlines()
    assert printed.err == ""


def test_a_check_of_a_whole_set_exits_with_0(tmp_path, capsys):
    make_set(tmp_path, "pairs")
    assert main(["data", "check", "pairs", str(tmp_path / "pairs"), "--deep"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "pairs: 2 pairs"


def test_a_prepared_set_is_a_set_of_pairs(tmp_path, capsys):
    for number in range(20):
        put(tmp_path / f"photos/{number}.png", number)
    arguments = ["sharp", str(tmp_path / "photos"), "-o", str(tmp_path / "out"), "--size", "32x16"]
    options = ["--recipe", "gaussian-triple", "--share", "0.1", "--seed", "3"]
    assert main(["data", "prepare", *arguments, *options]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'photos'} -> {tmp_path / 'out'} (6 pairs)\n"
    assert main(["data", "check", "pairs", str(tmp_path / "out")]) == 0


def test_preparing_exits_with_1_where_pictures_are_left_out(tmp_path, capsys):
    put(tmp_path / "photos/a.png")
    (tmp_path / "photos/b.png").write_bytes(b"no picture")
    arguments = [str(tmp_path / "photos"), "-o", str(tmp_path / "out"), "--recipe", "gaussian-2.5"]
    assert main(["data", "prepare", "sharp", *arguments]) == 1
    assert "unblur: left out: " in capsys.readouterr().err


def test_an_analysis_writes_a_plot_and_json(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("scipy")
    make_set(tmp_path, "pairs")
    options = ["-o", str(tmp_path), "--patch", "16", "--patches", "3"]
    assert main(["data", "analyse", str(tmp_path / "pairs"), *options]) == 0
    assert json.loads((tmp_path / "pairs-patch-ssim.json").read_text())["patches"] == 6
    assert (tmp_path / "pairs-patch-ssim.png").read_bytes().startswith(b"\x89PNG")
    assert "pairs: 6 patches of 16 px from 2 pictures, 0.0 % with an SSIM of 0.9 or more" in capsys.readouterr().out
    assert main(["data", "analyse", "pairs", "--data-root", str(tmp_path), *options]) == 1
    assert "exists already" in capsys.readouterr().err


def test_frames_of_a_clip_become_pairs(tmp_path, capsys):
    for number in range(14):
        put(tmp_path / f"frames/{number:03}.png", 1)
    arguments = [str(tmp_path / "frames"), "-o", str(tmp_path / "out"), "--frames", "7", "--stride", "7"]
    assert main(["data", "from-video", *arguments]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{tmp_path / 'frames'} -> {tmp_path / 'out'} (2 pairs)"
    for pair in open_dataset(tmp_path / "out"):
        assert abs(pair.blurred.read().astype(int) - pair.sharp.read()).max() <= 1  # nothing moved


def test_a_wrong_name_is_answered_with_the_nearest(tmp_path, capsys):
    assert main(["data", "check", "reds/vall", str(tmp_path)]) == 1
    assert "No split of 'reds' is called 'vall'. Did you mean 'val'?" in capsys.readouterr().err


def test_the_command_alone_is_wrong_usage():
    with pytest.raises(SystemExit) as ended:
        main(["data"])
    assert ended.value.code == 2
