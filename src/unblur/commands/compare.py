"""`unblur compare`: trainings, evaluations and studies side by side in one HTML file."""

import argparse

from unblur.commands.arguments import Commands, add_command, add_data_root, path
from unblur.commands.terminal import DONE, say


def add_to(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "compare",
        run,
        "put runs side by side in one HTML file",
        "A RUN is a folder of train, of sweep or of evaluate --out.",
    )
    add = command.add_argument
    add("runs", metavar="RUN", nargs="+", type=path, help="folders")
    add("-o", "--output", metavar="FILE.html", type=path, required=True, help="the report; replaces an older one")
    add("--title", metavar="TEXT", default="Comparison", help="its heading (%(default)s)")
    add("--plots", metavar="DIR", type=path, help="write its plots as PNGs for papers, too")
    add_data_root(command)


def run(options: argparse.Namespace) -> int:
    """Write the report and print where it lies."""
    from unblur import report

    made = report.compare(
        options.runs, options.output, title=options.title, plots=options.plots, data_root=options.data_root
    )
    size = made.file.stat().st_size / 2**20
    say(f"{made.file} ({made.about}, {size:.1f} MiB)")
    for plot in made.plots:
        say(str(plot))
    return DONE
