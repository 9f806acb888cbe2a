"""The REDS SRN restores two scales with one set of layers, hands the ConvLSTM's state on, and learns on both."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from golden import fill
from unblur import models
from unblur.models.srn_deblur_reds import ConvLSTM, ResBlock
from unblur.weights import num_parameters

TINY = models.find("srn_deblur_reds").tiny


def tiny() -> nn.Module:
    return fill(models.create("srn_deblur_reds", **TINY))


def pictures(count: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_its_two_input_layers_of_8_filters_are_concatenated_to_16():
    model, seen = models.create("srn_deblur_reds").eval(), []
    model.encoders[0].register_forward_hook(lambda module, inputs, output: seen.append(tuple(inputs[0].shape)))
    with torch.no_grad():
        model(pictures(1, 16, 24))
    assert seen == [(1, 16, 8, 12), (1, 16, 16, 24)]
    assert (model.look_at_blurred[0].out_channels, model.look_at_result[0].out_channels) == (8, 8)


def test_its_levels_have_16_32_and_64_filters_and_the_last_layer_gives_rgb_as_it_is():
    model = models.create("srn_deblur_reds")
    assert [encoder[-1].layers[1].out_channels for encoder in model.encoders] == [16, 32, 64]
    assert type(model.decoders[-1][-1]) is nn.Conv2d
    assert model.decoders[-1][-1].out_channels == 3
    assert num_parameters(model) == 2_016_835  # our reading; the document has no figure


def test_nothing_is_normalised_and_every_activation_is_relu():
    kinds = {type(module) for module in models.create("srn_deblur_reds").modules() if not list(module.children())}
    assert kinds == {nn.Conv2d, nn.ConvTranspose2d, nn.ReLU}


@pytest.mark.parametrize(("height", "width"), [(32, 32), (1, 1), (33, 18), (40, 64)])
def test_training_gives_both_scales_in_order_and_the_last_is_the_result(height, width):
    model, blurred = tiny(), pictures(2, height, width)
    with torch.no_grad():
        outputs = model.training_outputs(blurred)
        assert torch.equal(outputs["full"], model(blurred))
    assert [(name, tuple(output.shape)) for name, output in outputs.items()] == [
        ("half", (2, 3, -(-height // 2), -(-width // 2))),
        ("full", (2, 3, height, width)),
    ]


def test_the_second_scale_sees_the_enlarged_result_and_state_of_the_first():
    model, blurred, looks, states = tiny(), pictures(1, 16, 24), [], []
    model.look_at_result.register_forward_hook(lambda module, inputs, output: looks.append(inputs[0]))
    model.memory.register_forward_hook(lambda module, inputs, output: states.append((inputs[1], output[1])))
    with torch.no_grad():
        outputs = model.training_outputs(blurred)
    torch.testing.assert_close(looks[0], F.interpolate(blurred, (8, 12), mode="area"))
    torch.testing.assert_close(looks[1], F.interpolate(outputs["half"], (16, 24), mode="bilinear"))
    assert states[0][0] is None
    for before, after in zip(states[0][1], states[1][0], strict=True):
        torch.testing.assert_close(after, F.interpolate(before, scale_factor=2, mode="bilinear"))


def test_the_convlstm_is_torch_s_lstm_at_each_pixel_where_its_kernel_sees_one():
    memory, cell = fill(ConvLSTM(4)), nn.LSTMCell(4, 4)  # whose gates come in the order in, keep, candidate, show
    order = (torch.tensor([0, 2, 1, 3])[:, None] * 4 + torch.arange(4)).flatten()
    x, old_cell, old_hidden = torch.rand(3, 2, 4, 5, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        middle = memory.gates.weight[:, :, 1, 1].clone()
        memory.gates.weight.zero_()[:, :, 1, 1] = middle
        cell.weight_ih.copy_(middle[order, :4])
        cell.weight_hh.copy_(middle[order, 4:])
        cell.bias_ih.copy_(memory.gates.bias[order])
        cell.bias_hh.zero_()[4:8] = 1
        features, (got_cell, got_hidden) = memory(x, (old_cell, old_hidden))
        flat = [part.permute(0, 2, 3, 1).reshape(-1, 4) for part in (x, old_hidden, old_cell, got_hidden, got_cell)]
        hidden, carried = cell(flat[0], (flat[1], flat[2]))
    torch.testing.assert_close(flat[3], hidden)
    torch.testing.assert_close(flat[4], carried)
    assert torch.equal(features, got_hidden)


def test_a_loss_on_the_second_scale_reaches_the_first_through_state_and_result():
    model, states, results = tiny(), [], []
    model.memory.register_forward_hook(lambda module, inputs, output: states.append(output[1]))
    model.decoders[-1].register_forward_hook(lambda module, inputs, output: results.append(output))
    full = model(pictures(1, 16, 16))
    gradients = torch.autograd.grad(full.square().mean(), (results[0], *states[0]))
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_a_fresh_network_neither_loses_nor_multiplies_the_signal():
    torch.manual_seed(0)
    model, strengths = models.create("srn_deblur_reds"), []
    for part in [*model.encoders, *model.decoders]:
        part.register_forward_hook(lambda module, inputs, output: strengths.append(output.std().item()))
    model(pictures(1, 32, 32))
    assert len(strengths) == 12
    assert min(strengths) > 0.02
    assert max(strengths) < 3


@pytest.mark.parametrize("seed", range(5))
def test_every_filter_of_the_input_layers_of_a_fresh_network_sees_something(seed, photograph):
    torch.manual_seed(seed)
    model = models.create("srn_deblur_reds")
    for look in (model.look_at_blurred, model.look_at_result):
        assert (look(photograph[None]).amax(dim=(0, 2, 3)) > 0).all()


def test_the_way_down_is_added_to_the_way_up_at_each_level():
    model, down, passed = tiny(), [], []
    for encoder in model.encoders:
        encoder.register_forward_hook(lambda module, inputs, output: down.append(output))
    for decoder in model.decoders:
        decoder.register_forward_hook(lambda module, inputs, output: passed.append((inputs[0], output)))
    with torch.no_grad():
        model(pictures(1, 16, 24))
    for first in (0, 3):  # of either scale
        lowest, middle, highest = passed[first : first + 3]
        torch.testing.assert_close(middle[0], lowest[1] + down[first + 1])
        torch.testing.assert_close(highest[0], middle[1] + down[first])


def test_a_resblock_adds_its_input():
    block, x = ResBlock(3, 3), 2 * pictures(1, 5, 6) - 1
    with torch.no_grad():
        torch.testing.assert_close(block(x), x + block.layers(x))
        for parameter in block.layers[1].parameters():
            parameter.zero_()
        assert torch.equal(block(x), x)


def test_its_layers_are_rectified_but_those_whose_result_is_added_the_memory_and_the_last():
    kinds = [type(module) for module in models.create("srn_deblur_reds").modules() if not list(module.children())]
    convs = [i for i, kind in enumerate(kinds) if kind is not nn.ReLU]
    bare = [i for i in convs if i + 1 == len(kinds) or kinds[i + 1] is not nn.ReLU]
    assert len(convs) == 2 + (18 * 2 + 2) + 1 + 3
    assert len(bare) == 18 + 1 + 1


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="kernel_px is odd, not 4"):
        models.create("srn_deblur_reds", kernel_px=4)


def test_a_few_steps_lower_the_loss_of_both_scales():
    torch.manual_seed(0)
    model, sharp = models.create("srn_deblur_reds", **TINY), pictures(4, 32, 32)
    blurred = F.avg_pool2d(sharp, 3, stride=1, padding=1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        outputs = model.training_outputs(blurred).values()
        parts = [(output - F.interpolate(sharp, output.shape[-2:], mode="area")).square().mean() for output in outputs]
        loss = torch.stack(parts).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append([part.item() for part in parts])
    assert sum(losses[1]) < sum(losses[0])
    assert all(after < before for before, after in zip(losses[0], losses[-1], strict=True))
