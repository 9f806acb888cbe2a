"""`unblur evaluate`: models scored on a data set."""

import argparse
import json

from unblur.commands.arguments import Commands, add_command, add_evaluation, evaluation_asked_for
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
    from unblur.inference import keep_freed_memory

    keep_freed_memory()
    with bar(options, "evaluating", None) as progress:
        result = evaluation.evaluate(**evaluation_asked_for(options), progress=progress.update)
    summary = result.to_json()
    if options.json:
        say(json.dumps(summary))
    else:
        say(tables.markdown_table(summary))
        if not result.rows[0].levels and (by_blur := tables.by_blur_table(summary)):
            say(f"\n{by_blur}")
    return DONE
