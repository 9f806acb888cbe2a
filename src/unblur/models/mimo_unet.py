"""MIMO-UNet and MIMO-UNet+, one U-Net that takes the picture in three sizes and restores it in three sizes.

Cho, Ji, Hong, Jung, Ko: "Rethinking Coarse-to-Fine Approach in Single Image Deblurring", ICCV 2021 (arXiv 2108.05054),
figures 2 and 4. Written from the paper and from facts about the authors' configuration; keys of the state dict are the
authors', so that their checkpoints load without renaming. Equal to the authors' outputs in the goldens
(tests/test_mimo_unet.py).

The smaller pictures are every second and every fourth pixel, without any smoothing (the authors' code; the paper
leaves it open).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import pad_to_multiple


class MIMOUNet(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape, any size; the output is not clamped.

    `width` channels at full size, doubled at each halving, and `blocks` residual blocks at each of the six places.
    In training `dropout` is the part of the channels of the fused features that is left out; MIMO-UNet+ has it.
    """

    def __init__(self, width: int, blocks: int, dropout: float) -> None:
        super().__init__()
        full, half, quarter = width, 2 * width, 4 * width
        self.Encoder = nn.ModuleList(Blocks(channels, blocks) for channels in (full, half, quarter))
        self.feat_extract = nn.ModuleList(
            [
                Conv(3, full, 3),
                Conv(full, half, 3, stride=2),
                Conv(half, quarter, 3, stride=2),
                Conv(quarter, half, 4, stride=2, transposed=True),
                Conv(half, full, 4, stride=2, transposed=True),
                Conv(full, 3, 3, relu=False),
            ]
        )
        self.Decoder = nn.ModuleList(Blocks(channels, blocks) for channels in (quarter, half, full))
        self.Convs = nn.ModuleList([Conv(quarter, half, 1), Conv(half, full, 1)])
        self.ConvsOut = nn.ModuleList([Conv(quarter, 3, 3, relu=False), Conv(half, 3, 3, relu=False)])
        self.AFFs = nn.ModuleList([FeatureFusion(7 * width, full), FeatureFusion(7 * width, half)])
        self.FAM1, self.SCM1 = FeatureAttention(quarter), ShallowFeatures(quarter)
        self.FAM2, self.SCM2 = FeatureAttention(half), ShallowFeatures(half)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        return self.training_outputs(blurred)["full"]

    def training_outputs(self, blurred: Tensor) -> dict[str, Tensor]:
        """Return the pictures restored at a quarter of the size, at half and at full size, the result.

        The smaller ones belong to every fourth and every second pixel; sizes that do not divide are rounded up.
        """
        height, width = blurred.shape[-2:]
        full = pad_to_multiple(blurred, 4, "reflect")
        half, quarter = full[:, :, ::2, ::2], full[:, :, ::4, ::4]

        encoded1 = self.Encoder[0](self.feat_extract[0](full))  # (B, C, H, W)
        encoded2 = self.FAM2(self.feat_extract[1](encoded1), self.SCM2(half))
        encoded2 = self.Encoder[1](encoded2)  # (B, 2C, H/2, W/2)
        encoded3 = self.FAM1(self.feat_extract[2](encoded2), self.SCM1(quarter))
        encoded3 = self.Encoder[2](encoded3)  # (B, 4C, H/4, W/4)

        fused1 = self.dropout(self.AFFs[0]([encoded1, encoded2, encoded3], encoded1))  # (B, C, H, W)
        fused2 = self.dropout(self.AFFs[1]([encoded1, encoded2, encoded3], encoded2))  # (B, 2C, H/2, W/2)

        decoded3 = self.Decoder[0](encoded3)  # (B, 4C, H/4, W/4)
        decoded2 = self.Convs[0](torch.cat([self.feat_extract[3](decoded3), fused2], dim=1))
        decoded2 = self.Decoder[1](decoded2)  # (B, 2C, H/2, W/2)
        decoded1 = self.Convs[1](torch.cat([self.feat_extract[4](decoded2), fused1], dim=1))
        decoded1 = self.Decoder[2](decoded1)  # (B, C, H, W)

        return {
            "quarter": (quarter + self.ConvsOut[0](decoded3))[:, :, : -(-height // 4), : -(-width // 4)],
            "half": (half + self.ConvsOut[1](decoded2))[:, :, : -(-height // 2), : -(-width // 2)],
            "full": (full + self.feat_extract[5](decoded1))[:, :, :height, :width],
        }


class FeatureFusion(nn.Module):
    """Mixes the encoder's features of all sizes at one of them ("asymmetric feature fusion", figure 4c)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(Conv(inputs, outputs, 1), Conv(outputs, outputs, 3, relu=False))

    def forward(self, encoded: list[Tensor], size_of: Tensor) -> Tensor:
        """Return features of the height and width of `size_of`."""
        return self.conv(torch.cat([F.interpolate(level, size=size_of.shape[-2:]) for level in encoded], dim=1))


class FeatureAttention(nn.Module):
    """Adds the product of two features, through a convolution, to the first (figure 4b)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.merge = Conv(channels, channels, 3, relu=False)

    def forward(self, features: Tensor, shallow: Tensor) -> Tensor:
        """Return features of the shape of both arguments."""
        return features + self.merge(features * shallow)


class ShallowFeatures(nn.Module):
    """Features of a smaller picture, among them the picture itself (figure 4a)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            Conv(3, channels // 4, 3),
            Conv(channels // 4, channels // 2, 1),
            Conv(channels // 2, channels // 2, 3),
            Conv(channels // 2, channels - 3, 1),
        )
        self.conv = Conv(channels, channels, 1, relu=False)

    def forward(self, blurred: Tensor) -> Tensor:
        """Return (B, channels, H, W) of (B, 3, H, W)."""
        return self.conv(torch.cat([blurred, self.main(blurred)], dim=1))


class ResidualBlock(nn.Module):
    """Two convolutions and a path around them; no normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(Conv(channels, channels, 3), Conv(channels, channels, 3, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of `x`."""
        return x + self.main(x)


class Blocks(nn.Module):
    """Residual blocks, one after the other, under the name that the authors' keys have."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of `x`."""
        return self.layers(x)


class Conv(nn.Module):
    """A convolution and a ReLU, which keep the size, or by `stride` divide it (transposed: multiply it)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, relu: bool = True, transposed: bool = False
    ) -> None:
        super().__init__()
        kind = nn.ConvTranspose2d if transposed else nn.Conv2d
        convolution = kind(inputs, outputs, kernel, stride=stride, padding=(kernel - 1) // 2)
        self.main = nn.Sequential(convolution, nn.ReLU()) if relu else nn.Sequential(convolution)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H, W), sizes divided or multiplied by the stride."""
        return self.main(x)


STANDARD = {"width": 32, "blocks": 8, "dropout": 0.0}
PLUS = {"width": 32, "blocks": 20, "dropout": 0.1}

ARCH = Arch(
    name="mimo_unet",
    build=MIMOUNet,
    options=STANDARD,
    tiny={"width": 4, "blocks": 1},
    size_multiple=4,
    padding="reflect",
    overlap_px=32,
    origin="S.-J. Cho, S.-W. Ji, J.-P. Hong, S.-W. Jung, S.-J. Ko",
    paper="Rethinking Coarse-to-Fine Approach in Single Image Deblurring, ICCV 2021, arXiv 2108.05054",
    stages=3,
    published={"MIMO-UNet": STANDARD, "MIMO-UNetPlus": PLUS},
)
