"""Inception-ResNet-v2, as a backbone.

Szegedy, Ioffe, Vanhoucke, Alemi: "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning",
AAAI 2017 (arXiv 1602.07261), section 3.2, with the stem and widths of the network that its authors released. Keys are
those of the usual one for torch (Cadene's), with the layers that only a classifier needs, so that its weights fit.

The first layers and those that halve the size have no padding: of a picture whose sides are multiples of 32, each level
keeps a few rows and columns less than its share, and whoever joins the levels makes up for that.
"""

import torch
from torch import Tensor, nn

from unblur.models.layers import Statistics, batch_norm, scaled

LEVEL_CHANNELS = (32, 64, 192, 1088, 2080)


class InceptionResNetV2(nn.Module):
    """The layers by their names; `width`, a multiple of 1/32, multiplies the channels of all of them."""

    def __init__(self, width: float, statistics: Statistics) -> None:
        super().__init__()
        if not (width > 0 and (32 * width).is_integer()):
            raise ValueError(f"the width of Inception-ResNet-v2 is a multiple of 1/32, not {width}")

        def conv(
            inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, padded: bool = True
        ) -> NormedConvolution:
            inputs = inputs if inputs == 3 else scaled(inputs, width)
            return NormedConvolution(inputs, scaled(outputs, width), kernel, stride, padded, statistics)

        def residual(channels: int, joined: int, scale: float, *branches: nn.Module) -> Residual:
            return Residual(scaled(channels, width), scaled(joined, width), scale, *branches)

        def block8(scale: float) -> Residual:
            column = nn.Sequential(conv(2080, 192, 1), conv(192, 224, (1, 3)), conv(224, 256, (3, 1)))
            return residual(2080, 448, scale, conv(2080, 192, 1), column)

        # The stem: to an eighth of the size.
        self.conv2d_1a = conv(3, 32, 3, stride=2, padded=False)
        self.conv2d_2a = conv(32, 32, 3, padded=False)
        self.conv2d_2b = conv(32, 64, 3)
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)
        self.conv2d_3b = conv(64, 80, 1)
        self.conv2d_4a = conv(80, 192, 3, padded=False)
        self.maxpool_5a = nn.MaxPool2d(3, stride=2)
        # Figure 16 at an eighth (320 channels), then half the size.
        self.mixed_5b = SideBySide(
            conv(192, 96, 1),
            nn.Sequential(conv(192, 48, 1), conv(48, 64, 5)),
            nn.Sequential(conv(192, 64, 1), conv(64, 96, 3), conv(96, 96, 3)),
            nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), conv(192, 64, 1)),
        )
        self.repeat = nn.Sequential(
            *(
                residual(
                    320,
                    128,
                    0.17,
                    conv(320, 32, 1),
                    nn.Sequential(conv(320, 32, 1), conv(32, 32, 3)),
                    nn.Sequential(conv(320, 32, 1), conv(32, 48, 3), conv(48, 64, 3)),
                )
                for _ in range(10)
            )
        )
        self.mixed_6a = SideBySide(
            conv(320, 384, 3, stride=2, padded=False),
            nn.Sequential(conv(320, 256, 1), conv(256, 256, 3), conv(256, 384, 3, stride=2, padded=False)),
            nn.MaxPool2d(3, stride=2),
        )
        # Figure 17 at a sixteenth (1088 channels), then half the size.
        self.repeat_1 = nn.Sequential(
            *(
                residual(
                    1088,
                    384,
                    0.1,
                    conv(1088, 192, 1),
                    nn.Sequential(conv(1088, 128, 1), conv(128, 160, (1, 7)), conv(160, 192, (7, 1))),
                )
                for _ in range(20)
            )
        )
        self.mixed_7a = SideBySide(
            nn.Sequential(conv(1088, 256, 1), conv(256, 384, 3, stride=2, padded=False)),
            nn.Sequential(conv(1088, 256, 1), conv(256, 288, 3, stride=2, padded=False)),
            nn.Sequential(conv(1088, 256, 1), conv(256, 288, 3), conv(288, 320, 3, stride=2, padded=False)),
            nn.MaxPool2d(3, stride=2),
        )
        # Figure 19 at a thirty-second (2080 channels) and the classifier, which a backbone does not use.
        self.repeat_2 = nn.Sequential(*(block8(0.2) for _ in range(9)))
        self.block8 = block8(1.0)
        self.conv2d_7b = conv(2080, 1536, 1)
        self.last_linear = nn.Linear(scaled(1536, width), 1000)

    def levels(self) -> list[nn.Module]:
        """Return the network in five parts, each of which halves the size; `LEVEL_CHANNELS` come out of them."""
        return [
            self.conv2d_1a,
            nn.Sequential(self.conv2d_2a, self.conv2d_2b, self.maxpool_3a),
            nn.Sequential(self.conv2d_3b, self.conv2d_4a, self.maxpool_5a),
            nn.Sequential(self.mixed_5b, self.repeat, self.mixed_6a),
            nn.Sequential(self.repeat_1, self.mixed_7a),
        ]


class NormedConvolution(nn.Module):
    """A convolution, its norm and a ReLU, to the same size where it is padded and has no stride."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int,
        padded: bool,
        statistics: Statistics,
    ) -> None:
        super().__init__()
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (rows // 2, columns // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, (rows, columns), stride=stride, padding=padding, bias=False)
        self.bn = batch_norm(outputs, statistics, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, h, w), none below 0."""
        y: Tensor = self.bn(self.conv(x))
        return y.relu()


class SideBySide(nn.Module):
    """Several ways of one input; their channels stand side by side in the output."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        for index, branch in enumerate(branches):
            self.add_module(f"branch{index}", branch)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, channels of all branches, h, w)."""
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class Residual(nn.Module):
    """Several ways of one input, joined to its channels, scaled down and added to it, (B, C, H, W) -> (B, C, H, W).

    Unscaled, the sum grows from block to block and training fails (section 3.3).
    """

    def __init__(self, channels: int, joined: int, scale: float, *branches: nn.Module) -> None:
        super().__init__()
        self.scale = scale
        for index, branch in enumerate(branches):
            self.add_module(f"branch{index}", branch)
        self.conv2d = nn.Conv2d(joined, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` and its change, none below 0."""
        branches = [branch(x) for name, branch in self.named_children() if name != "conv2d"]
        change: Tensor = self.conv2d(torch.cat(branches, dim=1))  # (B, C, H, W)
        return (x + self.scale * change).relu()
