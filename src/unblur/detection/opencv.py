"""The detector that needs no file and no network: what OpenCV's wheel brings along.

People are found by histograms of gradients and a support vector machine (Dalal and Triggs, CVPR 2005), the rest by
cascades of Haar features (Viola and Jones, CVPR 2001; Lienhart and Maydt, ICIP 2002). Both are weak beside a trained
network, and OpenCV 5 has neither.

Neither gives a probability. Scores are made so that 0.25, the threshold of the field, means what OpenCV itself takes
for found: a cascade hits each object many times at neighbouring places, and n hits score n / (n + 12), which is 0.25
for OpenCV's least number of 4; a person with the margin m of the support vector machine scores m / (m + 1).
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import cv2.data
import numpy as np

from unblur.data.sources import Pixels
from unblur.detection.boxes import Found, found_in
from unblur.detection.detector import Detector

PERSON = "person"
CASCADES = {
    "face": "haarcascade_frontalface_alt2.xml",
    "profile-face": "haarcascade_profileface.xml",
    "eye": "haarcascade_eye.xml",
    "full-body": "haarcascade_fullbody.xml",
    "upper-body": "haarcascade_upperbody.xml",
    "lower-body": "haarcascade_lowerbody.xml",
    "cat-face": "haarcascade_frontalcatface.xml",
    "number-plate": "haarcascade_russian_plate_number.xml",
}
"""Files of OpenCV's wheel by what they find."""

HOG_WINDOW_PX = (64, 128)
"""Width and height of a person; below that OpenCV 4.14 writes beyond its memory (seen at 30x30 and 100x100)."""


def embedded_detector() -> Detector:
    """Return the detector that is always there; without classes it looks for people and faces."""
    return Detector(
        name="default",
        about="OpenCV's HOG people detector (score m/(m+1) of margin m) and Haar cascades (n/(n+12) of n hits)",
        fingerprint=_fingerprint(),
        classes=(PERSON, *CASCADES),
        find=_find,
        usual=(PERSON, "face"),
    )


def _find(rgb: Pixels, min_score: float, classes: Sequence[str]) -> list[Found]:
    boxes, scores, labels = [np.zeros((0, 4))], [np.zeros(0)], []
    for label in classes or (PERSON, *CASCADES):
        corners, sure = _people(rgb) if label == PERSON else _hits(rgb, CASCADES[label])
        kept = sure >= min_score
        boxes.append(np.hstack([corners[kept, :2], corners[kept, :2] + corners[kept, 2:]]))
        scores.append(sure[kept])
        labels += [label] * int(kept.sum())
    return found_in(np.concatenate(boxes), np.concatenate(scores), labels, (rgb.shape[0], rgb.shape[1]), ())


def _people(rgb: Pixels) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return left, top, width, height (N, 4) and scores (N,)."""
    if rgb.shape[1] < HOG_WINDOW_PX[0] or rgb.shape[0] < HOG_WINDOW_PX[1]:
        return np.zeros((0, 4)), np.zeros(0)
    boxes, margins = _hog().detectMultiScale(rgb)  # takes the strongest channel: RGB is as good as BGR
    margins = np.asarray(margins, dtype=float).reshape(-1).clip(min=0)
    return np.asarray(boxes, dtype=float).reshape(-1, 4), margins / (margins + 1)


def _hits(rgb: Pixels, file: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return left, top, width, height (N, 4) and scores (N,)."""
    boxes, hits = _cascade(file).detectMultiScale2(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), minNeighbors=1)
    counts = np.asarray(hits, dtype=float).reshape(-1)
    return np.asarray(boxes, dtype=float).reshape(-1, 4), counts / (counts + 12)


@cache
def _hog() -> Any:
    hog = cv2.HOGDescriptor()
    hog.setSVMDetector(_people_vector())
    return hog


@cache
def _cascade(file: str) -> Any:
    return cv2.CascadeClassifier(str(_folder() / file))


def _fingerprint() -> str:
    digest = hashlib.sha256(_people_vector().tobytes())
    for file in CASCADES.values():
        digest.update((_folder() / file).read_bytes())
    return digest.hexdigest()


def _people_vector() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.asarray(cv2.HOGDescriptor.getDefaultPeopleDetector(), dtype=np.float32)


def _folder() -> Path:
    return Path(cv2.data.haarcascades)
