"""The two classifying networks whose features LPIPS and DISTS compare, and what fills them with weights.

Keys are those of the well-known files of ImageNet weights (`features.N.weight`), the classifiers at the end left out.
Nothing is downloaded: each file is looked for in the folder of local weights (`unblur.weights.home`).
"""

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn

from unblur import weights
from unblur.errors import WeightsError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
VGG16_FILE = "vgg16-397923af.pth"


class AlexNet(nn.Module):
    """The convolutions of Krizhevsky's second AlexNet (2014, one tower); from 63 px a side its features all exist."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip

    def stages(self, normalised: Tensor) -> list[Tensor]:
        """Return the features after each of the five convolutions; `normalised` (B, 3, H, W)."""
        return after(self.features, normalised, (1, 4, 7, 9, 11))


class VGG16(nn.Module):
    """The convolutions of VGG16 (Simonyan and Zisserman 2014), their pooling exchangeable."""

    CHANNELS = (64, 128, 256, 512, 512)

    def __init__(self, pool: type[nn.Module] = nn.MaxPool2d) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for stage, (channels, count) in enumerate(zip(self.CHANNELS, (2, 2, 3, 3, 3), strict=True)):
            if stage:
                layers.append(pool(2))
            for _ in range(count):
                layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
                before = channels
        self.features = nn.Sequential(*layers)

    def stages(self, normalised: Tensor) -> list[Tensor]:
        """Return the features before each pooling and at the end: relu1_2, 2_2, 3_3, 4_3, 5_3."""
        return after(self.features, normalised, (3, 8, 15, 22, 29))


def after(layers: nn.Sequential, values: Tensor, places: Iterable[int]) -> list[Tensor]:
    """Return what comes out of the layers at `places`, in order."""
    found, wanted = [], set(places)
    for place, layer in enumerate(layers):
        values = layer(values)
        if place in wanted:
            found.append(values)
    return found


def local_tensors(file: str, what: str) -> dict[str, Tensor]:
    """Return the tensors of a metric's file of weights; `what` says whose it is. Raises `WeightsError` without it."""
    return weights.local_tensors(file, what, otherwise="choose metrics that do without")


def fill(network: nn.Module, tensors: dict[str, Tensor], path: Path | str) -> None:
    """Load tensors by name into the network, all that it has; others (a classifier's) are left out."""
    wanted = network.state_dict()
    wrong = [key for key in wanted if key not in tensors or tensors[key].numel() != wanted[key].numel()]
    if wrong:
        raise WeightsError(f"{path} does not fit: {', '.join(wrong[:3])} is missing or has another size.")
    network.load_state_dict({key: tensors[key].reshape(wanted[key].shape) for key in wanted})
