"""Detectors of the YOLO family, in ONNX files as their authors' tools export them.

Such a file takes one picture, (1, 3, H, W), RGB in [0, 1]: the photograph reduced or enlarged until it fits, its aspect
kept, in the middle of a grey (114) canvas. What comes out tells by its shape how it is meant (C classes):

* (1, 4 + C, N): v8, v9, v11, v12. A column is a frame, centre and size in pixels of the canvas, with a score a class.
* (1, N, 5 + C): v5, v6, v7. A row is such a frame, with how sure it is that there is anything, by which the scores of
  the classes are multiplied. Where the file names C classes, (1, N, 4 + C) is read too.
* (1, N, 6) or (N, 6): v10, v26, and exports with non-maximum suppression. A row is left, top, right, bottom, score and
  class. (N, 7), as v7 exports it, is the number of the picture, the corners, class and score.

One class in the second form has 6 columns too; such a file has three rows for each cell of the network's grids.
Names of classes are taken from the file's metadata (`names`), else from FILE.names beside it, a name a line.
"""

import ast
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from unblur import weights
from unblur.data.sources import Pixels
from unblur.detection.boxes import Found, found_in
from unblur.detection.detector import Detector
from unblur.errors import MissingExtra, WeightsError

NMS_IOU = 0.45
"""Of two frames of one class that overlap by more, the better one stays (YOLOv5's setting)."""

USUAL_SIZE = (640, 640)
"""Height and width of the canvas where neither the file's input nor its metadata says."""

GREY = 114
STRIDES_PX = (8, 16, 32, 64)

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Letterbox:
    """Where a picture lies on the canvas of a detector: scaled by `scale` (x, y), then moved by `offset` (x, y)."""

    scale: tuple[float, float]
    offset: tuple[int, int]

    def back(self, boxes: Array) -> Array:
        """Return boxes (N, 4) on the canvas as boxes on the picture, corners in pixels."""
        return (boxes - np.tile(self.offset, 2)) / np.tile(self.scale, 2)

    def there(self, boxes: Array) -> Array:
        """Return boxes (N, 4) on the picture as boxes on the canvas, corners in pixels."""
        return boxes * np.tile(self.scale, 2) + np.tile(self.offset, 2)


def onnx_detector(file: Path) -> Detector:
    """Return the detector of an ONNX file.

    Raises `MissingExtra` without onnxruntime, `WeightsError` for a file that is missing, damaged, or takes or gives
    something else than the YOLO family does; what it gives may show only at the first picture.
    """
    if not file.is_file():
        raise WeightsError(f"There is no detector at {file}. Give an ONNX file of the YOLO family.")
    session = _session(file)
    metadata = session.get_modelmeta().custom_metadata_map
    if metadata.get("task", "detect") != "detect":
        raise WeightsError(f"{file} is made for the task '{metadata['task']}'; what is needed is one for 'detect'.")
    names = _names(file, metadata)
    source, (height, width), values = _input(file, session, metadata)

    def find(rgb: Pixels, min_score: float, classes: Sequence[str]) -> list[Found]:
        canvas, letterbox = put_on_canvas(rgb, (height, width))
        fed = (canvas.transpose(2, 0, 1)[None] / np.float32(255)).astype(values)
        given = np.asarray(session.run([session.get_outputs()[0].name], {source: fed})[0], dtype=np.float32)
        try:
            boxes, scores, numbers, suppressed = decoded(given, len(names) or None, (height, width))
        except ValueError as error:
            raise WeightsError(f"{file} is no detector of the YOLO family: {error}.") from None
        kept = scores >= min_score
        boxes, scores, numbers = boxes[kept], scores[kept], numbers[kept]
        if not suppressed:
            best = _best_of_each_class(boxes, scores, numbers, min_score)
            boxes, scores, numbers = boxes[best], scores[best], numbers[best]
        labels = [names.get(int(number), str(int(number))) for number in numbers]
        return found_in(letterbox.back(boxes), scores, labels, (rgb.shape[0], rgb.shape[1]), classes)

    return Detector(
        name=file.name,
        about=f"{file.name} at {width}x{height}, letterboxed, NMS at IoU {NMS_IOU:g} within a class",
        fingerprint=_fingerprint(file),
        classes=tuple(dict.fromkeys(names.values())),
        find=find,
        package="onnxruntime",
    )


def put_on_canvas(rgb: Pixels, size: tuple[int, int]) -> tuple[Pixels, Letterbox]:
    """Return the picture in the middle of a grey canvas of `size` (height, width), and where it lies there."""
    height, width = rgb.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    rows, columns = (max(1, round(length * scale)) for length in (height, width))
    top, left = (size[0] - rows) // 2, (size[1] - columns) // 2
    canvas = np.full((*size, 3), GREY, np.uint8)
    canvas[top : top + rows, left : left + columns] = cv2.resize(rgb, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return canvas, Letterbox((columns / width, rows / height), (left, top))


def decoded(given: Array, num_classes: int | None, canvas: tuple[int, int]) -> tuple[Array, Array, Array, bool]:
    """Return what a network gave as corners (N, 4), scores (N,), classes (N,), and whether that is suppressed already.

    `num_classes` is None where the file does not say; `canvas` is (height, width). Raises `ValueError` that tells what
    is wrong with a shape that is none of those above, and with scores that are no probabilities.
    """
    rows = given[0] if given.ndim == 3 and given.shape[0] == 1 else given
    if rows.ndim != 2:
        raise ValueError(f"its first output has the shape {given.shape}; 1x(4+C)xN, 1xNx(5+C) or 1xNx6 is known")
    suppressed = True
    if given.ndim == 2 and rows.shape[1] == 7:
        boxes, numbers, scores = rows[:, 1:5], rows[:, 5], rows[:, 6]
    elif rows.shape[1] == 6 and len(rows) not in _rows_with_anchors(canvas):
        boxes, scores, numbers = rows[:, :4], rows[:, 4], rows[:, 5]
    else:
        boxes, scores, numbers = _dense(rows, num_classes)
        suppressed = False
    if len(scores) and not (scores.min() >= 0 and scores.max() <= 1.001):  # NaN too
        raise ValueError(f"its scores reach from {scores.min():.3g} to {scores.max():.3g}, not from 0 to 1")
    return boxes, scores, numbers.astype(int), suppressed


def _dense(rows: Array, num_classes: int | None) -> tuple[Array, Array, Array]:
    """Return corners, the score of the best class, and its number, of frames that nobody has chosen from yet."""
    if num_classes is None:
        columns_first = rows.shape[0] < rows.shape[1]
        rows = rows.T if columns_first else rows
        before = 4 if columns_first else 5
    else:
        rows = rows if rows.shape[1] in (4 + num_classes, 5 + num_classes) else rows.T
        before = rows.shape[1] - num_classes
    if before not in (4, 5) or rows.shape[1] <= before:
        known = f"{num_classes} classes" if num_classes else "any number of classes"
        raise ValueError(f"its first output is of {rows.T.shape[0]} by {rows.T.shape[1]}, which fits not {known}")
    middle, size = rows[:, :2], rows[:, 2:4]
    boxes = np.concatenate([middle - size / 2, middle + size / 2], axis=1)
    of_classes = rows[:, 5:] * rows[:, 4:5] if before == 5 else rows[:, 4:]  # (N, C)
    return boxes, of_classes.max(axis=1), of_classes.argmax(axis=1)


def _rows_with_anchors(canvas: tuple[int, int]) -> set[int]:
    """Return how many rows YOLOv5 and v7 give: three for each cell of three grids, or of four."""
    cells = [(canvas[0] // stride) * (canvas[1] // stride) for stride in STRIDES_PX]
    return {3 * sum(cells[:3]), 3 * sum(cells)}


def _best_of_each_class(boxes: Array, scores: Array, numbers: Array, min_score: float) -> Array:
    """Return the indices of what non-maximum suppression leaves."""
    if not len(boxes):
        return np.zeros(0, dtype=int)
    corner_and_size = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    best = cv2.dnn.NMSBoxesBatched(corner_and_size.tolist(), scores.tolist(), numbers.tolist(), min_score, NMS_IOU)
    return np.asarray(best, dtype=int).reshape(-1)


# -- The file ----------------------------------------------------------------------------------------------------------


def _session(file: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("A detector in an ONNX file", "engines") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # one knob for both
    options.log_severity_level = 4  # what is wrong is raised
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise WeightsError(f"{file} is no ONNX file that can be run: {str(error).splitlines()[0]}") from None


def _input(file: Path, session: Any, metadata: Mapping[str, str]) -> tuple[str, tuple[int, int], Any]:
    """Return the input's name, the canvas's height and width, and the kind of its numbers."""
    inputs = session.get_inputs()
    name, shape, kind = inputs[0].name, inputs[0].shape, inputs[0].type
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    one_picture = len(shape) == 4 and shape[1] == 3 and (shape[0] == 1 or not isinstance(shape[0], int))
    if len(inputs) != 1 or not one_picture or kind not in kinds:
        taken = ", ".join(f"{one.type} {one.shape}" for one in inputs)
        raise WeightsError(f"{file} takes {taken}; a detector of the YOLO family takes one float 1x3xHxW.")
    if all(isinstance(length, int) for length in shape[2:]):
        return name, (shape[2], shape[3]), kinds[kind]
    said = [int(number) for number in re.findall(r"\d+", metadata.get("imgsz", ""))]
    return name, (said[0], said[-1]) if said else USUAL_SIZE, kinds[kind]


def _names(file: Path, metadata: Mapping[str, str]) -> dict[int, str]:
    """Return the names of the classes by number; empty where nobody says."""
    beside = file.with_suffix(".names")
    if "names" in metadata:
        try:
            said = ast.literal_eval(metadata["names"])
            pairs = said.items() if isinstance(said, dict) else enumerate(said)
            return {int(number): str(name) for number, name in pairs}
        except (ValueError, SyntaxError, TypeError):
            raise WeightsError(f"{file} has names of classes that cannot be read: {metadata['names'][:60]}") from None
    if beside.is_file():
        return dict(enumerate(line.strip() for line in beside.read_text(encoding="utf-8").splitlines() if line.strip()))
    return {}


def _fingerprint(file: Path) -> str:
    """Return the file's hash, or one that covers also the weights that torch and onnx put beside large ones."""
    beside = file.with_name(f"{file.name}.data")
    if not beside.is_file():
        return weights.sha256(file)
    return hashlib.sha256(f"{weights.sha256(file)} {weights.sha256(beside)}".encode()).hexdigest()
