"""Where a result comes from: the versions and the commit of the code that made it."""

import importlib.metadata
import platform
import subprocess
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import PIL
import torch


@cache
def versions() -> dict[str, str]:
    """Return the versions of unblur and of what computes for it, and the commit where unblur runs from a checkout."""
    found = {
        "unblur": importlib.metadata.version("unblur"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "opencv": cv2.__version__,
    }
    origin = commit()
    return {**found, "commit": origin} if origin else found


@cache
def commit() -> str | None:
    """Return the commit of the checkout that this file is tracked in, with "-dirty" where files were changed."""
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):  # no git, no checkout, or an installed package
        return None


def _git(*arguments: str) -> str:
    folder = Path(__file__).resolve().parent
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
