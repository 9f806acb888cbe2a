"""The command `unblur`: parse, call, print; nothing else.

Results go to stdout, progress and messages to stderr. Exit codes: 0 all done, 1 something failed (the rest was done),
2 wrong usage. A command imports what only it needs, so that `--help` and mistakes cost no second of loading torch.
"""

import argparse
import io
import json
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from unblur import __version__
from unblur.errors import OutputError, UnblurError, suggestion

DONE, FAILED, INTERRUPTED = 0, 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; wrong usage ends in `SystemExit`, as argparse has it."""
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    signal.signal(signal.SIGTERM, _terminated)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names that the terminal's encoding does not have
    try:
        return int(options.run(options))
    except UnblurError as error:
        _report(error, options)
        return FAILED
    except KeyboardInterrupt:
        print("unblur: interrupted; what was finished is whole.", file=sys.stderr)
        return INTERRUPTED


# -- the commands --------------------------------------------------------------------------------------


def restore(options: argparse.Namespace) -> int:
    """Restore photos and print one line for each."""
    from unblur.images import DEFAULT_MAX_PIXELS
    from unblur.inference import keep_freed_memory
    from unblur.outputs import FailedFile, plan_outputs
    from unblur.restorer import Restorer, restore_files

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
                _report(result.error, options)
            elif not options.quiet:
                tiles = f", {result.tiles} tiles" if result.tiles > 1 else ""
                size = f"{result.width}x{result.height}{tiles}"
                _say(f"{result.source} -> {result.target} ({size}, {result.seconds:.2f} s)")
                for loss in result.losses:
                    print(f"unblur: {result.target}: {loss}", file=sys.stderr)
    _tell_failures(failures, len(plan))
    return FAILED if failures else DONE


def show_models(options: argparse.Namespace) -> int:
    """Print what networks and weights there are, or what a file is."""
    from unblur import zoo

    _say(zoo.describe(options.model) if options.model else zoo.overview())
    return DONE


def blur(options: argparse.Namespace) -> int:
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
    with _progress(options, "blurring", len(plan)) as progress:
        for result in results:
            progress.advance()
            if isinstance(result, FailedFile):
                failures += 1
                _report(result.error, options)
            elif not options.quiet:
                for target in result.targets:
                    _say(f"{result.source} -> {target}")
    _tell_failures(failures, len(plan))
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
    line = f"{result.stopped} at step {result.step} of {result.total_steps}"
    if math.isfinite(result.best_loss):
        line = f"{out / 'best.safetensors'} ({line}, validation loss {result.best_loss:.5f}"
        _say(f"{line}, PSNR {result.best_psnr:.2f} dB, {result.seconds:.0f} s)")
    else:  # it ended before the first look at the validation pictures
        _say(f"{out / 'last.safetensors'} ({line}, {result.seconds:.0f} s)")
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
    _say(json.dumps(summary) if options.json else tables.markdown_table(summary))
    return DONE


def score(options: argparse.Namespace) -> int:
    """Score restored files against sharp ones."""
    from unblur import evaluation, tables
    from unblur.metrics import DEFAULT_METRICS

    metrics = options.metrics or DEFAULT_METRICS
    judge = next((name for name in ("psnr", "psnr-float") if name in metrics), None)
    if options.fail_below is not None and judge is None:
        options.parser.error("--fail-below is in dB: it needs psnr or psnr-float among --metrics")
    scores = evaluation.score(options.restored, options.sharp, metrics=metrics, shift_px=options.shift)
    _say(json.dumps(scores.to_json()) if options.json else tables.score_table(scores.to_json()))
    if options.fail_below is not None and judge is not None and scores.mean[judge] < options.fail_below:
        print(f"unblur: mean {judge} {scores.mean[judge]:.3f} is below {options.fail_below:g}.", file=sys.stderr)
        return FAILED
    return DONE


def export(options: argparse.Namespace) -> int:
    """Write weights to a file of ours and print its name."""
    from unblur import weights

    if options.output.suffix != ".safetensors":
        options.parser.error(f"--format torch writes a .safetensors file, not {options.output.name}")
    model = weights.load(options.model)
    facts = weights.describe(options.model).facts
    weights.save(model, options.output, facts, overwrite=options.overwrite)
    _say(f"{options.model} -> {options.output} ({weights.num_parameters(model):,} parameters)")
    return DONE


# -- the parser ----------------------------------------------------------------------------------------


def _parser() -> "_Parser":
    parser = _Parser(
        prog="unblur",
        description="Make blurred photographs sharp.",
        epilog="`unblur restore photo.jpg` writes photo-restored.jpg beside it. `unblur COMMAND --help` says more.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str, more: str = "") -> _Parser:
        description = f"{text[0].upper()}{text[1:]}. {more}".strip()
        added = commands.add_parser(name, help=text, description=description, allow_abbrev=False)
        added.set_defaults(run=run, parser=added)
        return added

    _add_restore(
        command(
            "restore",
            restore,
            "make photos sharp",
            "Without -o a result is called NAME-restored.EXT and lies beside its photo. Of several photos, or of a "
            "folder, OUT is a folder in which names and subfolders are kept. A photo itself is never overwritten.",
        )
    )
    _add_models(command("models", show_models, "list weights and networks, or say what a file is"))
    _add_blur(
        command("blur", blur, "blur photos by a recipe", "A recipe with levels writes one picture for each of them.")
    )
    _add_train(command("train", train, "train a network as a YAML file says"))
    _add_evaluate(
        command(
            "evaluate",
            evaluate,
            "restore a data set and score the results",
            "With --recipe the data are sharp photos, blurred by it; without, pairs in blur/ and sharp/. The first row "
            "of the table is the blurred input itself.",
        )
    )
    _add_score(
        command(
            "score",
            score,
            "score restored pictures against sharp ones",
            "Takes two folders, whose files are paired by name, or two files.",
        )
    )
    _add_export(
        command(
            "export",
            export,
            "write weights to a file of another format",
            "torch is unblur's own .safetensors, which says what it is; an author's checkpoint becomes one.",
        )
    )
    for added in commands.choices.values():  # before the command or after it
        _add_loudness(added, default=argparse.SUPPRESS)
    _add_loudness(parser, default=False)
    parser.add_argument("--version", action="version", version=f"unblur {__version__}")
    return parser


def _add_restore(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("paths", metavar="PATH", nargs="+", type=_path, help="photos, or folders of photos (searched recursively)")
    add("-o", "--output", metavar="OUT", type=_path, help="file (for one photo) or folder for the results")
    add("--model", default="default", metavar="NAME|FILE", help="weights; `unblur models` lists them (%(default)s)")
    add("--engine", choices=["auto", "torch"], default="auto", help="what computes (%(default)s)")
    add(
        "--device", default="auto", metavar="D", help="cpu, cuda, cuda:1, mps, or auto: the best there is (%(default)s)"
    )
    add("--tile", type=_at_least(1), metavar="PX", help="longest side of a tile; smaller needs less memory (512)")
    _add_writing(command)


def _add_models(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", nargs="?", metavar="NAME|FILE", help="weights, network or checkpoint to describe")


def _add_blur(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("paths", metavar="PATH", nargs="+", type=_path, help="sharp photos, or folders of them (searched recursively)")
    add("-o", "--output", metavar="OUT", type=_path, required=True, help="file (for one photo) or folder")
    add("--recipe", metavar="NAME|FILE", required=True, help="built-in recipe, or a YAML file of your own")
    add("--seed", metavar="N", type=int, default=0, help="another number draws another blur (%(default)s)")
    _add_writing(command)


def _add_train(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("experiment", metavar="EXPERIMENT.yaml", type=_path, help="every setting of the training")
    add("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help="change settings of the file")
    add("--out", metavar="DIR", type=_path, help="run folder (runs/EXPERIMENT)")
    add("--resume", action="store_true", help="go on with the training in the run folder")
    _add_data_root(command)


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--model", metavar="NAME|FILE", nargs="+", action="extend", required=True, help="weights to compare")
    add("--data", metavar="NAME|DIR", required=True, help="data set by name, or a folder")
    add("--recipe", metavar="NAME|FILE", help="how to blur sharp photos")
    add("--size", metavar="448x256", help="reduce sharp photos to this size first (by area, aspect not kept)")
    add("--seed", metavar="N", type=int, default=0, help="of the recipe (%(default)s)")
    _add_scoring(command)
    add("--out", metavar="DIR", type=_path, help="keep pictures, scores and settings; goes on where it stopped")
    _add_data_root(command)


def _add_score(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("restored", metavar="RESTORED", type=_path)
    add("sharp", metavar="SHARP", type=_path)
    _add_scoring(command)
    add("--fail-below", metavar="DB", type=float, help="exit with 1 where the mean PSNR is lower")


def _add_export(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--model", metavar="NAME|FILE", required=True, help="weights, or a checkpoint: unblur's or an author's")
    add("--format", choices=["torch"], required=True, help="of the file")
    add("-o", "--output", metavar="FILE", type=_path, required=True, help="file to write")
    add("--overwrite", action="store_true", help="replace a file that exists already")


def _add_writing(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--overwrite", action="store_true", help="replace results that exist already")
    add("--max-pixels", type=_at_least(1), metavar="N", help="refuse larger pictures (200 million pixels)")


def _add_scoring(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    known = "psnr, ssim-wang (these two), psnr-float, ssim-matlab3d, mse, mae"
    add("--metrics", metavar="NAME", nargs="+", action="extend", help=known)
    add("--shift", metavar="PX", type=_at_least(0), default=0, help="score at the best whole-pixel offset up to PX")
    add("--json", action="store_true", help="print one JSON object and nothing else")


def _add_data_root(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data-root", metavar="DIR", type=_path, help="folder of the data sets ($UNBLUR_DATA)")


def _add_loudness(parser: argparse.ArgumentParser, *, default: Any) -> None:
    add = parser.add_argument
    add("-v", "--verbose", action="store_true", default=default, help="show where an error arose")
    add("-q", "--quiet", action="store_true", default=default, help="no progress, no line per file; errors only")


class _Parser(argparse.ArgumentParser):
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


def _path(text: str) -> Path:
    if not text:  # Path("") is the current folder: a variable of a script that is not set would mean all of it
        raise argparse.ArgumentTypeError("a path is empty")
    return Path(text)


def _at_least(lowest: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = lowest - 1
        if number < lowest:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {lowest} upwards")
        return number

    return whole_number


# -- printing ------------------------------------------------------------------------------------------


def _say(text: str) -> None:
    """Print a result, at once: who reads a pipe sees it when it is there."""
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries again at its end, and fails
        raise OutputError(f"The results cannot be printed: {error.strerror}.") from error


def _report(error: UnblurError, options: argparse.Namespace) -> None:
    if options.verbose:
        traceback.print_exception(error)
    print(f"unblur: {error}", file=sys.stderr)


def _tell_failures(failures: int, count: int) -> None:
    if failures and count > 1:
        print(f"unblur: {failures} of {count} files failed, the others are done.", file=sys.stderr)


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

            # Results that go to a file must not be taken for lines that belong above the bar.
            both = sys.stdout.isatty()
            self._bar = Progress(console=Console(stderr=True), transient=True, redirect_stdout=both)
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
            from rich.markup import escape

            self._bar.update(self._task, completed=done, total=total, description=escape(text))


def _progress(options: argparse.Namespace, text: str, total: int | None) -> _Progress:
    shown = not options.quiet and sys.stderr.isatty() and (total is None or total > 1)
    return _Progress(shown, text, total)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt  # SIGTERM cleans up as Ctrl-C does
