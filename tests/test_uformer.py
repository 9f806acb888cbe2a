"""Uformer returns what its authors' code returns, under their keys, with both of their ways to shift windows."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from golden import fill, read_golden
from unblur import models
from unblur.models.uformer import (
    Block,
    WindowAttention,
    distance_index,
    join_windows,
    pad_to_centred_square,
    shift_mask,
    split_windows,
)
from unblur.weights import num_parameters

TINY = models.find("uformer").tiny


def our_options(config):
    """Return the authors' configuration in our words."""
    depths, levels = config["depths"], len(config["depths"]) // 2
    heads = [2**level for level in range(levels + 1)]
    assert config["num_heads"] == [*heads, *(2 * count for count in heads[-2::-1])]  # `width` channels a head
    return {
        "width": config["embed_dim"],
        "encoder_blocks": depths[:levels],
        "middle_blocks": depths[levels],
        "decoder_blocks": depths[levels + 1 :],
        "window": config["win_size"],
        "shift_middle": config["img_size"] // 2**levels > config["win_size"],
    }


@pytest.mark.parametrize(
    "name", ["uformer-tiny", "uformer-tiny-img128", pytest.param("uformer-t", marks=pytest.mark.full)]
)
def test_the_output_is_that_of_the_authors_code(published_root, name):
    golden = read_golden(published_root / f"{name}.safetensors")
    model = fill(models.create("uformer", **our_options(golden.config)), golden.gain)
    for blurred, expected in golden.cases:
        with torch.no_grad():
            torch.testing.assert_close(model(blurred), expected, atol=golden.tolerance, rtol=0)


@pytest.mark.parametrize(
    ("file", "published"), [("uformer-t", "Uformer_T"), ("uformer-s", "Uformer_S"), ("uformer-b", "Uformer_B")]
)
def test_keys_shapes_and_parameters_are_the_authors(published_root, file, published):
    facts = json.loads((published_root / f"{file}.json").read_text())
    arch = models.find("uformer")
    assert {**arch.options, **arch.published[published]} == {**arch.options, **our_options(facts["config"])}
    with torch.device("meta"):  # shapes without memory
        model = models.create("uformer", **arch.published[published])
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == facts["state_dict"]
    assert num_parameters(model) == facts["params"]


def test_a_fresh_network_returns_its_input(photograph):
    model = models.create("uformer", **TINY)
    with torch.no_grad():
        assert torch.equal(model(photograph[None, :, :50, :70])[0], photograph[:, :50, :70])


# -- Padding -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width", "side"), [(1, 1, 8), (8, 8, 8), (8, 16, 16), (17, 3, 24), (7, 24, 24)])
def test_pictures_lie_in_the_middle_of_the_smallest_square_of_the_multiple(height, width, side):
    picture = random(1, 3, height, width)
    padded, top, left = pad_to_centred_square(picture, 8)
    assert padded.shape[-2:] == (side, side)
    assert torch.equal(padded[:, :, top : top + height, left : left + width], picture)
    assert (padded != 0).sum() == (picture != 0).sum()  # the rest is zero
    assert 0 <= side - height - 2 * top <= 1  # an odd row more lies below, an odd column more to the right
    assert 0 <= side - width - 2 * left <= 1


def test_the_picture_is_padded_with_zeros_all_around_and_cropped_again():
    model, picture = fill(models.create("uformer", **TINY)), random(1, 3, 21, 40).sigmoid()
    padded = F.pad(picture, (4, 4, 13, 14))  # 48 = 3 windows of 4 pixels at a quarter of the size
    with torch.no_grad():
        torch.testing.assert_close(model(picture), model(padded)[:, :, 13:34, 4:44], atol=1e-6, rtol=0)


def test_square_pictures_of_the_multiple_are_not_padded(monkeypatch):
    model = fill(models.create("uformer", **TINY))
    monkeypatch.setattr(F, "pad", lambda *_, **__: pytest.fail("padded"))
    with torch.no_grad():
        model(random(1, 3, model.size_multiple, model.size_multiple))


@pytest.mark.parametrize(("levels", "window", "multiple"), [(4, 8, 128), (2, 8, 32), (2, 4, 16)])
def test_the_multiple_is_one_window_at_the_smallest_size(levels, window, multiple):
    blocks = {"encoder_blocks": [1] * levels, "decoder_blocks": [1] * levels}
    with torch.device("meta"):
        assert models.create("uformer", width=4, window=window, **blocks).size_multiple == multiple


# -- Windows -----------------------------------------------------------------------------------------------------------


def test_windows_are_joined_again_as_they_were_split():
    picture = random(2, 8, 12, 3)
    windows = split_windows(picture, 4)
    assert windows.shape == (2, 6, 16, 3)
    assert torch.equal(windows[0, 1].reshape(4, 4, 3), picture[0, :4, 4:8])  # row by row
    assert torch.equal(join_windows(windows, 8, 12), picture)


def test_each_difference_of_rows_and_columns_has_its_own_bias():
    index = distance_index(4)
    seen = {}
    for first in range(16):
        for second in range(16):
            difference = (first // 4 - second // 4, first % 4 - second % 4)
            assert seen.setdefault(difference, index[first, second].item()) == index[first, second]
    assert sorted(seen.values()) == list(range(7**2))


def test_attention_is_softmax_of_scaled_products_with_bias_and_mask_for_each_window_and_head():
    attention, x = fill(WindowAttention(6, 3, 2)), random(2, 4, 4, 6)  # 2 pictures of 4 windows of 4 pixels
    mask = shift_mask(4, 4, 2, 1, torch.device("cpu"))
    bias = attention.relative_position_bias_table[distance_index(2)]  # (4, 4, 2 heads)
    with torch.no_grad():
        q = attention.qkv["to_q"](x)
        k, v = attention.qkv["to_kv"](x).split(6, dim=-1)
        expected = torch.empty_like(x)
        for window in range(4):
            for head in range(2):
                part = (slice(None), window, slice(None), slice(3 * head, 3 * head + 3))
                scores = q[part] @ k[part].transpose(1, 2) / 3**0.5 + bias[:, :, head] + mask[window]
                expected[part] = scores.softmax(dim=-1) @ v[part]
        torch.testing.assert_close(attention(x, mask), attention.proj(expected))


@pytest.mark.parametrize("shift", [0, 2])
def test_what_a_pixel_sees_ends_at_its_window_and_does_not_wrap_around_the_picture(shift):
    block = fill(Block(4, 4, window=4, shift=shift, modulated=False, drop=0))
    with torch.no_grad():
        block.mlp.linear2[0].weight.zero_()  # attention alone, without the convolution
        x = random(1, 8, 12, 4)
        mask = shift_mask(8, 12, 4, shift, x.device)
        changed = x.clone()
        changed[0, 0, 0, 0] += 1  # one channel: the norm takes away what all have in common
        difference = (block(changed, mask) - block(x, mask)).abs().amax(dim=(0, 3))
    seen_by = {(row, column) for row in range(8) for column in range(12) if difference[row, column] > 1e-6}
    side = shift or 4  # the window at the corner is cut to the shift
    assert seen_by == {(row, column) for row in range(side) for column in range(side)}


def test_only_every_second_block_is_shifted_and_the_bottleneck_as_asked():
    def shifts(**options):
        model = models.create("uformer", **{**TINY, "encoder_blocks": [2, 3], **options})
        return {name: module.shift for name, module in model.named_modules() if isinstance(module, Block)}

    shifted, unshifted = shifts(), shifts(shift_middle=False)
    assert [shifted[f"encoderlayer_1.blocks.{index}"] for index in range(3)] == [0, 2, 0]
    assert [shifted[f"conv.blocks.{index}"] for index in range(2)] == [0, 2]
    assert {name: shift for name, shift in shifted.items() if shift != unshifted[name]} == {"conv.blocks.1": 2}


def test_modulators_are_in_the_decoder_only():
    keys = [key for key in models.create("uformer", **TINY).state_dict() if "modulator" in key]
    assert len(keys) == 3  # of three blocks
    assert all(key.startswith("decoderlayer_") for key in keys)


# -- Training ----------------------------------------------------------------------------------------------------------


def test_blocks_are_left_out_more_often_the_deeper_they_lie():
    model = models.create("uformer", **{**TINY, "stochastic_depth": 0.3})
    drops = [module.drop for module in model.modules() if isinstance(module, Block)]
    assert drops == pytest.approx([0, 0.15, 0.3, 0.3, 0.3, 0.3, 0.15, 0])


def test_parts_are_left_out_in_training_only_picture_by_picture_and_on_average_not_at_all():
    block = fill(Block(4, 4, window=4, shift=0, modulated=True, drop=0.5))
    pictures = random(1, 4, 4, 4).expand(2000, 4, 4, 4)
    with torch.no_grad():
        block.mlp.linear2[0].weight.zero_()
        block.mlp.linear2[0].bias.zero_()
        expected = block(pictures, None)[0] - pictures[0]
        block.train()
        torch.manual_seed(1)
        results = block(pictures, None) - pictures
    left_out = results.abs().amax(dim=(1, 2, 3)) == 0
    assert 900 < left_out.sum() < 1100
    torch.testing.assert_close(results[~left_out], (2 * expected).expand_as(results[~left_out]))


def test_bf16_gives_nearly_the_same_picture(photograph):
    model = fill(models.create("uformer", **TINY))
    with torch.no_grad():
        exact = model(photograph[None])
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(photograph[None])
    assert torch.isfinite(rough).all()
    torch.testing.assert_close(rough.float(), exact, atol=0.05, rtol=0)


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="1 encoder levels need as many in the decoder, not 2"):
        models.create("uformer", encoder_blocks=[1], decoder_blocks=[1, 1])
    with pytest.raises(ValueError, match="stochastic_depth is a probability below 1, not 1"):
        models.create("uformer", **{**TINY, "stochastic_depth": 1})


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))
