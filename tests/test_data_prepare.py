"""Pairs on disk are what a training or an evaluation would have made on the fly."""

import json

import numpy as np
import pytest
import torch

from data_trees import make_set, put
from unblur.blur.recipes import blur_batch, load_recipe, sample_seed
from unblur.data.catalog import open_dataset
from unblur.data.pairs import resized, to_batch
from unblur.data.prepare import prepare
from unblur.errors import OutputError, SettingsError
from unblur.images import read_photo, read_rgb8


@pytest.fixture
def sharp(tmp_path):
    for number in range(3):
        put(tmp_path / f"sharp/deep/{number}.jpg", number, (60, 80))
    return open_dataset("sharp", tmp_path)


def test_a_recipe_of_levels_makes_a_pair_a_level_by_the_blur_of_an_evaluation(tmp_path, sharp):
    recipe = load_recipe("gaussian-triple")
    done = prepare("sharp", sharp, tmp_path / "out", recipe=recipe, size=(40, 24), seed=7)
    assert done.pairs == 9
    assert not done.left_out
    made = {pair.name: pair for pair in open_dataset(tmp_path / "out")}
    assert len(made) == 9
    for index, pair in enumerate(sharp):
        truth = resized(pair.sharp.read(), (40, 24))
        batch = to_batch([truth]).float() / 255
        for kind, label in recipe.levels:
            written = made[f"{pair.name}-{label}"]
            assert np.array_equal(written.sharp.read(), truth)
            expected = blur_batch(batch, recipe, [sample_seed(7, index)], kind=kind)[0]
            found = torch.from_numpy(written.blurred.read()).permute(2, 0, 1)
            assert (found - expected * 255).abs().max() < 0.01


def test_the_sharp_picture_of_several_levels_takes_its_space_once(tmp_path, sharp):
    prepare("sharp", sharp, tmp_path / "out", recipe=load_recipe("gaussian-triple"))
    files = {path.stat().st_ino for path in (tmp_path / "out/sharp").rglob("*.png")}
    assert len(files) == 3


def test_pairs_are_reduced_together(tmp_path):
    make_set(tmp_path, "gopro/test")
    pairs = open_dataset("gopro/test", tmp_path)
    assert prepare("gopro/test", pairs, tmp_path / "out", size=(20, 12)).pairs == 2
    for before, after in zip(pairs, open_dataset(tmp_path / "out"), strict=True):
        assert after.name == before.name
        assert np.array_equal(after.blurred.read(), resized(before.blurred.read(), (20, 12)))
        assert np.array_equal(after.sharp.read(), resized(before.sharp.read(), (20, 12)))


def test_an_interrupted_preparation_is_taken_up(tmp_path, sharp):
    recipe = load_recipe("gaussian-2.5")
    prepare("sharp", sharp, tmp_path / "out", recipe=recipe)
    kept, lost = (tmp_path / "out/blur/deep" / f"{number}.png" for number in (0, 1))
    content = lost.read_bytes()
    before = kept.stat().st_mtime_ns
    lost.unlink()
    assert prepare("sharp", sharp, tmp_path / "out", recipe=recipe).pairs == 3
    assert lost.read_bytes() == content
    assert kept.stat().st_mtime_ns == before


def test_other_settings_and_other_files_are_refused(tmp_path, sharp):
    recipe = load_recipe("gaussian-2.5")
    prepare("sharp", sharp, tmp_path / "out", recipe=recipe)
    with pytest.raises(OutputError, match=r"prepared otherwise \(seed was 0, is 1\)"):
        prepare("sharp", sharp, tmp_path / "out", recipe=recipe, seed=1)
    with pytest.raises(OutputError, match=r"prepared otherwise \(pictures was 3, is 2; names was"):
        prepare("sharp", sharp[:2], tmp_path / "out", recipe=recipe)
    put(tmp_path / "full/a.png")
    with pytest.raises(OutputError, match="holds files, but no prepared data"):
        prepare("sharp", sharp, tmp_path / "full", recipe=recipe)


def test_what_was_asked_for_is_kept_beside_the_pictures(tmp_path, sharp):
    prepare("sharp", sharp, tmp_path / "out", recipe=load_recipe("gaussian-2.5"), size=(40, 24), seed=3)
    settings = json.loads((tmp_path / "out/prepared.json").read_text())
    assert (settings["data"], settings["pictures"], settings["size"], settings["seed"]) == ("sharp", 3, "40x24", 3)
    assert settings["recipe"]["name"] == "gaussian-2.5"
    assert "unblur" in settings["versions"]


def test_a_picture_that_cannot_be_read_is_left_out_and_named(tmp_path, sharp):
    (tmp_path / "sharp/deep/1.jpg").write_bytes(b"no picture")
    done = prepare("sharp", sharp, tmp_path / "out", recipe=load_recipe("gaussian-2.5"))
    assert done.pairs == 2
    assert len(done.left_out) == 1
    assert "1.jpg" in done.left_out[0]
    assert [pair.name for pair in open_dataset(tmp_path / "out")] == ["deep/0", "deep/2"]


def test_a_pair_of_two_sizes_is_left_out_and_named(tmp_path):
    put(tmp_path / "pairs/blur/a.png", size=(24, 24))
    put(tmp_path / "pairs/sharp/a.png", size=(24, 25))
    done = prepare("pairs", open_dataset("pairs", tmp_path), tmp_path / "out")
    assert done.pairs == 0
    assert "'a' differs in size" in done.left_out[0]


def test_sharp_pictures_need_a_recipe(tmp_path, sharp):
    with pytest.raises(SettingsError, match="give a recipe"):
        prepare("sharp", sharp, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prepared_pictures_are_lossless_png(tmp_path, sharp):
    prepare("sharp", sharp, tmp_path / "out", recipe=load_recipe("sharp"))
    for pair in sharp:
        written = tmp_path / f"out/sharp/{pair.name}.png"
        assert read_photo(written).format == "PNG"
        assert np.array_equal(read_rgb8(written), pair.sharp.read())
