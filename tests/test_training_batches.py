"""Which pictures a step sees is a function of the step, in every stage and whatever the number of processes."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from training_pictures import TINY, same, settings, write_pictures
from unblur.data.catalog import open_dataset
from unblur.data.sources import Pair
from unblur.errors import DataError, TrainingError
from unblur.training.batches import Batches, ahead, stages

CPU = torch.device("cpu")
TABLE = [{"steps": 3, "crop_px": 16, "batch_size": 4}, {"steps": 2, "crop_px": 24, "batch_size": 2},
         {"steps": 3, "crop_px": 32, "batch_size": 2}]  # fmt: skip
PROGRESSIVE = settings(data={**TINY["data"], "crop_px": None, "progressive": TABLE}, accumulate=2)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    """Return twelve sharp pictures."""
    folder = tmp_path_factory.mktemp("data")
    write_pictures(folder / "sharp")
    return open_dataset("sharp", folder, sharp_only=True)


def of(pairs: list[Pair], start: int = 0, stop: int = 10, **options: Any) -> list[list[dict[str, Any]]]:
    """Return all batches of a progressive training of ten steps, from a step on."""
    found = list(Batches(PROGRESSIVE, pairs, stop, CPU, **options).from_step(start))
    assert len(found) == stop - start
    return found


def test_a_progressive_training_goes_through_its_table_and_stays_in_the_last_stage(pairs: list[Pair]) -> None:
    shapes = [(tuple(batch["sharp"].shape), len(step)) for step in of(pairs) for batch in step[:1]]
    expected = [(4, 3, 16, 16)] * 3 + [(2, 3, 24, 24)] * 2 + [(2, 3, 32, 32)] * 5
    assert shapes == [(shape, 2) for shape in expected]


@pytest.mark.parametrize("start", [1, 3, 4, 7])
def test_the_batches_from_a_step_on_are_those_of_the_whole_training(pairs: list[Pair], start: int) -> None:
    assert same(of(pairs, start), of(pairs)[start:])


def test_no_position_is_left_out_or_seen_twice(pairs: list[Pair]) -> None:
    batches = Batches(PROGRESSIVE, pairs, 10, CPU)
    seen = [len(batch["name"]) for step in batches.from_step(0) for batch in step]
    assert batches.position(10) == sum(seen) == 3 * 8 + 7 * 4
    assert [batches.position(step) for step in (0, 1, 3, 4, 6)] == [0, 8, 24, 28, 36]


def test_processes_together_see_what_one_sees(pairs: list[Pair]) -> None:
    whole, parts = of(pairs), [of(pairs, rank=rank, processes=2) for rank in (0, 1)]
    for step in range(10):
        for batch in range(2):
            theirs = [part[step][batch]["blurred"] for part in parts]
            assert torch.equal(torch.stack(theirs, dim=1).flatten(0, 1), whole[step][batch]["blurred"])


def test_a_batch_that_cannot_be_divided_is_a_clear_error(pairs: list[Pair]) -> None:
    with pytest.raises(TrainingError, match=r"batch of 4 pictures.*over 3 processes.*multiple of 3"):
        Batches(PROGRESSIVE, pairs, 10, CPU, processes=3)


def test_resident_pictures_give_the_same_batches(pairs: list[Pair]) -> None:
    resident = PROGRESSIVE.model_copy(update={"data": PROGRESSIVE.data.model_copy(update={"resident": True})})
    assert same(list(Batches(resident, pairs, 10, CPU).from_step(0)), of(pairs))


def test_workers_give_the_same_batches(pairs: list[Pair]) -> None:
    working = PROGRESSIVE.model_copy(update={"data": PROGRESSIVE.data.model_copy(update={"workers": 1})})
    assert same(list(Batches(working, pairs, 4, CPU).from_step(2)), of(pairs, 2, 4))


@pytest.mark.filterwarnings("ignore:skipped, the next picture takes its place")
@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_loaded_is_said_without_a_traceback(tmp_path: Path, workers: int) -> None:
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(b"no picture")
    data = TINY["data"] | {"workers": workers}
    with pytest.raises(DataError, match=r"\A2 pictures cannot be read") as caught:
        list(Batches(settings(data=data), open_dataset(tmp_path), 2, CPU).from_step(0))
    assert "Traceback" not in str(caught.value)
    assert str(caught.value).count(str(tmp_path)) == 2


def test_time_spent_waiting_is_counted(pairs: list[Pair]) -> None:
    batches = Batches(PROGRESSIVE, pairs, 2, CPU)
    list(batches.from_step(0))
    assert batches.seconds_waiting > 0
    assert batches.seconds_loading > 0
    assert batches.seconds_blurring > 0


def test_what_is_made_ahead_comes_in_its_order_and_once() -> None:
    assert list(ahead(iter(range(20)), CPU)) == list(range(20))


def test_an_error_ahead_is_raised_where_its_item_is_asked_for() -> None:
    def items() -> Iterator[int]:
        yield from (1, 2)
        raise TrainingError("broken")

    made = ahead(items(), CPU)
    assert [next(made), next(made)] == [1, 2]
    with pytest.raises(TrainingError, match="broken"):
        next(made)


def test_nothing_goes_on_behind_a_training_that_ended() -> None:
    threads, num_threads = threading.active_count(), torch.get_num_threads()
    made = ahead(iter(range(10**9)), CPU)
    assert next(made) == 0
    made.close()
    assert threading.active_count() == threads
    assert torch.get_num_threads() == num_threads


def test_a_training_without_a_table_has_one_stage() -> None:
    (stage,) = stages(settings().data, 20, 1)
    assert (stage.first, stage.stop, stage.crop_px, stage.batch_size, stage.first_position) == (0, 20, 16, 2, 0)
