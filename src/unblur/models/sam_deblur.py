"""SAM-Deblur: a NAFNet that is told by masks of Segment Anything which pixels belong together.

Li, Liu, Zhang et al.: "SAM-Deblur: Let Segment Anything Boost Image Deblurring", ICASSP 2024 (arXiv 2309.02270).
Written from the paper and from NAFNet's; keys of the state dict are the authors', so that their checkpoints load
without renaming. Equal to the authors' outputs in the goldens (tests/test_sam_deblur.py).

Two ways to use masks: the paper's Mask Average Pooling (the authors' SegNAFNet), where two planes that convolutions
draw from the picture are averaged over each region and put beside it; and its baseline (their MaskNAFNet), where the
masks stand beside the picture as one plane of labels. The masks come from outside (unblur/masks.py), as the network's
second input: binary ones, or as one label picture, which is what the authors' were before.

The authors' figures are with test-time local pooling: models/local_pooling.py.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import pad_to_multiple, without_autocast
from unblur.models.nafnet import GOPRO, NAFBlock


class SAMDeblur(nn.Module):
    """Restores (B, 3, H, W) in [0, 1] to the same shape, any size; the output is not clamped.

    `masks` says how masks are used: `averaged` over or taken as `labels`. In training, `mask_dropout` is the share of
    each picture's masks that Mask Average Pooling goes without. `width` and the numbers of blocks are NAFNet's.
    """

    def __init__(
        self,
        masks: Literal["averaged", "labels"],
        region_planes: int,
        mask_dropout: float,
        width: int,
        encoder_blocks: Sequence[int],
        middle_blocks: int,
        decoder_blocks: Sequence[int],
    ) -> None:
        super().__init__()
        if masks not in ("averaged", "labels"):
            raise ValueError(f"masks is averaged or labels, not {masks!r}")
        if len(encoder_blocks) != len(decoder_blocks):
            raise ValueError(
                f"{len(encoder_blocks)} encoder levels need as many in the decoder, not {len(decoder_blocks)}"
            )
        self.masks, self.mask_dropout = masks, mask_dropout
        self.size_multiple = 2 ** len(encoder_blocks)
        if masks == "averaged":
            self.pre_seg = nn.Conv2d(3, region_planes, 3, padding=1)
            self.pre_seg_in = nn.Conv2d(region_planes, region_planes, 1)
        self.intro = nn.Conv2d(3 + (region_planes if masks == "averaged" else 1), width, 3, padding=1)
        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        self.ups, self.decoders = nn.ModuleList(), nn.ModuleList()
        channels = width
        for count in encoder_blocks:
            self.encoders.append(nn.Sequential(*(NAFBlock(channels) for _ in range(count))))
            self.downs.append(nn.Conv2d(channels, 2 * channels, 2, stride=2))
            channels *= 2
        self.middle_blks = nn.Sequential(*(NAFBlock(channels) for _ in range(middle_blocks)))
        for count in decoder_blocks:
            self.ups.append(nn.Sequential(nn.Conv2d(channels, 2 * channels, 1, bias=False), nn.PixelShuffle(2)))
            channels //= 2
            self.decoders.append(nn.Sequential(*(NAFBlock(channels) for _ in range(count))))
        self.ending = nn.Conv2d(width, 3, 3, padding=1)
        for parameter in self.ending.parameters():  # a fresh network returns its input: training begins at "do nothing"
            nn.init.zeros_(parameter)

    def forward(self, blurred: Tensor, masks: Tensor | None = None) -> Tensor:
        """Return the restored pictures, (B, 3, H, W).

        `masks` (B, M, H, W) are 0 or 1, of any dtype, M regions a picture that may overlap; where a picture of the
        batch has fewer, the rest are empty. Or they are label pictures (B, H, W), the number of the region of each
        pixel, 1 to 255, and 0 for none. Without masks a picture is one region.
        """
        batch, _, height, width = blurred.shape
        if masks is None:
            masks = blurred.new_zeros(batch, 0, height, width)
        elif (masks.shape[0], *masks.shape[-2:]) != (batch, height, width) or masks.ndim not in (3, 4):
            shapes = f"({batch}, M, {height}, {width}) or ({batch}, {height}, {width})"
            raise ValueError(f"masks have the shape {shapes} here, not {tuple(masks.shape)}")
        padded = pad_to_multiple(blurred, self.size_multiple, "zeros")
        x = self.intro(torch.cat([padded, self._regions(padded, masks)], dim=1))  # (B, C, H, W)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)  # (B, 2C, H/2, W/2)
        x = self.middle_blks(x)
        for up, decoder, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            x = decoder(up(x) + skip)
        return (padded + self.ending(x))[:, :, :height, :width]

    def _regions(self, padded: Tensor, masks: Tensor) -> Tensor:
        """Return what stands beside the picture, (B, region_planes or 1, H, W)."""
        if self.masks == "labels":
            plane = label_plane(masks.float()) if masks.ndim == 4 else masks[:, None].float() / 255
            return pad_to_multiple(plane, self.size_multiple, "zeros")
        if masks.ndim == 3:
            masks = masks_of_labels(masks)
        masks = pad_to_multiple(masks.float(), self.size_multiple, "zeros")  # (B, M, H, W)
        if self.training:
            masks = drop_masks(masks, self.mask_dropout)
        return mask_average_pool(self.pre_seg_in(self.pre_seg(padded)), masks)


def mask_average_pool(planes: Tensor, masks: Tensor) -> Tensor:
    """Return the planes (B, C, H, W), averaged over each of the regions `masks` (B, M, H, W), in float32.

    Where regions overlap their averages add up, as with the authors. All pixels outside of them are one more region.
    """
    uncovered = (masks.sum(dim=1, keepdim=True) == 0).to(masks.dtype)
    regions = torch.cat([masks, uncovered], dim=1)  # (B, M+1, H, W)
    with without_autocast(planes.device):  # sums over a picture are too much for 16 bit
        totals = torch.einsum("bchw,bmhw->bcm", planes.float(), regions)
        means = totals / (regions.sum(dim=(2, 3))[:, None] + 1e-8)  # (B, C, M+1)
        return torch.einsum("bcm,bmhw->bchw", means, regions)


def drop_masks(masks: Tensor, share: float) -> Tensor:
    """Return the masks (B, M, H, W) with `share` of each picture's, rounded down, emptied at random.

    As in dropout layers, chance is torch's global generator. Masks that are empty already do not count.
    """
    filled = masks.flatten(2).any(dim=2)  # (B, M)
    lots = torch.rand(filled.shape, device=masks.device).masked_fill(~filled, 2)  # empty ones are drawn last
    draw = lots.argsort(dim=1).argsort(dim=1)
    kept = draw >= (share * filled.sum(dim=1, keepdim=True)).floor()
    return masks * kept[:, :, None, None]


def label_plane(masks: Tensor) -> Tensor:
    """Return the masks (B, M, H, W) as a grey picture (B, 1, H, W) in [0, 1]: the number of the mask over 255.

    Numbers begin at 1; overlapping ones add up to 255 at most, as in the 8-bit pictures that the authors draw.
    """
    numbers = torch.arange(1, masks.shape[1] + 1, device=masks.device, dtype=masks.dtype)
    return (masks * numbers[:, None, None]).sum(dim=1, keepdim=True).clamp(max=255) / 255


def masks_of_labels(labels: Tensor) -> Tensor:
    """Return a binary mask for each number but 0 in the label pictures (B, H, W), (B, M, H, W): what label_plane draws.

    Where a picture does not have a number that another one of the batch has, its mask is empty.
    """
    numbers = torch.unique(labels[labels > 0])
    return labels[:, None] == numbers[:, None, None]


ARCH = Arch(
    name="sam_deblur",
    build=SAMDeblur,
    options={"masks": "averaged", "region_planes": 2, "mask_dropout": 0.5, "width": 32, **GOPRO},
    tiny={"width": 8, "encoder_blocks": [1, 1], "middle_blocks": 1, "decoder_blocks": [1, 1]},
    size_multiple=16,
    padding="zeros",
    overlap_px=32,
    local_pooling_px=256,
    origin="S. Li, M. Liu, Y. Zhang, S. Chen, H. Li, Z. Dou, H. Chen",
    paper="SAM-Deblur: Let Segment Anything Boost Image Deblurring, ICASSP 2024, arXiv 2309.02270",
    published={
        "SegNAFNet-GoPro": {},
        "SegNAFNet-no-dropout-GoPro": {"mask_dropout": 0.0},
        "MaskNAFNet-GoPro": {"masks": "labels"},
    },
)
