"""The ResUNet of document D: a U-Net that learns how to shrink and enlarge, with blocks that keep what they are given.

As the document has it, strided convolutions go down and transposed ones come up, the way down is concatenated to the
way up at each level, and each layer is a 3×3 convolution, batch normalisation and ReLU. Its ResBlocks follow the text:
two layers whose output is concatenated with their input, although the paper it cites (He et al., "Deep Residual
Learning for Image Recognition", arXiv 1512.03385) adds the two.

The document names neither widths nor levels nor the last layer. Ours: three levels of 32, 64 and 128 filters, the
blocks at each level of both ways, and at the end a 1×1 convolution without activation. Ours, too, is the option
`residual`: what the network returns is added to its input, so that a fresh one returns what is sharp as it came.
"""

import torch
from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import pad_to_multiple


class ResUNet(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape, any size; the output is not clamped.

    Each of the `levels` has `num_blocks` ResBlocks on either way (the document: 1 or 3). The first has `width` filters,
    each further one twice as many; every block adds as many channels as its level has filters. With `residual` the
    output is added to the input, and a fresh network returns its input.
    """

    def __init__(self, num_blocks: int, width: int, levels: int, residual: bool) -> None:
        super().__init__()
        if num_blocks < 1 or levels < 2:
            raise ValueError(f"num_blocks is 1 or more, levels 2 or more, not {num_blocks} and {levels}")
        self.size_multiple = 2 ** (levels - 1)
        self.residual = residual
        filters = [width * 2**level for level in range(levels)]
        grown = [count * (1 + num_blocks) for count in filters]  # channels after the blocks of a level going down
        self.first = Layer(3, width)
        self.down = nn.ModuleList(Layer(grown[i - 1], filters[i], stride=2) for i in range(1, levels))
        self.encoders = nn.ModuleList(_blocks(count, count, num_blocks) for count in filters)
        self.up, self.decoders = nn.ModuleList(), nn.ModuleList()
        inputs = grown[-1]
        for level in reversed(range(levels - 1)):
            self.up.append(_doubling(inputs, filters[level]))
            inputs = filters[level] + grown[level]  # with the skip
            self.decoders.append(_blocks(inputs, filters[level], num_blocks))
            inputs += num_blocks * filters[level]
        self.last = nn.Conv2d(inputs, 3, 1)
        if residual:
            for parameter in self.last.parameters():
                nn.init.zeros_(parameter)

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        height, width = blurred.shape[-2:]
        padded = pad_to_multiple(blurred, self.size_multiple, "reflect")
        x = self.encoders[0](self.first(padded))  # (B, (1 + num_blocks) * width, H, W)
        skips = []
        for down, encoder in zip(self.down, self.encoders[1:], strict=True):
            skips.append(x)
            x = encoder(down(x))  # (B, (1 + num_blocks) * 2C, H/2, W/2)
        for up, decoder in zip(self.up, self.decoders, strict=True):
            x = decoder(torch.cat([up(x), skips.pop()], dim=1))  # (B, (2 + 2 * num_blocks) * C, 2H, 2W)
        restored: Tensor = padded + self.last(x) if self.residual else self.last(x)
        return restored[:, :, :height, :width]


class ResBlock(nn.Module):
    """Two layers whose output is put beside their input: (B, C, H, W) -> (B, C + filters, H, W)."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(Layer(inputs, filters), Layer(filters, filters))

    def forward(self, x: Tensor) -> Tensor:
        """Return the new channels, then the old ones."""
        return torch.cat([self.layers(x), x], dim=1)


class Layer(nn.Sequential):
    """The document's layer: 3×3 convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )


def _doubling(inputs: int, outputs: int) -> nn.Sequential:
    transposed = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=False)
    return nn.Sequential(transposed, nn.BatchNorm2d(outputs), nn.ReLU())


def _blocks(inputs: int, filters: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResBlock(inputs + number * filters, filters) for number in range(count)))


ARCH = Arch(
    name="resunet",
    build=ResUNet,
    options={"num_blocks": 3, "width": 32, "levels": 3, "residual": False},
    tiny={"num_blocks": 1, "width": 4},
    size_multiple=4,
    padding="reflect",
    overlap_px=32,
    origin="document D (a course report)",
    paper="Deep Learning report for deblurring project, section 3.1 'ResUNet'",
    published={"ResUNet1": {"num_blocks": 1}, "ResUNet3": {"num_blocks": 3}},
)
