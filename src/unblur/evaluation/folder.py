"""The folder of an evaluation: one set of settings, and a journal of what is done already."""

import json
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unblur.data.sources import FilePicture, Picture
from unblur.errors import OutputError
from unblur.evaluation.cost import Taken
from unblur.files import written_whole
from unblur.settings import differences


@contextmanager
def opened(out: Path | None, settings: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the folder to work in: `out`, new or with an evaluation of the same settings, or a temporary one.

    Raises `OutputError` that names the difference where `out` holds an evaluation with other settings.
    """
    if out is None:
        with tempfile.TemporaryDirectory(prefix="unblur-") as temporary:
            yield Path(temporary)
        return
    out = Path(out)
    file = out / "settings.json"
    if file.exists():
        different = differences(_read_json(file), json.loads(json.dumps(settings)))
        if different:
            raise OutputError(
                f"{out} holds an evaluation with other settings ({'; '.join(different)}). "
                "Choose another folder, or delete this one."
            )
    elif out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out} holds files but no evaluation (settings.json). Choose another folder.")
    else:
        write_text(file, json.dumps(settings, indent=1))
    yield out


class Journal:
    """What pass 1 took and pass 2 found, a line a picture, so that an evaluation goes on where it stopped.

    A score counts as long as both files are those that were scored (by size and time of change).
    """

    def __init__(self, file: Path) -> None:
        self._file, self._one_at_a_time = file, threading.Lock()
        self._taken: dict[tuple[str, str], Taken] = {}
        self._scores: dict[tuple[str, str], tuple[str, dict[str, float]]] = {}
        text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
        if text and not text.endswith("\n"):
            self._append_line("")  # ends the half line of a run that was killed
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            key = entry["row"], entry["picture"]
            if "taken" in entry:
                self._taken[key] = Taken(**entry["taken"])
            else:
                self._scores[key] = entry["stamp"], entry["scores"]

    def taken(self, row: str, picture: str) -> Taken | None:
        """Return what restoring the picture took, if it is known."""
        return self._taken.get((row, picture))

    def scores(self, row: str, picture: str, stamp: str) -> dict[str, float] | None:
        """Return the scores of these very files, if they are known."""
        known = self._scores.get((row, picture))
        return known[1] if known and known[0] == stamp else None

    def note_taken(self, row: str, picture: str, taken: Taken) -> None:
        """Keep what restoring a picture took."""
        self._taken[row, picture] = taken
        self._append_line(json.dumps({"row": row, "picture": picture, "taken": asdict(taken)}))

    def note_scores(self, row: str, picture: str, stamp: str, scores: dict[str, float]) -> None:
        """Keep the scores of a picture."""
        self._scores[row, picture] = stamp, scores
        self._append_line(json.dumps({"row": row, "picture": picture, "stamp": stamp, "scores": scores}))

    def _append_line(self, line: str) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._one_at_a_time, self._file.open("a", encoding="utf-8", newline="\n") as file:
                file.write(f"{line}\n")
        except OSError as error:
            raise OutputError(f"{self._file} cannot be written: {error.strerror or error}.") from error


def stamp(restored: Path, sharp: Picture) -> str:
    """Return what tells these files from others that may lie there later."""
    paths = [restored, *([sharp.path] if isinstance(sharp, FilePicture) else [])]
    return " ".join(f"{info.st_size}-{info.st_mtime_ns}" for info in (path.stat() for path in paths))


def write_text(file: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with written_whole(file) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{file} cannot be read ({error}). Choose another folder, or delete this one.") from None
    if not isinstance(content, dict):
        raise OutputError(f"{file} is not the settings of an evaluation. Choose another folder.")
    return content
