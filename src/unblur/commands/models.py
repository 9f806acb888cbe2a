"""`unblur models`: what networks and weights there are, and what a file is."""

import argparse

from unblur.commands.arguments import Commands, add_command
from unblur.commands.terminal import DONE, say


def add_to(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "models", run, "list weights and networks, or say what a file is")
    command.add_argument("model", nargs="?", metavar="NAME|FILE", help="weights, network or checkpoint to describe")


def run(options: argparse.Namespace) -> int:
    """Print what networks and weights there are, or what a file is."""
    from unblur import zoo

    say(zoo.describe(options.model) if options.model else zoo.overview())
    return DONE
