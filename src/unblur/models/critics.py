"""Critics by name: what a network is trained against. Each stands in the file of the network that it was made for.

    critic = create("patch", halvings=5)
    scores = critic(pictures)               # (B, 3, H, W) in [0, 1] -> one score a patch, higher for sharp

* patch: DeblurGAN's, of patches of 70×70 px; with `halvings: 5` DeblurGAN-v2's global one, of 286×286 px
* multi_scale: patches of three sizes (DeblurGAN-v2)
* li: the six convolutions of Li's GAN
* deepdeblur: DeepDeblur's, one score for 256×256 px
"""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from unblur.errors import UnknownName
from unblur.models import deblur_gan_li, deblurgan, deblurgan_v2, deepdeblur

CRITICS: dict[str, Callable[..., nn.Module]] = {
    "deepdeblur": deepdeblur.DeepDeblurCritic,
    "li": deblur_gan_li.PatchCritic,
    "multi_scale": deblurgan_v2.MultiScaleCritic,
    "patch": deblurgan.PatchCritic,
}


def create(name: str, **options: Any) -> nn.Module:
    """Return a critic with fresh random weights from torch's global generator.

    Raises `UnknownName` for an unknown critic or option, `ValueError` for an option out of range.
    """
    if name not in CRITICS:
        raise UnknownName("critic", name, CRITICS)
    known = inspect.signature(CRITICS[name]).parameters
    for option in options:
        if option not in known:
            raise UnknownName(f"option of the critic {name}", option, known)
    return CRITICS[name](**options)
