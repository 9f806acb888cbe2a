"""`unblur train`: a network trained as a YAML file says."""

import argparse
import math
import sys
from pathlib import Path

from unblur.commands.arguments import Commands, add_command, add_data_root, path
from unblur.commands.terminal import DONE, FAILED, say


def add_to(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "train", run, "train a network as a YAML file says")
    add = command.add_argument
    add("experiment", metavar="EXPERIMENT.yaml", type=path, help="every setting of the training")
    add("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help="change settings of the file")
    add("--out", metavar="DIR", type=path, help="run folder (runs/EXPERIMENT)")
    add("--resume", action="store_true", help="go on with the training in the run folder")
    add_data_root(command)


def run(options: argparse.Namespace) -> int:
    """Train as a YAML file says and print where the result lies."""
    from unblur import experiment
    from unblur.inference import keep_freed_memory

    settings = experiment.load(options.experiment, options.set)  # a mistake in the file costs no loading of Lightning
    keep_freed_memory()
    from unblur.training import supervised

    out = options.out or Path("runs") / options.experiment.stem
    result = supervised.train(
        settings,
        out,
        data_root=options.data_root,
        resume=options.resume,
        progress=not options.quiet and sys.stderr.isatty(),
        tell=lambda line: None if options.quiet else print(line, file=sys.stderr, flush=True),
    )
    line = f"{result.stopped} at step {result.step} of {result.total_steps}"
    if math.isfinite(result.best_loss):
        line = f"{out / 'best.safetensors'} ({line}, validation loss {result.best_loss:.5f}"
        say(f"{line}, PSNR {result.best_psnr:.2f} dB, {result.seconds:.0f} s)")
    else:  # it ended before the first look at the validation pictures
        say(f"{out / 'last.safetensors'} ({line}, {result.seconds:.0f} s)")
    return FAILED if result.stopped == "interrupted" else DONE
