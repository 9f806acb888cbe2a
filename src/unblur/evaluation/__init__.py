"""Judge restored pictures: `score` compares files, `evaluate` makes the files first.

An evaluation has two passes: first all pictures are restored and written as PNGs, then the files are scored, so that
what is judged is what a user gets. The first row is the blurred input itself, because a table without it cannot show
that a network does harm. All scores are kept per picture. The folder OUT of an evaluation holds

    settings.json            what was asked for, of which pictures and weights, with which versions
    blurred-input/           the blurred pictures; with a recipe of levels in one folder a level
    MODEL/                   the restored pictures, one folder for each model
    sharp/                   the sharp pictures as they were blurred (only with a recipe)
    journal.jsonl            what each picture took in pass 1 and scored in pass 2, as far as it went
    scores.csv summary.json  one line for each picture and row; everything, as `--json` prints it

and can be taken up again after an interruption in either pass: pictures which are there already are not computed again,
files that did not change are not scored again, and settings that differ from those in the folder are refused.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from unblur.blur.recipes import Recipe, blur_batch
from unblur.data.pairs import matched_files, resized
from unblur.data.sources import FilePicture, Pair, Picture
from unblur.errors import DataError, PhotoError, SettingsError
from unblur.evaluation import contenders, cost, folder, samples
from unblur.evaluation.contenders import Contender, fingerprint_of, hash_of_network
from unblur.evaluation.samples import Sample, Values
from unblur.evaluation.scores import Evaluation, Pictures, PictureScore, Scores, psnr_among
from unblur.images import Photo, write_photo
from unblur.inference import bf16_is_fast
from unblur.metrics import find_metric, psnr, score_pair
from unblur.metrics.protocols import PLAIN, Protocol, find_protocol
from unblur.provenance import versions
from unblur.restorer import find_device

__all__ = [
    "BLURRED_INPUT",
    "TRUTH",
    "Evaluation",
    "PictureScore",
    "Pictures",
    "Progress",
    "Scores",
    "evaluate",
    "fingerprint_of",
    "hash_of_network",
    "psnr_among",
    "score",
]

TRUTH = "sharp"
"""Name of the folder of the sharp pictures."""

BLURRED_INPUT = "blurred input"
"""Name of the first row of every evaluation."""

Progress = Callable[[int, int, str], None]
"""Is told (steps done, steps in all, row and picture) after each picture that is written and each that is scored."""

MAX_THREADS = 8
"""Pictures that are scored side by side: more threads only wait for memory."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def score(
    restored: Path,
    sharp: Path,
    *,
    protocol: str = PLAIN.name,
    metrics: Sequence[str] | None = None,
    shift_px: int = 0,
) -> Scores:
    """Return the scores of two files, or of two folders whose files are paired by name.

    Files are compared as RGB of the protocol's depth (8 bit nearly always), grey as three equal planes. Without
    `metrics` the protocol's are taken. `shift_px` above 0 scores each pair at that whole-pixel offset within it which
    has the best PSNR (`docs/metrics.md`). Raises `DataError` for files without a partner and for a pair of unequal
    sizes, `UnknownName` for a metric or protocol, `WeightsError` for a metric whose weights are not here.
    """
    chosen = find_protocol(protocol)
    names = _checked(chosen.metrics if metrics is None else metrics, shift_px)
    pairs = [pair for pair in matched_files(Path(restored), Path(sharp)) if chosen.takes(pair.name)]
    if not pairs:
        raise DataError(f"No picture belongs to the protocol '{chosen.name}': {chosen.about}.")

    def scores_of(index: int) -> dict[str, float]:
        pair = pairs[index]
        files = FilePicture(pair.blurred, pair.name), FilePicture(pair.sharp, pair.name)
        return _score_files(pair.name, *files, names, shift_px, chosen.bits)

    found = _side_by_side(scores_of, range(len(pairs)))
    images = tuple(PictureScore(pair.name, values) for pair, values in zip(pairs, found, strict=True))
    return Scores(images, names, shift_px, protocol=chosen.name)


def evaluate(
    models: Sequence[str | Path],
    data: Path | Sequence[Pair],
    *,
    data_name: str | None = None,
    scenes: Mapping[str, str] | None = None,
    recipe: Recipe | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    protocol: str = PLAIN.name,
    metrics: Sequence[str] | None = None,
    shift_px: int = 0,
    tile_px: int | None = None,
    local_pooling: bool = False,
    device: str = "cpu",
    out: Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Return the scores of the blurred input and of each model on the pictures of a folder, or on pairs.

    A model is a name or file of weights, or one of `contenders.CLASSICAL`. With a `recipe`, the data are sharp
    photographs. Each is reduced to `size` (width, height; by area, aspect not kept) where that is given, and blurred
    with a seed made from `seed` and its position; a recipe whose kinds are levels blurs it once a level. Without a
    recipe, the data are pairs, scored as they are. Networks see pictures of the protocol's depth (8 bit nearly always).
    Without `metrics` the protocol's are computed. `data_name` is what the set is called in the table (by default the
    folder's name). `scenes` says by the names of pairs which show the same scene; without it those of one folder do.
    `tile_px` and `local_pooling` are how networks restore, as `Restorer` takes them; the rows' labels say so.
    `out` keeps everything (see above); without it, a temporary folder is used, and there are no `pictures`.

    What cannot work is refused before anything is computed: `WeightsError` and `UnknownName` for models, metrics and
    protocols, `OutputError` where `out` holds an evaluation with other settings or something else, `DataError` for
    pictures.
    """
    chosen = find_protocol(protocol)
    names = _checked(chosen.metrics if metrics is None else metrics, shift_px)
    if size and not recipe:
        raise SettingsError("A size needs a recipe: pairs are scored as they are.")
    on = find_device(device)
    rivals = contenders.gather(models, recipe, on, tile_px=tile_px, local_pooling=local_pooling)
    data = Path(data) if isinstance(data, str | os.PathLike) else data
    pictures = samples.collect(data, recipe, seed, chosen)
    shown = [samples.scene_of(sample, scenes) for sample in pictures]
    settings: dict[str, Any] = {
        "models": {rival.label: rival.fingerprint for rival in rivals},
        "data": data_name or (data.resolve().name if isinstance(data, Path) else "pairs"),
        "pictures": samples.fingerprint(pictures),
        "recipe": recipe.model_dump(mode="json") if recipe else None,
        "size": f"{size[0]}x{size[1]}" if size else None,
        "seed": seed,
        "protocol": chosen.name,
        "metrics": list(names),
        "shift_px": shift_px,
        "device": on.type,
        "precision": "bf16" if bf16_is_fast(on) else "fp32",
    }
    with folder.opened(out, {**settings, "versions": versions()}) as home:
        places = contenders.folder_names([BLURRED_INPUT, *(rival.label for rival in rivals)], [TRUTH])
        blurred, *restored = (home / place for place in places)
        journal = folder.Journal(home / "journal.jsonl")
        tell = _teller(progress, 2 * len(pictures) * (1 + len(rivals)))

        # Pass 1: every picture is written.
        truths = []
        for sample in pictures:
            truths.append(_write_blurred(sample, recipe, size, blurred / sample.path, home, chosen.bits))
            tell(f"{BLURRED_INPUT}: {sample.name}")
        costs: list[cost.Cost | None] = [None]
        for rival, place in zip(rivals, restored, strict=True):
            meter = cost.Meter(rival.device)
            for sample in pictures:
                _write_restored(rival, sample, blurred / sample.path, place / sample.path, meter, journal, chosen.bits)
                tell(f"{rival.label}: {sample.name}")
            costs.append(_cost_of(rival, pictures, blurred, journal))

        # Pass 2: the files are scored.
        rows = []
        for label, place, price in zip((BLURRED_INPUT, *settings["models"]), (blurred, *restored), costs, strict=True):
            scores_of = _scorer(journal, label, place, pictures, truths, names, shift_px, chosen)
            images = []
            scored = _side_by_side(scores_of, range(len(pictures)))
            for sample, scene, values in zip(pictures, shown, scored, strict=True):
                images.append(PictureScore(sample.name, values, sample.level, scene))
                tell(f"{label}: {sample.name}")
            rows.append(Scores(tuple(images), names, shift_px, label, chosen.name, price))

        files = [[FilePicture(place / one.path, one.name) for one in pictures] for place in (blurred, *restored)]
        kept = Pictures(home, tuple(truths), tuple(map(tuple, files))) if out is not None else None
        evaluation = Evaluation(tuple(rows), settings, versions(), kept)
        folder.write_text(home / "scores.csv", _csv(evaluation))
        folder.write_text(home / "summary.json", json.dumps(evaluation.to_json(), indent=1))
    return evaluation


# -- Pass 1: writing ---------------------------------------------------------------------------------------------------


def _write_blurred(
    sample: Sample, recipe: Recipe | None, size: tuple[int, int] | None, file: Path, home: Path, bits: int
) -> Picture:
    """Write the blurred picture and, where a recipe made it, the sharp one; return the sharp one to score against."""
    if sample.blurred:
        if not file.exists():
            values = samples.read(sample.blurred, bits)
            _check_sizes(sample.name, values, samples.read(sample.sharp, bits), sample.blurred, sample.sharp)
            _write_png(_as_tensor(values), file, bits)
        return sample.sharp
    assert recipe is not None
    truth = FilePicture(home / TRUTH / f"{sample.name}.png", sample.name)
    if not (file.exists() and truth.path.exists()):
        sharp = _as_tensor(resized(sample.sharp.read(), size))
        if not truth.path.exists():
            _write_png(sharp, truth.path, bits)
        _write_png(blur_batch(sharp[None], recipe, [sample.seed], kind=sample.kind)[0], file, bits)
    return truth


def _write_restored(
    rival: Contender,
    sample: Sample,
    blurred: Path,
    restored: Path,
    meter: cost.Meter,
    journal: folder.Journal,
    bits: int,
) -> None:
    if restored.exists():
        return
    picture = _as_tensor(samples.read(FilePicture(blurred, sample.name), bits))
    result, taken = meter.measured(lambda: rival.restore(picture, sample))
    _write_png(result, restored, bits)
    journal.note_taken(rival.label, sample.path, taken)


def _cost_of(rival: Contender, pictures: Sequence[Sample], blurred: Path, journal: folder.Journal) -> cost.Cost | None:
    """Return what a row took; None where nothing was noted (a folder of which only the pictures were kept)."""
    noted = [taken for sample in pictures if (taken := journal.taken(rival.label, sample.path))]
    sizes = [samples.size_of(blurred / sample.path) for sample in pictures]
    return cost.total(rival.network, noted, sizes, rival.tile_px, cost.device_name(rival.device)) if noted else None


def _as_tensor(values: Values) -> Tensor:
    planes = torch.from_numpy(np.ascontiguousarray(values)).permute(2, 0, 1)
    return planes.float() / 255 if planes.dtype == torch.uint8 else planes.contiguous()


def _write_png(rgb: Tensor, path: Path, bits: int) -> None:
    write_photo(Photo(rgb, bits=bits), path, overwrite=True)


# -- Pass 2: scoring ---------------------------------------------------------------------------------------------------


def _checked(metrics: Sequence[str], shift_px: int) -> tuple[str, ...]:
    if isinstance(metrics, str) or not metrics:
        raise ValueError(f"metrics is {metrics!r}; give a list of one name at least.")
    if shift_px < 0:
        raise ValueError(f"shift_px is {shift_px}; it is the largest offset in pixels, 0 or more.")
    chosen = [find_metric(name) for name in dict.fromkeys(metrics)]
    for metric in chosen:
        metric.ready()
    return tuple(metric.name for metric in chosen)


def _scorer(
    journal: folder.Journal,
    row: str,
    place: Path,
    pictures: Sequence[Sample],
    truths: Sequence[Picture],
    metrics: Sequence[str],
    shift_px: int,
    protocol: Protocol,
) -> Callable[[int], dict[str, float]]:
    """Return what scores the picture of a number, from the journal where its files have not changed."""

    def scores_of(index: int) -> dict[str, float]:
        sample, truth = pictures[index], truths[index]
        file = FilePicture(place / sample.path, sample.name)
        stamp = folder.stamp(file.path, truth)
        known = journal.scores(row, sample.path, stamp)
        if known is None:
            known = _score_files(sample.name, file, truth, metrics, shift_px, protocol.bits)
            journal.note_scores(row, sample.path, stamp, known)
        return known

    return scores_of


def _score_files(
    name: str, restored: Picture, sharp: Picture, metrics: Sequence[str], shift_px: int, bits: int
) -> dict[str, float]:
    ours, truth = samples.read(restored, bits), samples.read(sharp, bits)
    _check_sizes(name, ours, truth, restored, sharp)
    white = 255 if ours.dtype == np.uint8 else 1
    if shift_px:
        if min(truth.shape[:2]) <= 2 * shift_px:
            raise DataError(f"The pair '{name}' is too small for a shift of {shift_px} px: {sharp}.")
        ours, truth = _best_shift(ours, truth, shift_px, white)
    try:
        return score_pair(ours, truth, metrics, data_range=white)
    except (PhotoError, ValueError) as error:  # too small for a metric
        raise DataError(f"The pair '{name}' cannot be scored: {error}") from None


def _check_sizes(name: str, first: Values, second: Values, one: Picture, other: Picture) -> None:
    if first.shape != second.shape:
        sizes = [f"{values.shape[1]}x{values.shape[0]}" for values in (first, second)]
        raise DataError(f"The pair '{name}' differs in size: {one} is {sizes[0]}, {other} {sizes[1]}.")


def _best_shift(restored: Values, sharp: Values, shift_px: int, white: float) -> tuple[Values, Values]:
    """Return the crops of equal size that fit best; the sharp one is the same for all offsets."""
    height, width = sharp.shape[0] - 2 * shift_px, sharp.shape[1] - 2 * shift_px
    middle = sharp[shift_px : shift_px + height, shift_px : shift_px + width]
    offsets = range(2 * shift_px + 1)
    crops = (restored[top : top + height, left : left + width] for top in offsets for left in offsets)
    return max(crops, key=lambda crop: psnr(crop, middle, data_range=white)), middle


def _side_by_side(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the results in order; one thread for each processor (the formulas hold Python's lock only briefly)."""
    count = min(MAX_THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    if count == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(count) as pool:
        try:
            yield from pool.map(work, items)
        finally:
            pool.shutdown(cancel_futures=True)


# -- Results -----------------------------------------------------------------------------------------------------------


def _csv(evaluation: Evaluation) -> str:
    metrics = evaluation.settings["metrics"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "level", "name", *metrics])
    for row in evaluation.rows:
        for image in row.images:
            writer.writerow([row.model, image.level or "", image.name, *(image.values[name] for name in metrics)])
    return text.getvalue()


def _teller(progress: Progress | None, total: int) -> Callable[[str], None]:
    done = 0

    def tell(what: str) -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total, what)

    return tell
