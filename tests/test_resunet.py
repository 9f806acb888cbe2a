"""ResUNet has the document's layers, puts blocks beside their input, and learns."""

import pytest
import torch
from torch import nn

from golden import fill
from unblur import models
from unblur.models.resunet import ResBlock
from unblur.weights import num_parameters


@pytest.mark.parametrize(("num_blocks", "parameters"), [(1, 980_067), (3, 3_526_627)])
def test_it_is_as_large_as_our_reading_gives(num_blocks, parameters):
    assert num_parameters(models.create("resunet", num_blocks=num_blocks)) == parameters


def test_the_documents_two_networks_are_published_and_three_blocks_are_the_default():
    counts = {name: options["num_blocks"] for name, options in models.find("resunet").published.items()}
    assert counts == {"ResUNet1": 1, "ResUNet3": 3}
    assert models.find("resunet").options["num_blocks"] == 3


def test_a_block_puts_two_layers_beside_its_input():
    block, x = ResBlock(5, 7).eval(), torch.rand(2, 5, 6, 4)
    y = block(x)
    assert y.shape == (2, 12, 6, 4)
    assert torch.equal(y[:, 7:], x)
    assert [type(part) for layer in block.layers for part in layer] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2


@pytest.mark.parametrize("num_blocks", [1, 3])
def test_every_level_of_both_ways_but_the_lowest_has_its_blocks(num_blocks):
    model = models.create("resunet", num_blocks=num_blocks, width=4, levels=4)
    assert sum(isinstance(module, ResBlock) for module in model.modules()) == num_blocks * (4 + 3)


def test_nothing_is_pooled_or_interpolated():
    model = models.create("resunet")
    strided = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d) and m.stride == (2, 2)]
    assert [type(module) for module in strided] == [nn.Conv2d] * 2 + [nn.ConvTranspose2d] * 2
    kinds = {type(module) for module in model.modules() if not list(module.children())}
    assert kinds == {nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU}


def test_the_way_down_reaches_the_way_up_at_full_size():
    model, picture = fill(models.create("resunet", num_blocks=1, width=4)), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        before = model(picture) - model(1 - picture)
        for down in model.down:  # what remains is the skip of the first level
            down[0].weight.zero_()
        after = model(picture) - model(1 - picture)
    assert after.abs().mean() > 0.1 * before.abs().mean()


def test_levels_of_which_there_is_one_and_levels_without_blocks_are_refused():
    for options in ({"levels": 1}, {"num_blocks": 0}):
        with pytest.raises(ValueError, match="num_blocks is 1 or more, levels 2 or more"):
            models.create("resunet", **options)


@pytest.mark.parametrize("num_blocks", [1, 3])
def test_a_few_steps_lower_its_loss(num_blocks):
    torch.manual_seed(0)
    model, sharp = models.create("resunet", num_blocks=num_blocks, width=8), torch.rand(4, 3, 16, 16)
    blurred = nn.functional.avg_pool2d(sharp, 3, stride=1, padding=1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        loss = (model(blurred) - sharp).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    assert losses[-1] < 0.7 * losses[0]


def test_with_the_residual_path_a_fresh_network_returns_its_input_and_keys_stay():
    plain, residual = (
        models.create("resunet", num_blocks=1, width=4, residual=choice).eval() for choice in (False, True)
    )
    picture = torch.rand(1, 3, 10, 14)
    with torch.no_grad():
        assert torch.equal(residual(picture), picture)
        assert not torch.equal(plain(picture), picture)
    assert residual.state_dict().keys() == plain.state_dict().keys()
