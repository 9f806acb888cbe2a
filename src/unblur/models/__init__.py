"""The networks: one file each, listed here. `create` builds one by name."""

import copy
from typing import Any

from torch import nn

from unblur.errors import UnknownName
from unblur.models import (
    autoencoder,
    blur_to_video,
    caessc,
    deblur_gan_li,
    deblurgan,
    deblurgan_v2,
    deblurnet,
    deepdeblur,
    eddensenet,
    fftformer,
    mimo_unet,
    mprnet,
    nafnet,
    red_net,
    reduced_deblurnet,
    restormer,
    resunet,
    sam_deblur,
    srn,
    srn_deblur_cifar,
    srn_deblur_reds,
    stripformer,
    uformer,
    vae,
    vit_deblur,
    wiener_nafnet,
)
from unblur.models.arch import Arch

ARCHITECTURES: dict[str, Arch] = {
    arch.name: arch
    for arch in (
        autoencoder.ARCH,
        blur_to_video.ARCH,
        caessc.ARCH,
        deblur_gan_li.ARCH,
        deblurgan.ARCH,
        deblurgan_v2.ARCH,
        deblurnet.ARCH,
        deepdeblur.ARCH,
        eddensenet.ARCH,
        fftformer.ARCH,
        mimo_unet.ARCH,
        mprnet.ARCH,
        nafnet.ARCH,
        red_net.ARCH,
        reduced_deblurnet.ARCH,
        restormer.ARCH,
        resunet.ARCH,
        sam_deblur.ARCH,
        srn.ARCH,
        srn_deblur_cifar.ARCH,
        srn_deblur_reds.ARCH,
        stripformer.ARCH,
        uformer.ARCH,
        vae.ARCH,
        vit_deblur.ARCH,
        wiener_nafnet.ARCH,
    )
}
"""Every architecture there is. A new one is a file beside this one and a line here."""


def find(name: str) -> Arch:
    """Return the facts of an architecture; `UnknownName` gives the nearest name."""
    if name not in ARCHITECTURES:
        raise UnknownName("model", name, ARCHITECTURES, "`unblur models` lists all of them.")
    return ARCHITECTURES[name]


def full_options(name: str, **options: Any) -> dict[str, Any]:
    """Return every option of the network with its value: the defaults, changed by `options`."""
    arch = find(name)
    for option in options:
        if option not in arch.options:
            raise UnknownName(f"option of {name}", option, arch.options)
    return copy.deepcopy({**arch.options, **options})


def create(name: str, **options: Any) -> nn.Module:
    """Return a network with fresh random weights, float32, on the CPU, in training mode.

    Its `arch_name` and `arch_options` say what it is, and go into every checkpoint. Raises `UnknownName` for an
    unknown network or option, `MissingExtra` where a package that the network needs is not installed. Random weights
    come from torch's global generator: call `torch.manual_seed` first to repeat them.
    """
    options, arch = full_options(name, **options), find(name)
    model = arch.build(**options)
    options |= {option: arch.options[option] for option in arch.first_weights}
    model.__dict__.update(arch_name=name, arch_options=options)
    return model


def identity(model: nn.Module) -> tuple[str, dict[str, Any]] | None:
    """Return (name, options) of a network that `create` made, or None for any other."""
    name, options = model.__dict__.get("arch_name"), model.__dict__.get("arch_options")
    return (name, options) if name is not None and options is not None else None
