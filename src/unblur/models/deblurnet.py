"""DeblurNet of document B: four convolutions down, five transposed ones up, 1,367,747 parameters.

Like its reduced form it has no path for the input: a sixteenth of the picture's size and a sigmoid lie between the two,
so that it returns even a sharp picture blurred.

The document lists the first layers and says "repeated with increasing number of output channels"; the reading that
comes to its 1.3 million: 32, 64, 128, 256 channels down, one layer 256->128 between, 256, 128, 64, 32, 3 channels up.
Of the five transposed convolutions the second keeps the size, as in the reduced form.
"""

from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import pad_to_multiple


class DeblurNet(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape, any size; the output lies within (0, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(*_halving(3, 32), *_halving(32, 64), *_halving(64, 128), *_halving(128, 256))
        self.between = nn.Sequential(nn.Conv2d(256, 128, 3, padding=1), nn.ReLU())
        self.decoder = nn.Sequential(
            _doubling(128, 256),
            nn.ReLU(),
            nn.ConvTranspose2d(256, 128, 3, stride=1, padding=1),
            nn.ReLU(),
            _doubling(128, 64),
            nn.ReLU(),
            _doubling(64, 32),
            nn.ReLU(),
            _doubling(32, 3),
            nn.Sigmoid(),
        )

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        height, width = blurred.shape[-2:]
        features = self.encoder(pad_to_multiple(blurred, 16, "reflect"))  # (B, 256, H/16, W/16)
        return self.decoder(self.between(features))[:, :, :height, :width]


def _halving(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]


def _doubling(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)


ARCH = Arch(
    name="deblurnet",
    build=DeblurNet,
    options={},
    tiny={},
    size_multiple=16,
    padding="reflect",
    overlap_px=64,
    origin="document B (a course report of 2024)",
    paper="DeblurNet report, section 'DeblurNet Model'",
)
