"""Patches are taken where blurred and sharp differ; without one, the last try is taken."""

import numpy as np
import pytest
import torch
from PIL import Image

from data_trees import pixels, put
from unblur.data.pairs import TrainingCrops
from unblur.data.patches import chosen_place, patch_ssim
from unblur.metrics import ssim_wang


@pytest.fixture
def half_blurred(tmp_path):
    """One pair whose left half is equal and whose right half is grey in the blurred picture."""
    sharp = pixels(1, (40, 80))
    blurred = sharp.copy()
    blurred[:, 40:] = 128
    for folder, picture in (("blur", blurred), ("sharp", sharp)):
        (tmp_path / folder).mkdir()
        Image.fromarray(picture).save(tmp_path / folder / "a.png")
    return [(tmp_path / "blur/a.png", tmp_path / "sharp/a.png")]


def crops(pairs, **options):
    return TrainingCrops(pairs, **{"seed": 1, "crop_px": 16, **options})


def alike(sample):
    first, second = (sample[side].permute(1, 2, 0).numpy() for side in ("blurred", "sharp"))
    return patch_ssim(first, second)


def test_the_ssim_of_a_patch_is_that_of_the_metrics():
    first, second = pixels(1), pixels(2)
    assert patch_ssim(first, second) == ssim_wang(first, second, data_range=255)
    assert patch_ssim(first, first) == 1


def test_patches_are_taken_where_blurred_and_sharp_differ(half_blurred):
    anywhere = [alike(crops(half_blurred)[position]) for position in range(40)]
    chosen = [alike(crops(half_blurred, max_ssim=0.9, max_tries=20)[position]) for position in range(40)]
    assert sum(ssim >= 0.9 for ssim in anywhere) > 8
    assert all(ssim < 0.9 for ssim in chosen)


def test_where_nothing_differs_a_random_patch_is_taken_after_the_tries(tmp_path):
    path = put(tmp_path / "a.png", size=(40, 80))
    seen = []
    place = chosen_place(iter(range(5)), lambda n: seen.append(n) or (pixels(1), pixels(1)), 0.9)
    assert place == 4
    assert seen == [0, 1, 2, 3, 4]
    sample = crops([(path, path)], max_ssim=0.9, max_tries=3)[0]
    assert torch.equal(sample["blurred"], sample["sharp"])


def test_the_first_patch_that_differs_is_taken():
    first = pixels(1)
    tries = {0: first, 1: pixels(2), 2: pixels(3)}
    assert chosen_place(tries, lambda n: (first, tries[n]), 0.9) == 1


def test_a_patch_that_is_chosen_depends_on_its_position_alone(half_blurred):
    options = {"max_ssim": 0.9, "flips": True, "rotations": True, "shrink": (1.0, 2.0)}
    in_order = [crops(half_blurred, **options)[position] for position in range(8)]
    again = crops(half_blurred, **options)
    for position in reversed(range(8)):
        assert torch.equal(again[position]["sharp"], in_order[position]["sharp"])
        assert torch.equal(again[position]["blurred"], in_order[position]["blurred"])


def test_choosing_needs_pairs_and_crops(half_blurred):
    with pytest.raises(ValueError, match="max_ssim chooses crops of pairs"):
        crops([(None, half_blurred[0][1])], max_ssim=0.9)
    with pytest.raises(ValueError, match="max_ssim chooses crops of pairs"):
        crops(half_blurred, crop_px=None, max_ssim=0.9)
    with pytest.raises(ValueError, match="must be 1 or more"):
        crops(half_blurred, max_tries=0)


def test_several_patches_of_a_picture_follow_each_other_and_are_decoded_once(tmp_path, monkeypatch):
    from unblur.data import pairs, sources

    monkeypatch.setattr(pairs, "CACHE_BYTES", 0)
    read = []
    original = sources.read_rgb8
    monkeypatch.setattr(sources, "read_rgb8", lambda path: read.append(path) or original(path))
    files = [(None, put(tmp_path / f"{n}.jpg", n, (40, 40))) for n in range(4)]
    taken = crops(files, crops_per_picture=3)
    samples = [taken[position] for position in range(12)]
    names = [sample["name"] for sample in samples]
    assert [names[i : i + 3] for i in range(0, 12, 3)] == [[names[i]] * 3 for i in range(0, 12, 3)]
    assert sorted(names[::3]) == ["0", "1", "2", "3"]
    assert len(read) == 4
    assert len({samples[i]["sharp"].numpy().tobytes() for i in range(3)}) == 3
    assert np.unique([sample["seed"] for sample in samples]).size == 12
