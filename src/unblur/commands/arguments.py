"""What several commands take, and the parser that they share."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from unblur.errors import suggestion

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


class Parser(argparse.ArgumentParser):
    """argparse with the nearest command or flag in its errors."""

    def error(self, message: str) -> NoReturn:
        said, invalid, _ = message.partition(" (choose from")
        if invalid:
            choices = [str(choice) for action in self._actions for choice in (action.choices or ())]
            message = said + "." + suggestion(said.split("'")[1], choices)
        elif "unrecognized arguments" in message:
            flags = [flag for action in self._actions for flag in action.option_strings]
            unknown = next((word for word in message.split() if word.startswith("-")), None)
            message += f".{suggestion(unknown.split('=')[0], flags)}" if unknown else "."
        super().error(message)


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], text: str, more: str = ""
) -> Parser:
    """Return the parser of a new command; `text` is its line in the list, with `more` its description."""
    description = f"{text[0].upper()}{text[1:]}. {more}".strip()
    added = commands.add_parser(name, help=text, description=description, allow_abbrev=False)
    add_loudness(added, default=argparse.SUPPRESS)  # before the command or after it
    added.set_defaults(run=run, parser=added)
    return added


def add_writing(command: argparse.ArgumentParser) -> None:
    """Add what every command takes that writes pictures."""
    add = command.add_argument
    add("--overwrite", action="store_true", help="replace results that exist already")
    add("--max-pixels", type=at_least(1), metavar="N", help="refuse larger pictures (200 million pixels)")


def add_scoring(command: argparse.ArgumentParser) -> None:
    """Add what every command takes that scores pictures."""
    add = command.add_argument
    protocols = "plain, gopro, hide, realblur, reds-val-300, dpdd (that of the data set's id, else plain)"
    add("--protocol", metavar="NAME", help=f"a benchmark's way of scoring: {protocols}")
    known = (
        "in place of the protocol's: psnr, ssim-wang (plain has these two), psnr-float, ssim-matlab3d, ssim-uniform, "
        "mse, mae, strongest-channel, niqe-unblur, psnr-realblur, ssim-realblur; with files of weights lpips-alex, "
        "lpips-vgg, dists (docs/metrics.md)"
    )
    add("--metrics", metavar="NAME", nargs="+", action="extend", help=known)
    add("--shift", metavar="PX", type=at_least(0), default=0, help="score at the best whole-pixel offset up to PX")
    add("--json", action="store_true", help="print one JSON object and nothing else")


def add_evaluation(command: argparse.ArgumentParser) -> None:
    """Add what every command takes that restores a data set and looks at the results."""
    add = command.add_argument
    models = "weights to compare; also unsharp, wiener-true-kernel"
    add("--model", metavar="NAME|FILE", nargs="+", action="extend", required=True, help=models)
    add("--data", metavar="NAME|DIR", required=True, help="data set by name, or a folder")
    add("--recipe", metavar="NAME|FILE", help="how to blur sharp photos")
    add("--size", metavar="448x256", help="reduce sharp photos to this size first (by area, aspect not kept)")
    add("--seed", metavar="N", type=int, default=0, help="of the recipe (%(default)s)")
    add("--tile", type=at_least(1), metavar="PX", help="longest side of a tile (512); authors test on whole pictures")
    add("--local-pooling", action="store_true", help="pool as NAFNet's and SAM-Deblur's authors do when they test")
    add_scoring(command)
    add("--out", metavar="DIR", type=path, help="keep pictures, scores and settings; goes on where it stopped")
    add("--device", default="cpu", metavar="D", help="cpu, cuda, cuda:1, mps, or auto: the best there is (%(default)s)")
    add_data_root(command)


def evaluation_asked_for(options: argparse.Namespace) -> dict[str, Any]:
    """Return what `add_evaluation` took, by the names of `evaluation.evaluate`'s arguments."""
    from unblur.blur.recipes import load_recipe
    from unblur.data.catalog import open_dataset
    from unblur.experiment import parse_size
    from unblur.metrics.protocols import protocol_of_data

    recipe = load_recipe(options.recipe) if options.recipe else None
    return {
        "models": options.model,
        "data": open_dataset(options.data, options.data_root, sharp_only=recipe is not None),
        "data_name": Path(options.data).resolve().name if Path(options.data).is_dir() else options.data,
        "recipe": recipe,
        "size": parse_size(options.size) if options.size else None,
        "seed": options.seed,
        "protocol": options.protocol or protocol_of_data(options.data).name,
        "metrics": options.metrics,
        "shift_px": options.shift,
        "tile_px": options.tile,
        "local_pooling": options.local_pooling,
        "device": options.device,
        "out": options.out,
    }


def add_data_root(command: argparse.ArgumentParser) -> None:
    """Add where the data sets lie."""
    command.add_argument("--data-root", metavar="DIR", type=path, help="folder of the data sets ($UNBLUR_DATA)")


def add_loudness(parser: argparse.ArgumentParser, *, default: Any) -> None:
    """Add -v and -q."""
    add = parser.add_argument
    add("-v", "--verbose", action="store_true", default=default, help="show where an error arose")
    add("-q", "--quiet", action="store_true", default=default, help="no progress, no line per file; errors only")


def path(text: str) -> Path:
    """Return the text as a path; an empty one is wrong usage."""
    if not text:  # Path("") is the current folder: a variable of a script that is not set would mean all of it
        raise argparse.ArgumentTypeError("a path is empty")
    return Path(text)


def at_least(lowest: int) -> Callable[[str], int]:
    """Return what reads a whole number from `lowest` upwards."""

    def whole_number(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = lowest - 1
        if number < lowest:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {lowest} upwards")
        return number

    return whole_number
