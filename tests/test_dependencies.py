"""The package never brings torchvision along, nor others that would, or that ship what is not ours to ship."""

import importlib.metadata
import importlib.util

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

UNWANTED = {"torchvision", "timm", "deepinv", "spandrel", "piq", "lpips", "pyiqa", "ultralytics"}


def everything_needed(*requirements: str) -> set[str]:
    """Return the names of all distributions that these requirements bring along, as far as installed."""
    waiting, seen = [Requirement(text) for text in requirements], set()
    found: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        found.add(name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                needed = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue
            inner = [Requirement(text) for text in needed]
            waiting += [one for one in inner if one.marker is None or one.marker.evaluate({"extra": extra})]
    return found


def test_what_users_and_developers_install_holds_nothing_unwanted():
    needed = everything_needed("unblur[all]", "unblur[dev]")
    assert {"torch", "numpy", "pillow", "safetensors", "lightning", "pytest"} <= needed
    assert not needed & UNWANTED


def test_the_package_alone_does_without_lightning():
    needed = everything_needed("unblur")
    assert "torch" in needed
    assert not needed & {"lightning", "pytorch-lightning", "tensorboard", *UNWANTED}


@pytest.mark.parametrize("name", sorted(UNWANTED))
def test_nothing_unwanted_is_installed(name):
    assert importlib.util.find_spec(name) is None
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.distribution(name)
