"""FFTformer returns what its authors' code returns, under their keys."""

import json

import pytest
import torch
import torch.nn.functional as F

from golden import fill, read_golden
from unblur import models
from unblur.models.fftformer import FilterFeedForward, Fuse, PlainLayerNorm, SpectralAttention, from_spectra, spectra
from unblur.weights import num_parameters


def our_options(config):
    """Return the authors' configuration in our words."""
    return {
        "width": config["dim"],
        "blocks": config["num_blocks"],
        "refinement_blocks": config["num_refinement_blocks"],
        "expansion": config["ffn_expansion_factor"],
    }


def features(batch, channels, height, width):
    generator = torch.Generator().manual_seed(channels * height * width)
    return torch.randn(batch, channels, height, width, generator=generator)


def test_the_output_is_that_of_the_authors_code(published_root):
    golden = read_golden(published_root / "fftformer-tiny.safetensors")
    model = fill(models.create("fftformer", **our_options(golden.config)), golden.gain)
    for blurred, expected in golden.cases:
        with torch.no_grad():
            torch.testing.assert_close(model(blurred), expected, atol=golden.tolerance, rtol=0)


def test_keys_shapes_and_parameters_are_the_authors(published_root):
    facts = json.loads((published_root / "fftformer.json").read_text())
    options = models.find("fftformer").published["fftformer_GoPro"]
    assert options == our_options(facts["config"])
    with torch.device("meta"):  # shapes without memory
        model = models.create("fftformer", **options)
    state = model.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == facts["state_dict"]
    assert num_parameters(model) == facts["params"]


def test_spectra_are_those_of_each_patch_and_lead_back_to_the_picture():
    x = features(2, 3, 16, 24)
    spectrum = spectra(x)
    assert spectrum.shape == (2, 3, 2, 3, 8, 5)
    torch.testing.assert_close(spectrum[1, 2, 1, 2], torch.fft.rfft2(x[1, 2, 8:16, 16:24]))
    torch.testing.assert_close(from_spectra(spectrum), x)


def test_attention_weighs_with_the_cyclic_convolution_of_queries_and_keys_in_each_patch():
    attention = fill(SpectralAttention(2))
    x = features(1, 2, 8, 16)
    with torch.no_grad():
        q, k, v = attention.to_hidden_dw(attention.to_hidden(x)).split(4, dim=1)
        weights = torch.zeros_like(q)
        for left in (0, 8):
            query, key = q[..., left : left + 8], k[..., left : left + 8]
            for down in range(8):
                for right in range(8):
                    shifted = key.roll((down, right), dims=(2, 3))
                    weights[..., left : left + 8] += query[:, :, down, right, None, None] * shifted
        expected = attention.project_out(attention.norm(weights) * v)
        torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=0)


def test_a_fresh_filter_changes_nothing_and_another_only_its_own_channel():
    part = FilterFeedForward(4, hidden=6)
    wide = []
    part.dwconv.register_forward_hook(lambda module, inputs, output: wide.append(inputs[0]))
    x = features(1, 4, 16, 8)
    with torch.no_grad():
        part(x)
        torch.testing.assert_close(wide[0], part.project_in(x), atol=1e-6, rtol=0)
        part.fft[3] = 0
        part.fft[3, ..., 0, 0] = 2
        part(x)
    means = wide[0][0, 3].reshape(2, 8, 8).mean(dim=(1, 2))  # only the mean of each patch passes, doubled
    torch.testing.assert_close(wide[1][0, 3], (2 * means).repeat_interleave(8)[:, None].expand(16, 8))
    others = [channel for channel in range(12) if channel != 3]
    assert torch.equal(wide[1][:, others], wide[0][:, others])


def test_the_plain_norm_is_the_layer_norm_of_each_pixel():
    norm, x = fill(PlainLayerNorm(12)), 5 + 3 * features(2, 12, 4, 5)
    with torch.no_grad():
        expected = F.layer_norm(x.permute(0, 2, 3, 1), (12,), norm.weight, norm.bias, eps=1e-5).permute(0, 3, 1, 2)
        torch.testing.assert_close(norm(x), expected)


def test_fusing_adds_the_two_halves_of_the_mixture():
    fuse = fill(Fuse(4))
    decoded, encoded = features(1, 4, 8, 16), features(1, 4, 16, 8).transpose(2, 3)
    with torch.no_grad():
        both = fuse.conv2(fuse.att_channel(fuse.conv(torch.cat([decoded, encoded], dim=1))))
        torch.testing.assert_close(fuse(decoded, encoded), both[:, :4] + both[:, 4:])


def test_one_weight_of_the_authors_files_is_never_used(photograph):
    model = fill(models.create("fftformer", **models.find("fftformer").tiny))
    with torch.no_grad():
        before = model(photograph[None])
        model.reduce_chan_level2.weight.fill_(float("nan"))
        assert torch.equal(model(photograph[None]), before)
    assert [key for key in model.state_dict() if key.startswith(models.find("fftformer").unused)] == [
        "reduce_chan_level2.weight"
    ]


def test_under_autocast_spectra_are_float32_and_the_picture_stays_close(photograph):
    model = fill(models.create("fftformer", **models.find("fftformer").tiny), gain=0.4)  # tame: 0.7 magnifies noise
    with torch.no_grad():
        exact = model(photograph[None])
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(photograph[None])
    torch.testing.assert_close(rough.float(), exact, atol=0.01, rtol=0)
    assert spectra(torch.rand(1, 1, 8, 8, dtype=torch.bfloat16)).dtype == torch.complex64
    assert spectra(torch.rand(1, 1, 8, 8, dtype=torch.float64)).dtype == torch.complex128


def test_there_are_three_levels():
    with pytest.raises(ValueError, match=r"there are three levels, so blocks has three numbers, not \[1, 1\]"):
        models.create("fftformer", width=8, blocks=[1, 1])
