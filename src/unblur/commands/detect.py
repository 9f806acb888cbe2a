"""`unblur detect`: do objects get found in restored pictures?"""

import argparse
import json
import tempfile
from pathlib import Path

from unblur.commands.arguments import Commands, add_command, add_evaluation, evaluation_asked_for
from unblur.commands.terminal import DONE, bar, say


def add_to(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "detect",
        run,
        "count the objects that are found in blurred and restored pictures",
        "What the detector finds in the sharp pictures is the truth. Takes what `unblur evaluate` takes, and goes on "
        "from the pictures in its --out.",
    )
    add_evaluation(command)
    add = command.add_argument
    detectors = "an ONNX file of the YOLO family, or a detector of transformers by name or folder (OpenCV's own)"
    add("--detector", metavar="FILE|NAME|DIR", default="default", help=detectors)
    add(
        "--iou", metavar="X", type=float, default=0.5, help="from which overlap an object is the true one (%(default)s)"
    )
    add("--score", metavar="X", type=float, default=0.25, help="from which score an object counts (%(default)s)")
    add("--classes", metavar="NAME", nargs="+", action="extend", default=[], help="look for these only")


def run(options: argparse.Namespace) -> int:
    """Count objects in the pictures of models and print the table, the blurred input first."""
    from unblur import detection, evaluation
    from unblur.inference import keep_freed_memory

    keep_freed_memory()
    detector = detection.find_detector(options.detector, device=options.device)
    search = detection.Search(detector, options.iou, options.score, options.classes)
    asked = evaluation_asked_for(options)
    with tempfile.TemporaryDirectory(prefix="unblur-") as temporary:
        asked["out"] = options.out or Path(temporary) / "out"
        with bar(options, "evaluating", None) as progress:
            evaluated = evaluation.evaluate(**asked, progress=progress.update)
        with bar(options, "detecting", None) as progress:
            result = detection.detect(evaluated, search, progress=progress.update)
    summary = result.to_json()
    say(json.dumps(summary) if options.json else detection.detection_table(summary))
    return DONE
