"""What commands print, and how: results to stdout, progress and messages to stderr."""

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TextIO

from unblur.errors import OutputError, UnblurError

DONE, FAILED, INTERRUPTED = 0, 1, 130
"""Exit codes; wrong usage is argparse's 2."""


def say(text: str) -> None:
    """Print a result, at once: who reads a pipe sees it when it is there."""
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries again at its end, and fails
        raise OutputError(f"The results cannot be printed: {error.strerror}.") from error


def report(error: UnblurError, options: argparse.Namespace) -> None:
    """Print an error in one line; with -v also where it arose."""
    if options.verbose:
        traceback.print_exception(error)
    print(f"unblur: {error}", file=sys.stderr)


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Print warnings meant for users as messages are printed, without the line of code that they come from."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if category is UserWarning:
                print(f"unblur: {message}", file=sys.stderr)
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def tell_failures(failures: int, count: int) -> None:
    """Say how many of several files failed."""
    if failures and count > 1:
        print(f"unblur: {failures} of {count} files failed, the others are done.", file=sys.stderr)


def bar(options: argparse.Namespace, text: str, total: int | None) -> "Progress":
    """Return a bar for `total` things (None: not known yet), shown where somebody looks."""
    shown = not options.quiet and sys.stderr.isatty() and (total is None or total > 1)
    return Progress(shown, text, total)


class Progress(AbstractContextManager["Progress"]):
    """A bar on stderr: only on a terminal, and only where there is more than one thing to do."""

    def __init__(self, shown: bool, text: str, total: int | None) -> None:
        self._shown, self._text, self._total = shown, text, total
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "Progress":
        if self._shown:
            from rich.console import Console
            from rich.progress import Progress

            # Results that go to a file must not be taken for lines that belong above the bar.
            both = sys.stdout.isatty()
            self._bar = Progress(console=Console(stderr=True), transient=True, redirect_stdout=both)
            self._task = self._bar.add_task(self._text, total=self._total)
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self) -> None:
        """One more is done."""
        if self._bar is not None:
            self._bar.advance(self._task)

    def update(self, done: int, total: int, text: str) -> None:
        """So many of so many are done."""
        if self._bar is not None:
            from rich.markup import escape

            self._bar.update(self._task, completed=done, total=total, description=escape(text))
