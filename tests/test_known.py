"""Kernels from files blur and do not move, whatever the file's format, scale and centre."""

import numpy as np
import pytest
import scipy.io
import torch

from unblur.blur.known import find_kernels, read_kernels
from unblur.blur.recipes import blur_batch, load_recipe
from unblur.errors import DataError, UnblurError
from unblur.images import Photo

SLANTED = np.diag([1.0, 2.0, 3.0, 2.0, 1.0])
WIDE = np.array([[0.0, 1.0, 2.0, 1.0, 0.0, 0.0]])


@pytest.fixture(autouse=True)
def fresh_kernels():
    read_kernels.cache_clear()


def centre_of_mass(kernels):
    offsets = torch.arange(kernels.shape[-1]) - kernels.shape[-1] // 2
    return torch.stack([(kernels.sum(1) * offsets).sum(1), (kernels.sum(2) * offsets).sum(1)])


def test_npy_png_and_mat_hold_the_same_kernel(tmp_path):
    np.save(tmp_path / "a.npy", SLANTED * 7)
    scipy.io.savemat(tmp_path / "b.mat", {"kernel": SLANTED})
    Photo(torch.from_numpy(SLANTED / 3).float().expand(3, -1, -1), is_grey=True, bits=16).save(tmp_path / "c.png")
    kernels = read_kernels(str(tmp_path))
    assert kernels.shape == (3, 5, 5)
    for kernel in kernels:
        torch.testing.assert_close(kernel, torch.from_numpy(SLANTED / SLANTED.sum()).float(), atol=1e-4, rtol=0)


def test_a_file_may_hold_several_kernels_of_several_sizes(tmp_path):
    cells = np.empty((1, 2), dtype=object)
    cells[0, 0], cells[0, 1] = SLANTED, WIDE
    scipy.io.savemat(tmp_path / "cells.mat", {"kernels": cells})
    np.save(tmp_path / "stack.npy", np.stack([SLANTED, SLANTED.T[::-1]]))
    kernels = read_kernels(str(tmp_path))
    assert kernels.shape == (4, 5, 5)
    torch.testing.assert_close(kernels.sum(dim=(1, 2)), torch.ones(4))


def test_kernels_that_lie_to_one_side_are_centred(tmp_path):
    np.save(tmp_path / "k.npy", np.pad(SLANTED, ((9, 0), (0, 4))))
    np.save(tmp_path / "l.npy", WIDE)
    assert centre_of_mass(read_kernels(str(tmp_path))).abs().max() <= 0.5


def test_the_kernels_of_levin_and_of_others_are_read_and_centred(data_root):
    if not (data_root / "kernels").is_dir():
        pytest.skip(f"no kernels in {data_root}")
    kernels = read_kernels(str(data_root / "kernels"))
    assert len(kernels) == 28
    assert centre_of_mass(kernels).abs().max() <= 0.5 + 1e-4
    torch.testing.assert_close(kernels.sum(dim=(1, 2)), torch.ones(28))


def test_a_recipe_finds_kernels_beside_itself_and_below_the_data_root(tmp_path, monkeypatch):
    for folder in ("recipes", "data/kernels"):
        (tmp_path / folder).mkdir(parents=True)
    np.save(tmp_path / "data" / "kernels" / "k.npy", SLANTED)
    monkeypatch.setenv("UNBLUR_DATA", str(tmp_path / "data"))
    assert find_kernels("kernels/k.npy", tmp_path / "recipes") == tmp_path / "data" / "kernels" / "k.npy"
    np.save(tmp_path / "recipes" / "k.npy", SLANTED)
    assert find_kernels("k.npy", tmp_path / "recipes") == tmp_path / "recipes" / "k.npy"
    with pytest.raises(DataError, match=r"No kernels at .*recipes/gone.npy or .*data/gone.npy"):
        find_kernels("gone.npy", tmp_path / "recipes")


def test_a_point_blurred_by_known_kernels_is_one_of_them_and_each_has_its_turn(tmp_path):
    np.save(tmp_path / "k.npy", np.stack([SLANTED, SLANTED[::-1]]))
    (tmp_path / "mine.yaml").write_text("kinds: [{blur: known, path: k.npy}]", encoding="utf-8")
    recipe = load_recipe(tmp_path / "mine.yaml")
    points = torch.zeros(20, 3, 11, 11)
    points[..., 5, 5] = 1
    ninths = (blur_batch(points, recipe, range(20))[:, 0, 3:8, 3:8] * 9).round().int()
    seen = {tuple(kernel.flatten().tolist()) for kernel in ninths}
    assert seen == {tuple(k.astype(int).flatten().tolist()) for k in (SLANTED, SLANTED[::-1])}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 3)), "not all 0"),
        (np.array([[1.0, -1.0, 1.0]]), "not negative"),
        (np.array([[1.0, np.nan]]), "finite"),
        (np.ones(4), "two dimensions"),
        (np.array([["a", "b"]]), "two dimensions of numbers"),
    ],
)
def test_what_is_no_kernel_is_named(tmp_path, array, message):
    np.save(tmp_path / "wrong.npy", array)
    with pytest.raises(DataError, match=message) as caught:
        read_kernels(str(tmp_path / "wrong.npy"))
    assert "wrong.npy" in str(caught.value)


@pytest.mark.parametrize("name", ["a.npy", "a.png", "a.mat"])
def test_a_damaged_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"nothing of the kind" * 20)
    with pytest.raises(DataError, match=name):
        read_kernels(str(tmp_path))


def test_a_folder_without_kernels_is_named(tmp_path):
    with pytest.raises(UnblurError, match=r"holds no kernels \(.npy, .png, .mat\)"):
        read_kernels(str(tmp_path))
