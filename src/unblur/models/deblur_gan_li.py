"""Li's GAN for deblurring: DeblurGAN's shape with batch normalisation and without a path for the input.

Li: "Image Deblurring using GAN", 2023 (arXiv 2312.09496), as document C lists it layer by layer (section 2.2.1). No
code of the author's is known, so the keys are ours. Where the list is silent we chose: ×2 by repeated pixels before
each of the two convolutions that go up, a batch norm and a ReLU after every convolution but the last, residual blocks
as in He et al. 2015 (the ReLU after the sum), tanh at the end, zeros around what is convolved.
"""

from typing import Literal

from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import pad_to_multiple


class DeblurGANLi(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape and range, any size.

    `channels` at full size, four times as many in the `blocks` residual blocks at a quarter of it.
    """

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        c = channels
        self.down = nn.Sequential(_normed(3, c, 7), _normed(c, 2 * c, 3, stride=2), _normed(2 * c, 4 * c, 3, stride=2))
        self.middle = nn.Sequential(*(ResidualBlock(4 * c) for _ in range(blocks)))
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2),
            _normed(4 * c, 2 * c, 3),
            nn.Upsample(scale_factor=2),
            _normed(2 * c, c, 3),
            nn.Conv2d(c, 3, 7, padding=3),
            nn.Tanh(),
        )

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        height, width = blurred.shape[-2:]
        x = 2 * pad_to_multiple(blurred, 4, "reflect") - 1  # [-1, 1], where tanh ends
        x = self.middle(self.down(x))  # (B, 4C, H/4, W/4)
        x = self.up(x)  # (B, 3, H, W)
        return (x[:, :, :height, :width] + 1) / 2


class ResidualBlock(nn.Module):
    """Two convolutions with their norms, added to their input, (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _normed(channels, channels, 3)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` and what the convolutions make of it, none below 0."""
        y: Tensor = x + self.second(self.first(x))
        return y.relu()


ACTIVATIONS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "none": nn.Identity}


class PatchCritic(nn.Module):
    """Judges the patches of a picture: (B, 3, H, W) in [0, 1], sides of at least 16 -> (B, 1, H/16, W/16).

    Six convolutions 4×4; sharp ones tend to 1, others to 0 (`sigmoid`) or -1 (`tanh`): the document names both. With
    `none` the scores are those before the sigmoid, which the loss `gan` takes itself.
    """

    def __init__(self, activation: Literal["sigmoid", "tanh", "none"] = "sigmoid", channels: int = 64) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"the activation is sigmoid, tanh or none, not {activation!r}")
        c = channels
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, c), (c, c), (c, 2 * c), (2 * c, 4 * c)):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        same_size = nn.ZeroPad2d((1, 2, 1, 2))
        layers += [same_size, nn.Conv2d(4 * c, 8 * c, 4), nn.LeakyReLU(0.2)]
        layers += [same_size, nn.Conv2d(8 * c, 1, 4), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return one verdict a patch."""
        verdicts: Tensor = self.layers(2 * pictures - 1)
        return verdicts


def _normed(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


ARCH = Arch(
    name="deblur_gan_li",
    build=DeblurGANLi,
    options={"channels": 64, "blocks": 9},
    tiny={"channels": 4, "blocks": 2},
    size_multiple=4,
    padding="reflect",
    overlap_px=64,
    origin="Z. Li",
    paper="Image Deblurring using GAN, 2023, arXiv 2312.09496",
)
