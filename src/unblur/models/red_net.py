"""RED-Net: convolutions take the picture apart, as many transposed ones put it together, skips lead across.

Mao, Shen, Yang: "Image Restoration Using Very Deep Convolutional Encoder-Decoder Networks with Symmetric Skip
Connections", NIPS 2016 (arXiv 1603.09056), figure 1. Written from the paper; keys of the state dict are the names of
the authors' Caffe layers. Equal to the authors' outputs in the goldens (tests/test_red_net.py).

The authors' network returns the residual, and their script adds the blurred picture; ours returns the restored one.
The published weights expect rows as columns, because MatCaffe hands pictures over that way: the kernels of a converted
file are to be transposed. They are for one fixed kernel of blur each, and the authors average eight flips and turns.
"""

from torch import Tensor, nn

from unblur.models.arch import Arch


class REDNet(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape, any size; the output is not clamped.

    `layers` in all (30, 20 or 10 in the paper), half of them transposed, of `width` channels at full size. `planes` is
    3, or 1 where each colour is restored as a grey picture of its own.
    """

    def __init__(self, layers: int, width: int, planes: int) -> None:
        super().__init__()
        if layers < 4 or layers % 2:
            raise ValueError(f"layers is an even number from 4 on, half of them transposed, not {layers}")
        if planes not in (1, 3):
            raise ValueError(f"planes is 1 (each colour by itself) or 3 (RGB), not {planes}")
        self.depth, self.planes = layers // 2, planes
        for number in range(1, self.depth + 1):
            inputs = planes if number == 1 else width
            self.add_module(f"conv{number}", _rectified(nn.Conv2d(inputs, width, 3, padding=1)))
        for number in range(1, self.depth + 1):
            outputs = planes if number == self.depth else width
            self.add_module(f"deconv{number}", _rectified(nn.ConvTranspose2d(width, outputs, 3, padding=1)))
        for parameter in self.get_submodule(f"deconv{self.depth}").parameters():  # a fresh network returns its input
            nn.init.zeros_(parameter)

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        x = blurred.reshape(-1, self.planes, *blurred.shape[-2:])  # (3B, 1, H, W) or (B, 3, H, W)
        skips = {}
        for number in range(1, self.depth + 1):
            x = self.get_submodule(f"conv{number}")(x).relu()  # (B, C, H, W)
            skips[number] = x
        for number in range(1, self.depth):
            x = self.get_submodule(f"deconv{number}")(x).relu()
            if number % 2:  # the authors' ReLU after the sum changes nothing: neither part is negative
                x = x + skips[self.depth - number]
        residual = self.get_submodule(f"deconv{self.depth}")(x)  # (B, planes, H, W)
        return blurred + residual.reshape(blurred.shape)


def _rectified(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Module:
    """Return the layer with weights that keep the variance through a ReLU: torch's default dies out over 30 layers."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


ARCH = Arch(
    name="red_net",
    build=REDNet,
    options={"layers": 30, "width": 128, "planes": 3},
    tiny={"layers": 10, "width": 8},
    size_multiple=1,
    padding="none",
    overlap_px=32,
    origin="X.-J. Mao, C. Shen, Y.-B. Yang",
    paper="Image Restoration Using Very Deep Convolutional Encoder-Decoder Networks with Symmetric Skip Connections, "
    "NIPS 2016, arXiv 1603.09056",
    published={
        "REDNet_ch3": {},
        "REDNet_ch1": {"planes": 1},
        "RED20": {"layers": 20},
        "RED10": {"layers": 10},
    },
)
