"""Jin, Meishvili and Favaro's networks: of one blurred photo the seven sharp frames that were seen while it was taken.

Jin, Meishvili, Favaro: "Learning to Extract a Video Sequence from a Single Motion-Blurred Image", CVPR 2018
(arXiv 1804.04065). One network restores the middle frame. Others go from there outwards, frame by frame, and look at
the blurred photo and at two frames restored before. Written from the paper and from facts about the authors'
configuration. Equal to the authors' outputs in the goldens (tests/test_blur_to_video.py).

Keys of the state dict are those of the authors' four files (center, F35, F26, F17) together; no two files share one. So
the file of the middle frame alone is the network with `frames: 1`, and all four, put into one, are the whole network.

A blurred photo does not tell which way time ran. Trained with the loss `order_invariant` (losses/consistency.py), which
leaves that open, the third frame's network takes one way, the fifth's the other, and the rest go on from there.

The authors cut off what exceeds a multiple of 20 pixels; we mirror the edges up to the next one.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unblur.models.arch import Arch
from unblur.models.layers import pad_to_multiple

MIDDLE_FOLD_PX, NEIGHBOUR_FOLD_PX = 4, 5
"""Side of the squares of pixels that become channels, in the network of the middle frame and in those of the others."""

SIZE_MULTIPLE = 20
"""Both fit into it; also where the middle frame is all that is wanted, so that it is the same there."""

Dilations = Sequence[tuple[int, int]]
"""Those of the two convolutions of each block in a group."""


class BlurToVideo(nn.Module):
    """Restores the middle frame, (B, 3, H, W) in [0, 1] to the same shape, any size, not clamped; `clip` gives all.

    `frames` is 1, 3, 5 or 7. For the middle one there are `width` channels of features for each colour, and
    `colour_width` where the colours meet; for each of the others `neighbour_width`, and a quarter of that.
    """

    def __init__(self, frames: int, width: int, colour_width: int, neighbour_width: int) -> None:
        super().__init__()
        if frames not in (1, 3, 5, 7):
            raise ValueError(f"frames is 1, 3, 5 or 7, not {frames}")
        self.frames = frames
        # The middle frame's network is no module of its own: its keys have no prefix.
        planes = MIDDLE_FOLD_PX**2
        self.conv1_B = _conv(planes, width, 5)
        self.LocalGrad1 = _group(width, [(1, 1)] * 3)
        self.LocalGrad2 = _group(width, [(1, 2), (2, 4), (4, 8)])
        self.LocalGrad3 = _group(width, [(8, 4), (4, 2), (2, 1)])
        self.LocalGrad4 = _group(width, [(1, 1)] * 3)
        self.fuse1, self.fuse2, self.fuse3, self.fuse4 = (nn.Sequential(Fuse(width, planes)) for _ in range(4))
        self.conv2 = _conv(3, colour_width, 3)
        self.GlobalGrad = _group(colour_width, [(1, 1)])
        self.norm3 = _norm(colour_width)
        self.conv3 = _conv(colour_width, 3, 3)
        if frames >= 3:
            self.generateFrame3 = Neighbour(neighbour_width, blocks=4)
            self.generateFrame5 = Neighbour(neighbour_width, blocks=4)
        if frames >= 5:
            self.generateFrame2_6 = Neighbour(neighbour_width, blocks=2)
        if frames == 7:
            self.generateFrame1_7 = Neighbour(neighbour_width, blocks=2)

    def forward(self, blurred: Tensor) -> Tensor:
        """Return the middle frames, (B, 3, H, W)."""
        height, width = blurred.shape[-2:]
        return self._middle(_padded(blurred))[:, :, :height, :width]

    def clip(self, blurred: Tensor) -> Tensor:
        """Return all frames in their order, (B, frames, 3, H, W); whether that is time's or its reverse is open."""
        height, width = blurred.shape[-2:]
        blurred = _padded(blurred)
        middle = self._middle(blurred)
        clip = [middle]
        if self.frames >= 3:
            third = self.generateFrame3(blurred, middle, middle)
            fifth = self.generateFrame5(blurred, third, middle)  # sees the third, so as to go the other way
            clip = [third, middle, fifth]
        if self.frames >= 5:
            clip = _continued(clip, blurred, self.generateFrame2_6)
        if self.frames == 7:
            clip = _continued(clip, blurred, self.generateFrame1_7)
        return torch.stack(clip, dim=1)[..., :height, :width]

    def training_outputs(self, blurred: Tensor) -> dict[str, Tensor]:
        """Return the `clip` (B, frames, 3, H, W) and, of it, the `middle` frames (B, 3, H, W), the result.

        The clip is for losses that read pairs of frames in whichever order, the middle for those of pictures.
        """
        clip = self.clip(blurred)
        return {"clip": clip, "middle": clip[:, self.frames // 2]}

    def _middle(self, blurred: Tensor) -> Tensor:
        planes = _folded(blurred, MIDDLE_FOLD_PX)  # (3B, 16, H/4, W/4)
        x1 = self.LocalGrad1(self.conv1_B(planes))  # (3B, C, H/4, W/4)
        x2 = self.LocalGrad2(x1)
        x3 = self.LocalGrad3(x2)
        x4 = self.LocalGrad4(x3)
        planes = planes + self.fuse1(x1) + self.fuse2(x2) + self.fuse3(x3) + self.fuse4(x4)
        x = self.GlobalGrad(self.conv2(_unfolded(planes, MIDDLE_FOLD_PX)))  # (B, C, H, W)
        middle: Tensor = blurred + self.conv3(self.norm3(x).relu())
        return middle


class Neighbour(nn.Module):
    """The frame beside the `nearest` of two that are known, on the side away from the one `behind` that.

    Of the `width` channels of features half come from the blurred photo, a quarter from either frame. `blocks` are
    those of the first group and of the last.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        if width % 4:
            raise ValueError(f"neighbour_width is a multiple of 4, not {width}")
        planes, colour_width = NEIGHBOUR_FOLD_PX**2, width // 4
        self.conv1_B = _conv(planes, width // 2, 5)
        self.conv1_S1 = _conv(planes, width // 4, 5)
        self.conv1_S2 = _conv(planes, width // 4, 5)
        self.LocalGrad1 = _group(width, [(1, 1)] * blocks)
        self.LocalGrad2 = _group(width, [(1, 2), (4, 8), (8, 4), (2, 1)])
        self.LocalGrad3 = _group(width, [(1, 1)] * blocks)
        self.fuse1, self.fuse2, self.fuse3 = (nn.Sequential(Fuse(width, planes)) for _ in range(3))
        self.conv2 = _conv(3, colour_width, 3)
        self.GlobalGrad = nn.Sequential(Fuse(colour_width, colour_width))
        self.norm3 = _norm(colour_width)
        self.conv3 = _conv(colour_width, 3, 3)

    def forward(self, blurred: Tensor, behind: Tensor, nearest: Tensor) -> Tensor:
        """Return the frame; all are (B, 3, H, W), H and W multiples of 5."""
        planes = _folded(nearest, NEIGHBOUR_FOLD_PX)  # (3B, 25, H/5, W/5)
        known = [
            self.conv1_B(_folded(blurred, NEIGHBOUR_FOLD_PX)),
            self.conv1_S1(_folded(behind, NEIGHBOUR_FOLD_PX)),
            self.conv1_S2(planes),
        ]
        x1 = self.LocalGrad1(torch.cat(known, dim=1))  # (3B, C, H/5, W/5)
        x2 = self.LocalGrad2(x1)
        x3 = self.LocalGrad3(x2)
        planes = planes + self.fuse1(x1) + self.fuse2(x2) + self.fuse3(x3)
        x = self.GlobalGrad(self.conv2(_unfolded(planes, NEIGHBOUR_FOLD_PX)))  # (B, C/4, H, W)
        frame: Tensor = nearest + self.conv3(self.norm3(x).relu())
        return frame


class ResidualBlock(nn.Module):
    """Two convolutions, dilated by `dilations`, and a 1×1 one beside them, added to `x`; norms and ReLUs go before."""

    def __init__(self, channels: int, dilations: tuple[int, int]) -> None:
        super().__init__()
        self.norm1 = _norm(channels)
        self.norm2 = _norm(channels)
        self.norm4 = _norm(channels)
        self.conv1 = _conv(channels, channels, 1)
        self.conv2 = _conv(channels, channels, 3, dilations[0])
        self.conv4 = _conv(channels, channels, 3, dilations[1])

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of `x`."""
        deep = self.conv4(self.norm4(self.conv2(self.norm2(x).relu())).relu())
        result: Tensor = x + self.conv1(self.norm1(x).relu()) + deep
        return result


class Fuse(nn.Module):
    """A 3×3 convolution and a 1×1 one beside it, (B, inputs, H, W) -> (B, outputs, H, W); norms and ReLUs go before."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = _norm(inputs)
        self.norm2 = _norm(inputs)
        self.conv1 = _conv(inputs, outputs, 1)
        self.conv2 = _conv(inputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both."""
        result: Tensor = self.conv1(self.norm1(x).relu()) + self.conv2(self.norm2(x).relu())
        return result


def _continued(clip: list[Tensor], blurred: Tensor, network: nn.Module) -> list[Tensor]:
    """Return the frames (B, 3, H, W) with one more at each end, both by the same network."""
    first = network(blurred, clip[1], clip[0])
    last = network(blurred, clip[-2], clip[-1])
    return [first, *clip, last]


def _padded(blurred: Tensor) -> Tensor:
    return pad_to_multiple(blurred, SIZE_MULTIPLE, "reflect")


def _folded(pictures: Tensor, side_px: int) -> Tensor:
    """Return the colours as pictures of their own, squares folded, (B, 3, H, W) -> (3B, side², H/side, W/side)."""
    return F.pixel_unshuffle(pictures.flatten(0, 1)[:, None], side_px)


def _unfolded(planes: Tensor, side_px: int) -> Tensor:
    """Return what `_folded` was made of, (3B, side², H/side, W/side) -> (B, 3, H, W)."""
    colours = F.pixel_shuffle(planes, side_px)  # (3B, 1, H, W)
    return colours.reshape(-1, 3, *colours.shape[-2:])


def _group(channels: int, dilations: Dilations) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels, pair) for pair in dilations))


def _conv(inputs: int, outputs: int, size: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=dilation * (size // 2), dilation=dilation, bias=False)


def _norm(channels: int) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(channels, affine=True)


ARCH = Arch(
    name="blur_to_video",
    build=BlurToVideo,
    options={"frames": 7, "width": 144, "colour_width": 64, "neighbour_width": 128},
    tiny={"width": 4, "colour_width": 4, "neighbour_width": 4},
    size_multiple=SIZE_MULTIPLE,
    padding="reflect",
    overlap_px=64,
    frames=7,
    grows="frames",
    whole_statistics=True,
    origin="M. Jin, G. Meishvili, P. Favaro",
    paper="Learning to Extract a Video Sequence from a Single Motion-Blurred Image, CVPR 2018, arXiv 1804.04065",
    published={  # by the last of the authors' files that it needs
        "center_v3": {"frames": 1},
        "F35_N8": {"frames": 3},
        "F26_N9_from_F35_N8": {"frames": 5},
        "F17_N9_from_F26_N9_from_F35_N8": {"frames": 7},
    },
)
