"""The command `unblur`: parse, call, print; nothing else.

Results go to stdout, progress and messages to stderr. Exit codes: 0 all done, 1 something failed (the rest was done),
2 wrong usage. A command imports what only it needs, so that `--help` and mistakes cost no second of loading torch.
"""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from unblur import __version__
from unblur.errors import UnblurError, suggestion

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return int(options.run(options))
    except UnblurError as error:
        if options.verbose:
            raise
        print(f"unblur: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("unblur: interrupted; what was finished is whole.", file=sys.stderr)
        return INTERRUPTED


# -- the commands --------------------------------------------------------------------------------------


def restore(options: argparse.Namespace) -> int:
    """Restore photos and print one line for each."""
    from unblur.images import DEFAULT_MAX_PIXELS
    from unblur.inference import keep_freed_memory
    from unblur.outputs import plan_outputs
    from unblur.restorer import FailedFile, Restorer, restore_files

    keep_freed_memory()
    plan = plan_outputs(options.paths, options.output)
    restorer = Restorer(options.model, device=options.device, tile_px=options.tile)
    results = restore_files(
        plan, restorer, overwrite=options.overwrite, max_pixels=options.max_pixels or DEFAULT_MAX_PIXELS
    )
    failures = 0
    with _progress(options, "restoring", len(plan)) as progress:
        for result in results:
            progress.advance()
            if isinstance(result, FailedFile):
                failures += 1
                print(f"unblur: {result.error}", file=sys.stderr)
            elif not options.quiet:
                tiles = f", {result.tiles} tiles" if result.tiles > 1 else ""
                size = f"{result.width}x{result.height}{tiles}"
                print(f"{result.source} -> {result.target} ({size}, {result.seconds:.2f} s)")
                for loss in result.losses:
                    print(f"unblur: {result.target}: {loss}", file=sys.stderr)
    if failures and len(plan) > 1:
        print(f"unblur: {failures} of {len(plan)} files failed, the others are done.", file=sys.stderr)
    return FAILED if failures else DONE


def show_models(options: argparse.Namespace) -> int:
    """Print what networks and weights there are, or what a file is."""
    from unblur import zoo

    print(zoo.describe(options.model) if options.model else zoo.overview())
    return DONE


def blur(options: argparse.Namespace) -> int:
    """Blur photos by a recipe and print the names of the results."""
    from unblur.blur.photos import FailedFile, blur_files
    from unblur.blur.recipes import load_recipe
    from unblur.outputs import plan_outputs

    recipe = load_recipe(options.recipe)
    plan = plan_outputs(options.paths, options.output)
    failures = 0
    with _progress(options, "blurring", len(plan)) as progress:
        for result in blur_files(plan, recipe, options.seed, overwrite=options.overwrite):
            progress.advance()
            if isinstance(result, FailedFile):
                failures += 1
                print(f"unblur: {result.error}", file=sys.stderr)
            elif not options.quiet:
                for target in result.targets:
                    print(f"{result.source} -> {target}")
    return FAILED if failures else DONE


def train(options: argparse.Namespace) -> int:
    """Train as a YAML file says and print where the result lies."""
    from unblur import experiment
    from unblur.inference import keep_freed_memory

    settings = experiment.load(options.experiment, options.set)  # a mistake in the file costs no loading of Lightning
    keep_freed_memory()
    from unblur.training import supervised

    out = options.out or Path("runs") / options.experiment.stem
    result = supervised.train(
        settings,
        out,
        data_root=options.data_root,
        resume=options.resume,
        progress=not options.quiet and sys.stderr.isatty(),
        tell=lambda line: None if options.quiet else print(line, file=sys.stderr, flush=True),
    )
    print(f"{out / 'best.safetensors'} ({result.stopped} at step {result.step} of {result.total_steps}, ", end="")
    print(f"validation loss {result.best_loss:.5f}, PSNR {result.best_psnr:.2f} dB, {result.seconds:.0f} s)")
    return FAILED if result.stopped == "interrupted" else DONE


def evaluate(options: argparse.Namespace) -> int:
    """Score models on a data set and print the table, the blurred input first."""
    from unblur import evaluation, tables
    from unblur.blur.recipes import load_recipe
    from unblur.data.catalog import find_dataset
    from unblur.experiment import parse_size
    from unblur.inference import keep_freed_memory
    from unblur.metrics import DEFAULT_METRICS

    keep_freed_memory()
    with _progress(options, "evaluating", None) as progress:
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
    print(json.dumps(summary) if options.json else tables.markdown_table(summary))
    return DONE


def score(options: argparse.Namespace) -> int:
    """Score restored files against sharp ones."""
    from unblur import evaluation, tables
    from unblur.metrics import DEFAULT_METRICS

    scores = evaluation.score(
        options.restored, options.sharp, metrics=options.metrics or DEFAULT_METRICS, shift_px=options.shift
    )
    print(json.dumps(scores.to_json()) if options.json else tables.score_table(scores.to_json()))
    if options.fail_below is not None:
        name = "psnr" if "psnr" in scores.metrics else scores.metrics[0]
        if scores.mean[name] < options.fail_below:
            print(f"unblur: mean {name} {scores.mean[name]:.3f} is below {options.fail_below:g}.", file=sys.stderr)
            return FAILED
    return DONE


# -- the parser ----------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    common.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
    common.add_argument("-q", "--quiet", action="store_true", help="no progress, no line per file; errors only")
    parser = _Parser(prog="unblur", description="Make blurred photographs sharp.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"unblur {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)

    def command(name: str, run: Any, text: str, *, more: str = "") -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=text, description=f"{text}. {more}".strip(), parents=[common], allow_abbrev=False
        )
        added.set_defaults(run=run)
        return added

    c = command(
        "restore", restore, "make photos sharp",
        more="Without -o a result is called NAME-restored.EXT and lies beside its photo. The photo itself is never overwritten.",
    )  # fmt: skip
    c.add_argument(
        "paths", metavar="PATH", nargs="+", type=Path, help="photos, or folders of photos (searched recursively)"
    )
    c.add_argument("-o", "--output", metavar="OUT", type=Path, help="file (for one photo) or folder for the results")
    c.add_argument(
        "--model",
        default="default",
        metavar="NAME|FILE",
        help="weights to use (default: %(default)s; see `unblur models`)",
    )
    c.add_argument("--engine", choices=["auto", "torch"], default="auto", help="what computes (default: %(default)s)")
    c.add_argument("--device", default="auto", metavar="D", help="cpu, cuda, cuda:1, mps, or auto (default)")
    c.add_argument(
        "--tile", type=_positive, metavar="PX", help="largest side of a tile; smaller needs less memory (default: 512)"
    )
    c.add_argument("--overwrite", action="store_true", help="replace results that exist already")
    c.add_argument(
        "--max-pixels", type=_positive, metavar="N", help="refuse larger pictures (default: 200 million pixels)"
    )

    c = command("models", show_models, "list networks and weights, or say what a file is")
    c.add_argument("model", nargs="?", metavar="NAME|FILE", help="weights or network to describe")

    c = command(
        "blur", blur, "blur photos by a recipe", more="A recipe with levels writes one picture for each of them."
    )
    c.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="sharp photos, or folders of them")
    c.add_argument(
        "-o", "--output", metavar="OUT", type=Path, required=True, help="file (for one photo) or folder for the results"
    )
    c.add_argument("--recipe", required=True, metavar="NAME|FILE", help="built-in recipe or YAML file")
    c.add_argument(
        "--seed", type=int, default=0, metavar="N", help="other numbers blur differently (default: %(default)s)"
    )
    c.add_argument("--overwrite", action="store_true", help="replace results that exist already")

    c = command("train", train, "train a network as a YAML file says")
    c.add_argument("experiment", metavar="EXPERIMENT.yaml", type=Path)
    c.add_argument(
        "--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help="change a setting of the file"
    )
    c.add_argument("--out", metavar="DIR", type=Path, help="run folder (default: runs/EXPERIMENT)")
    c.add_argument("--resume", action="store_true", help="go on with the training in the run folder")
    c.add_argument(
        "--data-root", metavar="DIR", type=Path, help="folder that holds the data sets (default: $UNBLUR_DATA)"
    )

    c = command(
        "evaluate", evaluate, "restore a data set and score the results",
        more="With --recipe the data are sharp photos, blurred by it; without, pairs in blur/ and sharp/.",
    )  # fmt: skip
    c.add_argument("--model", metavar="NAME|FILE", nargs="+", action="extend", required=True, help="weights to compare")
    c.add_argument("--data", metavar="NAME|DIR", required=True, help="data set by name, or a folder")
    c.add_argument("--recipe", metavar="NAME|FILE", help="how to blur sharp photos")
    c.add_argument(
        "--size", metavar="448x256", help="reduce the sharp photos to this size first (by area, aspect not kept)"
    )
    c.add_argument("--seed", type=int, default=0, metavar="N", help="of the recipe (default: %(default)s)")
    c.add_argument(
        "--out", metavar="DIR", type=Path, help="keep pictures, scores and settings there; goes on where it stopped"
    )
    c.add_argument(
        "--data-root", metavar="DIR", type=Path, help="folder that holds the data sets (default: $UNBLUR_DATA)"
    )
    _add_scoring(c)

    c = command(
        "score", score, "score restored pictures against sharp ones", more="Two folders, paired by name, or two files."
    )
    c.add_argument("restored", metavar="RESTORED", type=Path)
    c.add_argument("sharp", metavar="SHARP", type=Path)
    c.add_argument("--fail-below", type=float, metavar="DB", help="exit with 1 where the mean PSNR is lower")
    _add_scoring(c)
    return parser


def _add_scoring(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--metrics",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="psnr and ssim-wang by default; psnr-float, ssim-matlab3d, mse, mae",
    )
    command.add_argument(
        "--shift", type=int, default=0, metavar="PX", help="score at the best whole-pixel offset up to PX"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


class _Parser(argparse.ArgumentParser):
    """argparse with the nearest command or flag in its errors."""

    def error(self, message: str) -> NoReturn:
        words = message.split("'")
        if "invalid choice" in message and len(words) > 1:
            choices = [choice for action in self._actions for choice in (action.choices or ())]
            message += suggestion(words[1], [str(choice) for choice in choices])
        elif "unrecognized arguments" in message:
            flags = [flag for action in self._actions for flag in action.option_strings]
            message += suggestion(message.split()[-1].split("=")[0], flags)
        super().error(message)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


# -- progress ------------------------------------------------------------------------------------------


class _Progress(AbstractContextManager["_Progress"]):
    """A bar on stderr: only on a terminal, and only where there is more than one thing to do."""

    def __init__(self, shown: bool, text: str, total: int | None) -> None:
        self._shown, self._text, self._total = shown, text, total
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "_Progress":
        if self._shown:
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self._text, total=self._total)
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self) -> None:
        """One more is done."""
        if self._bar is not None:
            self._bar.advance(self._task)

    def update(self, done: int, total: int, text: str) -> None:
        """So many of so many are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, description=text)


def _progress(options: argparse.Namespace, text: str, total: int | None) -> _Progress:
    shown = not options.quiet and sys.stderr.isatty() and (total is None or total > 1)
    return _Progress(shown, text, total)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt  # SIGTERM cleans up as Ctrl-C does
