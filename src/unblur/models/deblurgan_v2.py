"""DeblurGAN-v2: a feature pyramid over a network made for recognition, trained against critics at two scales.

Kupyn, Martyniuk, Wu, Wang: "DeblurGAN-v2: Deblurring (Orders-of-Magnitude) Faster and Better", ICCV 2019
(arXiv 1908.03826), section 3 and figure 2. Written from the paper; keys of the state dict are the authors', so that
their checkpoints (without `module.`) load without renaming. Equal to the authors' outputs in the goldens
(tests/test_deblurgan_v2.py).

Two things to know of the authors' code. It restores in training mode, on purpose: every norm, the backbone's too, takes
the statistics of the picture itself; that is our default. And it adds 1 to 32 rows and columns of middle grey, even to
a multiple of 32; we add them only where the size asks for them, so that its results on such pictures differ a little.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unblur.models import inception_resnet_v2, mobilenet_v2
from unblur.models.arch import Arch
from unblur.models.deblurgan import PatchCritic, critic_layer
from unblur.models.layers import ImageNorm2d, Statistics, instance_norm, reflect, scaled

Backbone = Literal["inception_resnet_v2", "mobilenet_v2", "mobilenet_dsc"]


class DeblurGANv2(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape and range, any size.

    With `mobilenet_dsc` every ordinary convolution wider than a pixel, the pyramid's and the heads' too, is made
    depthwise-separable. `backbone_width` multiplies the backbone's channels; the heads have `channels`, the pyramid
    twice as many. `statistics` are those of the norms: the `image`'s own, always, or those that training gathered
    (`running`).
    """

    def __init__(
        self,
        backbone: Backbone,
        backbone_width: float,
        channels: int,
        statistics: Statistics,
    ) -> None:
        super().__init__()
        if backbone not in ("inception_resnet_v2", "mobilenet_v2", "mobilenet_dsc"):
            raise ValueError(f"the backbone is inception_resnet_v2, mobilenet_v2 or mobilenet_dsc, not {backbone!r}")
        convolution = DepthwiseSeparable if backbone == "mobilenet_dsc" else ordinary
        c = channels
        self.smallest_px = 128 if backbone == "inception_resnet_v2" else 32  # below, its last level is too small
        self.fpn = FeaturePyramid(backbone, backbone_width, 2 * c, convolution, statistics)
        self.head1 = Head(2 * c, c, convolution)
        self.head2 = Head(2 * c, c, convolution)
        self.head3 = Head(2 * c, c, convolution)
        self.head4 = Head(2 * c, c, convolution)
        self.smooth = nn.Sequential(convolution(4 * c, c), instance_norm(c, statistics), nn.ReLU())
        self.smooth2 = nn.Sequential(convolution(c, c // 2), instance_norm(c // 2, statistics), nn.ReLU())
        self.final = convolution(c // 2, 3)

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        height, width = blurred.shape[-2:]
        x = self._padded(2 * blurred - 1)  # the authors' range is [-1, 1]
        halves, *maps = self.fpn(x)  # (B, C, H/2, W/2); (B, 2C, H/4, W/4) ... (B, 2C, H/32, W/32)
        heads = (self.head1, self.head2, self.head3, self.head4)
        upsampled = [_enlarged(head(level), 2**k) for k, (head, level) in enumerate(zip(heads, maps, strict=True))]
        y = self.smooth(torch.cat(upsampled[::-1], dim=1))  # (B, C, H/4, W/4)
        y = self.smooth2(_enlarged(y, 2) + halves)  # (B, C/2, H/2, W/2)
        y = self.final(_enlarged(y, 2))  # (B, 3, H, W)
        restored = (x + y.tanh()).clamp(-1, 1)
        return (restored[:, :, :height, :width] + 1) / 2

    def _padded(self, x: Tensor) -> Tensor:
        """Return the pictures with middle grey on the right and below, to multiples of 32 that the backbone takes."""
        bottom, right = (max(-length % 32, self.smallest_px - length) for length in x.shape[-2:])
        return F.pad(x, (0, right, 0, bottom)) if bottom or right else x


Convolution = Callable[..., nn.Module]
"""Makes a convolution 3×3 of (inputs, outputs, stride=1, bias=True)."""

INCEPTION_MISSING_PX = ((0, 1, 0, 1), (1, 1, 1, 1), (1, 2, 1, 2), (1, 1, 1, 1), (1, 1, 1, 1))
"""What each level of Inception-ResNet-v2 misses left, right, above and below, for want of padding."""


class FeaturePyramid(nn.Module):
    """The backbone's levels, from fine to coarse, each joined with what the coarser ones saw.

    (B, 3, H, W) -> (B, C/2, H/2, W/2) as the backbone saw it, then (B, C, H/4, W/4) to (B, C, H/32, W/32).
    """

    def __init__(
        self, backbone: Backbone, width: float, channels: int, convolution: Convolution, statistics: Statistics
    ) -> None:
        super().__init__()
        if backbone == "inception_resnet_v2":
            self.inception = inception_resnet_v2.InceptionResNetV2(width, statistics)
            levels, level_channels = self.inception.levels(), inception_resnet_v2.LEVEL_CHANNELS
            self.missing_px: tuple[tuple[int, int, int, int], ...] = INCEPTION_MISSING_PX
        else:
            self.features = mobilenet_v2.mobilenet_v2(width, statistics, convolution)
            levels, level_channels = mobilenet_v2.levels(self.features), mobilenet_v2.LEVEL_CHANNELS
            self.missing_px = ((0, 0, 0, 0),) * 5
        # The same modules under a second name: the authors' files hold the backbone twice.
        self.enc0, self.enc1, self.enc2, self.enc3, self.enc4 = levels

        def merging() -> nn.Sequential:
            return nn.Sequential(convolution(channels, channels), instance_norm(channels, statistics), nn.ReLU())

        self.td1, self.td2, self.td3 = merging(), merging(), merging()
        inputs = [scaled(count, width) for count in level_channels]
        self.lateral4 = nn.Conv2d(inputs[4], channels, 1, bias=False)
        self.lateral3 = nn.Conv2d(inputs[3], channels, 1, bias=False)
        self.lateral2 = nn.Conv2d(inputs[2], channels, 1, bias=False)
        self.lateral1 = nn.Conv2d(inputs[1], channels, 1, bias=False)
        self.lateral0 = nn.Conv2d(inputs[0], channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the five maps, from fine to coarse."""
        encoders = (self.enc0, self.enc1, self.enc2, self.enc3, self.enc4)
        laterals = (self.lateral0, self.lateral1, self.lateral2, self.lateral3, self.lateral4)
        levels = []
        for encoder, lateral, missing in zip(encoders, laterals, self.missing_px, strict=True):
            x = encoder(x)
            level = lateral(x)  # (B, C, H/2^k, W/2^k), a few rows and columns less after Inception-ResNet-v2
            levels.append(reflect(level, *missing) if any(missing) else level)
        level0, level1, level2, level3, map4 = levels
        map3 = self.td1(level3 + _enlarged(map4, 2))
        map2 = self.td2(level2 + _enlarged(map3, 2))
        map1 = self.td3(level1 + _enlarged(map2, 2))
        return [level0, map1, map2, map3, map4]


class Head(nn.Module):
    """Two convolutions that make a map of the pyramid ready to be joined with the others, none below 0."""

    def __init__(self, inputs: int, outputs: int, convolution: Convolution) -> None:
        super().__init__()
        self.block0 = convolution(inputs, outputs, bias=False)
        self.block1 = convolution(outputs, outputs, bias=False)

    def forward(self, level: Tensor) -> Tensor:
        """Return (B, outputs, H, W)."""
        y: Tensor = self.block1(self.block0(level).relu())
        return y.relu()


def ordinary(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Module:
    """Return a convolution 3×3."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias)


class DepthwiseSeparable(nn.Module):
    """A convolution 3×3 of each channel by itself, then one 1×1 over the channels, with nothing between them."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H/stride, W/stride)."""
        y: Tensor = self.pointwise(self.depthwise(x))
        return y


def _enlarged(x: Tensor, factor: int) -> Tensor:
    """Return `x` with every pixel `factor` times in each direction."""
    return F.interpolate(x, scale_factor=factor, mode="nearest")


def patch_critic() -> PatchCritic:
    """Return the critic of patches of 70 × 70 pixels, which is DeblurGAN's."""
    return PatchCritic(halvings=3)


def full_critic() -> PatchCritic:
    """Return the critic that sees 286 × 286 pixels at once, a whole training picture."""
    return PatchCritic(halvings=5)


class MultiScaleCritic(nn.Module):
    """Judges patches of three sizes: (B, 3, H, W) in [0, 1] -> three times (B, 1, h, w), higher for a sharp one.

    Keys are the authors'. Two critics, `patch_critic` and `full_critic`, are what the paper trains with.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        c = channels
        self.scale_one = nn.Sequential(
            nn.Conv2d(3, c, 4, stride=2, padding=2),
            nn.LeakyReLU(0.2),
            *critic_layer(c, 2 * c, stride=2),
            *critic_layer(2 * c, 4 * c, stride=2),
        )
        self.first_tail = CriticTail(4 * c, 8 * c)
        self.scale_two = nn.Sequential(*critic_layer(4 * c, 8 * c, stride=2))
        self.second_tail = CriticTail(8 * c, 8 * c)
        self.scale_three = nn.Sequential(*critic_layer(8 * c, 8 * c, stride=2))
        self.third_tail = CriticTail(8 * c, 8 * c)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Return one verdict a patch, for the small patches first."""
        one = self.scale_one(2 * pictures - 1)  # (B, 4C, H/8, W/8)
        two = self.scale_two(one)  # (B, 8C, H/16, W/16)
        three = self.scale_three(two)  # (B, 8C, H/32, W/32)
        return [self.first_tail(one), self.second_tail(two), self.third_tail(three)]


class CriticTail(nn.Module):
    """Turns features into verdicts, (B, inputs, H, W) -> (B, 1, H + 2, W + 2)."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(inputs, channels, 4, padding=2, bias=False),
            ImageNorm2d(channels, affine=True),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, 1, 4, padding=2),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return one verdict a patch."""
        verdicts: Tensor = self.model(features)
        return verdicts


ARCH = Arch(
    name="deblurgan_v2",
    build=DeblurGANv2,
    options={
        "backbone": "inception_resnet_v2",
        "backbone_width": 1.0,
        "channels": 128,
        "statistics": "image",
    },
    tiny={"backbone": "mobilenet_v2", "backbone_width": 1 / 16, "channels": 8},
    size_multiple=32,
    padding="grey",
    overlap_px=64,
    whole_statistics=True,
    origin="O. Kupyn, T. Martyniuk, J. Wu, Z. Wang",
    paper="DeblurGAN-v2: Deblurring (Orders-of-Magnitude) Faster and Better, ICCV 2019, arXiv 1908.03826",
    unused=(
        *(f"fpn.inception.{layer}." for layer in ("repeat_2", "block8", "conv2d_7b", "last_linear")),
        *(f"fpn.features.{part}." for part in (16, 17, 18)),
    ),
    published={
        "fpn_inception": {"backbone": "inception_resnet_v2", "channels": 128},
        "fpn_mobilenet": {"backbone": "mobilenet_v2", "channels": 64},
        "fpn_mobilenet_dsc": {"backbone": "mobilenet_dsc", "channels": 64},
    },
)
