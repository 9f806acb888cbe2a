"""`unblur data`: the data sets that are known, whether one is whole, and what can be made of it."""

import argparse
import sys
from pathlib import Path

from unblur.commands.arguments import Commands, Parser, add_command, add_data_root, at_least, path
from unblur.commands.terminal import DONE, FAILED, bar, say


def add_to(commands: Commands) -> None:
    """Add the command and its sub-commands."""
    top = commands.add_parser(
        "data",
        help="list, check and prepare data sets",
        description="List, check and prepare data sets. Nothing is ever downloaded.",
        allow_abbrev=False,
    )
    within = top.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    add_command(within, "list", list_sets, "list the data sets that are known by name")
    _add_check(within)
    _add_prepare(within)
    _add_analyse(within)
    _add_from_video(within)


def list_sets(options: argparse.Namespace) -> int:
    """Print the catalogue."""
    from unblur.data.overview import listing

    say(listing())
    return DONE


def check(options: argparse.Namespace) -> int:
    """Print everything that is wrong with a data set, a file a line."""
    from unblur.data.check import check_dataset

    with bar(options, "checking", None) as progress:
        found = check_dataset(
            options.name,
            options.folder,
            deep=options.deep,
            progress=lambda done, total: progress.update(done, total, "checking"),
        )
    for line in found.lines():
        say(line)
    return DONE if found.is_whole else FAILED


def prepare(options: argparse.Namespace) -> int:
    """Write pairs to disk and print how many there are."""
    from unblur.blur.recipes import load_recipe
    from unblur.data.catalog import open_within
    from unblur.data.prepare import prepare
    from unblur.data.sources import subset
    from unblur.experiment import parse_size

    recipe = load_recipe(options.recipe) if options.recipe else None
    size = parse_size(options.size) if options.size else None
    pairs = open_within(options.folder, options.name, sharp_only=recipe is not None)
    pairs = subset(pairs, options.share, options.seed)
    with bar(options, "preparing", len(pairs)) as progress:
        done = prepare(
            options.name,
            pairs,
            options.output,
            recipe=recipe,
            size=size,
            seed=options.seed,
            progress=lambda done, total: progress.update(done, total, "preparing"),
        )
    for reason in done.left_out:
        print(f"unblur: left out: {reason}", file=sys.stderr)
    say(f"{options.folder} -> {options.output} ({done.pairs:,} pairs)")
    return FAILED if done.left_out else DONE


def analyse(options: argparse.Namespace) -> int:
    """Write histogram and density of the patches' SSIM and print the share that is near-perfect."""
    from unblur.data import analysis
    from unblur.data.catalog import open_dataset

    pairs = open_dataset(options.data, options.data_root)
    name = Path(options.data).name if Path(options.data).is_dir() else options.data
    with bar(options, "analysing", None) as progress:
        found = analysis.analyse(
            name,
            pairs,
            patch_px=options.patch,
            patches_per_picture=options.patches,
            max_pictures=options.pictures,
            threshold=options.threshold,
            seed=options.seed,
            progress=lambda done, total: progress.update(done, total, "analysing"),
        )
    files = [options.output / f"{name.replace('/', '-')}-patch-ssim{suffix}" for suffix in (".json", ".png")]
    analysis.write_json(found, files[0], overwrite=options.overwrite)
    analysis.write_plot(found, files[1], overwrite=options.overwrite)
    for file in files:
        say(str(file))
    share = f"{100 * found.near_perfect:.1f} % with an SSIM of {found.threshold:g} or more"
    say(f"{name}: {len(found.ssim):,} patches of {found.patch_px} px from {found.pictures:,} pictures, {share}")
    return DONE


def from_video(options: argparse.Namespace) -> int:
    """Write pairs made of the frames of a clip and print the names of the blurred pictures."""
    from unblur.data.from_video import pairs_from_video, read_response

    count = 0
    with bar(options, "averaging", None) as progress:
        for pair in pairs_from_video(
            options.clip,
            options.output,
            frames=options.frames,
            stride=options.stride,
            response=read_response(options.gamma),
            overwrite=options.overwrite,
        ):
            count += 1
            progress.advance()
            if not options.quiet:
                say(f"{options.clip} -> {pair.blurred}")
            if pair.warning:
                print(f"unblur: {pair.warning}", file=sys.stderr)
    say(f"{options.clip} -> {options.output} ({count:,} pairs)")
    return DONE


def _add_check(within: Commands) -> None:
    command = add_command(
        within,
        "check",
        check,
        "say what is missing, extra or unreadable",
        "Counts pictures against the known numbers and names every file that is missing, extra, unreadable, of another "
        "size or other colours than its partner. Exits with 1 where anything is short.",
    )
    add = command.add_argument
    add(
        "name", metavar="NAME", help="data set (`unblur data list`), or a part such as gopro/test or reds/val/blur_comp"
    )
    add("folder", metavar="DIR", type=path, help="folder of the set")
    add("--deep", action="store_true", help="decode every picture, not only its header")


def _add_prepare(within: Commands) -> None:
    command = add_command(
        within,
        "prepare",
        prepare,
        "write pairs to disk once",
        "Writes OUT/blur and OUT/sharp with the same names, lossless: pairs as they are, or sharp pictures blurred by "
        "a recipe, one pair for each of its levels.",
    )
    add = command.add_argument
    add("name", metavar="NAME", help="data set, with its split where it has several: sharp, gopro/train")
    add("folder", metavar="DIR", type=path, help="folder of the set")
    add("-o", "--output", metavar="OUT", type=path, required=True, help="folder to write; goes on where it stopped")
    add("--size", metavar="448x256", help="reduce to this size first (by area, aspect not kept)")
    add("--recipe", metavar="NAME|FILE", help="how to blur sharp pictures")
    add("--share", metavar="S", type=float, default=1.0, help="take a part of the pictures, 0.1 for a tenth")
    add("--seed", metavar="N", type=int, default=0, help="of the share and the recipe (%(default)s)")


def _add_analyse(within: Commands) -> None:
    command = add_command(
        within,
        "analyse",
        analyse,
        "show how much of the patches is blurred at all",
        "Writes NAME-patch-ssim.json and .png: histogram and kernel density of the SSIM between blurred and sharp "
        "patches, and the share of near-perfect ones.",
    )
    add = command.add_argument
    add("data", metavar="DIR", help="folder of pairs, or a data set by name")
    add("-o", "--output", metavar="OUT", type=path, default=Path(), help="folder for both files (the current one)")
    add("--patch", metavar="PX", type=at_least(11), default=256, help="side of a patch (%(default)s)")
    add("--patches", metavar="N", type=at_least(1), default=2, help="patches a picture (%(default)s)")
    add("--pictures", metavar="N", type=at_least(1), help="so many pictures, spread evenly (all)")
    add("--threshold", metavar="SSIM", type=float, default=0.9, help="near-perfect from here on (%(default)s)")
    add("--seed", metavar="N", type=int, default=0, help="of the patches (%(default)s)")
    add("--overwrite", action="store_true", help="replace files that exist already")
    add_data_root(command)


def _add_from_video(within: Commands) -> None:
    command = add_command(
        within,
        "from-video",
        from_video,
        "make pairs of a clip of your own",
        "Averages frames that follow each other, as light, into DIR/blur; the middle one goes to DIR/sharp. Good for "
        "clips of 120 frames a second and more, filmed with a short exposure.",
    )
    add = command.add_argument
    add("clip", metavar="CLIP|FRAMEDIR", type=path, help="video file, or a folder of frames")
    add("-o", "--output", metavar="DIR", type=path, required=True, help="folder for blur/ and sharp/")
    add("--frames", metavar="N", type=at_least(1), default=11, help="averaged for one picture, 7 to 25 (%(default)s)")
    add("--stride", metavar="N", type=at_least(1), default=11, help="frames from one picture to the next (%(default)s)")
    add("--gamma", metavar="G|FILE", default="2.2", help="of the camera, or its response curve in a file (%(default)s)")
    add("--overwrite", action="store_true", help="replace pictures that exist already")
