"""The variational autoencoder is as large as document B says, draws in training only, and learns."""

import pytest
import torch
from torch import nn

from unblur import create_model


def test_it_has_the_documents_8_million_parameters():
    assert sum(p.numel() for p in create_model("vae").parameters()) == 8_029_291


def test_its_layers_are_those_of_the_document():
    model = create_model("vae", latent=4)
    convs, turned = list(model.encoder[:-1:2]), list(model.decoder[2::2])
    assert [(conv.in_channels, conv.out_channels) for conv in convs] == [(3, 8), (8, 16), (16, 32), (32, 64)]
    assert [(conv.in_channels, conv.out_channels) for conv in turned] == [(64, 32), (32, 16), (16, 8), (8, 3)]
    assert {(conv.kernel_size, conv.stride, conv.padding) for conv in convs + turned} == {((4, 4), (2, 2), (1, 1))}
    assert [type(layer) for layer in model.encoder] == [nn.Conv2d, nn.ReLU] * 4 + [nn.Flatten]
    doubling = [nn.ConvTranspose2d, nn.ReLU] * 3 + [nn.ConvTranspose2d, nn.Sigmoid]
    assert [type(layer) for layer in model.decoder] == [nn.Linear, nn.Unflatten, *doubling]


def test_its_features_are_those_of_the_document():
    model = create_model("vae", latent=4).eval()
    assert model.encoder[:-1](torch.rand(1, 3, 256, 448)).shape == (1, 64, 16, 28)
    assert model.mean.in_features == model.log_variance.in_features == 64 * 28 * 16


def test_restoring_is_not_random_and_training_is():
    model, blurred = create_model("vae", latent=4).train(), torch.rand(1, 3, 256, 448)
    with torch.no_grad():
        assert torch.equal(model(blurred), model(blurred))
        first, second = model.training_outputs(blurred), model.training_outputs(blurred)
    assert not torch.equal(first["restored"], second["restored"])
    assert torch.equal(first["mean"], second["mean"])
    assert first["mean"].shape == first["log_variance"].shape == (1, 4)


def test_draws_have_the_mean_and_the_spread_that_the_network_says():
    torch.manual_seed(0)
    model, blurred = create_model("vae", latent=2).eval(), torch.rand(1, 3, 256, 448)
    drawn: list[torch.Tensor] = []
    model.decoder.register_forward_pre_hook(lambda module, args: drawn.append(args[0]))
    with torch.no_grad():
        model.log_variance.bias += torch.tensor([1.0, -1.0])
        outputs = model.training_outputs(blurred.expand(100, -1, -1, -1))
    spread = (outputs["log_variance"][0] / 2).exp()
    assert drawn[0].mean(dim=0) == pytest.approx(outputs["mean"][0], abs=0.3 * float(spread.max()))
    assert drawn[0].std(dim=0) == pytest.approx(spread, rel=0.2)


def test_a_few_steps_lower_its_loss():
    torch.manual_seed(0)
    model, sharp = create_model("vae", latent=8), torch.rand(1, 3, 1, 1).expand(2, 3, 256, 448)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(4):
        loss = (model.training_outputs(sharp)["restored"] - sharp).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
