"""Pairs written to disk once: reduced in size, and blurred by a recipe where they are sharp pictures alone.

What a training can do on the fly is done here for all epochs, and for other programs:

    OUT/blur/NAME.png, OUT/sharp/NAME.png     the same names, lossless
    OUT/prepared.json                         what was asked for, of which pictures, with which versions

A recipe of levels makes a pair a level, `NAME-LEVEL.png`; their sharp pictures are one file under several names where
the disk allows it. The blur is that of `unblur evaluate` with the same seed. What is there already is not made again.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from unblur.blur.recipes import Recipe, blur_batch, sample_seed
from unblur.data.pairs import resized, to_batch
from unblur.data.sources import Pair, Pixels
from unblur.errors import DataError, OutputError, PhotoError, SettingsError
from unblur.files import written_whole
from unblur.images import Photo, write_photo
from unblur.provenance import versions
from unblur.settings import differences

SETTINGS = "prepared.json"
THREADS = 4
"""Pictures in work at a time; each may take some hundred megabytes."""


@dataclass(frozen=True)
class Prepared:
    """What was written: the number of pairs, and why pictures were left out."""

    pairs: int
    left_out: tuple[str, ...]


def prepare(
    name: str,
    pairs: Sequence[Pair],
    out: Path,
    *,
    recipe: Recipe | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Write the pairs to the folder `out` and return how many there are; takes up what an interruption left.

    With a `recipe` the sharp pictures are blurred, the n-th one with `sample_seed(seed, n)`; without one, both pictures
    of each pair are written. `size` (width, height) reduces by area first, aspect not kept. Pictures that cannot be
    read are left out and named. Raises `SettingsError` where sharp pictures meet no recipe, `OutputError` where `out`
    holds something else.
    """
    if recipe is None and any(pair.blurred is None for pair in pairs):
        raise SettingsError(f"'{name}' holds sharp pictures alone: give a recipe by which they are to be blurred.")
    digest = hashlib.sha256(repr([pair.name for pair in pairs]).encode()).hexdigest()
    settings: dict[str, Any] = {
        "data": name,
        "pictures": len(pairs),
        "names": digest,
        "recipe": recipe.model_dump(mode="json") if recipe else None,
        "size": f"{size[0]}x{size[1]}" if size else None,
        "seed": seed,
    }
    _claim(out, settings)
    left_out: list[str] = []
    written = 0

    def work(index: int) -> int | PhotoError | DataError:
        try:
            return _write(pairs[index], index, out, recipe, size, seed)
        except (PhotoError, DataError) as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        for done, result in enumerate(pool.map(work, range(len(pairs))), start=1):
            if isinstance(result, int):
                written += result
            else:
                left_out.append(str(result))
            if progress:
                progress(done, len(pairs))
    return Prepared(written, tuple(left_out))


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """Write the settings into a new folder; refuse one that holds something else."""
    file = out / SETTINGS
    if file.exists():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            raise OutputError(f"{file} is damaged. Choose another folder, or delete this one.") from None
        before.pop("versions", None)
        different = differences(before, json.loads(json.dumps(settings)))
        if different:
            raise OutputError(
                f"{out} holds data prepared otherwise ({'; '.join(different)}). Choose another folder, or delete it."
            )
    elif out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out} holds files, but no prepared data ({SETTINGS}). Choose another folder.")
    else:
        with written_whole(file) as temporary:
            text = json.dumps({**settings, "versions": versions()}, indent=1)
            temporary.write_text(text, encoding="utf-8", newline="\n")


def _write(pair: Pair, index: int, out: Path, recipe: Recipe | None, size: tuple[int, int] | None, seed: int) -> int:
    """Write all pairs of one picture and return how many there are."""
    levels = recipe.levels if recipe else [(None, None)]
    targets = [_files(out, pair.name, label) for _, label in levels]
    if all(file.exists() for files in targets for file in files):
        return len(targets)
    sharp = resized(pair.sharp.read(), size)
    blurred = _blurred(pair, sharp, recipe, size, sample_seed(seed, index))
    first_sharp = targets[0][1]
    for (blurred_file, sharp_file), picture in zip(targets, blurred, strict=True):
        if sharp_file == first_sharp:
            write_photo(Photo(_as_tensor(sharp)), sharp_file, overwrite=True)
        else:
            _repeat(first_sharp, sharp_file)
        write_photo(Photo(picture), blurred_file, overwrite=True)
    return len(targets)


def _blurred(
    pair: Pair, sharp: Pixels, recipe: Recipe | None, size: tuple[int, int] | None, seed: int
) -> Iterator[Tensor]:
    """Yield the blurred picture (3, H, W), once a level."""
    if recipe is not None:
        for kind, _ in recipe.levels:
            yield blur_batch(_as_tensor(sharp)[None], recipe, [seed], kind=kind)[0]
        return
    assert pair.blurred is not None
    blurred = resized(pair.blurred.read(), size)
    if blurred.shape != sharp.shape:
        raise DataError(f"The pair '{pair.name}' differs in size: {pair.sharp} and {pair.blurred}.")
    yield _as_tensor(blurred)


def _files(out: Path, name: str, label: str | None) -> tuple[Path, Path]:
    file = f"{name}-{label}.png" if label else f"{name}.png"
    return out / "blur" / file, out / "sharp" / file


def _repeat(file: Path, other: Path) -> None:
    """Give a file a second name, or where the disk has no such thing, a copy."""
    with written_whole(other) as temporary:
        try:
            os.link(file, temporary)
        except OSError:
            temporary.write_bytes(file.read_bytes())


def _as_tensor(pixels: Pixels) -> Tensor:
    return to_batch([pixels])[0].float() / 255
