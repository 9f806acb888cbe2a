"""Stripformer returns what its authors' code returns, under their keys; strips are what the paper says."""

import json

import pytest
import torch
from torch import Tensor

from golden import fill, read_golden
from unblur import models
from unblur.models.stripformer import StripBlock, attend_between_rows, attend_within_rows
from unblur.weights import num_parameters


@pytest.mark.full
def test_the_output_is_that_of_the_authors_code(published_root):
    golden = read_golden(published_root / "stripformer.safetensors")
    model = fill(models.create("stripformer"), golden.gain)
    for blurred, expected in golden.cases:  # the authors' pictures are in [-0.5, 0.5], in and out
        with torch.no_grad():
            torch.testing.assert_close(model(blurred + 0.5) - 0.5, expected, atol=golden.tolerance, rtol=0)


@pytest.mark.parametrize("name", ["Stripformer_gopro", "Stripformer_realblur_J", "Stripformer_realblur_R"])
def test_keys_shapes_and_parameters_are_the_authors(published_root, name):
    facts = json.loads((published_root / "stripformer.json").read_text())
    with torch.device("meta"):  # shapes without memory
        model = models.create("stripformer", **models.find("stripformer").published[name])
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == facts["state_dict"]
    assert num_parameters(model) == facts["params"]


def test_document_a_has_four_strip_blocks_less_and_14_96_million_parameters():
    with torch.device("meta"):
        published = models.create("stripformer")
        modified = models.create("stripformer", **models.find("stripformer").published["Stripformer-document-A"])
    assert num_parameters(modified) == 14_967_491
    left_out = published.state_dict().keys() - modified.state_dict().keys()
    assert {key.split(".")[0] for key in left_out} == {f"Trans_block_{number}" for number in (9, 10, 11, 12)}


def test_a_fresh_network_returns_its_input(photograph):
    model = models.create("stripformer", **models.find("stripformer").tiny)
    with torch.no_grad():
        assert torch.equal(model(photograph[None, :, :50, :70])[0], photograph[:, :50, :70])


def test_attention_within_rows_is_the_papers_formula_row_by_row_and_head_by_head():
    heads, size, qkv = 2, 3, random(1, 4, 5, 3 * 2 * 3)  # (B, H, W, 3C)
    gathered = attend_within_rows(qkv, heads)  # (B, C, H, W)
    for row in range(4):
        q, k, v = (qkv[0, row, :, start : start + heads * size] for start in (0, 6, 12))  # each (W, C)
        for head in range(heads):
            channels = slice(head * size, (head + 1) * size)
            weights = (q[:, channels] @ k[:, channels].T / size**0.5).softmax(dim=-1)  # (W, W)
            torch.testing.assert_close(gathered[0, channels, row].T, weights @ v[:, channels])


def test_attention_between_rows_is_the_papers_formula_with_whole_rows_as_tokens():
    heads, size, width, qkv = 2, 3, 5, random(1, 3 * 2 * 3, 4, 5)  # (B, 3C, H, W)
    gathered = attend_between_rows(qkv, heads)  # (B, C, H, W)
    for head in range(heads):
        q, k, v = (
            qkv[0, start + head * size : start + (head + 1) * size].transpose(0, 1).reshape(4, size * width)
            for start in (0, 6, 12)
        )
        weights = (q @ k.T / (size * width) ** 0.5).softmax(dim=-1)  # (H, H)
        expected = (weights @ v).reshape(4, size, width).transpose(0, 1)
        torch.testing.assert_close(gathered[0, head * size : (head + 1) * size], expected)


def test_a_row_gathers_only_from_itself_within_rows_and_from_all_rows_between_them():
    within, between = random(1, 4, 5, 12), random(1, 12, 4, 5)
    changed_within, changed_between = within.clone(), between.clone()
    changed_within[:, 2] += 1
    changed_between[:, :, 2] += 1
    difference = (attend_within_rows(changed_within, 2) - attend_within_rows(within, 2)).abs().amax(dim=(0, 1, 3))
    assert [row for row in range(4) if difference[row] > 0] == [2]
    difference = (attend_between_rows(changed_between, 2) - attend_between_rows(between, 2)).abs().amax(dim=(0, 1, 3))
    assert [row for row in range(4) if difference[row] > 0] == [0, 1, 2, 3]


@pytest.mark.parametrize("between", [False, True])
def test_rows_and_columns_are_treated_alike_by_the_two_halves_of_the_channels(between):
    block = fill(StripBlock(8, 2, between))
    with torch.no_grad():  # the same weights in both directions
        if between:
            block.conv_v.load_state_dict(block.conv_h.state_dict())
        else:
            block.qkv_local_v.load_state_dict(block.qkv_local_h.state_dict())
        halves = block.conv_input.weight.chunk(2)
        block.conv_input.weight.copy_(torch.cat((halves[0], halves[0])))
        block.conv_input.bias.copy_(block.conv_input.bias[:4].repeat(2))
        halves = block.fuse_out.weight.chunk(2, dim=1)
        block.fuse_out.weight.copy_(torch.cat((halves[0], halves[0]), dim=1))
        weight = block.PEG.PEG.weight
        weight.copy_(weight + weight.transpose(2, 3))
        x = random(1, 8, 6, 9)
        torch.testing.assert_close(block(x.transpose(2, 3)), block(x).transpose(2, 3))


def test_pictures_are_shifted_to_the_authors_range_inside():
    model = fill(models.create("stripformer", **models.find("stripformer").tiny))
    seen = []
    model.encoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    picture = torch.rand(1, 3, 8, 16)
    with torch.no_grad():
        model(picture)
    assert torch.equal(seen[0], picture - 0.5)


def test_bf16_gives_nearly_the_same_picture(photograph):
    model = fill(models.create("stripformer", **models.find("stripformer").tiny))
    with torch.no_grad():
        exact = model(photograph[None])
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(photograph[None])
    assert torch.isfinite(rough).all()
    torch.testing.assert_close(rough.float(), exact, atol=0.05, rtol=0)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="widths are three, at full, half and quarter size, not 2"):
        models.create("stripformer", widths=[8, 16])
    with pytest.raises(ValueError, match="a strip block of 16 channels cannot have 3 heads in each half"):
        models.create("stripformer", widths=[8, 8, 16], bottleneck_heads=3)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))
