"""Li's GAN has the layers of document C's two lists."""

import pytest
import torch
from torch import nn

from golden import fill
from unblur import models
from unblur.models.deblur_gan_li import PatchCritic
from unblur.weights import num_parameters

GENERATOR = [(7, 1, 3, 64), (3, 2, 64, 128), (3, 2, 128, 256), *[(3, 1, 256, 256)] * 18]
GENERATOR += [(3, 1, 256, 128), (3, 1, 128, 64), (7, 1, 64, 3)]
CRITIC = [(4, 2, 3, 64), (4, 2, 64, 64), (4, 2, 64, 128), (4, 2, 128, 256), (4, 1, 256, 512), (4, 1, 512, 1)]


def convolutions(network):
    """Return kernel, stride, inputs and outputs of every convolution, in their order."""
    found = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return [(conv.kernel_size[0], conv.stride[0], conv.in_channels, conv.out_channels) for conv in found]


def test_the_generator_has_the_24_convolutions_of_the_list():
    with torch.device("meta"):
        model = models.create("deblur_gan_li")
    assert convolutions(model) == GENERATOR
    weights_and_biases = sum(kernel**2 * inputs * outputs + outputs for kernel, _, inputs, outputs in GENERATOR)
    norms = sum(2 * outputs for _, _, _, outputs in GENERATOR[:-1])
    assert num_parameters(model) == weights_and_biases + norms == 11_388_675


def test_the_critic_has_the_six_convolutions_of_the_list():
    with torch.device("meta"):
        critic = PatchCritic()
    assert convolutions(critic) == CRITIC
    assert num_parameters(critic) == sum(16 * inputs * outputs + outputs for _, _, inputs, outputs in CRITIC)


def tiny():
    return fill(models.create("deblur_gan_li", **models.find("deblur_gan_li").tiny))


def test_what_is_restored_lies_within_the_range_of_pictures(photograph):
    model = tiny()
    with torch.no_grad():
        model.up[-2].weight.mul_(100)
        restored = model(photograph[None])
    assert restored.min() >= 0
    assert restored.max() <= 1
    assert restored.std() > 0.3  # it would go beyond


def test_the_blocks_work_at_a_quarter_of_the_size(photograph):
    model, shapes = tiny(), []
    model.middle.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    with torch.no_grad():
        assert model(photograph[None, :, :62, :95]).shape == (1, 3, 62, 95)
    assert shapes == [(1, 16, 16, 24)]


@pytest.mark.parametrize(("activation", "lowest"), [("sigmoid", 0), ("tanh", -1)])
def test_the_critic_gives_a_verdict_for_each_sixteenth(photograph, activation, lowest):
    critic = fill(PatchCritic(activation, channels=8), 3.0)
    with torch.no_grad():
        verdicts = critic(photograph[None])  # 96 × 128
    assert verdicts.shape == (1, 1, 6, 8)
    assert verdicts.min() >= lowest
    assert verdicts.max() <= 1
    assert (verdicts < 0).any() == (activation == "tanh")


def test_another_activation_is_refused():
    with pytest.raises(ValueError, match="the activation is sigmoid, tanh or none, not 'relu'"):
        PatchCritic("relu")
