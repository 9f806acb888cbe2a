"""EDDenseNet has exactly the widths that the document's 124 channels fix, and learns."""

import pytest
import torch
from torch import nn

from unblur import models
from unblur.models.eddensenet import DenseBlock
from unblur.weights import num_parameters


def test_the_bottleneck_has_the_documents_17872_parameters():
    bottleneck = models.create("eddensenet").bottleneck
    assert num_parameters(bottleneck) == 17_872
    assert tuple(bottleneck.weight.shape) == (16, 124, 3, 3)


def test_the_widths_are_those_that_lead_to_124():
    model, channels = models.create("eddensenet").eval(), []
    for part in [*model.encoder, model.bottleneck, *model.decoder, model.last]:
        part.register_forward_hook(lambda _, inputs, output: channels.append((output.shape[1], output.shape[-1])))
    with torch.no_grad():
        model(torch.rand(1, 3, 32, 32))
    down = [(16, 32), (112, 32), (56, 16), (152, 16), (76, 8), (124, 8)]
    assert channels == [*down, (16, 8), (64, 8), (32, 16), (128, 16), (64, 32), (3, 32)]
    assert num_parameters(model) == 611_407


def test_its_blocks_have_the_documents_layers():
    blocks = [module for module in models.create("eddensenet").modules() if isinstance(module, DenseBlock)]
    assert [len(block.layers) for block in blocks] == [6, 6, 3, 3, 6]


def test_a_block_keeps_its_input_and_each_layer_sees_all_before():
    block, x = DenseBlock(5, 4, 3).eval(), torch.rand(2, 5, 6, 7)
    y = block(x)
    assert y.shape == (2, 17, 6, 7)
    assert torch.equal(y[:, :5], x)
    for number, layer in enumerate(block.layers):
        assert torch.equal(layer(y[:, : 5 + 4 * number]), y[:, 5 + 4 * number : 9 + 4 * number])


def test_every_convolution_but_the_first_and_the_bottleneck_sees_what_is_normalised_and_rectified():
    kinds = [type(module) for module in models.create("eddensenet").modules() if not list(module.children())]
    seen = [kinds[i - 2 : i] for i, kind in enumerate(kinds) if kind in (nn.Conv2d, nn.ConvTranspose2d)]
    assert len(seen) == 1 + 2 * (6 + 6 + 3 + 3 + 6) + 2 + 1 + 2 + 1
    assert sum(before == [nn.BatchNorm2d, nn.ReLU] for before in seen) == len(seen) - 2
    assert kinds[-1] is nn.ConvTranspose2d


def test_each_3x3_convolution_of_a_block_has_a_bottleneck_of_four_times_the_growth_before_it():
    for layer in DenseBlock(5, 4, 3).layers:
        convs = [module for module in layer.modules() if isinstance(module, nn.Conv2d)]
        assert [(conv.kernel_size, conv.out_channels) for conv in convs] == [((1, 1), 16), ((3, 3), 4)]


def test_other_numbers_of_blocks_are_refused():
    with pytest.raises(ValueError, match=r"3 blocks down and 2 up, not \[6, 6\] and \[3, 6\]"):
        models.create("eddensenet", encoder_layers=[6, 6])


def test_a_few_steps_lower_its_loss():
    torch.manual_seed(0)
    model, sharp = models.create("eddensenet", **models.find("eddensenet").tiny), torch.rand(4, 3, 16, 16)
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
