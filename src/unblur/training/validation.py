"""Looks at the validation pictures on the way: always the same ones, blurred in the same way, restored as users do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from unblur import metrics
from unblur.blur.recipes import blur_batch, blur_windows, sample_seed
from unblur.data.pairs import resized, to_batch
from unblur.data.sources import Pair, Window
from unblur.experiment import Experiment
from unblur.inference import restore_image
from unblur.losses import LossSum

NUM_SHOWN = 3


@dataclass(frozen=True)
class Look:
    """Means over the validation pictures: the loss, and the PSNR in dB (`psnr-float`)."""

    loss: float
    psnr: float
    loss_blurred: float
    """Of the blurred picture itself: what doing nothing gives."""
    psnr_blurred: float
    others: dict[str, float]
    """Means of the experiment's further metrics, by name."""
    shown: list[tuple[Tensor, Tensor, Tensor]]
    """The first pictures as (blurred, restored, sharp), each (3, H, W)."""


class Validation:
    """The pictures, kept in memory."""

    def __init__(self, experiment: Experiment, pictures: Sequence[Pair | Window]) -> None:
        self.precision = "auto" if experiment.precision == "fp16" else experiment.precision
        self.metrics = experiment.validation.metrics
        self.pictures = list(_pictures(experiment, pictures))

    def look(self, network: nn.Module, loss: LossSum, fabric: Fabric) -> Look:
        """Restore all pictures and compare; several processes share the work, and all return the same."""
        was_training = network.training
        network.eval()
        mine = range(fabric.global_rank, len(self.pictures), fabric.world_size)
        found = {index: self._look_at(index, network, loss) for index in mine}
        network.train(was_training)
        if fabric.world_size > 1:
            gathered: list[dict[int, list[float]]] = [{} for _ in range(fabric.world_size)]
            torch.distributed.all_gather_object(gathered, {index: scores for index, (scores, _) in found.items()})
            rows = {index: scores for part in gathered for index, scores in part.items()}
        else:
            rows = {index: scores for index, (scores, _) in found.items()}
        columns = zip(*(rows[index] for index in sorted(rows)), strict=True)
        mean_loss, mean_psnr, loss_blurred, psnr_blurred, *means = (sum(column) / len(rows) for column in columns)
        others = dict(zip(self.metrics, means, strict=True))
        shown = [(self.pictures[i][0], restored, self.pictures[i][1]) for i, (_, restored) in found.items()]
        return Look(mean_loss, mean_psnr, loss_blurred, psnr_blurred, others, shown[:NUM_SHOWN])

    def _look_at(self, index: int, network: nn.Module, loss: LossSum) -> tuple[list[float], Tensor]:
        """Return loss and PSNR of the restored and of the blurred picture, the other metrics, and the restored one."""
        blurred, sharp = self.pictures[index]
        restored = restore_image(network, blurred, precision=self.precision)
        scores = []
        for picture in (restored, blurred):
            with torch.no_grad():
                total, _ = loss.final(picture[None], sharp[None], blurred[None])
            scores += [float(total), float(metrics.psnr_float(picture, sharp))]
        scores += metrics.score_pair(restored, sharp, self.metrics).values()
        return scores, restored


def _pictures(experiment: Experiment, items: Sequence[Pair | Window]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (blurred, sharp), each (3, H, W): always the same, from the validation's own seed."""
    settings, recipe = experiment.validation, experiment.blur
    count = min(len(items), settings.max_pictures or len(items))
    for index in range(count):
        item, seeds = items[index * len(items) // count], [sample_seed(settings.seed, index)]
        pictures = to_batch([resized(picture.read(), experiment.data.size) for picture in item.pictures]).float() / 255
        sharp = pictures[:1]
        if isinstance(item, Window):
            assert recipe is not None
            blurred, sharp = blur_windows(pictures[None], recipe, seeds)
        elif item.blurred is not None:
            blurred = pictures[1:]
        else:
            assert recipe is not None
            kind = index % len(recipe.kinds) if recipe.each_kind else None
            blurred = blur_batch(sharp, recipe, seeds, kind=kind)
        if settings.crop_px:
            top, left = (max(0, (length - settings.crop_px) // 2) for length in sharp.shape[-2:])
            middle = (..., slice(top, top + settings.crop_px), slice(left, left + settings.crop_px))
            blurred, sharp = blurred[middle], sharp[middle]
        yield blurred[0].contiguous(), sharp[0].contiguous()
