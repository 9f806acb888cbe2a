"""DeblurNet is as large as document B says, has its sizes, and learns."""

import torch
from torch import nn

from unblur import create_model


def test_it_has_the_parameters_of_our_reading():
    assert sum(p.numel() for p in create_model("deblurnet").parameters()) == 1_367_747


def test_its_layers_are_those_of_the_document_with_more_channels_at_each_repetition():
    model = create_model("deblurnet")
    assert [type(layer) for layer in model.encoder] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d] * 4
    assert [type(layer) for layer in model.between] == [nn.Conv2d, nn.ReLU]
    assert [type(layer) for layer in model.decoder] == [nn.ConvTranspose2d, nn.ReLU] * 4 + [
        nn.ConvTranspose2d,
        nn.Sigmoid,
    ]
    convs = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    assert [conv.out_channels for conv in convs] == [32, 64, 128, 256, 128, 256, 128, 64, 32, 3]
    assert {conv.kernel_size for conv in convs} == {(3, 3)}
    assert [conv.stride[0] for conv in convs] == [1, 1, 1, 1, 1, 2, 1, 2, 2, 2]


def test_its_bottleneck_lies_at_a_sixteenth_of_the_size():
    features = create_model("deblurnet").eval().encoder(torch.rand(1, 3, 64, 32))
    assert features.shape == (1, 256, 4, 2)


def test_its_output_lies_between_zero_and_one():
    restored = create_model("deblurnet").eval()(10 * torch.randn(1, 3, 32, 48))
    assert restored.min() >= 0
    assert restored.max() <= 1


def test_a_few_steps_lower_its_loss():
    torch.manual_seed(0)
    model, sharp = create_model("deblurnet"), torch.rand(2, 3, 32, 32)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(5):
        loss = (model(sharp) - sharp).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
