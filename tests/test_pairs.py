"""Pairs are made by name; a training sample is decided by its position and nothing else."""

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from unblur.blur.recipes import blur_batch, load_recipe
from unblur.data import pairs, sources
from unblur.data.pairs import (
    PhotoPair,
    Positions,
    TrainingCrops,
    complete_batch,
    hold_out,
    matched_files,
    resized,
    to_batch,
)
from unblur.errors import DataError

HEIGHT, WIDTH = 60, 90


def put(path: Path, pixels: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((2, 2, 3), np.uint8) if pixels is None else pixels).save(path)
    return path


def map_of_places(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A picture whose pixels say where they are: red is the column, green the row, blue the number of the picture."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, np.full_like(rows, number)], axis=2).astype(np.uint8)


@pytest.fixture
def sharp(tmp_path: Path) -> list[tuple[Path | None, Path]]:
    """Five sharp pictures without blurred ones."""
    return [(None, put(tmp_path / f"{number}.png", map_of_places(number))) for number in range(5)]


@pytest.fixture
def both(tmp_path: Path) -> list[tuple[Path | None, Path]]:
    """Five pairs; "blurred" is the negative."""
    return [
        (put(tmp_path / f"blur/{n}.png", 255 - map_of_places(n)), put(tmp_path / f"sharp/{n}.png", map_of_places(n)))
        for n in range(5)
    ]


def crops(files: list[tuple[Path | None, Path]], **options: Any) -> TrainingCrops:
    return TrainingCrops(files, **{"seed": 1, "crop_px": 16, **options})


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[key]) if isinstance(value, Tensor) else value == second[key]
        for key, value in first.items()
    )


# -- Pairs by name -----------------------------------------------------------------------------------------------------


def test_pairs_are_made_by_name_and_never_by_position(tmp_path):
    for name in ("b.png", "a.jpg", "deep/c.tif", "10.png", "9.png"):
        put(tmp_path / "blur" / name)
    for name in ("a.png", "9.jpg", "10.jpg", "b.webp", "deep/c.png"):
        put(tmp_path / "sharp" / name)
    found = matched_files(tmp_path / "blur", tmp_path / "sharp")
    assert [pair.name for pair in found] == ["10", "9", "a", "b", "deep/c"]
    for pair in found:
        assert pair.blurred.relative_to(tmp_path / "blur").with_suffix("").as_posix() == pair.name
        assert pair.sharp.relative_to(tmp_path / "sharp").with_suffix("").as_posix() == pair.name


def test_names_may_hold_dots(tmp_path):
    for name in ("a.1.png", "a.2.png"):
        put(tmp_path / "blur" / name)
        put(tmp_path / "sharp" / name)
    assert [pair.name for pair in matched_files(tmp_path / "blur", tmp_path / "sharp")] == ["a.1", "a.2"]


def test_two_files_are_a_pair_whatever_their_names(tmp_path):
    blurred, sharp = put(tmp_path / "shaken.png"), put(tmp_path / "still.png")
    assert matched_files(blurred, sharp) == [PhotoPair("shaken", blurred, sharp)]


def test_files_without_a_partner_are_listed_on_both_sides(tmp_path):
    for name in ("a", "b", "only_blurred"):
        put(tmp_path / f"blur/{name}.png")
    for name in ("a", "b", "only_sharp"):
        put(tmp_path / f"sharp/{name}.png")
    with pytest.raises(DataError, match="2 files have no partner of the same name") as caught:
        matched_files(tmp_path / "blur", tmp_path / "sharp")
    assert "blur/only_blurred" in str(caught.value)
    assert "sharp/only_sharp" in str(caught.value)


def test_only_the_first_ten_files_without_a_partner_are_listed(tmp_path):
    put(tmp_path / "sharp/there.png")
    put(tmp_path / "blur/there.png")
    for number in range(13):
        put(tmp_path / f"blur/{number:02}.png")
    with pytest.raises(DataError, match=r"13 files have no partner .* and 3 more") as caught:
        matched_files(tmp_path / "blur", tmp_path / "sharp")
    assert "blur/00" in str(caught.value)
    assert "blur/09" in str(caught.value)
    assert "blur/10" not in str(caught.value)


def test_two_files_of_one_name_in_a_folder_are_refused(tmp_path):
    for name in ("blur/a.png", "blur/a.jpg", "sharp/a.png"):
        put(tmp_path / name)
    with pytest.raises(DataError, match=r"a.jpg and .*a.png have the same name"):
        matched_files(tmp_path / "blur", tmp_path / "sharp")


def test_what_makes_no_pairs_is_refused_with_its_reason(tmp_path):
    photo, empty = put(tmp_path / "photo.png"), tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="nowhere does not exist"):
        matched_files(empty, tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"photo.png is a file; give two folders or two files"):
        matched_files(empty, photo)
    with pytest.raises(DataError, match="hold no photographs"):
        matched_files(empty, empty)


# -- Holding out -------------------------------------------------------------------------------------------------------


def test_about_the_stated_share_is_held_out():
    files = [Path(f"folder/photo_{number}.jpg") for number in range(2000)]
    place = {path: index for index, path in enumerate(files)}
    for share in (0.0, 0.05, 0.3, 0.9):
        kept, held = hold_out(files, share)
        assert len(held) == pytest.approx(share * 2000, abs=65)
        assert set(kept) | set(held) == set(files)
        assert len(kept) + len(held) == 2000
        assert [place[path] for path in held] == sorted(place[path] for path in held)  # in the order they came
        assert [place[path] for path in kept] == sorted(place[path] for path in kept)


def test_added_files_move_none_of_the_others():
    files = [Path(f"{number}.jpg") for number in range(300)]
    held = set(hold_out(files[::3], 0.2)[1])
    assert held
    assert held == set(hold_out(files, 0.2)[1]) & set(files[::3])
    assert held == set(hold_out(files[::-1], 0.2)[1]) & set(files[::3])


def test_a_larger_share_holds_out_the_same_and_more():
    files = [Path(f"{number}.jpg") for number in range(300)]
    assert set(hold_out(files, 0.1)[1]) < set(hold_out(files, 0.2)[1])


def test_the_folder_does_not_matter():
    names = [f"{number}.jpg" for number in range(200)]
    here, there = (hold_out([Path(folder) / name for name in names], 0.3)[1] for folder in ("here", "elsewhere/deep"))
    assert [path.name for path in here] == [path.name for path in there]


def test_detail_tiles_stay_with_their_photograph():
    photographs = [f"wall_{number:04}" for number in range(200)]
    files = [Path(f"{name}{tile}.jpg") for name in photographs for tile in ("", "_t0_576", "_t1_0", "_t2")]
    kept, held = ({path.stem.split("_t")[0] for path in part} for part in hold_out(files, 0.3))
    assert held
    assert not kept & held


# -- Samples by position -----------------------------------------------------------------------------------------------


def test_the_same_position_is_the_same_sample_in_whatever_order_it_is_asked_for(sharp):
    options = {"flips": True, "rotations": True, "shrink": (1.0, 2.0), "margin_px": 3}
    in_order = [crops(sharp, **options)[position] for position in range(25)]
    positions, again = list(range(25)), crops(sharp, **options)
    random.Random(1).shuffle(positions)
    assert all(same(again[position], in_order[position]) for position in positions)


def test_another_seed_gives_other_samples(sharp):
    first, second = crops(sharp, seed=1), crops(sharp, seed=2)
    assert sum(same(first[position], second[position]) for position in range(20)) == 0


def test_each_epoch_has_every_picture_once_in_another_order(sharp):
    names = [crops(sharp)[position]["name"] for position in range(40)]
    epochs = [names[start : start + 5] for start in range(0, 40, 5)]
    assert all(sorted(epoch) == ["0", "1", "2", "3", "4"] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 4


def test_every_position_has_a_seed_of_its_own(sharp):
    samples = crops(sharp)
    assert len({samples[position]["seed"] for position in range(30)}) == 30


def test_the_global_generators_are_left_alone(sharp):
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    crops(sharp, flips=True, shrink=(1.0, 2.0))[3]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])


def test_a_crop_is_a_piece_of_its_picture(sharp):
    samples = crops(sharp)
    seen = set()
    for position in range(60):
        sample = samples[position]
        columns, rows, number = sample["sharp"].int()
        left, top = int(columns[0, 0]), int(rows[0, 0])
        assert torch.equal(columns, (left + torch.arange(16)).expand(16, 16))
        assert torch.equal(rows, (top + torch.arange(16))[:, None].expand(16, 16))
        assert (number == int(sample["name"])).all()
        seen.add((left, top))
    assert min(left for left, _ in seen) < 10
    assert max(left for left, _ in seen) > WIDTH - 16 - 10
    assert min(top for _, top in seen) < 8
    assert max(top for _, top in seen) > HEIGHT - 16 - 8


def test_flips_and_rotations_turn_a_crop_in_all_eight_ways(sharp):
    def way(sample: dict[str, Any]) -> tuple[int, int, int]:
        columns, rows = sample["sharp"][:2].int()
        rotated = bool(columns[0, 0] == columns[0, 1])
        across, down = (rows, columns) if rotated else (columns, rows)
        return int(rotated), int(across[0, 1] - across[0, 0]), int(down[1, 0] - down[0, 0])

    all_ways = {(rotated, x, y) for rotated in (0, 1) for x in (-1, 1) for y in (-1, 1)}
    turned, flipped, upright = (
        {way(samples[position]) for position in range(80)}
        for samples in (crops(sharp, flips=True, rotations=True), crops(sharp, flips=True), crops(sharp))
    )
    assert turned == all_ways
    assert flipped == {one for one in all_ways if not one[0]}
    assert upright == {(0, 1, 1)}


def test_both_pictures_of_a_pair_are_cut_and_turned_alike(both):
    samples = crops(both, flips=True, rotations=True, shrink=(1.0, 2.5))
    for position in range(40):
        sample = samples[position]
        negative = 255 - sample["blurred"].int()
        assert (negative - sample["sharp"].int()).abs().max() <= 1  # shrinking rounds both
        assert sample["blurred"].shape == sample["sharp"].shape == (3, 16, 16)
        assert sample["blurred"].dtype == torch.uint8


def test_a_margin_is_added_on_each_side(sharp):
    assert crops(sharp, margin_px=5)[0]["sharp"].shape == (3, 26, 26)
    assert crops(sharp, crop_px=None, margin_px=5)[0]["sharp"].shape == (3, HEIGHT, WIDTH)


def test_shrinking_takes_a_larger_piece_to_the_same_size(sharp):
    samples = crops(sharp, shrink=(1.0, 2.0))
    factors = []
    for position in range(60):
        columns = samples[position]["sharp"][0].float()
        assert columns.shape == (16, 16)
        factors.append(float(columns[:, -1].mean() - columns[:, 0].mean()) / 15)
    assert min(factors) < 1.2
    assert max(factors) > 1.8
    assert all(0.95 <= factor <= 2.05 for factor in factors)


def test_a_piece_is_never_larger_than_the_picture(sharp):
    samples = crops(sharp, crop_px=50, shrink=(1.0, 5.0))
    assert all(samples[position]["sharp"].shape == (3, 50, 50) for position in range(20))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (5, 16), (15, 90)])
def test_a_picture_that_is_smaller_than_the_crop_is_reflected(tmp_path, height, width):
    path = put(tmp_path / "small.png", map_of_places(7, height, width))
    sample = crops([(None, path)], margin_px=2)[0]["sharp"]
    assert sample.shape == (3, 20, 20)
    assert sample[0].max() < width
    assert sample[1].max() < height
    assert (sample[2] == 7).all()


def test_whole_pictures_are_reduced_to_the_stated_size(sharp):
    sample = crops(sharp, crop_px=None, resize=(30, 20))[0]["sharp"]
    assert sample.shape == (3, 20, 30)
    torch.testing.assert_close(sample[0, 0].float(), 3.0 * torch.arange(30) + 1)  # each pixel the mean of 3 × 3


def test_a_pair_of_two_sizes_is_refused(tmp_path):
    files = [(put(tmp_path / "a.png", map_of_places(0, 30, 30)), put(tmp_path / "b.png", map_of_places(0, 30, 31)))]
    with pytest.raises(DataError, match=r"The pair 'b' differs in size: .*b.png is 31x30, .*a.png 30x30"):
        crops(files)[0]


def test_the_cache_changes_nothing_but_saves_reading(sharp, monkeypatch):
    read: list[Path] = []
    original = sources.read_rgb8
    monkeypatch.setattr(sources, "read_rgb8", lambda path: read.append(path) or original(path))
    with_cache = crops(sharp)
    first = [with_cache[position] for position in range(15)]
    assert len(read) == 5
    monkeypatch.setattr(pairs, "CACHE_BYTES", 0)
    without = crops(sharp)
    assert all(same(without[position], first[position]) for position in range(15))
    assert len(read) == 19  # the last one is at hand where two samples in a row are of one picture


# -- Loading -----------------------------------------------------------------------------------------------------------


def test_a_copy_in_another_process_gives_the_same_samples(sharp):
    samples = crops(sharp, flips=True, shrink=(1.0, 2.0))
    expected = [samples[position] for position in range(12)]
    first, second = (pickle.loads(pickle.dumps(crops(sharp, flips=True, shrink=(1.0, 2.0)))) for _ in range(2))
    assert all(same((first, second)[position % 2][position], expected[position]) for position in range(12))


MORE_WORKERS_THAN_CORES = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@MORE_WORKERS_THAN_CORES
def test_the_number_of_workers_changes_no_batch(sharp):
    def batches(workers: int) -> list[dict[str, Any]]:
        context = "spawn" if workers else None  # as on macOS and Windows
        samples = crops(sharp, flips=True, rotations=True, shrink=(1.0, 2.0))
        return list(
            DataLoader(samples, 3, sampler=Positions(4, 16), num_workers=workers, multiprocessing_context=context)
        )

    alone, together = batches(0), batches(2)
    assert len(alone) == 4
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))


def test_positions_run_from_start_to_stop():
    assert list(Positions(3, 7)) == [3, 4, 5, 6]
    assert len(Positions(3, 7)) == 4
    assert list(Positions(3, 3)) == []


def test_a_training_that_goes_on_has_the_samples_that_it_would_have_had(sharp):
    samples = crops(sharp)
    whole = list(DataLoader(samples, 2, sampler=Positions(0, 12)))
    rest = list(DataLoader(samples, 2, sampler=Positions(6, 12)))
    assert all(same(a, b) for a, b in zip(whole[3:], rest, strict=True))


def test_a_batch_of_pairs_is_completed_to_floats(both):
    samples = crops(both)
    batch = complete_batch(default_collate([samples[0], samples[1]]), None, 0)
    assert batch["blurred"].shape == batch["sharp"].shape == (2, 3, 16, 16)
    torch.testing.assert_close(batch["blurred"], 1 - batch["sharp"])
    assert torch.equal(batch["sharp"][1], samples[1]["sharp"].float() / 255)
    assert batch["name"] == [samples[0]["name"], samples[1]["name"]]


def test_a_batch_of_sharp_pictures_is_blurred_with_its_surroundings_and_cut(sharp):
    recipe = load_recipe("defocus-2.5")
    margin = recipe.margin_px
    samples = crops(sharp, margin_px=margin)
    together = [samples[0], samples[1]]
    batch = complete_batch(default_collate(together), recipe, margin)
    assert batch["blurred"].shape == batch["sharp"].shape == (2, 3, 16, 16)
    larger = torch.stack([sample["sharp"] for sample in together]).float() / 255
    assert torch.equal(batch["sharp"], larger[..., margin:-margin, margin:-margin])
    seeds = [sample["seed"] for sample in together]
    assert torch.equal(batch["blurred"], blur_batch(larger, recipe, seeds, margin_px=margin))


def test_whole_pictures_are_blurred_without_a_margin(sharp):
    batch = complete_batch(default_collate([crops(sharp, crop_px=None)[0]]), load_recipe("motion-9"), 0)
    assert batch["blurred"].shape == (1, 3, HEIGHT, WIDTH)


# -- Pictures ----------------------------------------------------------------------------------------------------------


def test_reducing_by_area_takes_the_mean_of_the_pixels():
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    means = pixels.reshape(10, 4, 20, 3, 3).mean(axis=(1, 3))
    assert np.abs(resized(pixels, (20, 10)) - means).max() <= 0.5 + 1e-6
    assert resized(pixels, None) is pixels
    assert resized(pixels, (60, 40)) is pixels


def test_a_batch_holds_the_pictures_with_colours_first():
    pictures = [map_of_places(n, 4, 6) for n in range(3)]
    batch = to_batch(pictures)
    assert batch.shape == (3, 3, 4, 6)
    assert batch.dtype == torch.uint8
    assert batch[2, :, 3, 5].tolist() == [5, 3, 2]


# -- Bad input ---------------------------------------------------------------------------------------------------------


def epoch_with(files: list[tuple[Path | None, Path]], broken: set[int]) -> list[str]:
    """The names of an epoch, with some files damaged."""
    for number in broken:
        files[number][1].write_bytes(b"no picture")
    samples = crops(files)
    return [samples[position]["name"] for position in range(len(files))]


def test_a_damaged_picture_is_named_and_the_next_one_takes_its_place(sharp):
    whole = epoch_with(sharp, set())
    with pytest.warns(UserWarning, match=r"skipped, the next picture takes its place: .*3.png") as told:
        damaged = epoch_with(sharp, {3})
    assert damaged == [name if name != "3" else "4" for name in whole]
    assert len(told) == 1


@pytest.mark.filterwarnings("ignore:skipped")
def test_what_takes_the_place_does_not_depend_on_what_was_read_before(sharp):
    expected = epoch_with(sharp, {1, 2})
    samples = crops(sharp)
    assert [samples[position]["name"] for position in reversed(range(5))] == expected[::-1]


@pytest.mark.filterwarnings("ignore:skipped")
def test_too_many_damaged_pictures_stop_the_run_with_their_list(sharp, monkeypatch):
    monkeypatch.setattr(pairs, "MAX_BAD_PICTURES", 2)
    epoch_with(sharp, {0, 1})
    with pytest.raises(DataError, match=r"(?s)3 pictures cannot be read; .*0.png.*\n.*1.png.*\n.*2.png"):
        epoch_with(sharp, {0, 1, 2})


@pytest.mark.filterwarnings("ignore:skipped")
def test_a_set_without_a_readable_picture_is_an_error(sharp):
    with pytest.raises(DataError, match="5 pictures cannot be read"):
        epoch_with(sharp, {0, 1, 2, 3, 4})


def test_another_process_gets_no_decoded_pictures(sharp):
    samples = crops(sharp)
    samples[0]
    assert len(pickle.dumps(samples)) < 5000


def test_every_process_takes_its_part_of_each_step():
    both = [list(Positions(4, 15, rank=rank, world_size=2)) for rank in range(2)]
    assert both == [[4, 6, 8, 10, 12, 14], [5, 7, 9, 11, 13]]
    assert [len(Positions(4, 15, rank=rank, world_size=2)) for rank in range(2)] == [6, 5]


def test_the_cache_is_shared_out_among_the_workers(sharp, monkeypatch):
    monkeypatch.setattr(pairs, "CACHE_BYTES", 5 * HEIGHT * WIDTH * 3)
    monkeypatch.setattr(pairs, "get_worker_info", lambda: type("Worker", (), {"num_workers": 2}))
    samples = crops(sharp)
    for position in range(10):
        samples[position]
    assert samples._cached_bytes == 2 * HEIGHT * WIDTH * 3


def test_samples_of_a_cached_picture_share_no_memory(sharp):
    samples = crops(sharp, crop_px=None)
    first = samples[0]
    first["sharp"].zero_()
    again = next(sample for sample in map(samples.__getitem__, range(5, 10)) if sample["name"] == first["name"])
    assert again["sharp"].any()
