"""The reduced DeblurNet of document B: two convolutions down, three transposed ones up, 48,163 parameters.

As the document has it, the picture goes through a quarter of its size and comes back from a sigmoid: there is no path
for the input, so that even a sharp picture is returned worse than it came. The option `residual` is the one change
that mends it: the network's output, without the sigmoid, is added to the input. `batch_norm: false` leaves out the
batch normalisation, whose effect the document studies.

The document's list of layers contradicts itself (a 128->256 layer alone would have six times its 50 thousand
parameters); this is the reading that adds up.
"""

from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import pad_to_multiple


class ReducedDeblurNet(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape, any size.

    Without `residual` the output lies within (0, 1), with it the output is not clamped, and a fresh network
    returns its input.
    """

    def __init__(self, residual: bool, batch_norm: bool) -> None:
        super().__init__()
        self.residual = residual
        self.encoder = nn.Sequential(*_halving(3, 32, batch_norm), *_halving(32, 64, batch_norm))
        self.decoder = nn.Sequential(
            _doubling(64, 32),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 32, 3, stride=1, padding=1),
            nn.ReLU(),
            _doubling(32, 3),
        )
        if residual:
            for parameter in self.decoder[-1].parameters():  # a fresh network returns its input
                nn.init.zeros_(parameter)

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        height, width = blurred.shape[-2:]
        padded = pad_to_multiple(blurred, 4, "reflect")
        features = self.encoder(padded)  # (B, 64, H/4, W/4)
        output = self.decoder(features)  # (B, 3, H, W)
        restored = padded + output if self.residual else output.sigmoid()
        return restored[:, :, :height, :width]


def _halving(inputs: int, outputs: int, batch_norm: bool) -> list[nn.Module]:
    norm = [nn.BatchNorm2d(outputs)] if batch_norm else []
    return [nn.Conv2d(inputs, outputs, 3, padding=1), *norm, nn.ReLU(), nn.MaxPool2d(2)]


def _doubling(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)


ARCH = Arch(
    name="reduced_deblurnet",
    build=ReducedDeblurNet,
    options={"residual": False, "batch_norm": True},
    tiny={},
    size_multiple=4,
    padding="reflect",
    overlap_px=16,
    origin="document B (a course report of 2024)",
    paper="DeblurNet report, section 'Reduced DeblurNet'",
)
