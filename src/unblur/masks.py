"""Masks of what belongs together in a photo, for networks that are told (models/sam_deblur.py).

They come from a folder of mask files or from Segment Anything. What both return is a label picture: the number of the
region of each pixel, from 1, and 0 where there is none. SAM-Deblur's authors store masks in this form too: the masks
that Segment Anything finds are drawn into one 8-bit picture, each with its number, and where they overlap the numbers
add up, 255 at most. So every overlap is a region of its own.

Kirillov, Mintun et al.: "Segment Anything", ICCV 2023 (arXiv 2304.02643); finding all masks of a picture is its
appendix B, with a grid of points, without crops. The network is `SamModel` of the package transformers.
"""

import math
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unblur.errors import MissingExtra, PhotoError, SettingsError
from unblur.huggingface import load_pretrained
from unblur.images import find_photos, read_photo, to_uint8

Masks = Callable[[Tensor, Path | None], Tensor]
"""Takes a picture (3, H, W) in [0, 1] and the file it came from, if any; returns its labels, (H, W) uint8."""

SEGMENT_ANYTHING = "sam:"


def find_masks(source: str | Path) -> Masks:
    """Return masks from a folder of them, or, from `sam:` and a name or folder, those of Segment Anything.

    Raises `SettingsError` where there is no such folder. Segment Anything is loaded when first needed.
    """
    if isinstance(source, str) and source.startswith(SEGMENT_ANYTHING):
        return SegmentAnything(source.removeprefix(SEGMENT_ANYTHING))
    return MaskFolder(Path(source))


class MaskFolder:
    """Masks in files. Those of `holiday/beach.jpg` are, in this order, and the first that there is:

    * `holiday/beach.png` in the folder, a grey 8-bit label picture,
    * `holiday/beach/*.png`, a black-and-white picture for each mask, in the order of their names,
    * the same without `holiday/`: only so much of the photo's path counts as the folder has.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise SettingsError(
                f"{folder} is no folder of masks. Give one, or {SEGMENT_ANYTHING}NAME for Segment Anything."
            )
        self.folder = folder

    def __call__(self, rgb: Tensor, path: Path | None) -> Tensor:
        """Return the labels of a photo. Raises `PhotoError` where there are none, or of another size."""
        if path is None:
            raise PhotoError(f"A picture without a file has no masks in {self.folder}: give its path, or other masks.")
        parts = path.absolute().with_suffix("").parts[1:]
        for first in range(len(parts)):
            place = self.folder.joinpath(*parts[first:])
            if (place.parent / f"{place.name}.png").is_file():
                return self._grey(place.parent / f"{place.name}.png", rgb)
            if place.is_dir():
                files = find_photos(place)
                return draw_labels([self._grey(file, rgb) > 127 for file in files], (rgb.shape[-2], rgb.shape[-1]))
        raise PhotoError(f"{path} has no masks in {self.folder}: neither {path.stem}.png nor a folder {path.stem}.")

    @staticmethod
    def _grey(file: Path, rgb: Tensor) -> Tensor:
        mask = read_photo(file)
        if (mask.height, mask.width) != rgb.shape[-2:]:
            sizes = f"{mask.width}×{mask.height}, its photo {rgb.shape[-1]}×{rgb.shape[-2]}"
            raise PhotoError(f"{file} is {sizes}: a mask has the size of its photo.")
        if mask.bits != 8 or not (mask.rgb == mask.rgb[:1]).all():
            raise PhotoError(
                f"{file} is in colour or has 16 bit: masks are grey, of 8 bit, a number for each region or white on "
                "black. Convert it first."
            )
        return to_uint8(mask.rgb[0])


class SegmentAnything:
    """The masks that Segment Anything finds in a picture, on whatever device the picture is."""

    def __init__(
        self,
        name_or_folder: str,
        *,
        points_per_side: int = 32,
        points_at_once: int = 64,
        min_iou: float = 0.88,
        min_stability: float = 0.95,
        max_overlap: float = 0.7,
    ) -> None:
        """Take a folder with the model, or a name on huggingface.co such as facebook/sam-vit-huge, the authors' choice.

        Each point of a grid over the picture is asked for the masks it lies in. A mask stays where the network expects
        at least `min_iou` of it to be right, and where it changes little (`min_stability`) as its threshold moves by 1.
        Of two whose frames overlap by more than `max_overlap` (intersection over union), the better one stays.
        """
        self.name_or_folder = name_or_folder
        self.points_per_side, self.points_at_once = points_per_side, points_at_once
        self.min_iou, self.min_stability, self.max_overlap = min_iou, min_stability, max_overlap

    @cached_property
    def network(self) -> Any:
        """Return the network. Raises `MissingExtra` or `WeightsError`."""
        try:
            from transformers import SamModel
        except ImportError:
            raise MissingExtra("Segment Anything", "transformers") from None
        return load_pretrained(
            SamModel, self.name_or_folder, what="Segment Anything", example="facebook/sam-vit-huge"
        ).requires_grad_(False)

    def __call__(self, rgb: Tensor, path: Path | None = None) -> Tensor:
        """Return the labels of a picture, the best mask first."""
        height, width = rgb.shape[-2:]
        network = self.network.to(rgb.device)
        side = network.config.vision_config.image_size
        rows, columns = (max(1, round(length * side / max(height, width))) for length in (height, width))
        logits, scores, frames = self._candidates(network, _prepared(rgb, rows, columns, side), rows, columns)

        def full_size(mask: Tensor) -> Tensor:
            seen = F.interpolate(mask[None, None], (side, side), mode="bilinear")[..., :rows, :columns]
            return (F.interpolate(seen, (height, width), mode="bilinear") > 0)[0, 0]

        best = logits[_best(scores, frames, self.max_overlap)]
        return draw_labels(map(full_size, best), (height, width)).to(rgb.device)  # all at once would take gigabytes

    def _candidates(self, network: Any, picture: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the masks that are good enough, as logits (N, s/4, s/4), with their scores (N,) and frames (N, 4).

        Stability and frames are taken here, from the `rows` and `columns` that are no margin, at a quarter of the size
        that the network sees; the authors take them at full size.
        """
        steps = (torch.arange(self.points_per_side, device=picture.device) + 0.5) / self.points_per_side
        points = torch.cartesian_prod(steps * rows, steps * columns).flip(1)  # (N, 2): x, y
        logits, scores, frames = [], [], []
        with torch.inference_mode():
            embeddings = network.get_image_embeddings(picture)
            for some in torch.split(points, self.points_at_once):
                found = network(input_points=some[None, :, None], image_embeddings=embeddings, multimask_output=True)
                masks, iou = found.pred_masks.flatten(0, 2), found.iou_scores.flatten()  # (3N, s/4, s/4), (3N,)
                scale = picture.shape[-1] / masks.shape[-1]
                inside = masks[:, : math.ceil(rows / scale), : math.ceil(columns / scale)]
                kept = (iou >= self.min_iou) & (_stability(inside) >= self.min_stability)
                logits.append(masks[kept])
                scores.append(iou[kept])
                frames.append(_frames(inside[kept] > 0))
        return torch.cat(logits), torch.cat(scores), torch.cat(frames)


def draw_labels(masks: Iterable[Tensor], size: tuple[int, int]) -> Tensor:
    """Return the label picture (H, W) uint8 of binary masks (H, W): their numbers from 1, added up, 255 at most."""
    labels = torch.zeros(size, dtype=torch.int32)
    for number, mask in enumerate(masks, start=1):
        labels += number * mask.to(labels.device)
    return labels.clamp(max=255).to(torch.uint8)


def _prepared(rgb: Tensor, rows: int, columns: int, side: int) -> Tensor:
    """Return the picture as Segment Anything takes it, (1, 3, side, side): ImageNet's mean and deviation, zeros around.

    Margins are on the right and below.
    """
    small = F.interpolate(rgb[None], (rows, columns), mode="bilinear", antialias=True)
    mean = rgb.new_tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = rgb.new_tensor([0.229, 0.224, 0.225])[:, None, None]
    return F.pad((small - mean) / deviation, (0, side - columns, 0, side - rows))


def _stability(logits: Tensor) -> Tensor:
    """Return, for masks (N, h, w), the area above a threshold of +1 over that above -1: 1 for the sharpest ones."""
    inner, outer = ((logits > threshold).flatten(1).sum(1) for threshold in (1, -1))
    return inner / outer.clamp(min=1)


def _frames(masks: Tensor) -> Tensor:
    """Return left, top, right, bottom of the pixels in binary masks (N, h, w), (N, 4), the latter two excluded."""
    sides = []
    for dim in (1, 2):  # columns, rows
        line = masks.any(dim)
        sides.append((line.int().argmax(1), line.shape[1] - line.flip(1).int().argmax(1)))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], dim=1).float()


def _best(scores: Tensor, frames: Tensor, max_overlap: float) -> Tensor:
    """Return the indices of those frames that no better one overlaps too much, the best first."""
    area = (frames[:, 2:] - frames[:, :2]).prod(1)
    rest, kept = scores.argsort(descending=True, stable=True), []
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        corner = torch.minimum(frames[rest, 2:], frames[best, 2:]) - torch.maximum(frames[rest, :2], frames[best, :2])
        shared = corner.clamp(min=0).prod(1)
        rest = rest[shared / (area[rest] + area[best] - shared).clamp(min=1) <= max_overlap]
    return torch.stack(kept) if kept else scores.new_zeros(0, dtype=torch.long)
