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
    torch.testing.assert_close(begun.refiner(picture, nothing, (picture, picture)), trained(picture))
    change = torch.ones_like(picture)  # and of what is offered beside, the deconvolved picture is trusted little
    from_deconvolved = begun.refiner(picture, nothing, (picture + change, picture)) - trained(picture)
    from_coarser = begun.refiner(picture, change, (picture, picture)) - trained(picture)
    assert 0.05 < from_deconvolved.mean() < 0.2
    assert 0.6 < from_coarser.mean() < 0.8


@torch.no_grad()
def test_a_small_refining_part_for_the_finest_scale_is_fresh_and_the_other_scales_go_on(picture):
    options = {**SMALL, "bands": 4, "estimator_width": 16}
    trained = fill(create_model("wiener_nafnet", **options).eval())
    begun = create_model("wiener_nafnet", **options, finest_width=8).eval()
    taken = take_over(trained, begun)
    assert taken == sum(parameter.numel() for parameter in trained.parameters())
    before, after = trained.training_outputs(picture), begun.training_outputs(picture)
    torch.testing.assert_close(after["half"], before["half"])


def test_a_network_of_another_width_is_refused_with_the_parameter_that_does_not_fit():
    with pytest.raises(SystemExit, match=r"intro.weight has shape \(8, 12, 3, 3\) and cannot become \(4, 12, 3, 3\)"):
        take_over(nafnet(), nafnet(width=4))
