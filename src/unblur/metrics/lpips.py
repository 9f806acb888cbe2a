"""LPIPS (Zhang et al. 2018, "The unreasonable effectiveness of deep features"): distance of features, version 0.1.

Features of five stages are normalised over their channels; the squared differences, weighted by learnt numbers, are
averaged over the picture and summed. The networks are our own; their weights are three files that everyone else uses
too: AlexNet's or VGG16's ImageNet weights, and `alex.pth` or `vgg.pth` of the authors' `lpips/weights/v0.1`. Whether
values agree with the authors' to the last digit could not be checked without those files: what is tested is
structure, layout of the files, and properties.
"""

from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from unblur import weights
from unblur.errors import PhotoError
from unblur.metrics.backbones import ALEXNET_FILE, VGG16, VGG16_FILE, AlexNet, fill, local_tensors
from unblur.metrics.pictures import Picture, scores

Backbone = Literal["alex", "vgg"]

SMALLEST_PX = 64
"""Below this AlexNet has no features left to compare."""


def lpips_alex(restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> float | Tensor:
    """Return LPIPS 0.1 on AlexNet; 0 for identical pictures, smaller is better.

    Raises `WeightsError` without the files, `PhotoError` below 64 px a side.
    """
    return scores(lambda a, b, white: _distance("alex", a, b, white), restored, sharp, data_range)


def lpips_vgg(restored: Picture, sharp: Picture, *, data_range: float = 1.0) -> float | Tensor:
    """Return LPIPS 0.1 on VGG16 (the one that trainings use); otherwise as `lpips_alex`."""
    return scores(lambda a, b, white: _distance("vgg", a, b, white), restored, sharp, data_range)


def lpips_network(backbone: Backbone) -> "LPIPS":
    """Return the network with the weights of the local files, loaded once. Raises `WeightsError` without them."""
    return _loaded(backbone, weights.home())


class LPIPS(nn.Module):
    """The distance of two batches of pictures in [0, 1]; `lin0` to `lin4` are keyed as in the authors' files."""

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.net = AlexNet() if backbone == "alex" else VGG16()
        channels = (64, 192, 384, 256, 256) if backbone == "alex" else VGG16.CHANNELS
        for stage, count in enumerate(channels):
            self.add_module(f"lin{stage}", _Weighting(count))
        # For values from -1 to 1; the authors' own constants, near ImageNet's mean and deviation.
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1), persistent=False)

    def forward(self, restored: Tensor, sharp: Tensor) -> Tensor:
        """Return the distances (B,) of two batches (B, 3, H, W), RGB in [0, 1]."""
        pairs = zip(self._features(restored), self._features(sharp), strict=True)
        distances = [
            self.get_submodule(f"lin{stage}")((a - b).square()).mean((1, 2, 3)) for stage, (a, b) in enumerate(pairs)
        ]
        return torch.stack(distances).sum(0)

    def _features(self, pictures: Tensor) -> list[Tensor]:
        stages = self.net.stages((2 * pictures - 1 - self.shift) / self.scale)
        return [stage / (stage.square().sum(1, keepdim=True).sqrt() + 1e-10) for stage in stages]


class _Weighting(nn.Module):
    """One number a channel; in the authors' model a dropout stands before it, so that its key is `model.1`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))

    def forward(self, squares: Tensor) -> Tensor:
        return self.model(squares)


@cache
def _loaded(backbone: Backbone, home: Path) -> LPIPS:
    network = LPIPS(backbone)
    name, file = ("AlexNet", ALEXNET_FILE) if backbone == "alex" else ("VGG16", VGG16_FILE)
    fill(network.net, local_tensors(file, f"the ImageNet weights of {name}, as PyTorch distributes them"), home / file)
    linear = f"lpips/v0.1/{backbone}.pth"
    repository = "github.com/richzhang/PerceptualSimilarity"
    tensors = local_tensors(linear, f"the linear weights of LPIPS, lpips/weights/v0.1/{backbone}.pth of {repository}")
    for stage in range(5):
        part = network.get_submodule(f"lin{stage}")
        prefix = f"lin{stage}."
        own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        fill(part, own, home / linear)
    return network.eval().requires_grad_(False)


def _distance(backbone: Backbone, restored: Tensor, sharp: Tensor, white: float) -> float:
    height, width = sharp.shape[1:]
    if min(height, width) < SMALLEST_PX:
        raise PhotoError(f"LPIPS needs pictures of at least {SMALLEST_PX} px a side, not {width}x{height}.")
    network = lpips_network(backbone)
    pair = (picture.float().div(white).expand(3, -1, -1)[None] for picture in (restored, sharp))
    with torch.inference_mode():
        return float(network(*pair))
