"""VGG-19, the network whose features the perceptual losses compare (Simonyan and Zisserman 2014, column E).

Its weights are one well-known file, `vgg19-dcbb9e9d.pth` of the PyTorch model zoo; nothing is downloaded here. Without
the file, "random" gives features of random filters. They serve to try out a training; figures made with them do not
compare with published ones.
"""

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from unblur import weights
from unblur.errors import UnknownName, WeightsError
from unblur.metrics.backbones import IMAGENET_MEAN, IMAGENET_STD

FILE = "vgg19-dcbb9e9d.pth"
WHAT = "the ImageNet weights of VGG-19, which the PyTorch model zoo distributes under that name"

BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels and number of convolutions between one pooling and the next."""

LAYERS = tuple(
    name
    for block, (_, convolutions) in enumerate(BLOCKS, start=1)
    for name in (
        *(f"{kind}{block}_{number}" for number in range(1, convolutions + 1) for kind in ("conv", "relu")),
        f"pool{block}",
    )
)
"""All layers by name, `conv1_1` to `pool5`; the place of each is its number in the keys of the file."""

RANDOM_SEED = 19


class VGG19Features(nn.Module):
    """The layers of VGG-19 up to `deepest`; its state dict is the file's as far as that, `features.N.weight` and bias.

    Weights are random (He et al. 2015), the same each time: features keep their size from layer to layer.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, deepest: str = LAYERS[-1]) -> None:
        super().__init__()
        check_layer(deepest)
        generator = torch.Generator().manual_seed(RANDOM_SEED)
        self.features = nn.Sequential()
        inputs = 3
        for layer in LAYERS[: LAYERS.index(deepest) + 1]:
            if layer.startswith("conv"):
                outputs = BLOCKS[int(layer[4]) - 1][0]
                self.features.append(_convolution(inputs, outputs, generator))
                inputs = outputs
            else:
                self.features.append(nn.ReLU() if layer.startswith("relu") else nn.MaxPool2d(2))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """Return the features (B, C, H/2^n, W/2^n) of RGB pictures (B, 3, H, W) in [0, 1] at the named layers.

        n poolings lie before a layer: the pictures need 2^n px a side.
        """
        for layer in layers:
            check_layer(layer, LAYERS[: len(self.features)])
        last = max(LAYERS.index(layer) for layer in layers)
        smallest_px = 2 ** sum(layer.startswith("pool") for layer in LAYERS[: last + 1])
        if min(pictures.shape[-2:]) < smallest_px:
            raise ValueError(
                f"Pictures of {tuple(pictures.shape[-2:])} px are too small for {LAYERS[last]} of VGG-19, "
                f"which needs {smallest_px} px a side."
            )
        found, values = {}, (pictures - self.mean) / self.std
        for layer, module in zip(LAYERS[: last + 1], self.features, strict=False):
            values = module(values)
            if layer in layers:
                found[layer] = values
        return found


def load_vgg19(source: str | Path = "auto", deepest: str = LAYERS[-1]) -> VGG19Features:
    """Return VGG-19 up to a layer, in eval mode, its weights fixed.

    `source`: "auto", the file `vgg19-dcbb9e9d.pth` in the folder of local weights; "random"; or a file of the same
    layout. Raises `WeightsError` where the file is missing or is not VGG-19's.
    """
    network = VGG19Features(deepest)
    if source != "random":
        path = weights.home() / FILE if source == "auto" else Path(source).absolute()
        if source != "auto" and not path.is_file():
            raise WeightsError(f"{path} does not exist. It should be a copy of {FILE}: {WHAT}.")
        tensors = weights.local_tensors(
            FILE if source == "auto" else path, WHAT, otherwise="try the training out with vgg: random"
        )
        network.load_state_dict(_features(tensors, path, network))
    return network.eval().requires_grad_(False)


def check_layer(name: str, known: Collection[str] = LAYERS) -> None:
    """Raise `UnknownName` where VGG-19, or the part of it that was built, has no such layer."""
    if name not in known:
        raise UnknownName("layer of VGG-19", name, known)


def _convolution(inputs: int, outputs: int, generator: torch.Generator) -> nn.Conv2d:
    # Draws nothing from the global generator, on which the rest of a training depends.
    convolution: nn.Conv2d = nn.utils.skip_init(nn.Conv2d, inputs, outputs, 3, padding=1)  # type: ignore[no-untyped-call]
    assert convolution.bias is not None
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu", generator=generator)
    nn.init.zeros_(convolution.bias)
    return convolution


def _features(tensors: dict[str, Tensor], path: Path, network: VGG19Features) -> dict[str, Tensor]:
    """Return the tensors that the network takes; the file must be VGG-19's as a whole, for VGG-16 begins alike."""
    numbers = [number for number, layer in enumerate(LAYERS) if layer.startswith("conv")]
    wanted = {f"features.{number}.{kind}" for number in numbers for kind in ("weight", "bias")}
    found = {key for key in tensors if not key.startswith("classifier.")}
    if found != wanted:
        wrong = ", ".join(sorted(found ^ wanted)[:3])
        raise WeightsError(f"{path} is not VGG-19: {wrong} should not be there or is missing. Take {FILE}: {WHAT}.")
    own = network.state_dict()
    for key, value in own.items():
        if tensors[key].shape != value.shape:
            shapes = f"{tuple(tensors[key].shape)} and not {tuple(value.shape)}"
            raise WeightsError(f"{path} is not VGG-19: {key} is {shapes}. Take {FILE}: {WHAT}.")
    return {key: tensors[key] for key in own}
