"""The autoencoder of document E: a whole picture through 128 numbers and back, 14,758,819 parameters.

It knows pictures of 448×256 only, as its dense layers have it: `forward` brings any other to that size and back, and
restoring cuts tiles of exactly that size. What does not fit into 128 numbers is lost: the output is a blur of its own.

The document's text speaks of a latent vector of 256 and of max-pooling; its tables of layers and parameters add up
with 128 and strides. The activations are not named: ReLU, and a sigmoid at the end.
"""

from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import resized

HEIGHT, WIDTH = 256, 448


class Autoencoder(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape; sizes other than 448×256 are resized to it and back.

    The output lies within (0, 1). `latent` is how many numbers a picture is squeezed into.
    """

    def __init__(self, latent: int) -> None:
        super().__init__()
        features = 32 * (HEIGHT // 8) * (WIDTH // 8)  # 57,344
        self.encoder = nn.Sequential(
            *_halving(3, 8), *_halving(8, 16), *_halving(16, 32), nn.Flatten(), nn.Linear(features, latent)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, features),
            nn.ReLU(),
            nn.Unflatten(1, (32, HEIGHT // 8, WIDTH // 8)),
            *_doubling(32, 32),
            *_doubling(32, 16),
            *_doubling(16, 8),
            nn.ConvTranspose2d(8, 3, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        latent = self.encoder(resized(blurred, HEIGHT, WIDTH))  # (B, latent)
        return resized(self.decoder(latent), *blurred.shape[-2:])


def _halving(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]


def _doubling(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1), nn.ReLU()]


ARCH = Arch(
    name="autoencoder",
    build=Autoencoder,
    options={"latent": 128},
    tiny={"latent": 4},
    size_multiple=1,
    padding="none",
    overlap_px=32,
    fixed_size=(WIDTH, HEIGHT),
    origin="document E (a course report)",
    paper="Image deblurring with a convolutional autoencoder, course report",
)
