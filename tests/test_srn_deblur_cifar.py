"""The CIFAR-10 SRN restores two scales, hands the LSTM's state from one to the next, takes any size, and learns."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from golden import fill
from unblur import models
from unblur.inference import restore_image, tiles_for
from unblur.models.layers import resized
from unblur.models.srn_deblur_cifar import ResBlock
from unblur.weights import num_parameters

TINY = dict(models.find("srn_deblur_cifar").tiny)
BOTH = pytest.mark.parametrize("lstm", [True, False])


def tiny(**options: object) -> nn.Module:
    return fill(models.create("srn_deblur_cifar", **{**TINY, **options}))


def pictures(count: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("lstm", "parameters"), [(True, 8_537_251), (False, 6_884_259)])
def test_it_is_as_large_as_our_reading_gives(lstm, parameters):
    with torch.device("meta"):
        assert num_parameters(models.create("srn_deblur_cifar", lstm=lstm)) == parameters


def test_the_lstm_has_32_units_and_the_dense_layer_as_many_as_the_features_have_numbers():
    with torch.device("meta"):
        memory = models.create("srn_deblur_cifar").memory
    assert [(dense.in_features, dense.out_features) for dense in memory.dense] == [(32, 128 * 4 * 4), (32, 128 * 8 * 8)]
    assert [gates.out_features for gates in memory.gates] == [4 * 32] * 2


@BOTH
def test_it_is_normalised_leaky_and_ends_in_a_sigmoid(lstm):
    kinds = {type(m) for m in models.create("srn_deblur_cifar", **TINY | {"lstm": lstm}).modules()}
    assert {nn.BatchNorm2d, nn.LeakyReLU, nn.Sigmoid} <= kinds
    assert nn.ReLU not in kinds
    outputs = tiny(lstm=lstm).training_outputs(20 * pictures(2, 32, 32) - 10)
    assert all(output.min() >= 0 and output.max() <= 1 for output in outputs.values())


@BOTH
@pytest.mark.parametrize(("height", "width"), [(32, 32), (1, 1), (33, 18), (40, 64)])
def test_training_gives_both_scales_in_order_and_the_last_is_the_result(lstm, height, width):
    model, blurred = tiny(lstm=lstm), pictures(2, height, width)
    with torch.no_grad():
        outputs = model.training_outputs(blurred)
        assert torch.equal(outputs["full"], model(blurred))
    assert [(name, tuple(output.shape)) for name, output in outputs.items()] == [
        ("half", (2, 3, -(-height // 2), -(-width // 2))),
        ("full", (2, 3, height, width)),
    ]


def test_the_state_goes_from_scale_to_scale():
    model, blurred = tiny(), pictures(1, 32, 32)
    states = []
    model.memory.register_forward_hook(lambda module, inputs, output: states.append((inputs[2], output[1])))
    with torch.no_grad():
        first = model.training_outputs(blurred)
        assert states[0][0] is None
        assert states[1][0] is states[0][1]
        model.memory.recurrent.weight.neg_()
        second = model.training_outputs(blurred)
    assert torch.equal(first["half"], second["half"])
    assert not torch.equal(first["full"], second["full"])


def test_the_lstm_is_torch_s_with_one_step_a_scale():
    memory = tiny().memory
    cell = nn.LSTMCell(256, 4)  # whose gates come in the order in, keep, candidate, show
    order = torch.tensor([0, 2, 1, 3])[:, None] * 4 + torch.arange(4)
    features, state = pictures(2, 8, 16).flatten(1)[:, :256], (torch.rand(2, 4), torch.rand(2, 4))
    with torch.no_grad():
        cell.weight_ih.copy_(memory.gates[0].weight[order.flatten()])
        cell.weight_hh.copy_(memory.recurrent.weight[order.flatten()])
        cell.bias_ih.copy_(memory.gates[0].bias[order.flatten()])
        cell.bias_hh.zero_()[4:8] = 1
        hidden, carried = cell(features, (state[1], state[0]))
        output, (got_cell, got_hidden) = memory(features.reshape(2, 16, 4, 4), 0, state)
        torch.testing.assert_close(got_cell, carried)
        torch.testing.assert_close(got_hidden, hidden)
        torch.testing.assert_close(output.flatten(1), memory.dense[0](hidden))


@BOTH
def test_both_scales_go_through_the_same_layers_from_the_picture_by_area_and_the_enlarged_result(lstm):
    model, blurred, seen = tiny(lstm=lstm), pictures(1, 32, 32), []
    model.encoders[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        outputs = model.training_outputs(blurred)
    half = F.interpolate(blurred, (16, 16), mode="area")
    torch.testing.assert_close(seen[0], torch.cat([half, half], dim=1))
    enlarged = F.interpolate(outputs["half"], (32, 32), mode="bilinear")
    torch.testing.assert_close(seen[1], torch.cat([blurred, enlarged], dim=1))


def test_with_lstm_a_picture_of_another_size_is_resized_to_32_and_back():
    model, blurred = tiny(), pictures(1, 48, 20)
    with torch.no_grad():
        torch.testing.assert_close(model(blurred), resized(model(resized(blurred, 32, 32)), 48, 20))


def test_with_lstm_a_photo_is_restored_in_tiles_of_exactly_32():
    model, tiles = tiny(), []
    model.register_forward_pre_hook(lambda module, inputs: tiles.extend(inputs[0]))
    assert restore_image(model, pictures(1, 51, 70)[0]).shape == (3, 51, 70)
    assert len(tiles) == len(tiles_for(model, 51, 70)) > 1
    assert {tile.shape for tile in tiles} == {(3, 32, 32)}


def test_without_lstm_it_takes_every_size_padded_by_reflection_to_eights():
    model, blurred = tiny(lstm=False), pictures(1, 13, 23)
    assert len(tiles_for(model, 50, 70)) == 1
    with torch.no_grad():
        expected = model(F.pad(blurred, (0, 1, 0, 3), mode="reflect"))[:, :, :13, :23]
        torch.testing.assert_close(model(blurred), expected)


@BOTH
def test_the_way_down_is_added_to_the_way_up_at_each_level(lstm):
    model, down, passed = tiny(lstm=lstm), [], []
    for encoder in model.encoders:
        encoder.register_forward_hook(lambda module, inputs, output: down.append(output))
    for decoder in model.decoders:
        decoder.register_forward_hook(lambda module, inputs, output: passed.append((inputs[0], output)))
    with torch.no_grad():
        model(pictures(1, 32, 32))
    for first in (0, 3):  # of either scale
        lowest, middle, highest = passed[first : first + 3]
        torch.testing.assert_close(middle[0], lowest[1] + down[first + 1])
        torch.testing.assert_close(highest[0], middle[1] + down[first])


def test_a_resblock_adds_its_input_and_leaks_a_fifth_of_what_is_negative():
    block, x = ResBlock(3, 3).eval(), 2 * pictures(1, 5, 6) - 1
    (conv, norm, leaky), second, last_norm = block.layers
    with torch.no_grad():
        torch.testing.assert_close(block(x), x + last_norm(second(leaky(norm(conv(x))))))
        torch.testing.assert_close(leaky(x), torch.where(x < 0, 0.2 * x, x))
        last_norm.weight.zero_()
        assert torch.equal(block(x), x)


def test_the_filters_start_from_32_and_double():
    with torch.device("meta"):
        model = models.create("srn_deblur_cifar")
    assert [encoder[0][0].out_channels for encoder in model.encoders] == [32, 64, 128]


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="kernel_px is odd, not 4"):
        models.create("srn_deblur_cifar", kernel_px=4)


@BOTH
def test_a_few_steps_lower_the_loss_of_both_scales(lstm):
    torch.manual_seed(0)
    model, sharp = models.create("srn_deblur_cifar", **TINY | {"lstm": lstm}), pictures(4, 32, 32) ** 3
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
