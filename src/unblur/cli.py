"""The command `unblur`: the list of its commands, which lie in `commands/`, and its exit codes.

0 all done, 1 something failed (the rest was done), 2 wrong usage. A command imports what only it needs, so that
`--help` and mistakes cost no second of loading torch.
"""

import io
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from unblur import __version__
from unblur.commands import blur, compare, data, detect, evaluate, export, models, restore, score, sweep, train
from unblur.commands.arguments import Parser, add_loudness
from unblur.commands.terminal import FAILED, INTERRUPTED, report, warnings_in_one_line
from unblur.errors import UnblurError

COMMANDS = (restore, models, blur, data, train, sweep, evaluate, score, detect, compare, export)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; wrong usage ends in `SystemExit`, as argparse has it."""
    options, unknown = parser().parse_known_args(arguments)
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    signal.signal(signal.SIGTERM, _terminated)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names that the terminal's encoding does not have
    try:
        with warnings_in_one_line():
            return int(options.run(options))
    except UnblurError as error:
        report(error, options)
        return FAILED
    except KeyboardInterrupt:
        print("unblur: interrupted; what was finished is whole.", file=sys.stderr)
        return INTERRUPTED


def parser() -> Parser:
    """Return the parser of all commands."""
    top = Parser(
        prog="unblur",
        description="Make blurred photographs sharp.",
        epilog="`unblur restore photo.jpg` writes photo-restored.jpg beside it. `unblur COMMAND --help` says more.",
        allow_abbrev=False,
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for command in COMMANDS:
        command.add_to(commands)
    add_loudness(top, default=False)
    top.add_argument("--version", action="version", version=f"unblur {__version__}")
    return top


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt  # SIGTERM cleans up as Ctrl-C does
