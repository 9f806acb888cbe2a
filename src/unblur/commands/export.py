"""`unblur export`: weights to a file of another format."""

import argparse

from unblur.commands.arguments import Commands, add_command, path
from unblur.commands.terminal import DONE, say

SUFFIXES = {"torch": ".safetensors", "onnx": ".onnx"}


def add_to(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "export",
        run,
        "write weights to a file of another format",
        "torch is unblur's own .safetensors, which says what it is; an author's checkpoint becomes one. An onnx file "
        "takes pictures as (1, 3, H, W) float32 in [0, 1].",
    )
    add = command.add_argument
    add("--model", metavar="NAME|FILE", required=True, help="weights, or a checkpoint: unblur's or an author's")
    add("--format", choices=list(SUFFIXES), required=True, help="of the file")
    add("-o", "--output", metavar="FILE", type=path, required=True, help="file to write")
    add("--overwrite", action="store_true", help="replace a file that exists already")


def run(options: argparse.Namespace) -> int:
    """Write weights to a file and print its name."""
    from unblur import weights

    suffix = SUFFIXES[options.format]
    if options.output.suffix != suffix:
        options.parser.error(f"--format {options.format} writes a {suffix} file, not {options.output.name}")
    model, checkpoint = weights.open_weights(options.model)
    if options.format == "onnx":
        from unblur.engines import export_onnx

        say(f"{options.model} -> {options.output} ({export_onnx(model, options.output, overwrite=options.overwrite)})")
        return DONE
    weights.save(model, options.output, checkpoint.facts, overwrite=options.overwrite)
    say(f"{options.model} -> {options.output} ({weights.num_parameters(model):,} parameters)")
    return DONE
