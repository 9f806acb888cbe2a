"""`unblur evaluate`: models scored on a data set."""

import argparse
import json

from unblur.commands.arguments import Commands, add_command, add_data_root, add_scoring, path
from unblur.commands.terminal import DONE, bar, say


def add_to(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "evaluate",
        run,
        "restore a data set and score the results",
        "With --recipe the data are sharp photos, blurred by it; without, pairs in blur/ and sharp/. The first row "
        "of the table is the blurred input itself.",
    )
    add = command.add_argument
    add("--model", metavar="NAME|FILE", nargs="+", action="extend", required=True, help="weights to compare")
    add("--data", metavar="NAME|DIR", required=True, help="data set by name, or a folder")
    add("--recipe", metavar="NAME|FILE", help="how to blur sharp photos")
    add("--size", metavar="448x256", help="reduce sharp photos to this size first (by area, aspect not kept)")
    add("--seed", metavar="N", type=int, default=0, help="of the recipe (%(default)s)")
    add_scoring(command)
    add("--out", metavar="DIR", type=path, help="keep pictures, scores and settings; goes on where it stopped")
    add_data_root(command)


def run(options: argparse.Namespace) -> int:
    """Score models on a data set and print the table, the blurred input first."""
    from unblur import evaluation, tables
    from unblur.blur.recipes import load_recipe
    from unblur.data.catalog import find_dataset
    from unblur.experiment import parse_size
    from unblur.inference import keep_freed_memory
    from unblur.metrics import DEFAULT_METRICS

    keep_freed_memory()
    with bar(options, "evaluating", None) as progress:
        result = evaluation.evaluate(
            options.model,
            find_dataset(options.data, options.data_root),
            recipe=load_recipe(options.recipe) if options.recipe else None,
            size=parse_size(options.size) if options.size else None,
            seed=options.seed,
            metrics=options.metrics or DEFAULT_METRICS,
            shift_px=options.shift,
            out=options.out,
            progress=progress.update,
        )
    summary = result.to_json()
    say(json.dumps(summary) if options.json else tables.markdown_table(summary))
    return DONE
