"""`unblur sweep`: an experiment trained with other values of some of its settings."""

import argparse
import os
import sys
from pathlib import Path

from unblur.commands.arguments import Commands, add_command, add_data_root, path
from unblur.commands.terminal import DONE, FAILED, INTERRUPTED, say


def add_to(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "sweep",
        run,
        "train an experiment with other values of some settings, as a YAML file says",
        "Several processes may work on one study: start the same command with --resume in each.",
    )
    add = command.add_argument
    add("study", metavar="STUDY.yaml", type=path, help="the experiment, the values, how they are chosen and judged")
    add("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help="change settings of all trials")
    add("--out", metavar="DIR", type=path, help="folder of the study (runs/STUDY)")
    add("--resume", action="store_true", help="go on with the study, or join those who work on it")
    storage = "address of a database in place of study.db, such as postgresql://... ($UNBLUR_STUDY_STORAGE)"
    add("--storage", metavar="URL", default=os.environ.get("UNBLUR_STUDY_STORAGE"), help=storage)
    add_data_root(command)


def run(options: argparse.Namespace) -> int:
    """Train all trials that wait and print the table."""
    from unblur import sweep

    study = sweep.load(options.study, options.set)  # a mistake in the file costs no loading of Lightning
    from unblur.inference import keep_freed_memory

    keep_freed_memory()
    from unblur.training.run import train

    result = sweep.sweep(
        study,
        options.out or Path("runs") / options.study.stem,
        train=train,
        data_root=options.data_root,
        storage=options.storage,
        resume=options.resume,
        progress=not options.quiet and sys.stderr.isatty(),
        tell=lambda line: None if options.quiet else print(line, file=sys.stderr, flush=True),
    )
    say(result.table)
    if result.interrupted:
        return INTERRUPTED
    return FAILED if result.number_of("failed") else DONE
