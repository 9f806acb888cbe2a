"""MobileNet-v2 without its classifier, as a backbone.

Sandler, Howard, Zhu, Zhmoginov, Chen: "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018
(arXiv 1801.04381), table 2. Keys are those of the usual implementation, `0 ... 18` with `conv.N` in the blocks.
"""

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn

from unblur.models.layers import Statistics, batch_norm, scaled

BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Table 2: expansion, channels, number of blocks, stride of the first of them."""
LEVEL_CHANNELS = (16, 24, 32, 64, 160)


def mobilenet_v2(width: float, statistics: Statistics, convolution: Callable[..., nn.Module]) -> nn.Sequential:
    """Return the 19 parts: a convolution, 17 blocks, a convolution. `width` multiplies all channels.

    `convolution` makes the first layer, 3×3, of (inputs, outputs, stride, bias).
    """
    channels = scaled(32, width)
    parts: list[nn.Module] = [_normed(convolution(3, channels, stride=2, bias=False), channels, statistics)]
    for expansion, full_channels, count, stride in BLOCKS:
        for index in range(count):
            outputs = scaled(full_channels, width)
            parts.append(InvertedResidual(channels, outputs, expansion, stride if index == 0 else 1, statistics))
            channels = outputs
    last = scaled(1280, width)
    parts.append(_normed(nn.Conv2d(channels, last, 1, bias=False), last, statistics))
    return nn.Sequential(*parts)


def levels(parts: nn.Sequential) -> list[nn.Module]:
    """Return the network in five parts, each of which halves the size; `LEVEL_CHANNELS` come out of them.

    The last two blocks and the last convolution, which only a classifier needs, are left out.
    """
    ends = (0, 2, 4, 7, 11, 16)
    return [nn.Sequential(*list(parts)[start:end]) for start, end in pairwise(ends)]


class InvertedResidual(nn.Module):
    """Widens, filters each channel by itself, narrows without an activation; added to the input where shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, statistics: Statistics) -> None:
        super().__init__()
        wide = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += _normed(nn.Conv2d(inputs, wide, 1, bias=False), wide, statistics)
        filters = nn.Conv2d(wide, wide, 3, stride=stride, padding=1, groups=wide, bias=False)
        layers += _normed(filters, wide, statistics)
        layers += [nn.Conv2d(wide, outputs, 1, bias=False), batch_norm(outputs, statistics)]
        self.conv = nn.Sequential(*layers)
        self.has_skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H/stride, W/stride)."""
        y: Tensor = self.conv(x)
        return x + y if self.has_skip else y


def _normed(convolution: nn.Module, channels: int, statistics: Statistics) -> nn.Sequential:
    return nn.Sequential(convolution, batch_norm(channels, statistics), nn.ReLU6())
