"""MPRNet, three stages that see the picture in quarters, in halves and whole.

Zamir, Arora, Khan, Hayat, Khan, Yang, Shao: "Multi-Stage Progressive Image Restoration", CVPR 2021 (arXiv 2102.02808),
figures 2, 3 and 4. Written from the paper and from facts about the authors' configuration; keys of the state dict are
the authors', so that their checkpoints load without renaming. Equal to the authors' outputs in the goldens
(tests/test_mprnet.py).

The first two stages are U-Nets, each with a small picture of its own as by-product; the third keeps the full size.
A stage encodes its patches one by one and decodes pairs of them joined, so that the features of one stage have the
patches of the next. Patches of one size go through a stage as one batch, which is the same as one after the other:
the channel attention averages over each patch, not over the picture.
"""

from typing import cast

import torch
from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import pad_to_multiple

Levels = tuple[Tensor, Tensor, Tensor]  # features at full, half and quarter size


class MPRNet(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape, any size; the output is not clamped.

    `width` channels at full size, `level_growth` more at each halving in the first two stages, `last_growth` more in
    the last stage, each of whose three groups has `blocks` blocks. `reduction` makes the channel attention cheaper.
    """

    def __init__(self, width: int, level_growth: int, last_growth: int, blocks: int, reduction: int) -> None:
        super().__init__()
        activation = nn.PReLU()  # one weight for the whole network, in the state dict once per block
        levels = (width, width + level_growth, width + 2 * level_growth)
        last = width + last_growth
        self.shallow_feat1 = _shallow_features(width, reduction, activation)
        self.shallow_feat2 = _shallow_features(width, reduction, activation)
        self.shallow_feat3 = _shallow_features(width, reduction, activation)
        self.stage1_encoder = Encoder(levels, reduction, activation, takes_earlier=False)
        self.stage1_decoder = Decoder(levels, reduction, activation)
        self.stage2_encoder = Encoder(levels, reduction, activation, takes_earlier=True)
        self.stage2_decoder = Decoder(levels, reduction, activation)
        self.stage3_orsnet = FullSizeStage(levels, last, blocks, reduction, activation)
        self.sam12 = SupervisedAttention(width)
        self.sam23 = SupervisedAttention(width)
        self.concat12 = _conv3(2 * width, width)
        self.concat23 = _conv3(2 * width, last)
        self.tail = _conv3(last, 3)

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        return self.training_outputs(blurred)["stage3"]

    def training_outputs(self, blurred: Tensor) -> dict[str, Tensor]:
        """Return what each of the three stages restored, each (B, 3, H, W); the last one is the result."""
        height, width = blurred.shape[-2:]
        whole = pad_to_multiple(blurred, 8, "reflect")
        halves = split(whole, dim=2)  # (2B, 3, H/2, W)
        quarters = split(halves, dim=3)  # (4B, 3, H/2, W/2)

        encoded = _joined(self.stage1_encoder(self.shallow_feat1(quarters)), dim=3)
        decoded = self.stage1_decoder(encoded)
        handed_on, restored1 = self.sam12(decoded[0], halves)  # (2B, C, H/2, W), (2B, 3, H/2, W)

        features = self.concat12(torch.cat([self.shallow_feat2(halves), handed_on], dim=1))
        encoded = _joined(self.stage2_encoder(features, (encoded, decoded)), dim=2)
        decoded = self.stage2_decoder(encoded)
        handed_on, restored2 = self.sam23(decoded[0], whole)  # (B, C, H, W), (B, 3, H, W)

        features = self.concat23(torch.cat([self.shallow_feat3(whole), handed_on], dim=1))
        restored3 = whole + self.tail(self.stage3_orsnet(features, encoded, decoded))

        stages = {"stage1": join(restored1, dim=2), "stage2": restored2, "stage3": restored3}
        return {stage: restored[:, :, :height, :width] for stage, restored in stages.items()}


def split(x: Tensor, dim: int) -> Tensor:
    """Return the first and the second half along `dim` as one batch of twice the size, first halves first."""
    return torch.cat(x.chunk(2, dim), dim=0)


def join(x: Tensor, dim: int) -> Tensor:
    """Undo `split`."""
    return torch.cat(x.chunk(2, 0), dim=dim)


class Encoder(nn.Module):
    """The way down of a U-Net; in the second stage each level adds what the first stage found there (figure 3b)."""

    def __init__(
        self, levels: tuple[int, int, int], reduction: int, activation: nn.PReLU, *, takes_earlier: bool
    ) -> None:
        super().__init__()
        self.encoder_level1 = _two_blocks(levels[0], reduction, activation)
        self.encoder_level2 = _two_blocks(levels[1], reduction, activation)
        self.encoder_level3 = _two_blocks(levels[2], reduction, activation)
        self.down12 = Halve(levels[0], levels[1])
        self.down23 = Halve(levels[1], levels[2])
        if takes_earlier:  # "cross-stage feature fusion"
            self.csff_enc1, self.csff_dec1 = _conv1(levels[0], levels[0]), _conv1(levels[0], levels[0])
            self.csff_enc2, self.csff_dec2 = _conv1(levels[1], levels[1]), _conv1(levels[1], levels[1])
            self.csff_enc3, self.csff_dec3 = _conv1(levels[2], levels[2]), _conv1(levels[2], levels[2])

    def forward(self, x: Tensor, earlier: tuple[Levels, Levels] | None = None) -> Levels:
        """Return the features of the three levels; `earlier` are the last stage's, from encoder and decoder."""
        level1 = self.encoder_level1(x)  # (B, C1, H, W)
        if earlier is not None:
            level1 = level1 + self.csff_enc1(earlier[0][0]) + self.csff_dec1(earlier[1][0])
        level2 = self.encoder_level2(self.down12(level1))  # (B, C2, H/2, W/2)
        if earlier is not None:
            level2 = level2 + self.csff_enc2(earlier[0][1]) + self.csff_dec2(earlier[1][1])
        level3 = self.encoder_level3(self.down23(level2))  # (B, C3, H/4, W/4)
        if earlier is not None:
            level3 = level3 + self.csff_enc3(earlier[0][2]) + self.csff_dec3(earlier[1][2])
        return level1, level2, level3


class Decoder(nn.Module):
    """The way up of a U-Net, whose skip connections go through a block."""

    def __init__(self, levels: tuple[int, int, int], reduction: int, activation: nn.PReLU) -> None:
        super().__init__()
        self.decoder_level1 = _two_blocks(levels[0], reduction, activation)
        self.decoder_level2 = _two_blocks(levels[1], reduction, activation)
        self.decoder_level3 = _two_blocks(levels[2], reduction, activation)
        self.skip_attn1 = ChannelAttentionBlock(levels[0], reduction, activation)
        self.skip_attn2 = ChannelAttentionBlock(levels[1], reduction, activation)
        self.up21 = Double(levels[1], levels[0])
        self.up32 = Double(levels[2], levels[1])

    def forward(self, encoded: Levels) -> Levels:
        """Return the decoder's features of the three levels, of the shapes of the encoder's."""
        level3 = self.decoder_level3(encoded[2])  # (B, C3, H/4, W/4)
        level2 = self.decoder_level2(self.up32(level3) + self.skip_attn2(encoded[1]))  # (B, C2, H/2, W/2)
        level1 = self.decoder_level1(self.up21(level2) + self.skip_attn1(encoded[0]))  # (B, C1, H, W)
        return level1, level2, level3


class FullSizeStage(nn.Module):
    """Three groups of blocks that never shrink the picture; after each, one level of the last stage is added."""

    def __init__(
        self, levels: tuple[int, int, int], channels: int, blocks: int, reduction: int, activation: nn.PReLU
    ) -> None:
        super().__init__()
        self.orb1 = BlockGroup(channels, blocks, reduction, activation)
        self.orb2 = BlockGroup(channels, blocks, reduction, activation)
        self.orb3 = BlockGroup(channels, blocks, reduction, activation)
        self.up_enc1, self.up_dec1 = Double(levels[1], levels[0]), Double(levels[1], levels[0])
        self.up_enc2 = nn.Sequential(Double(levels[2], levels[1]), Double(levels[1], levels[0]))
        self.up_dec2 = nn.Sequential(Double(levels[2], levels[1]), Double(levels[1], levels[0]))
        self.conv_enc1, self.conv_dec1 = _conv1(levels[0], channels), _conv1(levels[0], channels)
        self.conv_enc2, self.conv_dec2 = _conv1(levels[0], channels), _conv1(levels[0], channels)
        self.conv_enc3, self.conv_dec3 = _conv1(levels[0], channels), _conv1(levels[0], channels)

    def forward(self, x: Tensor, encoded: Levels, decoded: Levels) -> Tensor:
        """Return features of the shape of `x`."""
        x = self.orb1(x) + self.conv_enc1(encoded[0]) + self.conv_dec1(decoded[0])
        x = self.orb2(x) + self.conv_enc2(self.up_enc1(encoded[1])) + self.conv_dec2(self.up_dec1(decoded[1]))
        return self.orb3(x) + self.conv_enc3(self.up_enc2(encoded[2])) + self.conv_dec3(self.up_dec2(decoded[2]))


class SupervisedAttention(nn.Module):
    """Makes a picture of a stage's features, and lets that picture choose which features go on (figure 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv1(channels, channels)
        self.conv2 = _conv1(channels, 3)
        self.conv3 = _conv1(3, channels)

    def forward(self, x: Tensor, blurred: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features for the next stage, of the shape of `x`, and the picture, of the shape of `blurred`."""
        restored = blurred + self.conv2(x)
        return x + self.conv1(x) * self.conv3(restored).sigmoid(), restored


class BlockGroup(nn.Module):
    """Blocks one after the other with a path around all of them ("original resolution block")."""

    def __init__(self, channels: int, blocks: int, reduction: int, activation: nn.PReLU) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(ChannelAttentionBlock(channels, reduction, activation) for _ in range(blocks)),
            _conv3(channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of `x`."""
        return x + self.body(x)


class ChannelAttentionBlock(nn.Module):
    """Two convolutions, a weight for each channel, and a path around them (figure 3a)."""

    def __init__(self, channels: int, reduction: int, activation: nn.PReLU) -> None:
        super().__init__()
        self.CA = ChannelAttention(channels, reduction)
        self.body = nn.Sequential(_conv3(channels, channels), activation, _conv3(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of `x`."""
        return x + self.CA(self.body(x))


class ChannelAttention(nn.Module):
    """Weighs each channel by a factor in (0, 1) that depends on the mean of all channels."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        inner = channels // reduction
        self.conv_du = nn.Sequential(_conv1(channels, inner), nn.ReLU(), _conv1(inner, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of `x`."""
        return x * self.conv_du(x.mean(dim=(2, 3), keepdim=True))


class Halve(nn.Module):
    """Half the size by bilinear interpolation, then other channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Upsample(scale_factor=0.5, mode="bilinear"), _conv1(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H/2, W/2)."""
        return self.down(x)


class Double(nn.Module):
    """Twice the size by bilinear interpolation, then other channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), _conv1(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, 2H, 2W)."""
        return self.up(x)


def _shallow_features(channels: int, reduction: int, activation: nn.PReLU) -> nn.Sequential:
    return nn.Sequential(_conv3(3, channels), ChannelAttentionBlock(channels, reduction, activation))


def _two_blocks(channels: int, reduction: int, activation: nn.PReLU) -> nn.Sequential:
    return nn.Sequential(*(ChannelAttentionBlock(channels, reduction, activation) for _ in range(2)))


def _conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def _conv1(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=False)


def _joined(levels: Levels, dim: int) -> Levels:
    return cast(Levels, tuple(join(level, dim) for level in levels))


PUBLISHED = {"width": 96, "level_growth": 48, "last_growth": 32, "blocks": 8, "reduction": 4}

ARCH = Arch(
    name="mprnet",
    build=MPRNet,
    options=PUBLISHED,
    tiny={"width": 8, "level_growth": 1, "last_growth": 0, "blocks": 1, "reduction": 1},
    size_multiple=8,
    padding="reflect",
    overlap_px=64,
    onnx="one size",
    origin="S. W. Zamir, A. Arora, S. Khan, M. Hayat, F. S. Khan, M.-H. Yang, L. Shao",
    paper="Multi-Stage Progressive Image Restoration, CVPR 2021, arXiv 2102.02808",
    stages=3,
    published={"model_deblurring": PUBLISHED},
)
