"""The autoencoder is as large as document E's tables say, keeps every size, and learns."""

import torch
from torch import nn

from unblur import create_model
from unblur.inference import plan_fixed_tiles, restore_image, tiles_for


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_encoder_and_decoder_have_the_documents_parameters():
    model = create_model("autoencoder")
    assert num_parameters(model.encoder) == 7_346_192
    assert num_parameters(model.decoder) == 7_412_627
    assert num_parameters(model) == 14_758_819


def test_its_layers_are_those_of_the_documents_tables():
    model, rows = create_model("autoencoder").eval(), []
    for part in (model.encoder, model.decoder):
        for layer in part:
            layer.register_forward_hook(
                lambda layer, _, output: rows.append((type(layer), tuple(output.shape[1:]), num_parameters(layer)))
            )
    with torch.no_grad():
        model(torch.rand(1, 3, 256, 448))
    relu, turned = nn.ReLU, nn.ConvTranspose2d
    assert rows == [
        *((nn.Conv2d, (8, 128, 224), 224), (relu, (8, 128, 224), 0)),
        *((nn.Conv2d, (16, 64, 112), 1_168), (relu, (16, 64, 112), 0)),
        *((nn.Conv2d, (32, 32, 56), 4_640), (relu, (32, 32, 56), 0)),
        *((nn.Flatten, (57_344,), 0), (nn.Linear, (128,), 7_340_160)),
        *((nn.Linear, (57_344,), 7_397_376), (relu, (57_344,), 0), (nn.Unflatten, (32, 32, 56), 0)),
        *((turned, (32, 64, 112), 9_248), (relu, (32, 64, 112), 0)),
        *((turned, (16, 128, 224), 4_624), (relu, (16, 128, 224), 0)),
        *((turned, (8, 256, 448), 1_160), (relu, (8, 256, 448), 0)),
        *((turned, (3, 256, 448), 219), (nn.Sigmoid, (3, 256, 448), 0)),
    ]


def test_a_picture_of_its_own_size_becomes_128_numbers_and_is_not_resized():
    model = create_model("autoencoder").eval()
    blurred = torch.rand(1, 3, 256, 448)
    with torch.no_grad():
        latent = model.encoder(blurred)
        assert latent.shape == (1, 128)
        assert torch.equal(model(blurred), model.decoder(latent))


def test_restoring_a_photo_cuts_tiles_of_exactly_its_size():
    model = create_model("autoencoder", latent=4).eval()
    assert tiles_for(model, 600, 500) == plan_fixed_tiles(600, 500, (448, 256), 32)
    seen = []
    model.encoder.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape[-2:])))
    assert restore_image(model, torch.rand(3, 300, 500)).shape == (3, 300, 500)
    assert set(seen) == {(256, 448)}
    assert len(seen) == 4


def test_a_few_steps_lower_its_loss():
    torch.manual_seed(0)
    model, sharp = create_model("autoencoder", latent=8), torch.rand(1, 3, 1, 1).expand(2, 3, 256, 448)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(4):
        loss = (model(sharp) - sharp).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
