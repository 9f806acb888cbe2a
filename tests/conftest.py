"""What several files of tests need: a small photograph from scikit-image, and the folder of real ones."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor


@pytest.fixture
def photograph() -> Tensor:
    """A face from scikit-image's astronaut: (3, 96, 128) float32 in [0, 1]."""
    data = pytest.importorskip("skimage.data")
    return torch.from_numpy(data.astronaut()[60:156, 160:288].copy()).permute(2, 0, 1).contiguous().float() / 255


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real test pictures: UNBLUR_DATA, or ../shared/data beside the repository."""
    root = Path(os.environ.get("UNBLUR_DATA") or Path(__file__).parents[1] / ".." / "shared" / "data").resolve()
    if not root.is_dir():
        pytest.skip(f"no real pictures at {root}; set UNBLUR_DATA")
    return root
