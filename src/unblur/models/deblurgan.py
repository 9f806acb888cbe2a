"""DeblurGAN: nine residual blocks at a quarter of the size, trained against a critic of patches.

Kupyn, Budzan, Mykhailych, Mishkin, Matas: "DeblurGAN: Blind Motion Deblurring Using Conditional Adversarial Networks",
CVPR 2018 (arXiv 1711.07064), section 4 and figure 3. Written from the paper; keys of the state dict are the authors',
so that their checkpoints load without renaming. Equal to the authors' outputs in the goldens (tests/test_deblurgan.py).

Two things to know of the authors' code. Its test script leaves the network in training mode: each picture is
normalised by its own statistics, which is our default, and drops half of the features of every block at random, which
we leave to training. And a slip since March 2019 leaves one convolution a block where the paper has two: both kinds of
checkpoint are about; those of two convolutions have keys with `conv_block.6.`.
"""

from typing import Literal

from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import Statistics, instance_norm, pad_to_multiple, reflect


class DeblurGAN(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape and range, any size.

    `channels` at full size, four times as many in the `blocks` residual blocks. `dropout` is the share of features
    that each block drops in training. `statistics` are those of the norms: the `image`'s own, always, or those that
    training gathered (`running`).
    """

    def __init__(
        self, channels: int, blocks: int, convs_per_block: Literal[1, 2], dropout: float, statistics: Statistics
    ) -> None:
        super().__init__()
        if convs_per_block not in (1, 2):
            raise ValueError(f"a block has 1 convolution or 2, not {convs_per_block}")

        def normed(layer: nn.Module, outputs: int) -> list[nn.Module]:
            return [layer, instance_norm(outputs, statistics), nn.ReLU()]

        c = channels
        self.model = nn.Sequential(
            Reflection(3),
            *normed(nn.Conv2d(3, c, 7), c),  # (B, C, H, W)
            *normed(nn.Conv2d(c, 2 * c, 3, stride=2, padding=1), 2 * c),  # (B, 2C, H/2, W/2)
            *normed(nn.Conv2d(2 * c, 4 * c, 3, stride=2, padding=1), 4 * c),  # (B, 4C, H/4, W/4)
            *(ResidualBlock(4 * c, convs_per_block, dropout, statistics) for _ in range(blocks)),
            *normed(_doubling(4 * c, 2 * c), 2 * c),  # (B, 2C, H/2, W/2)
            *normed(_doubling(2 * c, c), c),  # (B, C, H, W)
            Reflection(3),
            nn.Conv2d(c, 3, 7),
            nn.Tanh(),
        )

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        height, width = blurred.shape[-2:]
        x = 2 * pad_to_multiple(blurred, 4, "reflect") - 1  # the authors' range is [-1, 1]
        restored = (x + self.model(x)).clamp(-1, 1)
        return (restored[:, :, :height, :width] + 1) / 2


class ResidualBlock(nn.Module):
    """One or two convolutions between mirrored edges, added to their input, (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, convs: Literal[1, 2], dropout: float, statistics: Statistics) -> None:
        super().__init__()
        layers = [*_reflected(channels, statistics), nn.ReLU(), nn.Dropout(dropout)]
        if convs == 2:
            layers += _reflected(channels, statistics)
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` and what the convolutions make of it."""
        result: Tensor = x + self.conv_block(x)
        return result


class Reflection(nn.Module):
    """Mirrors images beyond their edges, by so many pixels on each side."""

    def __init__(self, px: int) -> None:
        super().__init__()
        self.px = px

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H + 2 px, W + 2 px)."""
        return reflect(x, self.px, self.px, self.px, self.px)


class PatchCritic(nn.Module):
    """Judges the patches of a picture: (B, 3, H, W) in [0, 1] -> (B, 1, h, w), higher for a sharp one.

    There is no sigmoid: the losses that compare probabilities take it themselves. `halvings` convolutions with stride 2
    are followed by two with stride 1; with three of them (DeblurGAN) each verdict sees 70 × 70 pixels. Keys are the
    authors'.
    """

    def __init__(self, halvings: int = 3, channels: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 4, stride=2, padding=2), nn.LeakyReLU(0.2)]
        inputs = channels
        for level in range(1, halvings + 1):
            outputs = channels * min(2**level, 8)
            layers += critic_layer(inputs, outputs, stride=2 if level < halvings else 1)
            inputs = outputs
        self.model = nn.Sequential(*layers, nn.Conv2d(inputs, 1, 4, padding=2))

    def forward(self, pictures: Tensor) -> Tensor:
        """Return one verdict a patch."""
        verdicts: Tensor = self.model(2 * pictures - 1)
        return verdicts


def critic_layer(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """Return a convolution of a critic with its norm, always by each picture's own statistics, and activation."""
    convolution = nn.Conv2d(inputs, outputs, 4, stride=stride, padding=2)
    return [convolution, instance_norm(outputs, "image"), nn.LeakyReLU(0.2)]


def _reflected(channels: int, statistics: Statistics) -> list[nn.Module]:
    return [Reflection(1), nn.Conv2d(channels, channels, 3), instance_norm(channels, statistics)]


def _doubling(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)


ARCH = Arch(
    name="deblurgan",
    build=DeblurGAN,
    options={"channels": 64, "blocks": 9, "convs_per_block": 2, "dropout": 0.5, "statistics": "image"},
    tiny={"channels": 4, "blocks": 2},
    size_multiple=4,
    padding="reflect",
    overlap_px=64,
    whole_statistics=True,
    origin="O. Kupyn, V. Budzan, M. Mykhailych, D. Mishkin, J. Matas",
    paper="DeblurGAN: Blind Motion Deblurring Using Conditional Adversarial Networks, CVPR 2018, arXiv 1711.07064",
    published={
        "deblurgan-2conv": {"convs_per_block": 2},
        "deblurgan-head": {"convs_per_block": 1},
    },
)
