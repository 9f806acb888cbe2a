"""`unblur evaluate`: models scored on a data set."""

import argparse
import json
from pathlib import Path

from unblur.commands.arguments import Commands, add_command, add_evaluation
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
    add_evaluation(command)


def run(options: argparse.Namespace) -> int:
    """Score models on a data set and print the table, the blurred input first."""
    from unblur import evaluation, tables
    from unblur.blur.recipes import load_recipe
    from unblur.data.catalog import open_dataset
    from unblur.experiment import parse_size
    from unblur.inference import keep_freed_memory
    from unblur.metrics.protocols import protocol_of_data

    keep_freed_memory()
    recipe = load_recipe(options.recipe) if options.recipe else None
    with bar(options, "evaluating", None) as progress:
        result = evaluation.evaluate(
            options.model,
            open_dataset(options.data, options.data_root, sharp_only=recipe is not None),
            data_name=Path(options.data).resolve().name if Path(options.data).is_dir() else options.data,
            recipe=recipe,
            size=parse_size(options.size) if options.size else None,
            seed=options.seed,
            protocol=options.protocol or protocol_of_data(options.data).name,
            metrics=options.metrics,
            shift_px=options.shift,
            device=options.device,
            out=options.out,
            progress=progress.update,
        )
    summary = result.to_json()
    if options.json:
        say(json.dumps(summary))
    else:
        say(tables.markdown_table(summary))
        if not result.rows[0].levels and (by_blur := tables.by_blur_table(summary)):
            say(f"\n{by_blur}")
    return DONE
