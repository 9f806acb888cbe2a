"""Restormer returns what its authors' code returns, under their keys."""

import json

import pytest
import torch
import torch.nn.functional as F

from golden import fill, read_golden
from unblur import models
from unblur.models.restormer import ChannelAttention, GatedFeedForward, ScaleNorm2d
from unblur.weights import num_parameters


def our_options(config):
    """Return the authors' configuration in our words."""
    return {
        "width": config["dim"],
        "blocks": config["num_blocks"],
        "heads": config["heads"],
        "refinement_blocks": config["num_refinement_blocks"],
        "expansion": config["ffn_expansion_factor"],
        "norm": {"WithBias": "full", "BiasFree": "scale-only"}[config["LayerNorm_type"]],
        "conv_bias": config["bias"],
    }


def features(batch, channels, height, width):
    generator = torch.Generator().manual_seed(channels * height * width)
    return torch.randn(batch, channels, height, width, generator=generator)


@pytest.mark.parametrize("name", ["restormer-tiny", "restormer-biasfree-tiny"])
def test_the_output_is_that_of_the_authors_code(published_root, name):
    golden = read_golden(published_root / f"{name}.safetensors")
    model = fill(models.create("restormer", **our_options(golden.config)), golden.gain)
    for blurred, expected in golden.cases:
        with torch.no_grad():
            torch.testing.assert_close(model(blurred), expected, atol=golden.tolerance, rtol=0)


def test_keys_shapes_and_parameters_are_the_authors(published_root):
    facts = json.loads((published_root / "restormer-motion.json").read_text())
    options = models.find("restormer").published["motion_deblurring"]
    assert options == our_options(facts["config"])
    with torch.device("meta"):  # shapes without memory
        model = models.create("restormer", **options)
    state = model.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == facts["state_dict"]
    assert num_parameters(model) == facts["params"]


def test_each_channel_becomes_a_mean_of_its_heads_channels_weighted_by_their_likeness():
    attention = fill(ChannelAttention(6, heads=2, conv_bias=True))
    x = features(2, 6, 5, 4)
    with torch.no_grad():
        q, k, v = attention.qkv_dwconv(attention.qkv(x)).split(6, dim=1)
        mixed = torch.zeros_like(v)
        for head, channels in enumerate([(0, 1, 2), (3, 4, 5)]):
            for i in channels:
                likeness = torch.stack(
                    [F.cosine_similarity(q[:, i].flatten(1), k[:, j].flatten(1)) for j in channels], dim=1
                )  # (B, 3)
                weights = (likeness * attention.temperature[head, 0]).softmax(dim=1)
                mixed[:, i] = sum(weights[:, n, None, None] * v[:, j] for n, j in enumerate(channels))
        torch.testing.assert_close(attention(x), attention.project_out(mixed), atol=1e-5, rtol=0)


def test_attention_does_not_see_how_bright_the_queries_and_keys_are():
    attention = fill(ChannelAttention(8, heads=2, conv_bias=False))
    x = features(1, 8, 6, 7)
    with torch.no_grad():
        before = attention(x)
        attention.qkv_dwconv.weight[:16] *= 3  # queries and keys, not values
        torch.testing.assert_close(attention(x), before, atol=1e-5, rtol=0)


def test_channels_that_the_heads_cannot_share_are_refused():
    with pytest.raises(ValueError, match="6 channels cannot be shared evenly by 4 heads"):
        ChannelAttention(6, heads=4, conv_bias=False)


def test_the_first_half_of_the_wide_channels_gates_the_second():
    part = fill(GatedFeedForward(4, hidden=5, conv_bias=False))
    x = features(1, 4, 6, 7)
    with torch.no_grad():
        wide = part.dwconv(part.project_in(x))
        gate = wide[:, :5] * 0.5 * (1 + torch.erf(wide[:, :5] / 2**0.5))  # GELU, written out
        torch.testing.assert_close(part(x), part.project_out(gate * wide[:, 5:]))


def test_the_scale_only_norm_gives_each_pixel_variance_1_and_keeps_the_mean_to_deviation_ratio():
    x = 5 + 3 * features(2, 12, 4, 5)
    y = ScaleNorm2d(12)(x)
    torch.testing.assert_close(y.var(dim=1, correction=0), torch.ones(2, 4, 5), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.mean(dim=1), x.mean(dim=1) / x.std(dim=1, correction=0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("norm", ["full", "scale-only"])
def test_bf16_stays_close_to_float32(photograph, norm):
    tiny = models.find("restormer").tiny
    model = fill(models.create("restormer", **{**tiny, "norm": norm}), gain=0.4)  # tame: 0.7 magnifies noise
    with torch.no_grad():
        exact = model(photograph[None])
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(photograph[None])
    torch.testing.assert_close(rough.float(), exact, atol=0.01, rtol=0)


def test_there_are_four_levels():
    with pytest.raises(ValueError, match=r"blocks \[1, 1\] and heads \[1, 2, 4, 8\] must be four each"):
        models.create("restormer", width=8, blocks=[1, 1])


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm is full or scale-only, not 'BiasFree'"):
        models.create("restormer", width=8, norm="BiasFree")
