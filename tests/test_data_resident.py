"""Pictures that lie on the device give the batches that files give."""

import pytest
import torch
from torch.utils.data import default_collate

from data_trees import put
from unblur.data.pairs import TrainingCrops
from unblur.data.resident import ResidentCrops, _area_weights
from unblur.errors import DataError


@pytest.fixture
def files(tmp_path):
    """Pairs of several sizes, one smaller than a crop."""
    sizes = [(40, 60), (33, 48), (12, 50), (20, 9)]
    return [(put(tmp_path / f"b/{n}.png", n, s), put(tmp_path / f"s/{n}.png", n + 9, s)) for n, s in enumerate(sizes)]


def crops(files, **options):
    return TrainingCrops(files, **{"seed": 5, "crop_px": 16, **options})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"flips": True, "rotations": True},
        {"margin_px": 2, "flips": True},
        {"resize": (30, 20), "flips": True},
        {"resize": (30, 20), "crop_px": None},
        {"crops_per_picture": 2},
    ],
)
@pytest.mark.parametrize("paired", [True, False])
def test_batches_equal_those_of_files(files, options, paired):
    chosen = files if paired else [(None, sharp) for _, sharp in files]
    resident = ResidentCrops.load(crops(chosen, **options), "cpu")
    samples = crops(chosen, **options)
    for number, batch in enumerate(resident.batches(3, 15, 4)):
        expected = default_collate([samples[3 + 4 * number + i] for i in range(4)])
        assert batch.keys() == expected.keys()
        assert batch["name"] == expected["name"]
        assert all(torch.equal(batch[key], expected[key]) for key in expected if key != "name")


def test_reduced_pieces_are_equal_but_for_rounding(files):
    options = {"shrink": (1.0, 1.9), "flips": True, "rotations": True}
    resident, samples = ResidentCrops.load(crops(files, **options), "cpu"), crops(files, **options)
    batch = resident.batch(range(24))
    expected = default_collate([samples[position] for position in range(24)])
    for side in ("sharp", "blurred"):
        assert (batch[side].int() - expected[side].int()).abs().max() <= 1
        assert (batch[side] == expected[side]).float().mean() > 0.98


def test_the_last_batch_may_be_smaller(files):
    resident = ResidentCrops.load(crops(files), "cpu")
    assert [len(batch["name"]) for batch in resident.batches(0, 10, 4)] == [4, 4, 2]


def test_what_does_not_fit_is_not_loaded(files):
    assert ResidentCrops.load(crops(files), "cpu", max_bytes=1000) is None
    assert ResidentCrops.load(crops(files), "cpu", max_bytes=100_000) is not None


def test_pictures_that_cannot_be_read_are_all_listed(files):
    for n in (1, 2):
        files[n][1].write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"(?s)2 pictures cannot be read; .*1.png.*2.png"):
        ResidentCrops.load(crops(files), "cpu")


def test_patches_chosen_by_ssim_are_refused(files):
    with pytest.raises(ValueError, match="leave max_ssim out"):
        ResidentCrops.load(crops(files, max_ssim=0.9), "cpu")


@pytest.mark.parametrize(("length", "reduced"), [(10, 5), (7, 3), (16, 16), (31, 16)])
def test_area_weights_take_all_of_the_line_evenly(length, reduced):
    weights = _area_weights(length, reduced)
    torch.testing.assert_close(weights.sum(1), torch.ones(reduced))
    torch.testing.assert_close(weights.sum(0), torch.full((length,), reduced / length))
