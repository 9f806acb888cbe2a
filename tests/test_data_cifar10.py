"""CIFAR-10 is read by index from its archives as they are, and a pickle that holds more than arrays is refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from data_trees import cifar_rows, make_cifar_atlas, make_cifar_binary, make_cifar_pickle
from unblur.data.catalog import find_dataset, open_dataset
from unblur.errors import DataError


@pytest.mark.parametrize("home", ["", "cifar-10-batches-py/"])
def test_the_pickles_are_read(tmp_path, home):
    rows = cifar_rows(30)
    for number in range(5):
        make_cifar_pickle(tmp_path / f"cifar10/{home}data_batch_{number + 1}", rows[number * 6 : number * 6 + 6])
    make_cifar_pickle(tmp_path / f"cifar10/{home}test_batch", rows[:3])
    pictures = [pair.sharp for pair in open_dataset("cifar10/train", tmp_path)]
    assert all(np.array_equal(p.read(), row) for p, row in zip(pictures, rows, strict=True))
    assert [p.name for p in pictures][:7] == [f"{n:05}" for n in (0, 1, 2, 3, 4, 5, 10_000)]
    assert len(open_dataset("cifar10/test", tmp_path)) == 3


@pytest.mark.parametrize("home", ["", "cifar-10-batches-bin/"])
def test_the_binary_batches_are_read(tmp_path, home):
    rows = cifar_rows(4)
    make_cifar_binary(tmp_path / f"cifar10/{home}data_batch_2.bin", rows)
    pictures = [pair.sharp for pair in open_dataset("cifar10/train", tmp_path)]
    assert [p.name for p in pictures] == ["10000", "10001", "10002", "10003"]
    assert all(np.array_equal(p.read(), row) for p, row in zip(pictures, rows, strict=True))


def test_an_atlas_is_read_with_the_original_indices(tmp_path):
    rows, indices = cifar_rows(70), list(range(5, 145, 2))
    make_cifar_atlas(tmp_path / "cifar10", "train", rows, indices)
    pictures = [pair.sharp for pair in open_dataset("cifar10/train", tmp_path)]
    assert [p.name for p in pictures] == [f"{index:05}" for index in indices]
    assert all(np.array_equal(p.read(), row) for p, row in zip(pictures, rows, strict=True))


def test_the_folder_is_found_by_set_and_split(tmp_path):
    (tmp_path / "cifar10").mkdir()
    assert find_dataset("cifar10/train", tmp_path) == tmp_path / "cifar10"


def test_pictures_are_small_to_send_and_may_be_written_to(tmp_path):
    make_cifar_binary(tmp_path / "cifar10/test_batch.bin", cifar_rows(50))
    pictures = [pair.sharp for pair in open_dataset("cifar10/test", tmp_path)]
    pictures[0].read()[:] = 0
    assert pictures[0].read().any()
    assert len(pickle.dumps(pictures)) < 50 * 200
    assert pickle.loads(pickle.dumps(pictures[3])) == pictures[3]


class _Harm:
    def __reduce__(self):
        return (Path.touch, (Path("harm-was-done"),))


def test_a_pickle_that_calls_anything_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10/test_batch").write_bytes(pickle.dumps({b"data": _Harm()}, protocol=2))
    with pytest.raises(DataError, match=r"test_batch is no batch of CIFAR-10 \(it wants to call"):
        open_dataset("cifar10/test", tmp_path)
    assert not (tmp_path / "harm-was-done").exists()


@pytest.mark.parametrize("content", [b"", b"x" * 3074])
def test_a_damaged_batch_is_named(tmp_path, content):
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10/test_batch.bin").write_bytes(content)
    with pytest.raises(DataError, match=r"test_batch.bin has .* bytes, not a multiple of 3073"):
        open_dataset("cifar10/test", tmp_path)


def test_an_atlas_without_its_indices_is_an_error(tmp_path):
    make_cifar_atlas(tmp_path / "cifar10", "test", cifar_rows(3), [0, 1, 2])
    (tmp_path / "cifar10/exact_labels.npz").unlink()
    with pytest.raises(DataError, match=r"exact_labels.npz does not give the original index"):
        open_dataset("cifar10/test", tmp_path)


def test_the_real_atlases_hold_what_is_said_of_them(data_root):
    if not (data_root / "cifar10/test_exact.webp").is_file():
        pytest.skip(f"no CIFAR-10 atlas in {data_root}")
    pairs = open_dataset("cifar10/test", data_root)
    assert len(pairs) == 932
    assert pairs[0].sharp.read().shape == (32, 32, 3)
