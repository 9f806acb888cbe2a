"""CAESSC has the document's depth and widths, sums across, and learns; its last activation does what is said of it."""

import pytest
import torch
from torch import nn

from golden import fill
from unblur import models
from unblur.weights import num_parameters

VARIANTS = models.find("caessc").published


def picture(height: int, width: int) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("variant", "depth", "filters", "parameters"),
    [
        ("d30_f64", 30, 64, 1_039_363),
        ("d22_f128_half", 22, 128, 2_961_411),
        ("d22_f128_half_no_sigmoid", 22, 128, 2_961_411),
    ],
)
def test_a_variant_has_the_depth_and_the_filters_of_its_name(variant, depth, filters, parameters):
    model = models.create("caessc", **VARIANTS[variant])
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    assert [type(conv) for conv in convs] == [nn.Conv2d] * (depth // 2) + [nn.ConvTranspose2d] * (depth // 2)
    assert {conv.out_channels for conv in convs[:-1]} == {filters}
    assert {conv.kernel_size for conv in convs} == {(3, 3)}
    halves = [conv.stride == (2, 2) for conv in convs]
    assert halves == ([True] + [False] * (depth - 2) + [True] if "half" in variant else [False] * depth)
    assert model.sigmoid == ("no_sigmoid" not in variant)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == depth - 1
    assert num_parameters(model) == parameters


def test_the_deep_one_at_full_size_is_the_default():
    assert VARIANTS["d30_f64"] == {}
    assert models.find("caessc").options == {"depth": 30, "filters": 64, "half": False, "sigmoid": True}


def test_red30_of_the_documents_table_is_red_net():
    red30 = models.create("red_net")
    convs = [module for module in red30.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    assert (len(convs), {conv.out_channels for conv in convs[:-1]}, {conv.stride for conv in convs}) == (
        30,
        {128},
        {(1, 1)},
    )


def test_every_layer_is_summed_with_its_mirror_image():
    model = fill(models.create("caessc", depth=8, filters=8))
    skips: list[torch.Tensor] = []
    for layer in model.encoder:
        layer.register_forward_hook(lambda module, inputs, output: skips.append(output))
    taken: list[torch.Tensor] = []
    made: list[torch.Tensor] = []
    for layer in model.decoder:
        layer.register_forward_pre_hook(lambda module, inputs: taken.append(inputs[0]))
        layer.register_forward_hook(lambda module, inputs, output: made.append(output))
    model.last.register_forward_pre_hook(lambda module, inputs: taken.append(inputs[0]))
    with torch.no_grad():
        model(picture(9, 8))
    *before, bottom = skips
    torch.testing.assert_close(taken[0], bottom)
    for got, layer_output, skip in zip(taken[1:], made, reversed(before), strict=True):
        assert layer_output.min() < 0
        torch.testing.assert_close(got, (layer_output + skip).relu())


@pytest.mark.parametrize("half", [True, False])
def test_the_input_is_added_to_the_last_layers_output(half):
    for sigmoid, expected in ((True, torch.sigmoid), (False, torch.relu)):
        model, blurred = fill(models.create("caessc", depth=6, filters=8, half=half, sigmoid=sigmoid)), picture(9, 8)
        with torch.no_grad():
            for parameter in model.last.parameters():
                parameter.zero_()
            torch.testing.assert_close(model(blurred), expected(blurred))


def test_with_a_sigmoid_the_output_lies_within_0_and_1():
    model = fill(models.create("caessc", depth=6, filters=8))
    with torch.no_grad():
        restored = model(20 * picture(13, 18) - 10)
    assert restored.min() >= 0
    assert restored.max() <= 1
    assert restored.std() > 0.1


def test_with_relu_it_only_brightens_and_with_a_sigmoid_it_darkens_too():
    for sigmoid in (True, False):
        torch.manual_seed(0)
        model = models.create("caessc", depth=6, filters=8, sigmoid=sigmoid)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        grey = torch.full((1, 3, 8, 8), 0.3)
        for _ in range(40):
            optimizer.zero_grad()
            model(grey).square().mean().backward()  # black is wanted
            optimizer.step()
        with torch.no_grad():
            assert (model(grey).max() < 0.2) == sigmoid
            assert (model(grey).min() >= 0.3) == (not sigmoid)


@pytest.mark.parametrize("sigmoid", [True, False])
@pytest.mark.parametrize("half", [True, False])
def test_a_few_steps_lower_its_loss(half, sigmoid):
    torch.manual_seed(0)
    model, sharp = models.create("caessc", depth=10, filters=16, half=half, sigmoid=sigmoid), picture(16, 16)
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
    assert losses[-1] < 0.97 * losses[0]


def test_all_thirty_layers_of_a_fresh_network_pass_the_signal_on():
    torch.manual_seed(1)
    model, strengths = models.create("caessc", filters=8), []
    for layer in [*model.encoder, *model.decoder]:
        layer.register_forward_hook(lambda _, inputs, output: strengths.append(output.std().item()))
    model(picture(24, 24))
    assert len(strengths) == 29
    assert min(strengths) > 0.1
    assert max(strengths) < 10


def test_an_odd_depth_is_refused():
    with pytest.raises(ValueError, match="even number from 4 on, half of it transposed, not 7"):
        models.create("caessc", depth=7)
