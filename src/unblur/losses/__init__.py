"""Losses by name, and the weighted sum that an experiment file names: `loss: {charbonnier: 1.0, edge: 0.05}`.

    loss = build({"charbonnier": 1.0, "edge": 0.05})
    total, parts = loss(network.training_outputs(blurred), sharp, blurred)

Adversarial losses stand in the same list but need a critic; the training that has one adds them (`adversarial.py`).
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unblur.errors import TrainingError, UnknownName
from unblur.losses import perceptual, vgg
from unblur.losses.adversarial import ADVERSARIAL, AdversarialLoss, gradient_penalty
from unblur.losses.consistency import cycle, order_invariant
from unblur.losses.latent import kld
from unblur.losses.pixel import bce, charbonnier, check_same_shape, l1, mse, psnr
from unblur.losses.structure import edge, frequency, ssim

__all__ = [
    "ADVERSARIAL",
    "LOSSES",
    "AdversarialLoss",
    "LossSum",
    "build",
    "check_names",
    "gradient_penalty",
]

PICTURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce": bce,
    "charbonnier": charbonnier,
    "edge": edge,
    "frequency": frequency,
    "l1": l1,
    "mse": mse,
    "psnr": psnr,
    "ssim": ssim,
}
"""Those that compare restored with sharp pictures, (B, 3, H, W), and need nothing else."""

FEATURES: dict[str, Callable[..., Tensor]] = {
    "contrastive": perceptual.contrastive,
    "perceptual": perceptual.perceptual,
    "style": perceptual.style,
}
"""Those that compare features of VGG-19."""

LOSSES = tuple(sorted((*PICTURES, *FEATURES, *ADVERSARIAL, "kld", "cycle", "order_invariant")))
"""All names."""

NOT_RESTORED = {"kld": ("mean", "log_variance"), "cycle": ("reblurred",), "order_invariant": ("clip",)}
"""Outputs of a network that are not its restored pictures, by the loss that alone reads them."""


def build(
    weights: Mapping[str, float], *, vgg: str | Path = "auto", stages: Mapping[str, float] | None = None
) -> "LossSum":
    """Return the weighted sum of losses by name.

    `vgg` says where the features of VGG-19 come from, if a loss needs them: "auto", the well-known file in the folder
    of local weights; "random"; or a file. `stages` weighs the stages of a network that has several, 1 each unless
    named. Raises `UnknownName` with the nearest name, `WeightsError` where VGG-19's file is missing or another's.
    """
    return LossSum(weights, vgg, stages or {})


class LossSum(nn.Module):
    """The weighted sum of losses, and its parts. Computed in float32, also within autocast."""

    adversarial: dict[str, float]
    """Weights of the adversarial losses among those named. They are no part of the sum here."""
    notes: tuple[str, ...]
    """What is to be said beside every figure made with this sum."""

    def __init__(self, weights: Mapping[str, float], vgg_source: str | Path, stages: Mapping[str, float]) -> None:
        super().__init__()
        names = check_names(weights)
        if not names:
            raise ValueError(f"no loss is named; there are {', '.join(LOSSES)}")
        self.weights = {name: weights[name] for name in names if name not in ADVERSARIAL}
        self.adversarial = {name: weights[name] for name in names if name in ADVERSARIAL}
        self.stages = dict(stages)
        self.features = _feature_losses([name for name in names if name in FEATURES], vgg_source)
        random = bool(self.features) and vgg_source == "random"
        self.notes = (f"{', '.join(self.features)} on a VGG-19 with random weights",) if random else ()

    def forward(
        self,
        outputs: Tensor | Mapping[str, Tensor],
        sharp: Tensor,
        blurred: Tensor,
        clip: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total, and the parts without their weights and gradients, by name.

        `outputs` are restored pictures (B, 3, H, W), or clips (B, T, 3, H, W) whose frames are pictures (the blurred
        may then be single pictures); or a network's `training_outputs`: its stages in order, the last one of full
        size. Smaller ones are compared with the sharp pictures reduced by area. With several stages a part is their
        weighted sum, and each stands beside it as `name/stage`. Other outputs are `mean` and `log_variance` (B,
        latent), which `kld` reads, `reblurred`, the restored pictures blurred again, which `cycle` compares with the
        blurred ones, and `clip` (B, T, 3, H, W), all restored frames, which `order_invariant` compares with the sharp
        `clip`; the sharp pictures are its middle frames.

        Raises `TrainingError` where the network does not give what a loss reads, `UnknownName` where `stages` names one
        that it has not, and `ValueError` where shapes do not belong together.
        """
        found = {"restored": outputs} if isinstance(outputs, Tensor) else outputs
        with torch.autocast(sharp.device.type, enabled=False):
            found = {name: _at_least_float32(output) for name, output in found.items()}
            sharp, blurred = _at_least_float32(sharp), _at_least_float32(blurred)
            stages = self._stages(found, sharp, blurred)
            parts: dict[str, Tensor] = {}
            total = sharp.new_zeros(())
            for name, weight in self.weights.items():
                if name in NOT_RESTORED:
                    part = _of_other_outputs(name, found, blurred, clip)
                else:
                    of_stage = {stage: self._part(name, *pictures) for stage, pictures in stages.items()}
                    part = torch.stack([self.stages.get(stage, 1.0) * of_stage[stage] for stage in of_stage]).sum()
                    if len(of_stage) > 1:
                        parts |= {f"{name}/{stage}": value.detach() for stage, value in of_stage.items()}
                parts[name] = part.detach()
                total = total + weight * part
        return total, parts

    def final(self, restored: Tensor, sharp: Tensor, blurred: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the same of restored pictures alone, as validation sees them: without `kld`, `cycle` and adversarial
        losses. Where nothing else is named, the total is 0.
        """
        with torch.autocast(sharp.device.type, enabled=False):
            restored, sharp, blurred = (_at_least_float32(pictures) for pictures in (restored, sharp, blurred))
            names = [name for name in self.weights if name not in NOT_RESTORED]
            parts = {name: self._part(name, restored, sharp, blurred) for name in names}
            total = sum((self.weights[name] * part for name, part in parts.items()), start=sharp.new_zeros(()))
        return total, {name: part.detach() for name, part in parts.items()}

    def _stages(
        self, outputs: Mapping[str, Tensor], sharp: Tensor, blurred: Tensor
    ) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """Return restored, sharp and blurred pictures of each stage, at its size."""
        others = {key for keys in NOT_RESTORED.values() for key in keys}
        stages = {name: restored for name, restored in outputs.items() if name not in others}
        for name in self.stages:
            if name not in stages:
                raise UnknownName("stage of the network", name, stages)
        *_, last = stages.values()
        check_same_shape(last, sharp)
        return {
            name: (restored, _reduced(sharp, restored), _reduced(blurred, restored))
            for name, restored in stages.items()
        }

    def _part(self, name: str, restored: Tensor, sharp: Tensor, blurred: Tensor) -> Tensor:
        """Return one loss of pictures, or of clips, whose frames are pictures to it."""
        check_same_shape(restored, sharp)
        if restored.ndim not in (4, 5):
            raise ValueError(f"Pictures are (B, 3, H, W) and clips (B, T, 3, H, W), not {tuple(restored.shape)}.")
        if restored.ndim == 5 and blurred.ndim == 4:
            blurred = blurred[:, None].expand_as(restored)
        restored, sharp, blurred = (pictures.flatten(0, -4) for pictures in (restored, sharp, blurred))
        if name in PICTURES:
            return PICTURES[name](restored, sharp)
        others = (sharp, blurred) if name == "contrastive" else (sharp,)
        return self.features[name](restored, *others)


def check_names(weights: Mapping[str, float]) -> list[str]:
    """Return the names of the losses; `UnknownName` gives the nearest one."""
    for name in weights:
        if name not in LOSSES:
            raise UnknownName("loss", name, LOSSES)
    return list(weights)


def _feature_losses(names: list[str], vgg_source: str | Path) -> nn.ModuleDict:
    """Return the losses on one VGG-19, which is built as far as they need it, or not at all."""
    if not names:
        return nn.ModuleDict()
    layers = [layer for name in names for layer in perceptual.LAYERS[name]]
    network = vgg.load_vgg19(vgg_source, max(layers, key=vgg.LAYERS.index))
    return nn.ModuleDict(
        {name: perceptual.FeatureLoss(network, FEATURES[name], perceptual.LAYERS[name]) for name in names}
    )


def _of_other_outputs(name: str, outputs: Mapping[str, Tensor], blurred: Tensor, clip: Tensor | None) -> Tensor:
    missing = [key for key in NOT_RESTORED[name] if key not in outputs]
    if missing:
        raise TrainingError(
            f"The loss '{name}' reads {' and '.join(NOT_RESTORED[name])} from what a network gives in training; this "
            f"one gives {', '.join(outputs)}. Leave '{name}' out, or train another network."
        )
    if name == "kld":
        return kld(outputs["mean"], outputs["log_variance"])
    if name == "order_invariant":
        if clip is None:
            raise TrainingError("The loss 'order_invariant' needs the sharp frames of each exposure, not only pairs.")
        return order_invariant(outputs["clip"], _at_least_float32(clip))
    return cycle(outputs["reblurred"], blurred)


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _reduced(pictures: Tensor, restored: Tensor) -> Tensor:
    """Return the pictures or clips at the size of a stage, each of its pixels the mean of the area that it covers."""
    size, smaller = pictures.shape[-2:], restored.shape[-2:]
    if size == smaller:
        return pictures
    if not any(smaller == tuple(-(-length // factor) for length in size) for factor in range(2, max(size) + 1)):
        raise ValueError(
            f"A stage of {tuple(smaller)} px cannot be compared with pictures of {tuple(size)} px: both sides are to "
            f"be divided by the same whole number and rounded up."
        )
    reduced = F.interpolate(pictures.flatten(0, -4), tuple(smaller), mode="area")
    return reduced.reshape(*pictures.shape[:-2], *smaller)
