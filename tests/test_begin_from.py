"""A training that begins with a network of another shape begins with what that one could do."""

import sys
from pathlib import Path

import pytest
import torch

from golden import fill
from unblur import create_model

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from begin_from import take_over

SMALL = {"width": 8, "encoder_blocks": [1, 1], "middle_blocks": 1, "decoder_blocks": [1, 1]}


@pytest.fixture
def picture():
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def nafnet(**options):
    return create_model("nafnet", **{**SMALL, "unshuffle": 2, "padding": "reflect", **options}).eval()


@torch.no_grad()
def test_a_deeper_network_goes_on_as_the_shallower_one_was(picture):
    trained, deeper = fill(nafnet()), nafnet(encoder_blocks=[2, 3], middle_blocks=2, decoder_blocks=[1, 2])
    assert take_over(trained, deeper) == sum(parameter.numel() for parameter in trained.parameters())
    torch.testing.assert_close(deeper(picture), trained(picture))
    assert not torch.allclose(trained(picture), picture, atol=0.01)


@torch.no_grad()
def test_without_deconvolution_and_coarser_scales_the_refining_part_is_the_nafnet(picture):
    trained, begun = fill(nafnet()), create_model("wiener_nafnet", **SMALL, bands=4, estimator_width=16).eval()
    take_over(trained, begun)
    nothing = torch.zeros_like(picture)
    torch.testing.assert_close(begun.refiner(picture, picture, picture, nothing), trained(picture))
    change = torch.ones_like(picture)  # and of what is offered beside, the deconvolved picture is trusted little
    from_deconvolved = begun.refiner(picture, picture + change, picture, nothing) - trained(picture)
    from_coarser = begun.refiner(picture, picture, picture, change) - trained(picture)
    assert 0.05 < from_deconvolved.mean() < 0.2
    assert 0.6 < from_coarser.mean() < 0.8


@torch.no_grad()
def test_the_outermost_level_falls_away_where_more_pixels_are_folded(picture):
    trained = fill(nafnet())
    begun = nafnet(width=16, encoder_blocks=[1], decoder_blocks=[1], unshuffle=4)
    taken = take_over(trained, begun)
    fresh = [begun.intro, begun.ending]
    assert taken == sum(p.numel() for p in begun.parameters()) - sum(p.numel() for m in fresh for p in m.parameters())
    assert torch.equal(begun.encoders[0][0].conv1.weight, trained.encoders[1][0].conv1.weight)
    assert torch.equal(begun.decoders[0][0].conv1.weight, trained.decoders[0][0].conv1.weight)
    assert torch.equal(begun.middle_blks[0].conv1.weight, trained.middle_blks[0].conv1.weight)


def test_a_network_of_another_width_is_refused_with_the_parameter_that_does_not_fit():
    with pytest.raises(SystemExit, match=r"intro.weight has shape \(8, 12, 3, 3\) and cannot become \(4, 12, 3, 3\)"):
        take_over(nafnet(), nafnet(width=4))
