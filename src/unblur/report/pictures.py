"""Pictures for a report: which ones, and how they are put into the page.

Pixels are shown as they are, never reduced: of a large picture the same window of all its versions. They are WebP of
quality 95 within the page, whose size is bounded by taking fewer.
"""

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unblur import formats
from unblur.data.catalog import open_dataset
from unblur.data.sources import FilePicture, Picture
from unblur.errors import DataError, PhotoError, UnknownName
from unblur.report.blocks import Block, Paragraph, Sample, Samples, Shot
from unblur.report.groups import Group, Key, Method
from unblur.tables import score_text

MAX_SAMPLES = 6
MAX_SIDE_PX = 640
MAX_BYTES = 8 * 2**20
"""Of the pictures of one section, as they stand in the page; the first sample is there in any case."""

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def samples(group: Group, judge: str, data_root: Path | None) -> list[Block]:
    """Return pictures of a group to look at: where most was lost and gained, the lowest score, the usual case.

    Instead of pictures a line says so where their files are not there any more.
    """
    sharp, missing = _sharp_pictures(group, data_root)
    found: list[Sample] = []
    size = 0
    for key, why in _chosen(group, judge).items():
        sample = _sample(group, judge, key, why, sharp.get(key[1]))
        if sample is None:
            continue
        size += sum(len(shot.address) for shot in sample.shots)
        if found and size > MAX_BYTES:
            break
        found.append(sample)
    if not found:
        return [Paragraph("The pictures of this evaluation are not in its folder any more.")]
    return [Samples(found, missing)]


def as_address(pixels: Pixels) -> str:
    """Return an 8-bit RGB picture, (H, W, 3), as a data: address of a WebP file."""
    content = formats.encode(np.ascontiguousarray(pixels), "WEBP", formats.Metadata(), lossy=True)
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"


def _chosen(group: Group, judge: str) -> dict[Key, str]:
    """Return the pictures to show and why, by (level, name), the most telling first; of one name only one."""
    blurred, *methods = group.methods
    chosen: dict[Key, str] = {}
    for key, why in _candidates(blurred, methods, judge):
        if len(chosen) < MAX_SAMPLES and key[1] not in {name for _, name in chosen}:
            chosen[key] = why
    return chosen


def _candidates(blurred: Method, methods: list[Method], judge: str) -> Iterator[tuple[Key, str]]:
    gains = {
        (method.label, key): method.score(key, judge) - blurred.score(key, judge)
        for method in methods
        for key in method.images
        if key in blurred.images
    }
    if not gains:
        return
    ordered = sorted(gains, key=lambda place: gains[place])
    best = max(methods, key=lambda method: float(method.row["mean"][judge]))
    of_best = [place for place in ordered if place[0] == best.label]
    lowest = min(best.images, key=lambda key: best.score(key, judge))
    (most_lost, lost_on), (most_gained, gained_on) = ordered[0], ordered[-1]
    lost = gains[most_lost, lost_on]
    told = "least gained" if lost >= 0 else "most lost"
    yield lost_on, f"{told}: {lost:+.2f} dB by {most_lost}"
    yield gained_on, f"most gained: {gains[most_gained, gained_on]:+.2f} dB by {most_gained}"
    yield lowest, f"lowest score of {best.label}: {score_text(judge, best.score(lowest, judge))} dB"
    middle = of_best[len(of_best) // 2]
    yield middle[1], f"the usual gain of {best.label}: {gains[middle]:+.2f} dB"
    for label, key in ordered:
        yield key, f"{gains[label, key]:+.2f} dB by {label}"


def _sample(group: Group, judge: str, key: Key, why: str, sharp: Picture | None) -> Sample | None:
    level, name = key
    pictures: dict[str, tuple[Pixels, str]] = {}
    try:
        for method in group.methods:
            if key in method.images:
                file = method.folder / level / f"{name}.png"
                score = f"{score_text(judge, method.score(key, judge))} dB"
                pictures[method.label] = FilePicture(file, name).read(), score
        if sharp is not None:
            pictures["sharp"] = sharp.read(), ""
    except PhotoError:
        return None
    shapes = {pixels.shape for pixels, _ in pictures.values()}
    if len(shapes) > 1:
        return None
    height, width, _ = shapes.pop()
    shots = [Shot(label, score, as_address(_window(pixels))) for label, (pixels, score) in pictures.items()]
    shown = min(width, MAX_SIDE_PX), min(height, MAX_SIDE_PX)
    part = "" if shown == (width, height) else f" (the middle {shown[0]}×{shown[1]} of {width}×{height} px)"
    best = max(group.methods[1:], key=lambda method: method.score(key, judge) if key in method.images else -1.0)
    labels = list(pictures)
    return Sample(f"{name}{', ' + level if level else ''}{part}", why, *shown, shots, (0, labels.index(best.label)))


def _window(pixels: Pixels) -> Pixels:
    top, left = (max(0, (length - MAX_SIDE_PX) // 2) for length in pixels.shape[:2])
    return pixels[top : top + MAX_SIDE_PX, left : left + MAX_SIDE_PX]


def _sharp_pictures(group: Group, data_root: Path | None) -> tuple[Mapping[str, Picture], str]:
    """Return the sharp pictures by name, and what to say where they are not to be had."""
    run = group.runs[0]
    if run.settings.get("recipe"):
        files = {name: run.folder / "sharp" / f"{name}.png" for _, name in group.methods[0].images}
        return {name: FilePicture(file, name) for name, file in files.items() if file.exists()}, ""
    name = run.settings["data"]
    folder = data_root / name if data_root is not None and (data_root / name).is_dir() else name
    try:
        return {pair.name: pair.sharp for pair in open_dataset(folder, data_root)}, ""
    except (DataError, UnknownName):
        return {}, f"The sharp pictures of {name} were not found (--data-root), so they are not shown."
