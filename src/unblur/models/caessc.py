"""CAESSC of document D: convolutions and as many transposed ones, with sums across, batch normalisation and a sigmoid.

The document builds the "Convolutional Auto-Encoders with Symmetric Skip Connections" of Mao, Shen, Yang (arXiv
1606.08921) anew for CIFAR-10: each layer is followed by batch normalisation and ReLU, the last one by a sigmoid
instead, because with ReLU "the network can't restore black area of the input image properly" (option `sigmoid`). The
RED30 of its table is not one of these but the authors' own network, without normalisation and with a sum at every
second layer: `red_net`.

Where the document is silent: every layer has its skip; sums are taken before the activation, as in the paper; the last
layer, whose output is a difference and no feature, is not normalised. Before the sigmoid the input is added, too. The
ReLU, however, is taken to act on the difference alone, which then only brightens: black that blur has lifted stays
grey. That fits the document's MSE of 0.00389. Measured on 200 CIFAR-10 pictures with sigma ~ U(0, 3): blurred 0.0057,
and 0.0029 for an oracle that brightens only.
"""

from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import pad_to_multiple


class CAESSC(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape, any size; the output lies within (0, 1).

    `depth` layers in all, half of them transposed, of `filters` channels. With `half` the first halves the size and
    the last doubles it. Without `sigmoid` the last activation is a ReLU, and the output is nowhere below the input.
    """

    def __init__(self, depth: int, filters: int, half: bool, sigmoid: bool) -> None:
        super().__init__()
        if depth < 4 or depth % 2:
            raise ValueError(f"depth is an even number from 4 on, half of it transposed, not {depth}")
        self.size_multiple = stride = 2 if half else 1
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for number in range(depth // 2):
            inputs, step = (3, stride) if number == 0 else (filters, 1)
            conv = nn.Conv2d(inputs, filters, 3, step, padding=1, bias=False)
            self.encoder.append(nn.Sequential(conv, nn.BatchNorm2d(filters), nn.ReLU()))
        for _ in range(depth // 2 - 1):
            transposed = nn.ConvTranspose2d(filters, filters, 3, padding=1, bias=False)
            self.decoder.append(nn.Sequential(transposed, nn.BatchNorm2d(filters)))
        self.last = nn.ConvTranspose2d(filters, 3, 3, stride, padding=1, output_padding=stride - 1)
        nn.init.normal_(self.last.weight, std=0.1 / (9 * filters) ** 0.5)  # the difference begins small, but not as the
        nn.init.zeros_(self.last.get_parameter("bias"))  # 0 that a ReLU would never leave
        self.sigmoid = sigmoid

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the restored pictures, (B, 3, H, W)."""
        height, width = blurred.shape[-2:]
        x = padded = pad_to_multiple(blurred, self.size_multiple, "reflect")
        skips = []
        for layer in self.encoder:
            x = layer(x)  # (B, filters, H, W), with `half` (B, filters, H/2, W/2)
            skips.append(x)
        for layer, skip in zip(self.decoder, reversed(skips[:-1]), strict=True):
            x = (layer(x) + skip).relu()
        difference = self.last(x)  # (B, 3, H, W)
        restored = (padded + difference).sigmoid() if self.sigmoid else padded + difference.relu()
        return restored[:, :, :height, :width]


HALF = {"depth": 22, "filters": 128, "half": True}

ARCH = Arch(
    name="caessc",
    build=CAESSC,
    options={"depth": 30, "filters": 64, "half": False, "sigmoid": True},
    tiny={"depth": 6, "filters": 8},
    size_multiple=1,
    padding="none",
    overlap_px=32,
    origin="document D (a course report), after X.-J. Mao, C. Shen, Y.-B. Yang",
    paper="Deep Learning report for deblurring project, section 3.7 'CAESSC'; Image Restoration Using Convolutional "
    "Auto-encoders with Symmetric Skip Connections, arXiv 1606.08921",
    published={
        "d30_f64": {},
        "d22_f128_half": HALF,
        "d22_f128_half_no_sigmoid": {**HALF, "sigmoid": False},
    },
)
