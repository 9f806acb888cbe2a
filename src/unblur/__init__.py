"""Make blurred photographs sharp; train, compare and trust deblurring networks.

    import unblur
    unblur.restore("photo.jpg").save("sharp.jpg")

Importing does nothing; each name is loaded when it is first used.
"""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unblur.errors import UnblurError
    from unblur.images import Photo, read_photo
    from unblur.metrics import mae, mse, psnr, psnr_float, ssim_matlab3d, ssim_wang
    from unblur.models import create as create_model
    from unblur.restorer import Restorer, restore
    from unblur.weights import load as load_model
    from unblur.zoo import list_models

__all__ = [
    "Photo",
    "Restorer",
    "UnblurError",
    "create_model",
    "list_models",
    "load_model",
    "mae",
    "mse",
    "psnr",
    "psnr_float",
    "read_photo",
    "restore",
    "ssim_matlab3d",
    "ssim_wang",
]

__version__ = version("unblur")

_HOMES = {
    "Photo": "images.Photo",
    "Restorer": "restorer.Restorer",
    "UnblurError": "errors.UnblurError",
    "create_model": "models.create",
    "list_models": "zoo.list_models",
    "load_model": "weights.load",
    "read_photo": "images.read_photo",
    "restore": "restorer.restore",
    **{name: f"metrics.{name}" for name in ("mae", "mse", "psnr", "psnr_float", "ssim_matlab3d", "ssim_wang")},
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unblur' has no attribute '{name}'")
    module, _, attribute = _HOMES[name].rpartition(".")
    return getattr(importlib.import_module(f"unblur.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
