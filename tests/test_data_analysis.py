"""The share of patches that are hardly blurred is counted, and written as JSON and as a picture."""

import json

import numpy as np
import pytest
from PIL import Image

from data_trees import pixels, put
from unblur.data.analysis import PatchAnalysis, analyse, write_json, write_plot
from unblur.data.catalog import open_dataset
from unblur.errors import DataError, OutputError, SettingsError
from unblur.images import read_rgb8

pytest.importorskip("scipy.stats")
pytest.importorskip("matplotlib")


@pytest.fixture
def quarter_blurred(tmp_path):
    """Eight pairs, of which two are blurred beyond recognition and six not at all."""
    for number in range(8):
        put(tmp_path / f"pairs/sharp/{number}.png", number, (40, 40))
        put(tmp_path / f"pairs/blur/{number}.png", number + (100 if number % 4 == 0 else 0), (40, 40))
    return open_dataset("pairs", tmp_path)


def test_the_share_of_near_perfect_patches_is_counted(quarter_blurred):
    found = analyse("pairs", quarter_blurred, patch_px=16, patches_per_picture=3)
    assert len(found.ssim) == 24
    assert found.near_perfect == 0.75
    assert sum(ssim == 1 for ssim in found.ssim) == 18


def test_pictures_are_taken_evenly_and_the_seed_decides_the_patches(quarter_blurred):
    found = analyse("pairs", quarter_blurred, patch_px=16, max_pictures=2)
    assert found.pictures == 2
    assert found.near_perfect == 0  # numbers 0 and 4
    assert found == analyse("pairs", quarter_blurred, patch_px=16, max_pictures=2)
    assert found.ssim != analyse("pairs", quarter_blurred, patch_px=16, max_pictures=2, seed=1).ssim


def test_the_histogram_holds_every_patch_and_the_density_integrates_to_one():
    ssim = tuple(np.random.default_rng(1).normal(0.6, 0.08, 500).clip(0, 1).tolist())
    found = PatchAnalysis("pairs", 500, 16, 0.9, 0, ssim)
    edges, counts = found.histogram()
    assert sum(counts) == 500
    assert edges[-1] == 1
    assert edges[0] <= min(ssim)
    at, density = found.density()
    assert np.trapezoid(density, at) == pytest.approx(1, abs=0.01)
    assert at[int(np.argmax(density))] == pytest.approx(0.6, abs=0.05)


def test_equal_patches_have_no_density_but_are_drawn(tmp_path):
    found = PatchAnalysis("pairs", 3, 16, 0.9, 0, (1.0, 1.0, 1.0))
    assert found.density() == ([], [])
    write_plot(found, tmp_path / "plot.png")
    assert read_rgb8(tmp_path / "plot.png").shape[1] > 400


def test_json_holds_values_and_summary(tmp_path, quarter_blurred):
    found = analyse("pairs", quarter_blurred, patch_px=16)
    write_json(found, tmp_path / "found.json")
    content = json.loads((tmp_path / "found.json").read_text())
    assert content["near_perfect"] == 0.75
    assert content["patches"] == len(content["ssim"]) == sum(content["histogram"]["counts"]) == 16
    assert len(content["density"]["ssim"]) == len(content["density"]["density"])
    with pytest.raises(OutputError, match="exists already"):
        write_json(found, tmp_path / "found.json")


def test_sharp_pictures_alone_and_a_senseless_threshold_are_refused(tmp_path):
    put(tmp_path / "sharp/a.png")
    with pytest.raises(DataError, match="'sharp' holds sharp pictures alone"):
        analyse("sharp", open_dataset("sharp", tmp_path))
    with pytest.raises(SettingsError, match="threshold 9 is no SSIM"):
        analyse("sharp", [], threshold=9)


def test_a_blur_of_the_whole_picture_leaves_nothing_near_perfect(tmp_path):
    for number in range(3):
        sharp = put(tmp_path / f"sharp/{number}.png", number, (40, 40))
        blurred = Image.fromarray(np.full_like(pixels(1, (40, 40)), 128))
        (tmp_path / "blur").mkdir(exist_ok=True)
        blurred.save(tmp_path / "blur" / sharp.name)
    assert analyse("pairs", open_dataset(tmp_path), patch_px=16).near_perfect == 0
