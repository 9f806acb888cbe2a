"""What importing the package does, which is nothing, and what it offers."""

import importlib
import subprocess
import sys

import unblur

HEAVY = ("torch", "numpy", "PIL", "cv2", "pydantic", "yaml", "rich", "safetensors")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)


def test_importing_prints_nothing_and_loads_nothing_heavy() -> None:
    done = python("-c", f"import unblur, unblur.cli, sys; assert not {{*{HEAVY}}} & {{*sys.modules}}")
    assert (done.stdout, done.stderr) == ("", "")


def test_restoring_and_evaluating_need_neither_lightning_nor_torchvision() -> None:
    python(
        "-W", "error", "-c",
        "import sys, unblur.restorer, unblur.evaluation, unblur.zoo, unblur.blur.photos, unblur.experiment;"
        "assert not {'lightning', 'torchvision', 'skimage', 'scipy', 'matplotlib'} & {*sys.modules}",
    )  # fmt: skip


def test_every_public_name_is_there_and_they_are_sorted() -> None:
    assert unblur.__all__ == sorted(unblur.__all__)
    for name in unblur.__all__:
        thing = getattr(unblur, name)
        assert callable(thing)
        assert thing.__doc__, f"{name} has no docstring"
    assert set(unblur.__all__) <= set(dir(unblur))


def test_a_star_import_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from unblur import *", names)
    assert set(names) - {"__builtins__"} == set(unblur.__all__)


def test_no_public_name_is_hidden_by_a_module_of_the_same_name() -> None:
    python(
        "-c",
        "import pkgutil, importlib, types, unblur\n"
        "for module in pkgutil.walk_packages(unblur.__path__, 'unblur.'):\n"
        "    if '.training' not in module.name and '__main__' not in module.name:\n"
        "        importlib.import_module(module.name)\n"
        "for name in unblur.__all__:\n"
        "    assert not isinstance(getattr(unblur, name), types.ModuleType), name",
    )


def test_restore_stays_the_function_after_its_module_was_imported() -> None:
    before = unblur.restore
    importlib.import_module("unblur.restorer")
    assert unblur.restore is before
    assert callable(unblur.restore)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(unblur, "unblur_everything")


def test_the_package_runs_as_a_module() -> None:
    done = python("-m", "unblur", "--version")
    assert done.stdout == f"unblur {unblur.__version__}\n"
    assert done.stderr == ""
