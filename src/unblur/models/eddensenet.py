"""The EDDenseNet of document D: dense blocks take the picture to a quarter of its size and 16 channels, and back.

The document: dense blocks (Huang et al., "Densely Connected Convolutional Networks", arXiv 1608.06993) of growth rate
16, each layer with a bottleneck before its 3×3 convolution; 6, 6 and 3 layers down, 3 and 6 up; strided convolutions
and transposed ones between them; at the end of the way down a 3×3 convolution from 124 channels to 16 of 17,872
parameters; a transposed convolution last. There are no skips from the way down to the way up.

The 124 channels fix what it leaves open: 16 after the first convolution, halved by each transition (16 + 96 = 112,
56 + 96 = 152, 76 + 48 = 124). Ours, after DenseNet: normalisation and ReLU before each convolution, bottlenecks of four
times the growth rate. Ours alone: a transition after each block up, too, and no activation at the end.
"""

import torch
from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import pad_to_multiple

SIZE_MULTIPLE = 4


class EDDenseNet(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape, any size; the output is not clamped.

    `growth` is how many channels each layer adds, and how many the first convolution and the bottleneck have;
    `encoder_layers` and `decoder_layers` are the layers of each block.
    """

    def __init__(self, growth: int, encoder_layers: list[int], decoder_layers: list[int]) -> None:
        super().__init__()
        if len(encoder_layers) != 3 or len(decoder_layers) != 2:
            raise ValueError(f"there are 3 blocks down and 2 up, not {encoder_layers} and {decoder_layers}")
        down: list[nn.Module] = [nn.Conv2d(3, growth, 3, padding=1)]
        channels = growth
        for number, layers in enumerate(encoder_layers):
            down.append(DenseBlock(channels, growth, layers))
            channels += growth * layers
            if number < 2:
                down.append(_normalised(channels, nn.Conv2d(channels, channels // 2, 3, stride=2, padding=1)))
                channels //= 2
        self.encoder = nn.Sequential(*down)
        self.bottleneck = nn.Conv2d(channels, growth, 3, padding=1)
        up: list[nn.Module] = []
        channels = growth
        for layers in decoder_layers:
            up.append(DenseBlock(channels, growth, layers))
            channels += growth * layers
            up.append(_normalised(channels, _doubling(channels, channels // 2)))
            channels //= 2
        self.decoder = nn.Sequential(*up)
        self.last = _normalised(channels, nn.ConvTranspose2d(channels, 3, 3, padding=1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                _keep_variance(module)

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        height, width = blurred.shape[-2:]
        x = self.encoder(pad_to_multiple(blurred, SIZE_MULTIPLE, "reflect"))  # (B, 124, H/4, W/4)
        x = self.decoder(self.bottleneck(x))  # (B, 64, H, W)
        restored: Tensor = self.last(x)
        return restored[:, :, :height, :width]


class DenseBlock(nn.Module):
    """Layers that each see the input and all layers before: (B, C, H, W) -> (B, C + layers * growth, H, W)."""

    def __init__(self, inputs: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_dense_layer(inputs + number * growth, growth) for number in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Return the input's channels, then those of each layer."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x


def _dense_layer(inputs: int, growth: int) -> nn.Sequential:
    bottleneck = 4 * growth
    return nn.Sequential(
        _normalised(inputs, nn.Conv2d(inputs, bottleneck, 1, bias=False)),
        _normalised(bottleneck, nn.Conv2d(bottleneck, growth, 3, padding=1, bias=False)),
    )


def _normalised(channels: int, layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), layer)


def _keep_variance(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Set weights that keep the variance through a ReLU, as DenseNet's: with torch's default the signal dies out."""
    transposed = isinstance(layer, nn.ConvTranspose2d)  # whose inputs torch takes for outputs
    nn.init.kaiming_normal_(layer.weight, mode="fan_out" if transposed else "fan_in", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _doubling(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)


ARCH = Arch(
    name="eddensenet",
    build=EDDenseNet,
    options={"growth": 16, "encoder_layers": [6, 6, 3], "decoder_layers": [3, 6]},
    tiny={"growth": 4, "encoder_layers": [2, 2, 1], "decoder_layers": [1, 2]},
    size_multiple=SIZE_MULTIPLE,
    padding="reflect",
    overlap_px=32,
    origin="document D (a course report)",
    paper="Deep Learning report for deblurring project, section 3.4 'EDDenseNet'",
)
