"""What several files of tests need: a small photograph from scikit-image, the folders of real ones and of goldens."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unblur import models
from unblur.errors import MissingExtra


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Let torch compute with one thread: small tensors gain nothing from more, and tests run side by side."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def built_or_skipped(request: pytest.FixtureRequest) -> None:
    """Skip a test of a network that cannot be built here, for want of a package; it says which."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    arch = models.ARCHITECTURES.get(getattr(parameters.get("arch"), "name", parameters.get("name")))
    if arch is not None and arch.extra is not None:
        try:
            with torch.device("meta"):
                models.create(arch.name, **arch.tiny)
        except MissingExtra as error:
            pytest.skip(str(error))


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


@pytest.fixture(scope="session")
def published_root() -> Path:
    """The folder of the authors' goldens: UNBLUR_PUBLISHED, or ../shared/published beside the repository."""
    beside = Path(__file__).parents[1] / ".." / "shared" / "published"
    root = Path(os.environ.get("UNBLUR_PUBLISHED") or beside).resolve()
    if not root.is_dir():
        pytest.skip(f"no goldens at {root}; set UNBLUR_PUBLISHED")
    return root
