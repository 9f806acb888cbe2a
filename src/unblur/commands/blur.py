"""`unblur blur`: sharp photos in, photos blurred by a recipe out."""

import argparse

from unblur.commands.arguments import Commands, add_command, add_writing, path
from unblur.commands.terminal import DONE, FAILED, bar, report, say, tell_failures


def add_to(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands, "blur", run, "blur photos by a recipe", "A recipe with levels writes one picture for each of them."
    )
    add = command.add_argument
    add("paths", metavar="PATH", nargs="+", type=path, help="sharp photos, or folders of them (searched recursively)")
    add("-o", "--output", metavar="OUT", type=path, required=True, help="file (for one photo) or folder")
    add("--recipe", metavar="NAME|FILE", required=True, help="built-in recipe, or a YAML file of your own")
    add("--seed", metavar="N", type=int, default=0, help="another number draws another blur (%(default)s)")
    add_writing(command)


def run(options: argparse.Namespace) -> int:
    """Blur photos by a recipe and print the names of the results."""
    from unblur.blur.photos import blur_files
    from unblur.blur.recipes import load_recipe
    from unblur.images import DEFAULT_MAX_PIXELS
    from unblur.outputs import FailedFile, plan_outputs

    recipe = load_recipe(options.recipe)
    plan = plan_outputs(options.paths, options.output)
    results = blur_files(
        plan,
        recipe,
        options.seed,
        overwrite=options.overwrite,
        max_pixels=options.max_pixels or DEFAULT_MAX_PIXELS,
    )
    failures = 0
    with bar(options, "blurring", len(plan)) as progress:
        for result in results:
            progress.advance()
            if isinstance(result, FailedFile):
                failures += 1
                report(result.error, options)
            elif not options.quiet:
                for target in result.targets:
                    say(f"{result.source} -> {target}")
    tell_failures(failures, len(plan))
    return FAILED if failures else DONE
