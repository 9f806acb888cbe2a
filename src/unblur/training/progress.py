"""What is told of a training on its way: CSV tables always, TensorBoard beside them, a bar on the terminal.

In the run folder's `log/`:

* `train.csv`, a row every ten steps: `step`, `seconds` and `cpu_seconds` (spent up to here, over all resumes),
  `images` (seen up to here), `loss`, each part of it by its name and unweighted, `psnr` (dB, of this step's own
  pictures, clamped), `learning_rate`, `gradient_norm` (before clipping), `bad_steps` (skipped up to here),
  `images_per_second` and `waiting` (share of the time spent waiting for pictures and their blur), both since the row
  before.
* `valid.csv`, a row a validation: `step`, `seconds`, `cpu_seconds`, `images`, `loss`, `psnr`, and the same of the
  blurred input, `loss_blurred` and `psnr_blurred`; then the experiment's `validation.metrics` by their names.
* `events.out.tfevents.*`: the same as `train/...` and `valid/...`, and pictures: blurred, restored and sharp side by
  side.

A resumed training goes on in the same tables, without the rows of steps that it does again.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from unblur.files import written_whole
from unblur.training.validation import Look

EVERY_STEPS = 10
MAX_SHOWN_PX = 320


class Log:
    """The tables and TensorBoard of one run, and the bar where there is one."""

    def __init__(self, folder: Path, step: int, total_steps: int, *, bar: bool) -> None:
        """`step` is where the training goes on; rows of later steps are dropped."""
        self.train, self.valid = Table(folder / "train.csv", step), Table(folder / "valid.csv", step)
        self.board = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
        self.bar = _bar(bar)
        self.task = self.bar.add_task("", total=total_steps, completed=step, told="")
        self.bar.start()

    def step(self, step: int, values: Mapping[str, float | Tensor]) -> None:
        """Write the values of a step."""
        row = {name: value if isinstance(value, int) else float(value) for name, value in values.items()}
        self.train.append({"step": step, **row})
        self._board("train", step, row)
        rest = ("seconds", "cpu_seconds", "images", "learning_rate", "gradient_norm", "bad_steps", "waiting")
        told = {
            name.replace("images_per_second", "images/s"): v
            for name, v in row.items()
            if name.rpartition("/")[2] not in rest
        }
        self.bar.update(self.task, told="  ".join(f"{name} {value:.4g}" for name, value in told.items()))

    def advance(self, step: int) -> None:
        """Move the bar."""
        self.bar.update(self.task, completed=step)

    def look(self, step: int, spent: Mapping[str, float], look: Look) -> None:
        """Write a validation, with pictures on TensorBoard."""
        row = {
            "loss": look.loss,
            "psnr": look.psnr,
            "loss_blurred": look.loss_blurred,
            "psnr_blurred": look.psnr_blurred,
            **look.others,
        }
        self.valid.append({"step": step, **spent, **row})
        self._board("valid", step, row)
        for number, pictures in enumerate(look.shown, 1):
            shown = torch.cat([_middle(picture) for picture in pictures], dim=2).clamp(0, 1).cpu()  # (3, H, 3W)
            self.board.add_image(f"blurred, restored, sharp/{number}", shown, step)
        self.board.flush()

    def close(self) -> None:
        """Write what is not yet on the disk, and leave the terminal."""
        self.bar.stop()
        self.board.close()

    def _board(self, side: str, step: int, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self.board.add_scalar(f"{side}/{name}", value, step)


class Table:
    """A CSV file that grows by a row at a time, and gets a column when a row brings one that is new."""

    def __init__(self, path: Path, last_step: int) -> None:
        self.path = path
        rows = _rows(path)
        kept = [row for row in rows if int(row["step"]) <= last_step]
        self.columns = list(rows[0]) if rows else []
        if rows:
            self._write(kept)

    def append(self, row: Mapping[str, float]) -> None:
        """Add a row at the end, at once on the disk."""
        if not row.keys() <= set(self.columns):
            rows = _rows(self.path)
            self.columns += [name for name in row if name not in self.columns]
            self._write(rows)
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def _write(self, rows: Iterable[Mapping[str, str]]) -> None:
        with written_whole(self.path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)


def _bar(shown: bool) -> Progress:
    return Progress(
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[told]}"),
        console=Console(stderr=True),
        disable=not shown,
    )


def _rows(path: Path) -> list[dict[str, str]]:
    """Return the whole rows of a table; a last line that a crash cut short is none."""
    if not path.exists():
        return []
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return list(csv.DictReader(whole))


def _middle(picture: Tensor) -> Tensor:
    """Return at most the middle 320 pixels a side."""
    height, width = picture.shape[-2:]
    top, left = max(0, (height - MAX_SHOWN_PX) // 2), max(0, (width - MAX_SHOWN_PX) // 2)
    return picture[:, top : top + MAX_SHOWN_PX, left : left + MAX_SHOWN_PX]
