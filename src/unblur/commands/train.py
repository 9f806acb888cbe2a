"""`unblur train`: a network trained as a YAML file says."""

import argparse
import math
import os
import sys
from pathlib import Path

from unblur.commands.arguments import Commands, add_command, add_data_root, path
from unblur.commands.terminal import DONE, FAILED, say


def add_to(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "train",
        run,
        "train a network as a YAML file says",
        "Ctrl-C finishes the step and saves it, and --resume goes on from there as if nothing had been. Under torchrun "
        "the same command trains in several processes, on one machine or many.",
    )
    add = command.add_argument
    add("experiment", metavar="EXPERIMENT.yaml", type=path, help="every setting of the training")
    add("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help="change settings of the file")
    add("--out", metavar="DIR", type=path, help="run folder (runs/EXPERIMENT)")
    add("--resume", action="store_true", help="go on with the training in the run folder")
    add("--stop-after", metavar="MINUTES", type=float, help="save and end then; --resume goes on")
    add(
        "--budget",
        metavar="TEXT",
        help="cut it down to what there is: 30min, 2000steps, or 0.1 of the pictures; says what changes",
    )
    add_data_root(command)


def run(options: argparse.Namespace) -> int:
    """Train as a YAML file says and print where the result lies."""
    from unblur import experiment
    from unblur.inference import keep_freed_memory

    settings = experiment.load(options.experiment, options.set)  # a mistake in the file costs no loading of Lightning
    keep_freed_memory()
    from unblur.training import run

    def tell(line: str) -> None:
        if not options.quiet:
            print(line, file=sys.stderr, flush=True)

    out = options.out or Path("runs") / options.experiment.stem
    begun = out / "experiment.yaml"
    if options.budget and options.resume and begun.is_file():
        settings = experiment.load(begun)  # what the budget came to when it was measured
    elif options.budget:
        settings, lines = run.within_budget(settings, options.budget, data_root=options.data_root)
        for line in lines:
            tell(line)
    result = run.train(
        settings,
        out,
        data_root=options.data_root,
        resume=options.resume,
        stop_after=None if options.stop_after is None else 60 * options.stop_after,
        progress=not options.quiet and sys.stderr.isatty(),
        tell=tell,
    )
    if os.environ.get("RANK", "0") == "0":  # one of the processes that torchrun started says it
        line = f"{result.stopped} at step {result.step} of {result.total_steps}"
        if math.isfinite(result.best_loss):
            line = f"{out / 'best.safetensors'} ({line}, validation loss {result.best_loss:.5f}"
            say(f"{line}, PSNR {result.best_psnr:.2f} dB, {result.seconds:.0f} s)")
        else:  # it ended before the first look at the validation pictures
            say(f"{out / 'last.safetensors'} ({line}, {result.seconds:.0f} s)")
    return FAILED if result.stopped == "interrupted" else DONE
