"""Properties of blurred copies of files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from unblur.blur.photos import BlurredFile, blur_files, blur_photo
from unblur.blur.recipes import Recipe, blur_batch, load_recipe, sample_seed
from unblur.formats import Metadata
from unblur.images import Photo, as_photo, read_photo
from unblur.outputs import FailedFile, PlannedFile, plan_outputs

SOFT = load_recipe("gaussian-2.5")
SHAKY = Recipe.model_validate({"name": "shaky", "kinds": [{"blur": "shake", "extent_px": [4, 12]}]})
LEVELS = load_recipe("gaussian-triple")


@pytest.fixture
def photos(tmp_path: Path, photograph: Tensor) -> Path:
    """A folder of three photos, which are alike."""
    for name in ("a.png", "b.png", "sub/c.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Photo(photograph).save(tmp_path / "in" / name)
    return tmp_path / "in"


def pixels_of(folder: Path) -> dict[str, Tensor]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): read_photo(path).rgb for path in files}


def test_a_photo_becomes_what_its_recipe_makes_of_its_colours(photograph: Tensor) -> None:
    expected = blur_batch(photograph[None], SOFT, [7])[0]
    assert torch.equal(blur_photo(Photo(photograph), SOFT, 7).rgb, expected)
    assert not torch.equal(expected, photograph)


def test_everything_but_the_colours_stays(photograph: Tensor) -> None:
    alpha = torch.linspace(0, 1, photograph.shape[-1]).expand(1, *photograph.shape[-2:])
    photo = Photo(photograph, alpha, bits=16, format="TIFF", metadata=Metadata(icc=b"profile", dpi=(300.0, 300.0)))
    blurred = blur_photo(photo, SOFT, 1)
    assert replace(blurred, rgb=photo.rgb) == photo
    assert torch.equal(blurred.alpha, alpha)  # type: ignore[arg-type]


def test_a_grey_photo_stays_grey_even_where_noise_is_drawn_in_colour() -> None:
    noisy = Recipe.model_validate({"name": "noisy", "kinds": [{"blur": "none"}], "noise": {"read": 0.1}})
    blurred = blur_photo(as_photo(np.full((16, 16), 0.5)), noisy, 1)
    assert blurred.is_grey
    assert torch.equal(blurred.rgb[0], blurred.rgb[2])
    assert blurred.rgb.std() > 0.01


def test_colours_under_transparent_places_do_not_spread() -> None:
    rgb, alpha = torch.full((3, 32, 32), 0.6), torch.ones(1, 32, 32)
    rgb[:, :, :16], alpha[:, :, :16] = 0.0, 0.0
    blurred = blur_photo(Photo(rgb, alpha), SOFT, 1)
    torch.testing.assert_close(blurred.rgb[:, :, 16:], torch.full((3, 32, 16), 0.6))


def test_every_photo_of_a_folder_is_blurred_and_told(photos: Path, tmp_path: Path) -> None:
    results = list(blur_files(plan_outputs([photos], tmp_path / "out"), SOFT))
    assert results == [
        BlurredFile(photos / name, (tmp_path / "out" / name,)) for name in ("a.png", "b.png", "sub/c.png")
    ]
    assert sorted(pixels_of(tmp_path / "out")) == ["a.png", "b.png", "sub/c.png"]


def test_a_recipe_of_levels_writes_one_file_a_level(photos: Path, tmp_path: Path) -> None:
    plan = [PlannedFile(photos / "a.png", tmp_path / "out" / "a.png")]
    (result,) = blur_files(plan, LEVELS)
    labels = [kind.label for kind in LEVELS.kinds]
    assert isinstance(result, BlurredFile)
    assert [target.name for target in result.targets] == [f"a-{label}.png" for label in labels]
    sharp = read_photo(photos / "a.png").rgb
    harm = [float((read_photo(target).rgb - sharp).square().mean()) for target in result.targets]
    assert harm == sorted(harm)
    assert len(set(harm)) == 3


def test_the_same_seed_gives_the_same_files_and_another_seed_others(photos: Path, tmp_path: Path) -> None:
    for folder, seed in (("one", 3), ("again", 3), ("other", 4)):
        list(blur_files(plan_outputs([photos], tmp_path / folder), SHAKY, seed))
    one, again, other = (pixels_of(tmp_path / folder) for folder in ("one", "again", "other"))
    for name in one:
        assert torch.equal(one[name], again[name])
        assert not torch.equal(one[name], other[name])


def test_each_file_of_a_series_is_blurred_in_its_own_way(photos: Path, tmp_path: Path) -> None:
    list(blur_files(plan_outputs([photos], tmp_path / "out"), SHAKY, 3))
    a, b, _ = pixels_of(tmp_path / "out").values()
    assert not torch.equal(a, b)
    photo = read_photo(photos / "b.png")
    torch.testing.assert_close(b, blur_photo(photo, SHAKY, sample_seed(3, 1)).rgb)


def test_one_bad_file_is_told_and_the_others_are_done(photos: Path, tmp_path: Path) -> None:
    (photos / "b.png").write_bytes(b"")
    a, b, c = blur_files(plan_outputs([photos], tmp_path / "out"), SOFT)
    assert isinstance(a, BlurredFile)
    assert isinstance(c, BlurredFile)
    assert isinstance(b, FailedFile)
    assert "empty" in str(b.error)
    assert sorted(pixels_of(tmp_path / "out")) == ["a.png", "sub/c.png"]


def test_an_existing_file_is_replaced_only_if_asked(photos: Path, tmp_path: Path) -> None:
    plan = [PlannedFile(photos / "a.png", tmp_path / "out.png")]
    Photo(torch.zeros(3, 4, 4)).save(tmp_path / "out-gaussian-11-1.6.png")
    (result,) = blur_files(plan, LEVELS)
    assert isinstance(result, FailedFile)
    assert "--overwrite" in str(result.error)
    assert not list(tmp_path.glob("out-gaussian-[37]*")), "what can be foreseen is seen before anything is written"
    (result,) = blur_files(plan, LEVELS, overwrite=True)
    assert isinstance(result, BlurredFile)
    assert read_photo(result.targets[2]).width == read_photo(photos / "a.png").width


def test_a_photo_above_the_limit_is_refused(photos: Path, tmp_path: Path) -> None:
    (result,) = blur_files([PlannedFile(photos / "a.png", tmp_path / "out.png")], SOFT, max_pixels=100)
    assert isinstance(result, FailedFile)
    assert "--max-pixels" in str(result.error)
