"""The package never brings torchvision along, nor others that would, or that ship what is not ours to ship."""

import importlib.metadata
import importlib.util
import tomllib
from pathlib import Path

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


def is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def extras() -> dict[str, set[str]]:
    """Return what each extra of the package asks for by itself, by the extra's name."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    return {name: {*needed} for name, needed in project["optional-dependencies"].items()}


def test_what_users_and_developers_install_holds_nothing_unwanted():
    needed = everything_needed("unblur[all]", "unblur[dev]", *(text for texts in extras().values() for text in texts))
    assert {"torch", "numpy", "pillow", "safetensors", "lightning", "transformers", "onnxruntime", "pytest"} <= needed
    assert not needed & UNWANTED


def test_all_is_every_extra_that_users_can_call_and_developers_have_them_too():
    (everything,) = (Requirement(text) for text in extras()["all"])
    assert everything.name == "unblur"
    assert everything.extras == extras().keys() - {"all", "dev"}
    (theirs,) = (requirement for requirement in map(Requirement, extras()["dev"]) if requirement.name == "unblur")
    assert theirs.extras == everything.extras


@pytest.mark.parametrize("what", ["unblur[all]", "unblur[dev]"])
def test_the_whole_tree_is_looked_at(what):
    missing = sorted(name for name in everything_needed(what) if not is_installed(name))
    if missing:
        pytest.skip(f"not installed, so what they need is not known: {', '.join(missing)}")
    assert not everything_needed(what) & UNWANTED


def test_the_package_alone_does_without_lightning():
    needed = everything_needed("unblur")
    assert "torch" in needed
    assert not needed & {"lightning", "pytorch-lightning", "tensorboard", *UNWANTED}


@pytest.mark.parametrize("name", sorted(UNWANTED))
def test_nothing_unwanted_is_installed(name):
    assert importlib.util.find_spec(name) is None
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.distribution(name)
