"""The variational autoencoder of document B: a picture becomes a distribution of 92 numbers, 8 million parameters.

It knows pictures of 448×256 only, as its linear layers have it: `forward` brings any other to that size and back, and
restoring cuts tiles of exactly that size. In training the numbers are drawn from the distribution, and the Kullback-
Leibler divergence keeps it near the standard normal one; restoring takes the mean, so that it is not random.

The document names neither the strides (2, which leaves its 16×28 features) nor the size of the latent space: 92 gives
its "8 million". A sigmoid ends the decoder.
"""

import torch
from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import resized

HEIGHT, WIDTH = 256, 448


class VariationalAutoencoder(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape; sizes other than 448×256 are resized to it and back.

    The output lies within (0, 1). `latent` is how many numbers describe a picture.
    """

    def __init__(self, latent: int) -> None:
        super().__init__()
        features = 64 * (HEIGHT // 16) * (WIDTH // 16)  # 28,672
        self.encoder = nn.Sequential(
            *_halving(3, 8), *_halving(8, 16), *_halving(16, 32), *_halving(32, 64), nn.Flatten()
        )
        self.mean = nn.Linear(features, latent)
        self.log_variance = nn.Linear(features, latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, features),
            nn.Unflatten(1, (64, HEIGHT // 16, WIDTH // 16)),
            _doubling(64, 32),
            nn.ReLU(),
            _doubling(32, 16),
            nn.ReLU(),
            _doubling(16, 8),
            nn.ReLU(),
            _doubling(8, 3),
            nn.Sigmoid(),
        )

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W), from the means of their distributions."""
        features = self.encoder(resized(blurred, HEIGHT, WIDTH))  # (B, 28672)
        return self._decoded(self.mean(features), blurred)

    def training_outputs(self, blurred: Tensor) -> dict[str, Tensor]:
        """Return `restored` (B, 3, H, W) from a draw of each distribution, and its `mean` and `log_variance`
        (B, latent). The draw comes from torch's global generator, as dropout's do.
        """
        features = self.encoder(resized(blurred, HEIGHT, WIDTH))
        mean, log_variance = self.mean(features), self.log_variance(features)
        drawn = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        return {"restored": self._decoded(drawn, blurred), "mean": mean, "log_variance": log_variance}

    def _decoded(self, latent: Tensor, blurred: Tensor) -> Tensor:
        return resized(self.decoder(latent), *blurred.shape[-2:])


def _halving(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU()]


def _doubling(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)


ARCH = Arch(
    name="vae",
    build=VariationalAutoencoder,
    options={"latent": 92},
    tiny={"latent": 4},
    size_multiple=1,
    padding="none",
    overlap_px=32,
    fixed_size=(WIDTH, HEIGHT),
    origin="document B (a course report of 2024)",
    paper="DeblurNet report, section 'Variational auto encoder'",
)
