"""What is told on the way: tables that survive a resume and a crash, pictures, and a bar on stderr."""

import csv
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unblur.training.clock import Clock
from unblur.training.progress import Log, Table
from unblur.training.validation import Look


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_rows_of_steps_that_are_done_again_are_dropped(tmp_path: Path) -> None:
    table = Table(tmp_path / "train.csv", 0)
    for step in (10, 20, 30):
        table.append({"step": step, "loss": step / 100})
    resumed = Table(tmp_path / "train.csv", 20)
    assert [row["step"] for row in rows(tmp_path / "train.csv")] == ["10", "20"]
    resumed.append({"step": 30, "loss": 0.5})
    assert [row["loss"] for row in rows(tmp_path / "train.csv")] == ["0.1", "0.2", "0.5"]


def test_a_new_value_becomes_a_new_column(tmp_path: Path) -> None:
    table = Table(tmp_path / "train.csv", 0)
    table.append({"step": 10, "loss": 1.0})
    table.append({"step": 20, "edge": 2.0, "loss": 3.0})
    table.append({"step": 30, "loss": 4.0})
    assert rows(tmp_path / "train.csv") == [
        {"step": "10", "loss": "1.0", "edge": ""},
        {"step": "20", "loss": "3.0", "edge": "2.0"},
        {"step": "30", "loss": "4.0", "edge": ""},
    ]


def test_a_line_that_a_crash_cut_short_is_dropped(tmp_path: Path) -> None:
    Table(tmp_path / "train.csv", 0).append({"step": 10, "loss": 1.0})
    with open(tmp_path / "train.csv", "a") as file:
        file.write("20")
    Table(tmp_path / "train.csv", 20).append({"step": 20, "loss": 2.0})
    assert rows(tmp_path / "train.csv") == [{"step": "10", "loss": "1.0"}, {"step": "20", "loss": "2.0"}]


def test_tensorboard_gets_the_numbers_and_the_three_pictures_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log(tmp_path, 0, 20, bar=False)
    log.step(10, {"loss": torch.tensor(0.5), "images": 80})
    pictures = tuple(torch.full((3, 400, 30), grey) for grey in (0.2, 0.5, 0.8))
    log.look(10, {"seconds": 1.0}, Look(0.4, 30.0, 0.6, 28.0, {"strongest-channel": 0.7}, [pictures]))
    log.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Scalars("train/loss")[0].value == 0.5
    assert events.Scalars("valid/psnr")[0].step == 10
    (image,) = events.Images("blurred, restored, sharp/1")
    assert (image.height, image.width) == (320, 90)
    assert rows(tmp_path / "valid.csv")[0]["loss_blurred"] == "0.6"
    assert rows(tmp_path / "valid.csv")[0]["strongest-channel"] == "0.7"
    assert events.Scalars("valid/strongest-channel")[0].value == pytest.approx(0.7)
    assert capsys.readouterr() == ("", "")


def test_the_bar_shows_parts_psnr_and_speed_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    log = Log(tmp_path, 0, 20, bar=True)
    log.step(10, {"loss": 0.5, "edge": 0.125, "psnr": 31.5, "images_per_second": 42.0, "seconds": 7.0})
    log.advance(10)
    log.close()
    said = capsys.readouterr()
    assert said.out == ""
    told = " ".join(said.err.split())
    assert "10/20" in told
    assert "loss 0.5 edge 0.125 psnr 31.5 images/s 42" in told


def test_what_is_done_aside_counts_as_spent_but_not_as_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 10.0, 14.0, 20.0, 20.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    clock = Clock(100.0, 50.0)
    with clock.aside():
        pass
    assert clock.rates(images=32, waiting=4.0) == {"images_per_second": 2.0, "waiting": 0.25}
    seconds, cpu_seconds = clock.spent()
    assert seconds == 120.0
    assert cpu_seconds >= 50.0
