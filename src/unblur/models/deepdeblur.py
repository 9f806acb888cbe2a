"""DeepDeblur (MSResNet), the same residual network three times, from a quarter of the size to all of it.

Nah, Kim, Lee: "Deep Multi-scale Convolutional Neural Network for Dynamic Scene Deblurring", CVPR 2017
(arXiv 1612.02177), figure 3, in the form of the first author's DeepDeblur-PyTorch. Written from the paper and from
facts about the authors' configuration; keys of the state dict are the authors', so that their checkpoints load without
renaming. Equal to the authors' outputs in the goldens (tests/test_deepdeblur.py).

Inside, colours are 0 to 255 minus 127.5, as the authors' weights want them; the conversion is here. No scale adds its
input to its output.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import pad_to_multiple

WHITE, MIDDLE_GREY = 255.0, 127.5
PYRAMID_SIGMA_PX, PYRAMID_RADIUS_PX = 2 / 3, 3  # scikit-image's for a factor of 2; cut off at 4 sigma


class DeepDeblur(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape, any size; the output is not clamped.

    `width` channels and `blocks` residual blocks at each of the three scales.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        # Numbered as the authors do, finest first; nothing is doubled after the finest scale, so number 0 is empty.
        self.body_models = nn.ModuleList([Scale(6, width, blocks), Scale(6, width, blocks), Scale(3, width, blocks)])
        self.conv_end_models = nn.ModuleList([nn.Identity(), Double(), Double()])

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        return self.training_outputs(blurred)["full"]

    def training_outputs(self, blurred: Tensor) -> dict[str, Tensor]:
        """Return the pictures restored at a quarter of the size, at half and at full size, the result.

        The smaller ones belong to the Gaussian pyramid (`half_size`); sizes that do not divide are rounded up.
        """
        height, width = blurred.shape[-2:]
        full = WHITE * pad_to_multiple(blurred, 4, "replicate")
        half = half_size(full)
        quarter = half_size(half)
        full, half, quarter = full - MIDDLE_GREY, half - MIDDLE_GREY, quarter - MIDDLE_GREY

        restored3 = self.body_models[2](quarter)  # (B, 3, H/4, W/4)
        restored2 = self.body_models[1](torch.cat([half, self.conv_end_models[2](restored3)], dim=1))  # (.., H/2, W/2)
        restored1 = self.body_models[0](torch.cat([full, self.conv_end_models[1](restored2)], dim=1))  # (B, 3, H, W)

        return {
            "quarter": _to_unit_range(restored3, blurred.dtype)[:, :, : -(-height // 4), : -(-width // 4)],
            "half": _to_unit_range(restored2, blurred.dtype)[:, :, : -(-height // 2), : -(-width // 2)],
            "full": _to_unit_range(restored1, blurred.dtype)[:, :, :height, :width],
        }


def half_size(images: Tensor) -> Tensor:
    """Return the next level of the Gaussian pyramid, (B, C, H, W) -> (B, C, H/2, W/2), for even sizes.

    Equals scikit-image's `pyramid_gaussian(downscale=2, order=1, mode="reflect")`: a Gaussian cut off at 4 sigma, edges
    mirrored with the edge repeated, then bilinear sampling, which for a factor of 2 is the mean of four pixels.
    """
    return F.avg_pool2d(_gaussian(_gaussian(images, dim=2), dim=3), 2)


def _gaussian(images: Tensor, dim: int) -> Tensor:
    """Return the images, smoothed along one axis; by sums, which autocast leaves in float32."""
    radius, length = PYRAMID_RADIUS_PX, images.shape[dim]
    bell = [math.exp(-0.5 * (offset / PYRAMID_SIGMA_PX) ** 2) for offset in range(-radius, radius + 1)]
    places = torch.arange(-radius, length + radius, device=images.device).remainder(2 * length)
    mirrored = images.index_select(dim, torch.minimum(places, 2 * length - 1 - places))  # 2 * radius longer
    smoothed = torch.zeros_like(images)
    for start, weight in enumerate(bell):
        smoothed = smoothed + weight / sum(bell) * mirrored.narrow(dim, start, length)
    return smoothed


class Scale(nn.Module):
    """One scale's network: (B, inputs, H, W) -> (B, 3, H, W)."""

    def __init__(self, inputs: int, width: int, blocks: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(inputs, width), *(ResidualBlock(width) for _ in range(blocks)), _conv(width, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return the restored picture of this scale."""
        return self.body(x)


class ResidualBlock(nn.Module):
    """Two convolutions and a path around them; no normalisation, no activation after the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of `x`."""
        return x + self.body(x)


class Double(nn.Module):
    """A picture of twice the size, for the next scale to look at: (B, 3, H, W) -> (B, 3, 2H, 2W)."""

    def __init__(self) -> None:
        super().__init__()
        self.uppath = nn.Sequential(_conv(3, 12), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return the larger picture."""
        return self.uppath(x)


class DeepDeblurCritic(nn.Module):
    """Tells sharp pictures from restored ones: logits, larger for sharper, for the adversarial variant.

    Takes (B, 3, H, W) in [0, 1]; made for 256x256, where it returns (B, 1, 1, 1). Larger pictures get a logit for each
    square of about that size; smaller ones than 193x193 do not pass.
    """

    def __init__(self) -> None:
        super().__init__()
        widths, strides = (32, 32, 64, 64, 128, 128, 256, 256, 512, 512), (1, 2, 1, 2, 1, 4, 1, 4, 1, 4)
        convolutions = [
            nn.Conv2d(inputs, outputs, 5, stride=stride, padding=2, bias=False)
            for inputs, outputs, stride in zip((3, *widths[:-2]), widths[:-1], strides[:-1], strict=True)
        ]
        convolutions.append(nn.Conv2d(widths[-2], widths[-1], 4, stride=strides[-1], bias=False))
        self.conv_layers = nn.ModuleList(convolutions)
        self.dense = nn.Conv2d(widths[-1], 1, 1, bias=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the logits, (B, 1, 1, 1) for pictures of 256x256."""
        x = WHITE * pictures
        for convolution in self.conv_layers:
            x = F.leaky_relu(convolution(x), 0.2)
        return self.dense(x)


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 5, padding=2)


def _to_unit_range(colours: Tensor, dtype: torch.dtype) -> Tensor:
    """Return colours in [0, 1], in the input's `dtype`: a sum in autocast's bfloat16 would round to whole greys."""
    return (colours.to(dtype) + MIDDLE_GREY) / WHITE


PUBLISHED = {"width": 64, "blocks": 19}

ARCH = Arch(
    name="deepdeblur",
    build=DeepDeblur,
    options=PUBLISHED,
    tiny={"width": 8, "blocks": 1},
    size_multiple=4,
    padding="replicate",
    overlap_px=64,
    onnx="one size",
    origin="S. Nah, T. H. Kim, K. M. Lee",
    paper="Deep Multi-scale Convolutional Neural Network for Dynamic Scene Deblurring, CVPR 2017, arXiv 1612.02177",
    stages=3,
    published=dict.fromkeys(
        ("GOPRO_L1", "GOPRO_L1_amp", "REDS_L1", "REDS_L1_amp", "REDS_L1_amp_pretrained"), PUBLISHED
    ),
)
