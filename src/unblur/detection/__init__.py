"""Objects found in blurred, restored and sharp pictures: does restoring help those who look for something?

What a detector finds in the sharp picture is the truth; what it finds in the blurred and in the restored ones is held
against it. So nobody has to draw frames, but a detector's mistakes on sharp pictures count as truth too. After Kupyn et
al., "DeblurGAN", CVPR 2018, section 6.3, who state neither threshold; ours are in the line under every table.

Pictures are made by `evaluation.evaluate`, whose folder OUT may be there already, with the same settings. Beside what
that keeps there is then a folder for each detector and its settings

    detections-DETECTOR-HASH/
        settings.json        detector, its fingerprint, classes, thresholds
        summary.json         everything, as `--json` prints it
        sharp/, blurred-input/, MODEL/    what was found in each picture, a JSON file each

so that the same pictures can be looked at by several detectors, and nothing is looked at twice.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unblur.blur.recipes import Recipe
from unblur.data.sources import FilePicture, Pair, Picture
from unblur.detection.boxes import Counts, Found, count_by_class, iou, match
from unblur.detection.detector import Detector
from unblur.detection.opencv import embedded_detector
from unblur.detection.result import Detection, PictureCounts, Row, detection_table
from unblur.detection.transformer import transformers_detector
from unblur.detection.yolo import onnx_detector
from unblur.errors import DataError, SettingsError, UnknownName
from unblur.evaluation import TRUTH, Evaluation, Progress, contenders, evaluate, folder, samples
from unblur.evaluation.samples import Sample
from unblur.metrics.protocols import PLAIN, find_protocol
from unblur.restorer import find_device

__all__ = [
    "EMBEDDED",
    "Counts",
    "Detection",
    "Detector",
    "Found",
    "detect",
    "detection_table",
    "find_detector",
    "iou",
    "match",
]

EMBEDDED = "default"
"""Name of the detector that is always there."""

MIN_IOU, MIN_SCORE = 0.5, 0.25
"""Thresholds where nobody says: the usual ones, as the protocol's authors give none."""


def find_detector(name: str | Path, *, device: str = "cpu") -> Detector:
    """Return a detector: `default` (OpenCV's), an ONNX file of the YOLO family, or one of transformers.

    The latter is a folder, or a name on huggingface.co; it alone computes on `device`. Raises `MissingExtra` and
    `WeightsError`.
    """
    if str(name) == EMBEDDED:
        return embedded_detector()
    if Path(name).suffix.lower() == ".onnx":
        return onnx_detector(Path(name))
    return transformers_detector(str(name), find_device(device))


def detect(
    models: Sequence[str | Path],
    data: Path | Sequence[Pair],
    detector: Detector,
    *,
    min_iou: float = MIN_IOU,
    min_score: float = MIN_SCORE,
    classes: Sequence[str] = (),
    data_name: str | None = None,
    recipe: Recipe | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    protocol: str = PLAIN.name,
    metrics: Sequence[str] | None = None,
    shift_px: int = 0,
    device: str = "cpu",
    out: Path | None = None,
    progress: Progress | None = None,
) -> Detection:
    """Return what the detector found in the blurred input and in the pictures of each model.

    A found object is right where a true one of its class overlaps it by `min_iou`; objects below `min_score` are
    none, in the sharp picture too. Without `classes` the detector's usual ones are looked for. All other arguments are
    those of `evaluate`, which is called with them; its scores stand beside.

    Raises what `evaluate` raises, `UnknownName` for a class that the detector does not know, `SettingsError` for a
    threshold out of range, `DataError` where it finds nothing in the sharp pictures: then there is nothing to judge.
    """
    for threshold, value in (("IoU", min_iou), ("score", min_score)):
        if not 0 < value <= 1:
            raise SettingsError(f"The {threshold} is {value:g}; it must be above 0 and at most 1.")
    looked_for = _checked(detector, classes)
    data = Path(data) if isinstance(data, str | os.PathLike) else data
    pictures = samples.collect(data, recipe, seed, find_protocol(protocol))
    with _home(out) as home:
        evaluation = evaluate(
            models,
            data,
            data_name=data_name,
            recipe=recipe,
            size=size,
            seed=seed,
            protocol=protocol,
            metrics=metrics,
            shift_px=shift_px,
            device=device,
            out=home,
            progress=progress,
        )
        settings = {
            "detector": detector.name,
            "fingerprint": detector.fingerprint,
            "about": detector.about,
            "classes": list(looked_for),
            "min_iou": min_iou,
            "min_score": min_score,
            "versions": _versions(evaluation, detector),
        }
        place = home / _folder_name(detector, settings)
        folder.write_text(place / "settings.json", json.dumps(settings, indent=1))

        rows = _rows(evaluation, pictures, home, place, _Look(detector, min_score, looked_for), min_iou, progress)
        if not rows[0].counts.true:
            wanted = f" of {', '.join(looked_for)}" if looked_for else ""
            raise DataError(
                f"The detector '{detector.name}' finds nothing{wanted} in {len({one.name for one in pictures})} sharp "
                f"pictures at a score of {min_score:g}: there is nothing to judge by. Lower --score, or take other "
                "--classes, other pictures or another --detector."
            )
        line = _protocol_line(detector, looked_for, min_iou, min_score)
        result = Detection(
            rows,
            {**settings, "evaluation": dict(evaluation.settings)},
            {"detection": line, **evaluation.to_json()["protocol"]},
            _versions(evaluation, detector),
        )
        folder.write_text(place / "summary.json", json.dumps(result.to_json(), indent=1))
    return result


def _checked(detector: Detector, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the classes to look for; empty for all."""
    if isinstance(classes, str):
        raise ValueError(f"classes is {classes!r}; give a list of names.")
    for name in classes:
        if detector.classes and name not in detector.classes:
            raise UnknownName("class", name, detector.classes, f"(of the detector {detector.name})")
    return tuple(dict.fromkeys(classes)) or detector.usual


@contextlib.contextmanager
def _home(out: Path | None) -> Iterator[Path]:
    if out is not None:
        yield Path(out)
        return
    with tempfile.TemporaryDirectory(prefix="unblur-") as temporary:
        yield Path(temporary)


def _versions(evaluation: Evaluation, detector: Detector) -> dict[str, str]:
    package = {detector.package: importlib.metadata.version(detector.package)} if detector.package else {}
    return {**evaluation.versions, **package}


def _folder_name(detector: Detector, settings: Mapping[str, Any]) -> str:
    """Return a name that no other detector and no other settings have."""
    (name,) = contenders.folder_names([detector.name], [])
    return f"detections-{name}-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]}"


def _protocol_line(detector: Detector, looked_for: Sequence[str], min_iou: float, min_score: float) -> str:
    return (
        f"Objects found by {detector.about}, sha256 {detector.fingerprint[:12]}; "
        f"{', '.join(looked_for) or 'all classes'}; scores from {min_score:g}. Those in the sharp picture are the "
        f"truth; one of the same class matches from an IoU of {min_iou:g}, the best score first, each true one once. "
        "Precision, recall and F1 of the sums over all pictures and classes"
    )


# -- Looking -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Look:
    """A detector with what it is to look for."""

    detector: Detector
    min_score: float
    classes: Sequence[str]

    def __call__(self, picture: Picture, kept: Path) -> list[Found]:
        """Return what is found in a picture, from the file `kept` where the picture has not changed since."""
        stamp = folder.stamp(picture.path, picture) if isinstance(picture, FilePicture) else ""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(kept.read_text(encoding="utf-8"))
            if known["stamp"] == stamp:
                return [Found(one["label"], one["score"], tuple(one["box"])) for one in known["found"]]
        found = self.detector.find(picture.read(), self.min_score, self.classes)
        folder.write_text(kept, json.dumps({"stamp": stamp, "found": [asdict(one) for one in found]}, indent=1))
        return found


def _rows(
    evaluation: Evaluation,
    pictures: Sequence[Sample],
    home: Path,
    place: Path,
    look: _Look,
    min_iou: float,
    progress: Progress | None,
) -> tuple[Row, ...]:
    """Return the rows of what is found in the files of an evaluation in `home`; what was found is kept in `place`."""
    models = [str(row.model) for row in evaluation.rows]
    truths: dict[str, list[Found]] = {}
    for sample in pictures:
        if sample.name not in truths:  # the same at each level
            sharp = FilePicture(home / TRUTH / f"{sample.name}.png", sample.name)
            truths[sample.name] = look(sample.sharp if sample.blurred else sharp, place / TRUTH / f"{sample.name}.json")
    rows, done = [], 0
    for model, scores, inside in zip(models, evaluation.rows, contenders.folder_names(models, [TRUTH]), strict=True):
        images = []
        for sample in pictures:
            picture = FilePicture(home / inside / sample.path, sample.name)
            found = look(picture, (place / inside / sample.path).with_suffix(".json"))
            images.append(PictureCounts(sample.name, count_by_class(found, truths[sample.name], min_iou), sample.level))
            done += 1
            if progress:
                progress(done, len(models) * len(pictures), f"objects in {model}: {sample.name}")
        rows.append(Row(model, tuple(images), scores.mean))
    return tuple(rows)
