"""Judge restored pictures: `score` compares files, `evaluate` makes the files first.

An evaluation has two passes a row: pictures are written as 8-bit PNGs, then the files are scored, so that what is
judged is what a user gets. The first row is the blurred input itself, because a table without it cannot show that a
network does harm. All scores are kept per picture. The folder OUT of an evaluation holds

    settings.json            what was asked for, of which pictures and weights, with which versions
    blurred-input/           the blurred pictures, 8 bit; with a recipe of levels in one folder a level
    MODEL/                   the restored pictures, one folder for each model
    sharp/                   the sharp pictures as they were blurred (only with a recipe)
    scores.csv summary.json  one line for each picture and row; everything, as `--json` prints it

and can be taken up again after an interruption: pictures which are there already are not computed again, and settings
that differ from those in the folder are refused.
"""

import csv
import hashlib
import io
import json
import re
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unblur import weights
from unblur.blur.recipes import Recipe, blur_batch, sample_seed
from unblur.data.pairs import Picture, matched_files, paired_files, resized, sharp_files, to_batch
from unblur.errors import DataError, OutputError, SettingsError
from unblur.files import written_whole
from unblur.images import Photo, read_rgb8, write_photo
from unblur.inference import bf16_is_fast, restore_image
from unblur.metrics import DEFAULT_METRICS, IDENTICAL_DB, METRICS, find_metric, psnr
from unblur.provenance import versions
from unblur.settings import differences

BLURRED_INPUT = "blurred input"
"""Name of the first row of every evaluation."""

Progress = Callable[[int, int, str], None]
"""Is told (steps done, steps in all, row and picture) after each picture that is written and each that is scored."""


@dataclass(frozen=True)
class PictureScore:
    """The scores of one picture, by metric; `level` is the label of its blur where a recipe has levels."""

    name: str
    values: Mapping[str, float]
    level: str | None = None


@dataclass(frozen=True)
class Scores:
    """The scores of several pictures, and what they come to; `model` is the row of an evaluation."""

    images: tuple[PictureScore, ...]
    metrics: tuple[str, ...]
    shift_px: int = 0
    model: str | None = None

    @property
    def n(self) -> int:
        """How many pictures were scored; a picture counts once at each level."""
        return len(self.images)

    @property
    def mean(self) -> dict[str, float]:
        """The mean of the pictures' scores, by metric."""
        return self._each(statistics.fmean)

    @property
    def median(self) -> dict[str, float]:
        """The median, which a few pictures with very high scores do not move."""
        return self._each(statistics.median)

    @property
    def std(self) -> dict[str, float]:
        """The standard deviation over the pictures (of these, not an estimate for others)."""
        return self._each(statistics.pstdev)

    @property
    def min(self) -> dict[str, float]:
        """The smallest score."""
        return self._each(min)

    @property
    def identical(self) -> int:
        """How many pictures are identical to the sharp one, as far as a PSNR among the metrics tells."""
        of_psnr = [name for name in self.metrics if name.startswith("psnr")]
        return sum(any(image.values[name] == IDENTICAL_DB for name in of_psnr) for image in self.images)

    @property
    def levels(self) -> dict[str, "Scores"]:
        """The scores of each level alone, by its label; empty where there are no levels."""
        labels = dict.fromkeys(image.level for image in self.images if image.level is not None)
        return {
            label: Scores(
                tuple(image for image in self.images if image.level == label), self.metrics, self.shift_px, self.model
            )
            for label in labels
        }

    def summary(self) -> dict[str, Any]:
        """Return n, mean, median, std, min and the number of identical pictures, as plain data."""
        return {
            "n": self.n,
            "mean": self.mean,
            "median": self.median,
            "std": self.std,
            "min": self.min,
            "identical": self.identical,
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data: the summary, one entry a picture, protocol and versions."""
        return {
            **self.summary(),
            "images": [_image_to_json(image) for image in self.images],
            "protocol": protocol(self.metrics, self.shift_px),
            "versions": versions(),
        }

    def _each(self, statistic: Callable[[list[float]], float]) -> dict[str, float]:
        return {name: statistic([image.values[name] for image in self.images]) for name in self.metrics}


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found: the row of the blurred input first, then one for each model, in the order given."""

    rows: tuple[Scores, ...]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data: at the top the scores of the first model, under "rows" all of them."""
        rows = [
            {
                "model": row.model,
                **row.summary(),
                "levels": {label: level.summary() for label, level in row.levels.items()},
                "images": [_image_to_json(image) for image in row.images],
            }
            for row in self.rows
        ]
        return {
            **rows[1],
            "rows": rows,
            "protocol": protocol(self.settings["metrics"], self.settings["shift_px"]),
            "settings": dict(self.settings),
            "versions": dict(self.versions),
        }


def score(restored: Path, sharp: Path, *, metrics: Sequence[str] = DEFAULT_METRICS, shift_px: int = 0) -> Scores:
    """Return the scores of two files, or of two folders whose files are paired by name.

    Files are compared as 8-bit RGB, grey as three equal planes. `shift_px` above 0 scores each pair at that
    whole-pixel offset within it which has the best PSNR (`docs/metrics.md`). Raises `DataError` for files without a
    partner and for a pair of unequal sizes, `UnknownName` for a metric.
    """
    metrics = _checked(metrics, shift_px)
    pairs = matched_files(Path(restored), Path(sharp))
    images = [
        PictureScore(pair.name, _score_files(pair.name, pair.blurred, pair.sharp, metrics, shift_px)) for pair in pairs
    ]
    return Scores(tuple(images), metrics, shift_px)


def evaluate(
    models: Sequence[str | Path],
    data: Path,
    *,
    recipe: Recipe | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    metrics: Sequence[str] = DEFAULT_METRICS,
    shift_px: int = 0,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Return the scores of the blurred input and of each model (name or file of weights) on the pictures of a folder.

    With a `recipe`, `data` is a folder of sharp photographs. Each is reduced to `size` (width, height; by area, aspect
    not kept) where that is given, and blurred with a seed made from `seed` and its position; a recipe whose kinds are
    levels blurs it once a level. Without a recipe, `data` holds pairs (`blur/` and `sharp/`), scored as they are.
    Networks see the 8-bit pictures. `out` keeps everything (see above); without it, a temporary folder is used.

    What cannot work is refused before anything is computed: `WeightsError` and `UnknownName` for models and metrics,
    `OutputError` where `out` holds an evaluation with other settings or something else, `DataError` for pictures.
    """
    metrics = _checked(metrics, shift_px)
    labels = _labels(models)
    if size and not recipe:
        raise SettingsError("A size needs a recipe: pairs are scored as they are.")
    samples = _sharp_samples(Path(data), recipe, seed) if recipe else _pair_samples(Path(data))
    networks = [weights.load(model) for model in models]
    settings: dict[str, Any] = {
        "models": {label: hash_of_network(network) for label, network in zip(labels, networks, strict=True)},
        "data": Path(data).resolve().name,
        "pictures": _hash_of_pictures(samples),
        "recipe": recipe.model_dump(mode="json") if recipe else None,
        "size": f"{size[0]}x{size[1]}" if size else None,
        "seed": seed,
        "metrics": list(metrics),
        "shift_px": shift_px,
        "precision": "bf16" if bf16_is_fast(torch.device("cpu")) else "fp32",
    }
    with _folder(out, {**settings, "versions": versions()}) as folder:
        blurred_folder, *model_folders = (folder / name for name in _folder_names(labels))
        tell = _teller(progress, 2 * len(samples) * (1 + len(models)))

        def scored(label: str, row_folder: Path) -> Scores:
            images = []
            for sample in samples:
                files = sample.file_in(row_folder), sample.truth(folder)
                values = _score_files(sample.name, *files, metrics, shift_px)
                images.append(PictureScore(sample.name, values, sample.level))
                tell(f"{label}: {sample.name}")
            return Scores(tuple(images), metrics, shift_px, label)

        for sample in samples:
            _write_blurred(sample, recipe, size, sample.file_in(blurred_folder), sample.truth(folder))
            tell(f"{BLURRED_INPUT}: {sample.name}")
        rows = [scored(BLURRED_INPUT, blurred_folder)]  # a pair of unequal sizes ends it here, not after hours
        for label, network, model_folder in zip(labels, networks, model_folders, strict=True):
            for sample in samples:
                _write_restored(network, sample.file_in(blurred_folder), sample.file_in(model_folder))
                tell(f"{label}: {sample.name}")
            rows.append(scored(label, model_folder))

        evaluation = Evaluation(tuple(rows), settings, versions())
        _write_text(folder / "scores.csv", _csv(evaluation))
        _write_text(folder / "summary.json", json.dumps(evaluation.to_json(), indent=1))
    return evaluation


def protocol(metrics: Sequence[str], shift_px: int = 0) -> dict[str, str]:
    """Return one line for each metric that says how it was computed, and one for the shift search if there is one."""
    lines = {name: find_metric(name).protocol for name in metrics}
    if shift_px:
        lines["shift"] = f"each picture at its best whole-pixel offset within {shift_px} px, by psnr"
    return lines


# -- What is evaluated -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sample:
    """One picture at one level; without `blurred` it is made from the sharp one."""

    name: str
    sharp: Path
    blurred: Path | None = None
    level: str | None = None
    kind: int | None = None
    seed: int = 0

    def file_in(self, row_folder: Path) -> Path:
        return row_folder / (self.level or "") / f"{self.name}.png"

    def truth(self, folder: Path) -> Path:
        return self.sharp if self.blurred else folder / _TRUTH / f"{self.name}.png"


_TRUTH = "sharp"


def _pair_samples(data: Path) -> list[_Sample]:
    return [_Sample(pair.name, pair.sharp, pair.blurred) for pair in paired_files(data)]


def _sharp_samples(data: Path, recipe: Recipe, seed: int) -> list[_Sample]:
    names: dict[str, Path] = {}
    for path in sharp_files(data):
        name = path.relative_to(data).with_suffix("").as_posix()
        if name in names:
            raise DataError(f"{names[name]} and {path} have the same name without suffix; rename one of them.")
        names[name] = path
    return [
        _Sample(name, path, level=level, kind=kind, seed=sample_seed(seed, index))
        for kind, level in recipe.levels
        for index, (name, path) in enumerate(names.items())
    ]


def _labels(models: Sequence[str | Path]) -> list[str]:
    """Return what the rows are called: a name as it is, a file by its last folder and name, or more of its path.

    Trainings all call their file best.safetensors, so that the name alone would say nothing.
    """
    if isinstance(models, str | Path) or not models:
        raise ValueError(f"models is {models!r}; give a list of one name or file at least.")
    in_files = [model for model in models if str(model) not in weights.shipped() and Path(model).is_file()]
    files = {model: Path(model).resolve().with_suffix("") for model in in_files}
    longest = max((len(path.parts) for path in files.values()), default=2)
    for num_parts in range(2, longest + 1):
        labels = ["/".join(files[m].parts[-num_parts:]) if m in files else str(m) for m in models]
        if len(set(labels)) == len(labels):
            return labels
    raise SettingsError(f"A model is given twice: {', '.join(map(str, models))}.")


def _folder_names(labels: Sequence[str]) -> list[str]:
    """Return a folder name for the blurred input and for each label; no two alike, none that of the sharp pictures."""
    names: list[str] = []
    for label in (BLURRED_INPUT, *labels):
        name = re.sub(r"[^\w.-]+", "-", label).strip(".-") or "model"
        while name.lower() in {_TRUTH, *(taken.lower() for taken in names)}:
            name += "-model"
        names.append(name)
    return names


def hash_of_network(network: nn.Module) -> str:
    """Return a hash of layers and weights: another training under the same name is another network."""
    digest = hashlib.sha256(repr(network).encode())
    for key, tensor in network.state_dict().items():
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _hash_of_pictures(samples: Sequence[_Sample]) -> str:
    """Return a hash of the pictures' names and sizes in bytes."""
    files = [(s.name, s.level, s.sharp.stat().st_size, s.blurred and s.blurred.stat().st_size) for s in samples]
    return hashlib.sha256(repr(files).encode()).hexdigest()


# -- Pass 1: writing ---------------------------------------------------------------------------------------------------


def _write_blurred(
    sample: _Sample, recipe: Recipe | None, size: tuple[int, int] | None, blurred_file: Path, truth: Path
) -> None:
    if blurred_file.exists() and truth.exists():
        return
    if sample.blurred:
        _write_png(_as_tensor(read_rgb8(sample.blurred)), blurred_file)
        return
    assert recipe is not None
    sharp = _as_tensor(resized(read_rgb8(sample.sharp), size))
    if not truth.exists():
        _write_png(sharp, truth)
    _write_png(blur_batch(sharp[None], recipe, [sample.seed], kind=sample.kind)[0], blurred_file)


def _write_restored(network: nn.Module, blurred_file: Path, restored_file: Path) -> None:
    if not restored_file.exists():
        _write_png(restore_image(network, _as_tensor(read_rgb8(blurred_file))), restored_file)


def _as_tensor(picture: Picture) -> Tensor:
    return to_batch([picture])[0].float() / 255


def _write_png(rgb: Tensor, path: Path) -> None:
    write_photo(Photo(rgb), path, overwrite=True)


# -- Pass 2: scoring ---------------------------------------------------------------------------------------------------


def _checked(metrics: Sequence[str], shift_px: int) -> tuple[str, ...]:
    if isinstance(metrics, str) or not metrics:
        raise ValueError(f"metrics is {metrics!r}; give a list of one name at least.")
    if shift_px < 0:
        raise ValueError(f"shift_px is {shift_px}; it is the largest offset in pixels, 0 or more.")
    return tuple(dict.fromkeys(find_metric(name).name for name in metrics))


def _score_files(
    name: str, restored_file: Path, sharp_file: Path, metrics: Sequence[str], shift_px: int
) -> dict[str, float]:
    restored, sharp = read_rgb8(restored_file), read_rgb8(sharp_file)
    if restored.shape != sharp.shape:
        sizes = [f"{picture.shape[1]}x{picture.shape[0]}" for picture in (restored, sharp)]
        raise DataError(f"The pair '{name}' differs in size: {restored_file} is {sizes[0]}, {sharp_file} {sizes[1]}.")
    if shift_px:
        if min(sharp.shape[:2]) <= 2 * shift_px:
            raise DataError(f"The pair '{name}' is too small for a shift of {shift_px} px: {sharp_file}.")
        restored, sharp = _best_shift(restored, sharp, shift_px)
    return {metric: float(METRICS[metric].function(restored, sharp, data_range=255)) for metric in metrics}


def _best_shift(restored: Picture, sharp: Picture, shift_px: int) -> tuple[Picture, Picture]:
    """Return the crops of equal size that fit best; the sharp one is the same for all offsets."""
    height, width = sharp.shape[0] - 2 * shift_px, sharp.shape[1] - 2 * shift_px
    middle = sharp[shift_px : shift_px + height, shift_px : shift_px + width]
    offsets = range(2 * shift_px + 1)
    crops = (restored[top : top + height, left : left + width] for top in offsets for left in offsets)
    return max(crops, key=lambda crop: psnr(crop, middle, data_range=255)), middle


# -- The folder --------------------------------------------------------------------------------------------------------


@contextmanager
def _folder(out: Path | None, settings: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the folder to work in: `out`, new or with an evaluation of the same settings, or a temporary one."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="unblur-") as temporary:
            yield Path(temporary)
        return
    out = Path(out)
    file = out / "settings.json"
    if file.exists():
        different = differences(_read_json(file), json.loads(json.dumps(settings)))
        if different:
            raise OutputError(
                f"{out} holds an evaluation with other settings ({'; '.join(different)}). "
                "Choose another folder, or delete this one."
            )
    elif out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out} holds files but no evaluation (settings.json). Choose another folder.")
    else:
        _write_text(file, json.dumps(settings, indent=1))
    yield out


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{file} cannot be read ({error}). Choose another folder, or delete this one.") from None
    if not isinstance(content, dict):
        raise OutputError(f"{file} is not the settings of an evaluation. Choose another folder.")
    return content


def _write_text(file: Path, text: str) -> None:
    with written_whole(file) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _csv(evaluation: Evaluation) -> str:
    metrics = evaluation.settings["metrics"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "level", "name", *metrics])
    for row in evaluation.rows:
        for image in row.images:
            writer.writerow([row.model, image.level or "", image.name, *(image.values[name] for name in metrics)])
    return text.getvalue()


def _image_to_json(image: PictureScore) -> dict[str, Any]:
    level = {"level": image.level} if image.level is not None else {}
    return {"name": image.name, **level, **image.values}


def _teller(progress: Progress | None, total: int) -> Callable[[str], None]:
    done = 0

    def tell(what: str) -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total, what)

    return tell
