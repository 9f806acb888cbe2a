"""`unblur restore`: blurred photos in, sharper photos out."""

import argparse
import sys

from unblur.commands.arguments import Commands, add_command, add_writing, at_least, path
from unblur.commands.terminal import DONE, FAILED, bar, report, say, tell_failures


def add_to(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "restore",
        run,
        "make photos sharp",
        "Without -o a result is called NAME-restored.EXT and lies beside its photo. Of several photos, or of a "
        "folder, OUT is a folder in which names and subfolders are kept. A photo itself is never overwritten.",
    )
    add = command.add_argument
    add("paths", metavar="PATH", nargs="+", type=path, help="photos, or folders of photos (searched recursively)")
    add("-o", "--output", metavar="OUT", type=path, help="file (for one photo) or folder for the results")
    add("--model", default="default", metavar="NAME|FILE", help="weights; `unblur models` lists them (%(default)s)")
    add("--engine", choices=["auto", "torch"], default="auto", help="what computes (%(default)s)")
    add(
        "--device", default="auto", metavar="D", help="cpu, cuda, cuda:1, mps, or auto: the best there is (%(default)s)"
    )
    add("--tile", type=at_least(1), metavar="PX", help="longest side of a tile; smaller needs less memory (512)")
    add("--masks", metavar="DIR|sam:NAME", help="masks for sam_deblur: a folder of them, or Segment Anything's")
    add("--local-pooling", action="store_true", help="pool as NAFNet's and SAM-Deblur's authors do when they test")
    add_writing(command)


def run(options: argparse.Namespace) -> int:
    """Restore photos and print one line for each."""
    from unblur.images import DEFAULT_MAX_PIXELS
    from unblur.inference import keep_freed_memory
    from unblur.outputs import FailedFile, plan_outputs
    from unblur.restorer import Restorer, restore_files

    keep_freed_memory()
    plan = plan_outputs(options.paths, options.output)
    restorer = Restorer(
        options.model,
        device=options.device,
        tile_px=options.tile,
        masks=options.masks,
        local_pooling=options.local_pooling,
    )
    results = restore_files(
        plan, restorer, overwrite=options.overwrite, max_pixels=options.max_pixels or DEFAULT_MAX_PIXELS
    )
    failures = 0
    with bar(options, "restoring", len(plan)) as progress:
        for result in results:
            progress.advance()
            if isinstance(result, FailedFile):
                failures += 1
                report(result.error, options)
            elif not options.quiet:
                tiles = f", {result.tiles} tiles" if result.tiles > 1 else ""
                size = f"{result.width}x{result.height}{tiles}"
                say(f"{result.source} -> {result.target} ({size}, {result.seconds:.2f} s)")
                for loss in result.losses:
                    print(f"unblur: {result.target}: {loss}", file=sys.stderr)
    tell_failures(failures, len(plan))
    return FAILED if failures else DONE
