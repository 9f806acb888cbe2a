"""`unblur score`: restored pictures against sharp ones."""

import argparse
import json
import sys

from unblur.commands.arguments import Commands, add_command, add_scoring, path
from unblur.commands.terminal import DONE, FAILED, say


def add_to(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "score",
        run,
        "score restored pictures against sharp ones",
        "Takes two folders, whose files are paired by name, or two files.",
    )
    add = command.add_argument
    add("restored", metavar="RESTORED", type=path)
    add("sharp", metavar="SHARP", type=path)
    add_scoring(command)
    add("--fail-below", metavar="DB", type=float, help="exit with 1 where the mean PSNR is lower")


def run(options: argparse.Namespace) -> int:
    """Score restored files against sharp ones."""
    from unblur import evaluation, tables
    from unblur.metrics.protocols import PLAIN, find_protocol

    protocol = find_protocol(options.protocol or PLAIN.name)
    judge = evaluation.psnr_among(options.metrics or protocol.metrics)
    if options.fail_below is not None and judge is None:
        options.parser.error("--fail-below is in dB: it needs psnr or psnr-float among --metrics")
    scores = evaluation.score(
        options.restored, options.sharp, protocol=protocol.name, metrics=options.metrics, shift_px=options.shift
    )
    say(json.dumps(scores.to_json()) if options.json else tables.score_table(scores.to_json()))
    if options.fail_below is not None and judge is not None and scores.mean[judge] < options.fail_below:
        print(f"unblur: mean {judge} {scores.mean[judge]:.3f} is below {options.fail_below:g}.", file=sys.stderr)
        return FAILED
    return DONE
