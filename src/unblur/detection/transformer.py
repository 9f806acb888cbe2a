"""Detectors of the package transformers: YOLOS, DETR, RT-DETR, D-FINE and their like.

Pictures are prepared here, as the model's `preprocessor_config.json` says (size, mean, deviation): the image processors
of transformers would need torchvision. What comes out are frames, centre and size as shares of the picture, and scores
of two kinds: DETR and YOLOS give one number more than there are classes, for "nothing here", to be compared by a
softmax, of which the best class counts; the others give one for each class, each a probability of its own.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unblur.data.sources import Pixels
from unblur.detection.boxes import Found, found_in
from unblur.detection.detector import Detector
from unblur.errors import MissingExtra, WeightsError
from unblur.evaluation import hash_of_network
from unblur.huggingface import load_pretrained

EXAMPLE = "hustvl/yolos-tiny"
"""A detector on huggingface.co that needs nothing beside transformers."""

YOLOS_MULTIPLE = 16
"""YOLOS keeps whole patches only: transformers makes its pictures a little smaller, aspect not quite kept."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""What transformers takes where a preprocessor_config.json does not say."""


def transformers_detector(name_or_folder: str, device: torch.device) -> Detector:
    """Return a detector from a folder, or by its name on huggingface.co.

    Raises `MissingExtra` without transformers, `WeightsError` for one that cannot be had, is no detector, or needs what
    brings torchvision along.
    """
    try:
        from transformers import AutoModelForObjectDetection
    except ImportError:
        raise MissingExtra("A detector of transformers", "transformers") from None
    try:
        network = load_pretrained(AutoModelForObjectDetection, name_or_folder, what="detector", example=EXAMPLE)
    except ImportError as error:
        raise WeightsError(
            f"'{name_or_folder}' needs a package that unblur does without ({_first_line(error)}). Take another "
            f"detector, such as {EXAMPLE}."
        ) from None
    network = network.requires_grad_(False).to(device)
    names = {int(number): str(name) for number, name in network.config.id2label.items()}
    multiple = YOLOS_MULTIPLE if network.config.model_type == "yolos" else 1
    prepare = Preparation(_preprocessor_config(name_or_folder), name_or_folder, multiple)

    def find(rgb: Pixels, min_score: float, classes: Sequence[str]) -> list[Found]:
        with torch.inference_mode():
            given = network(pixel_values=prepare(rgb).to(device))
        logits, frames = (one[0].float().cpu() for one in (given.logits, given.pred_boxes))
        rows, numbers, scores = sure_ones(logits, len(names), min_score)
        height, width = rgb.shape[:2]
        middle, size = frames[rows, :2], frames[rows, 2:]
        boxes = torch.cat([middle - size / 2, middle + size / 2], dim=1) * torch.tensor([width, height] * 2)
        labels = [names[int(number)] for number in numbers]
        return found_in(boxes.numpy(), scores.numpy(), labels, (height, width), classes)

    return Detector(
        name=Path(name_or_folder).name if Path(name_or_folder).is_dir() else name_or_folder,
        about=f"{type(network).__name__} of {Path(name_or_folder).name}, pictures {prepare}",
        fingerprint=hash_of_network(network),
        classes=tuple(dict.fromkeys(names.values())),
        find=find,
        package="transformers",
    )


def sure_ones(logits: Tensor, num_classes: int, min_score: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return which frames show something, its class, and its score, each (M,), from logits (N, C) or (N, C + 1)."""
    if logits.shape[1] == num_classes + 1:  # the last one is "nothing here"
        scores, numbers = logits.softmax(1)[:, :-1].max(1)
        rows = (scores >= min_score).nonzero()[:, 0]
        return rows, numbers[rows], scores[rows]
    scores, places = logits.sigmoid().flatten().topk(len(logits))  # a frame may count twice, but no more of all
    sure = scores >= min_score
    return places[sure] // num_classes, places[sure] % num_classes, scores[sure]


class Preparation:
    """Makes of a picture what a network takes: (1, 3, H, W), resized, of a certain mean and deviation."""

    def __init__(self, config: Mapping[str, Any], name: str, multiple: int = 1) -> None:
        """Take a preprocessor_config.json, and a number of pixels that shall divide the sides where aspect is kept.

        Raises `WeightsError` for a size that cannot be understood.
        """
        self.multiple = multiple
        size = config.get("size", {})
        if isinstance(size, int):  # as of 2021
            size = {"shortest_edge": size, "longest_edge": config.get("max_size", size)}
        if not config.get("do_resize", True):
            size = {}
        elif not ({"height", "width"} <= size.keys() or {"shortest_edge", "longest_edge"} <= size.keys()):
            raise WeightsError(
                f"'{name}' resizes pictures to {size or 'nothing'}; height and width, or shortest_edge and "
                "longest_edge, are known."
            )
        self.size: Mapping[str, int] = size
        self.factor = float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
        normal = config.get("do_normalize", True)
        self.mean = torch.tensor(config.get("image_mean", IMAGENET_MEAN) if normal else (0.0,) * 3)[:, None, None]
        self.deviation = torch.tensor(config.get("image_std", IMAGENET_STD) if normal else (1.0,) * 3)[:, None, None]

    def __call__(self, rgb: Pixels) -> Tensor:
        """Return the picture (H, W, 3) as the network takes it; resized by Pillow, bilinear, as the authors' were."""
        height, width = self.size_for(rgb.shape[0], rgb.shape[1])
        resized = np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR))
        planes = torch.from_numpy(resized).permute(2, 0, 1).float() * self.factor
        return ((planes - self.mean) / self.deviation)[None]

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width to which a picture is resized."""
        if not self.size:
            return height, width
        if "height" in self.size:
            return self.size["height"], self.size["width"]
        shorter, longer = sorted((height, width))
        side = min(self.size["shortest_edge"], self.size["longest_edge"] * shorter / longer)
        short, long = round(side), int(side * longer / shorter)
        if short == shorter:  # then transformers leaves it at that, were the longer side a pixel too long
            long = longer
        short, long = (max(length - length % self.multiple, self.multiple) for length in (short, long))
        return (short, long) if height <= width else (long, short)

    def __str__(self) -> str:
        if not self.size:
            return "at their own size"
        if "height" in self.size:
            return f"resized to {self.size['width']}x{self.size['height']}"
        return f"resized to {self.size['shortest_edge']} px on the shorter side, {self.size['longest_edge']} at most"


def _preprocessor_config(name_or_folder: str) -> Mapping[str, Any]:
    from transformers.image_processing_base import ImageProcessingMixin

    with contextlib.suppress(OSError):
        config: Mapping[str, Any] = ImageProcessingMixin.get_image_processor_dict(name_or_folder)[0]
        return config
    raise WeightsError(
        f"'{name_or_folder}' has no preprocessor_config.json, which says how pictures are prepared for it. "
        f"Copy it from where the model comes from; {EXAMPLE} has one."
    )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
