"""Losses that compare features of VGG-19 instead of pixels: perceptual, style, contrastive.

Each is a function of features (B, C, H, W); `FeatureLoss` makes the features of pictures. `LAYERS` says which are
compared unless others are asked for.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from unblur.losses.pixel import check_same_shape, l1, mse
from unblur.losses.vgg import VGG19Features, check_layer

LAYERS = {
    "contrastive": ("conv3_2",),
    "perceptual": ("conv3_3",),
    "style": ("relu1_2", "relu2_2", "relu3_3", "relu4_3"),
}


class FeatureLoss(nn.Module):
    """A loss on features of pictures (B, 3, H, W) in [0, 1], summed over layers of VGG-19."""

    def __init__(self, vgg: VGG19Features, compare: Callable[..., Tensor], layers: Sequence[str]) -> None:
        super().__init__()
        for layer in layers:
            check_layer(layer)
        self.vgg, self.compare, self.layers = vgg, compare, tuple(layers)

    def forward(self, restored: Tensor, *others: Tensor) -> Tensor:
        """Return the loss of the restored pictures beside the sharp and, for `contrastive`, the blurred ones.

        Gradients reach the restored pictures alone.
        """
        for other, name in zip(others, ("sharp", "blurred"), strict=False):
            check_same_shape(restored, other, ("restored", name))
        with torch.no_grad():
            known = [self.vgg(pictures, self.layers) for pictures in others]
        features = self.vgg(restored, self.layers)
        parts = [self.compare(features[layer], *(other[layer] for other in known)) for layer in self.layers]
        return torch.stack(parts).sum()


def perceptual(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return the mean squared error of features (Johnson et al. 2016, equation 2; document C, section 2.2.2).

    conv3_3, before its ReLU, is DeblurGAN's and DeblurGAN-v2's. DeblurGAN-v2 normalises pictures as here, though of a
    batch the first one only. DeblurGAN feeds values in [-1, 1], of 0.45 times the contrast and so about 0.2 times
    the loss: its weight of 100 is about 20 here. Its formula divides by H·W without the channels; the mean over all is
    what its authors train with.
    """
    return mse(restored, sharp)


def style(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return the squared Frobenius norm between Gram matrices, averaged over the pictures (Johnson et al. 2016,
    equation 4; document C, section 2.2.2). The layers have the names of Johnson's, who took VGG-16.
    """
    check_same_shape(restored, sharp)
    return (gram(restored) - gram(sharp)).square().sum(dim=(1, 2)).mean()


def gram(features: Tensor) -> Tensor:
    """Return which channels occur together, (B, C, C): products summed over the places, divided by C·H·W."""
    _, channels, height, width = features.shape
    flat = features.flatten(2)  # (B, C, H·W)
    return flat @ flat.mT / (channels * height * width)


def contrastive(restored: Tensor, sharp: Tensor, blurred: Tensor, epsilon: float = 1e-7) -> Tensor:
    """Return the L1 distance of features to the sharp ones, divided by that to the blurred ones (document A, equation
    4; Stripformer): to be near the one and far from the other.

    The document's formula omits psi, the features, above the line, and its text calls them phi; features are meant on
    both sides. One ratio for the whole batch. `epsilon` stands below the line: a network that returns its very
    input has a ratio in the millions. conv3_2 is the document's layer; Stripformer's authors train with "layer 11"
    which, counted from 0, is the ReLU before it, and leave out pixels where the blurred picture is sharp.
    """
    return l1(restored, sharp) / (l1(restored, blurred) + epsilon)
