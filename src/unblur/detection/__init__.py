"""Objects found in blurred, restored and sharp pictures: does restoring help those who look for something?

What a detector finds in the sharp picture is the truth; what it finds in the blurred and in the restored ones is held
against it. So nobody has to draw frames, but a detector's mistakes on sharp pictures count as truth too. After Kupyn et
al., "DeblurGAN", CVPR 2018, section 6.3, who state neither threshold; ours are in the line under every table.

    search = Search(find_detector("default"))  # a mistake shows before anything is restored
    result = detect(evaluate(models, data, out=out), search)

The pictures are those that `evaluation.evaluate` keeps in its folder OUT, which may be there already. Beside them there
is then a folder for each detector and its settings

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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unblur.data.sources import FilePicture, Picture
from unblur.detection.boxes import Counts, Found, count_by_class, iou, match
from unblur.detection.detector import Detector
from unblur.detection.opencv import embedded_detector
from unblur.detection.result import Detection, PictureCounts, Row, detection_table
from unblur.detection.transformer import transformers_detector
from unblur.detection.yolo import onnx_detector
from unblur.errors import DataError, SettingsError, UnknownName
from unblur.evaluation import TRUTH, Evaluation, Pictures, Progress, contenders, folder
from unblur.restorer import find_device

__all__ = [
    "EMBEDDED",
    "Counts",
    "Detection",
    "Detector",
    "Found",
    "Search",
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


@dataclass(frozen=True)
class Search:
    """A detector, with what it is to look for and what counts as found.

    A found object is right where a true one of its class overlaps it by `min_iou`; objects below `min_score` are
    none, in the sharp picture too. Without `classes` the detector's usual ones are looked for. Raises `SettingsError`
    for a threshold out of range, `UnknownName` for a class that the detector does not know.
    """

    detector: Detector
    min_iou: float = MIN_IOU
    min_score: float = MIN_SCORE
    classes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if isinstance(self.classes, str):
            raise ValueError(f"classes is {self.classes!r}; give a list of names.")
        for threshold, value in (("IoU", self.min_iou), ("score", self.min_score)):
            if not 0 < value <= 1:
                raise SettingsError(f"The {threshold} is {value:g}; it must be above 0 and at most 1.")
        known = self.detector.classes
        for name in self.classes:
            if known and name not in known:
                raise UnknownName("class", name, known, f"(of the detector {self.detector.name})")

    @property
    def looked_for(self) -> tuple[str, ...]:
        """The classes to look for; empty for all."""
        return tuple(dict.fromkeys(self.classes)) or self.detector.usual


def detect(evaluation: Evaluation, search: Search, *, progress: Progress | None = None) -> Detection:
    """Return what is found in the blurred input and in the pictures of each model; their scores stand beside.

    Raises `DataError` where nothing is found in the sharp pictures: then there is nothing to judge; `ValueError` for an
    evaluation that kept no pictures.
    """
    if evaluation.pictures is None:
        raise ValueError("the evaluation kept no pictures to look at; give it a folder")
    detector, home = search.detector, evaluation.pictures.home
    settings = {
        "detector": detector.name,
        "fingerprint": detector.fingerprint,
        "about": detector.about,
        "classes": list(search.looked_for),
        "min_iou": search.min_iou,
        "min_score": search.min_score,
        "versions": _versions(evaluation, detector),
    }
    place = home / _folder_name(detector, settings)
    folder.write_text(place / "settings.json", json.dumps(settings, indent=1))

    rows = _rows(evaluation, evaluation.pictures, search, place, progress)
    if not rows[0].counts.true:
        wanted = f" of {', '.join(search.looked_for)}" if search.looked_for else ""
        count = len({one.name for one in rows[0].images})
        raise DataError(
            f"The detector '{detector.name}' finds nothing{wanted} in {count} sharp pictures at a score of "
            f"{search.min_score:g}: there is nothing to judge by. Lower --score, or take other --classes, other "
            "pictures or another --detector."
        )
    result = Detection(
        rows,
        {**settings, "evaluation": dict(evaluation.settings)},
        {"detection": _protocol_line(search), **evaluation.to_json()["protocol"]},
        _versions(evaluation, detector),
    )
    folder.write_text(place / "summary.json", json.dumps(result.to_json(), indent=1))
    return result


def _versions(evaluation: Evaluation, detector: Detector) -> dict[str, str]:
    package = {detector.package: importlib.metadata.version(detector.package)} if detector.package else {}
    return {**evaluation.versions, **package}


def _folder_name(detector: Detector, settings: Mapping[str, Any]) -> str:
    """Return a name that no other detector and no other settings have."""
    (name,) = contenders.folder_names([detector.name], [])
    return f"detections-{name}-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]}"


def _protocol_line(search: Search) -> str:
    return (
        f"Objects found by {search.detector.about}, sha256 {search.detector.fingerprint[:12]}; "
        f"{', '.join(search.looked_for) or 'all classes'}; scores from {search.min_score:g}. "
        f"Those in the sharp picture are the truth; one of the same class matches from an IoU of {search.min_iou:g}, "
        "the best score first, each true one once. Precision, recall and F1 of the sums over all pictures and classes"
    )


# -- Looking -----------------------------------------------------------------------------------------------------------


def _rows(
    evaluation: Evaluation, pictures: Pictures, search: Search, place: Path, progress: Progress | None
) -> tuple[Row, ...]:
    """Return the rows of what is found in the files of an evaluation; what was found is kept in `place`."""
    truths: dict[str, list[Found]] = {}
    rows, done = [], 0
    for scores, files in zip(evaluation.rows, pictures.rows, strict=True):
        images = []
        for one, file, sharp in zip(scores.images, files, pictures.sharp, strict=True):
            if one.name not in truths:  # the same at each level
                truths[one.name] = _found(sharp, search, place / TRUTH / f"{one.name}.json")
            found = _found(file, search, (place / file.path.relative_to(pictures.home)).with_suffix(".json"))
            counts = count_by_class(found, truths[one.name], search.min_iou)
            images.append(PictureCounts(one.name, counts, one.level))
            done += 1
            if progress:
                in_all = len(pictures.sharp) * len(pictures.rows)
                progress(done, in_all, f"objects in {scores.model}: {one.name}")
        rows.append(Row(str(scores.model), tuple(images), scores.mean))
    return tuple(rows)


def _found(picture: Picture, search: Search, kept: Path) -> list[Found]:
    """Return what is found in a picture, from the file `kept` where the picture has not changed since."""
    stamp = folder.stamp(picture.path, picture) if isinstance(picture, FilePicture) else ""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(kept.read_text(encoding="utf-8"))
        if known["stamp"] == stamp:
            return [Found(one["label"], one["score"], tuple(one["box"])) for one in known["found"]]
    found = search.detector.find(picture.read(), search.min_score, search.looked_for)
    folder.write_text(kept, json.dumps({"stamp": stamp, "found": [asdict(one) for one in found]}, indent=1))
    return found
