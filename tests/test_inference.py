"""Tiles cover every pixel and leave no trace; what comes back is a picture."""

import itertools
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from golden import fill
from unblur import models
from unblur.images import to_uint8
from unblur.inference import (
    DEFAULT_TILE_PX,
    autocast,
    bf16_is_fast,
    keep_freed_memory,
    plan_fixed_tiles,
    plan_tiles,
    restore_image,
    tiles_for,
)
from unblur.models.arch import Arch

QUICK = settings(deadline=None, max_examples=60, database=None, derandomize=True)


class Local(nn.Module):
    """A smooth network that sees one pixel to each side, and notes the sizes it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
        nn.init.constant_(self.conv.weight, 1 / 9)
        self.sizes: list[tuple[int, int]] = []

    def forward(self, blurred: Tensor) -> Tensor:
        self.sizes.append((blurred.shape[-2], blurred.shape[-1]))
        return self.conv(blurred)


def picture(height: int, width: int) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(1))


# -- Where tiles lie ---------------------------------------------------------------------------------------------------


@QUICK
@given(
    length=st.integers(1, 5000),
    tile_px=st.integers(1, 700),
    overlap_px=st.integers(0, 64),
    multiple=st.sampled_from([1, 4, 16, 32]),
)
def test_tiles_cover_every_pixel_in_equal_sizes_and_overlap_enough(length, tile_px, overlap_px, multiple):
    tiles = plan_tiles(length, 1, tile_px, overlap_px, multiple)
    sizes = {tile.bottom - tile.top for tile in tiles}
    assert tiles[0].top == 0
    assert tiles[-1].bottom == length
    assert len(sizes) == 1
    assert sizes.pop() <= max(tile_px + multiple - 1, 1)
    enough = min(overlap_px, tile_px // 4)
    for before, after in itertools.pairwise(tiles):
        assert before.top <= after.top <= before.bottom - enough


@QUICK
@given(length=st.integers(1, 5000), tile_px=st.integers(64, 700), multiple=st.sampled_from([1, 4, 16]))
def test_tiles_spare_a_network_the_padding(length, tile_px, multiple):
    tiles = plan_tiles(1, length, tile_px, 16, multiple)
    assert len(tiles) == 1 or (tiles[0].right - tiles[0].left) % multiple == 0


def test_a_picture_that_fits_is_one_tile_of_its_own_size():
    assert [(t.top, t.bottom, t.left, t.right) for t in plan_tiles(33, 512, 512, 32, 16)] == [(0, 33, 0, 512)]


def test_rows_and_columns_are_tiled_alike():
    tall, wide = plan_tiles(900, 100, 256, 32, 16), plan_tiles(100, 900, 256, 32, 16)
    assert [(t.top, t.bottom, t.left, t.right) for t in tall] == [(t.left, t.right, t.top, t.bottom) for t in wide]


@QUICK
@given(
    height=st.integers(1, 700), width=st.integers(1, 700), overlap_px=st.integers(0, 64), tile=st.sampled_from([32, 96])
)
def test_tiles_of_a_fixed_size_cover_every_pixel_and_overlap_enough(height, width, overlap_px, tile):
    tiles = plan_fixed_tiles(height, width, (tile, 40), overlap_px)
    assert {(t.right - t.left, t.bottom - t.top) for t in tiles} == {(tile, 40)}
    for length, size, spans in (
        (height, 40, sorted({(t.top, t.bottom) for t in tiles})),
        (width, tile, sorted({(t.left, t.right) for t in tiles})),
    ):
        assert spans[0][0] == 0
        assert spans[-1][1] == max(length, size)
        assert all(after[0] <= before[1] - min(overlap_px, size // 4) for before, after in itertools.pairwise(spans))


# -- Tiles leave no trace ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "tile_px"),
    [(1, 1, 1), (9, 14, 1), (1, 300, 7), (40, 50, 7), (70, 130, 32), (97, 64, 64), (97, 64, 512)],
)
def test_tiling_a_network_that_changes_nothing_returns_the_picture(height, width, tile_px):
    blurred = picture(height, width)
    restored = restore_image(nn.Identity(), blurred, tile_px=tile_px)
    torch.testing.assert_close(restored, blurred, atol=1e-6, rtol=0)
    assert (to_uint8(restored) == to_uint8(blurred)).float().mean() > 0.999


def test_a_network_that_sees_little_restores_tiles_like_the_whole_picture_away_from_their_edges():
    blurred = picture(150, 210)
    whole, tiled = restore_image(Local(), blurred), restore_image(Local(), blurred, tile_px=64)
    away = torch.ones(150, 210, dtype=torch.bool)
    for tile in plan_tiles(150, 210, 64, 32, 1):
        if tile.top:
            away[tile.top] = False
        if tile.bottom < 150:
            away[tile.bottom - 1] = False
        if tile.left:
            away[:, tile.left] = False
        if tile.right < 210:
            away[:, tile.right - 1] = False
    torch.testing.assert_close(tiled[:, away], whole[:, away], atol=1e-6, rtol=0)
    assert (tiled - whole).abs().max() < 0.06  # there the other tile weighs more; alone, the edge would miss 1/3


def test_a_smooth_ramp_has_no_seams():
    ramp = torch.linspace(0.1, 0.9, 200).expand(3, 160, 200)

    class Darker(nn.Module):
        """Darkens by a third of the mean of what it sees: a network with global pooling."""

        def forward(self, blurred: Tensor) -> Tensor:
            return blurred - blurred.mean() / 3

    restored = restore_image(Darker(), ramp, tile_px=64)
    steps = restored.diff(dim=2).abs()
    assert steps.max() < 0.02  # 0.004 of the ramp itself, the rest spread over the overlap
    assert restored.diff(dim=1).abs().max() < 1e-5


def test_tiles_are_no_larger_than_asked_for_and_all_of_one_size():
    model = Local()
    restore_image(model, picture(150, 210), tile_px=64)
    assert len(set(model.sizes)) == 1
    assert max(model.sizes[0]) <= 64
    model.sizes.clear()
    restore_image(model, picture(20, DEFAULT_TILE_PX + 1))
    assert len(model.sizes) == 2


def test_a_network_may_say_how_large_its_tiles_are_unless_the_user_does():
    options = models.find("wiener_nafnet").tiny
    small, usual = (models.create("wiener_nafnet", **options, **more) for more in ({"tile_px": 128}, {}))
    sides = {tile.bottom - tile.top for tile in tiles_for(small, 500, 500)}
    assert sides == {128}
    assert len(tiles_for(usual, 500, 500)) == 1
    assert len(tiles_for(small, 500, 500, tile_px=500)) == 1


def test_tiles_have_sizes_that_the_network_need_not_pad():
    model = fill(models.create("nafnet", **models.find("nafnet").tiny))
    sizes: list[torch.Size] = []
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].shape[-2:]))
    restore_image(model, picture(70, 150), tile_px=64, precision="fp32")
    assert len(sizes) > 1
    assert all(height % model.size_multiple == 0 and width % model.size_multiple == 0 for height, width in sizes)


class KnowsOneSize(nn.Module):
    """A network that takes pictures of 24×16 only, and notes them and how many come at once."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.at_once: list[int] = []

    def forward(self, blurred: Tensor) -> Tensor:
        assert blurred.shape[1:] == (3, 16, 24)
        self.seen += blurred
        self.at_once.append(len(blurred))
        return blurred


@pytest.fixture
def one_size(monkeypatch):
    arch = Arch("one_size", KnowsOneSize, {}, {}, 1, "none", 8, "us", "none", fixed_size=(24, 16))
    monkeypatch.setitem(models.ARCHITECTURES, "one_size", arch)
    return models.create("one_size")


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 24), (16, 24), (16, 25), (17, 9), (100, 10), (70, 130)])
@pytest.mark.parametrize("tile_px", [None, 7, 64])
def test_a_network_of_one_size_gets_tiles_of_exactly_that_size_which_leave_no_trace(one_size, height, width, tile_px):
    blurred = picture(height, width)
    restored = restore_image(one_size, blurred, tile_px=tile_px, precision="fp32")
    assert len(one_size.seen) == len(tiles_for(one_size, height, width, tile_px))
    assert restored.is_contiguous()
    torch.testing.assert_close(restored, blurred, atol=1e-6, rtol=0)


def test_a_picture_smaller_than_the_one_size_is_reflected_on_the_right_and_below(one_size):
    blurred = picture(12, 20)
    restore_image(one_size, blurred, precision="fp32")
    expected = torch.nn.functional.pad(blurred[None], (0, 4, 0, 4), mode="reflect")[0]
    assert torch.equal(one_size.seen[0], expected)


def test_tiles_of_one_size_are_blended(one_size):
    number = itertools.count()
    one_size.register_forward_hook(lambda module, inputs, output: output * 0 + next(number))
    restored = restore_image(one_size, picture(16, 36), tile_px=24, precision="fp32")  # two tiles, which give 0 and 1
    row = restored[0, 3]
    assert (row.diff() >= 0).all()
    assert row[0] == 0
    assert row[-1] == 1
    assert row.diff().max() < 0.25


def test_tiles_of_a_small_size_go_through_the_network_together_but_no_more_than_fit_the_memory(one_size):
    tiles = tiles_for(one_size, 200, 300)
    for tile_px, at_once in (
        (None, 256**2 // (24 * 16)),
        (4000, 256**2 // (24 * 16)),
        (60, 60**2 // (24 * 16)),
        (7, 1),
    ):
        one_size.at_once.clear()
        restore_image(one_size, picture(200, 300), tile_px=tile_px, precision="fp32")
        assert set(one_size.at_once[:-1]) == {at_once}
        assert 1 <= one_size.at_once[-1] <= at_once
        assert sum(one_size.at_once) == len(tiles)


@pytest.mark.parametrize("name", [name for name, arch in models.ARCHITECTURES.items() if arch.fixed_size])
def test_tiles_that_go_together_are_restored_like_single_ones(name):
    model, at_once = fill(models.create(name, **models.find(name).tiny)), []
    model.register_forward_pre_hook(lambda module, inputs: at_once.append(len(inputs[0])))
    width, height = getattr(model, "fixed_size", models.find(name).fixed_size)
    photo = picture(height + 9, 2 * width - 5)
    together, several = restore_image(model, photo, precision="fp32"), max(at_once)
    at_once.clear()
    singly = restore_image(model, photo, tile_px=1, precision="fp32")
    assert set(at_once) == {1}
    assert len(at_once) > 3
    assert (several > 1) == (width == 32)
    torch.testing.assert_close(together, singly, atol=1e-5, rtol=0)


def test_an_option_can_lift_the_fixed_size(one_size):
    one_size.fixed_size = None
    assert len(tiles_for(one_size, 100, 200)) == 1


def test_tiles_of_a_real_network_are_close_to_the_whole(photograph):
    model = fill(models.create("reduced_deblurnet", residual=True))
    whole = restore_image(model, photograph, precision="fp32")
    tiled = restore_image(model, photograph, tile_px=64, precision="fp32")
    assert (whole - tiled).abs().mean() < 0.01


# -- What comes back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile_px", [None, 16])
def test_the_result_is_a_picture_within_0_and_1(tile_px):
    class Brighter(nn.Module):
        def forward(self, blurred: Tensor) -> Tensor:
            return 4 * blurred - 1.5

    blurred = picture(20, 30)
    restored = restore_image(Brighter(), blurred, tile_px=tile_px)
    assert restored.shape == (3, 20, 30)
    assert restored.dtype == torch.float32
    assert restored.device == blurred.device
    assert restored.min() == 0
    assert restored.max() == 1


@pytest.mark.parametrize("tile_px", [None, 16])
@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_restoring_leaves_picture_and_network_as_they_were(name, tile_px):
    model, blurred = fill(models.create(name, **models.find(name).tiny)), picture(24, 24)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    restored = restore_image(model, blurred, tile_px=tile_px)
    assert torch.equal(blurred, picture(24, 24))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not model.training
    assert not restored.requires_grad
    restored += 1  # an ordinary tensor, which may be changed


@pytest.mark.parametrize("name", models.ARCHITECTURES)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (3, 2)])
def test_the_smallest_pictures_are_restored(name, height, width):
    model = fill(models.create(name, **models.find(name).tiny))
    for tile_px in (None, 16):
        assert restore_image(model, picture(height, width), tile_px=tile_px).shape == (3, height, width)


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_bf16_is_close_to_fp32(name, photograph):
    model = fill(models.create(name, **models.find(name).tiny), gain=0.4)  # at the goldens' 0.7 some amplify rounding
    exact, fast = (restore_image(model, photograph, precision=precision) for precision in ("fp32", "bf16"))
    assert fast.dtype == torch.float32
    assert (exact - fast).square().mean().sqrt() < min(0.05, 0.2 * float(exact.std()))  # measured: 0.035 at most


def test_precision_is_what_was_asked_for_and_auto_follows_the_processor():
    cpu = torch.device("cpu")
    for precision, expected in (("fp32", False), ("bf16", True), ("auto", bf16_is_fast(cpu))):
        with autocast(cpu, precision):
            assert torch.is_autocast_enabled("cpu") == expected
            assert torch.get_autocast_dtype("cpu") == torch.bfloat16


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 8, 8), (8, 8), (8, 8, 3)])
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(ValueError, match=r"a picture has shape \(3, H, W\), not"):
        restore_image(nn.Identity(), torch.zeros(shape))


@pytest.mark.parametrize("tile_px", [0, -1, -512])
def test_a_tile_without_pixels_is_refused(tile_px):
    with pytest.raises(ValueError, match=f"not {tile_px}"):
        restore_image(nn.Identity(), picture(8, 8), tile_px=tile_px)


# -- Memory ------------------------------------------------------------------------------------------------------------


def test_keeping_freed_memory_does_no_harm():
    program = (
        "import torch\n"
        "from unblur.inference import keep_freed_memory\n"
        "keep_freed_memory(); keep_freed_memory()\n"
        "blocks = [torch.ones(1_000_000) for _ in range(20)]\n"
        "del blocks\n"
        "print(int(torch.ones(1000, 1000).sum()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert (done.stdout, done.stderr) == ("1000000\n", "")


def test_without_glibc_keeping_freed_memory_does_nothing(monkeypatch):
    monkeypatch.setattr("unblur.inference.sys.platform", "win32")
    monkeypatch.setattr("unblur.inference.ctypes.CDLL", lambda name: pytest.fail("was loaded"))
    keep_freed_memory()
