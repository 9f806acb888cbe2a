"""Imports run downwards only, heavy packages stay where they are needed, and importing does nothing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import unblur

SOURCE = Path(unblur.__file__).parent
REPOSITORY = Path(__file__).parents[1]

ROWS = (
    "errors",
    "settings files provenance huggingface",
    "exif",
    "formats",
    "images video",
    "outputs",
    "blur",
    "models",
    "weights published inference engines masks losses metrics",
    "data",
    "experiment",
    "training evaluation detection tables report sweep restorer animate cluster zoo",
    "__init__",
    "web commands",
    "cli",
    "__main__",
)
"""From the bottom up. A file imports from its own row or the rows before it; folders stand for all that is in them."""

ROW_OF = {name: number for number, row in enumerate(ROWS) for name in row.split()}
FILES = sorted(SOURCE.rglob("*.py"))
EVERY = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())


def part_of(path: Path) -> str:
    """Return the part of the house a file belongs to: a file or folder directly below the package."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Yield all modules that a file names in imports, wherever these stand; `from unblur import a` names `unblur.a`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def imported_files(path: Path) -> set[Path]:
    """Return the files of ours that a file imports."""
    found = set()
    for name in imported(path):
        if name.split(".")[0] != "unblur":
            continue
        parts = name.split(".")[1:]
        while parts:
            module = SOURCE.joinpath(*parts)
            if module.with_suffix(".py").is_file() or (module / "__init__.py").is_file():
                break
            parts.pop()  # a name within a module
        module = SOURCE.joinpath(*parts)
        found.add(module.with_suffix(".py") if module.with_suffix(".py").is_file() else module / "__init__.py")
    return found


@EVERY
def test_every_file_has_a_row(path):
    assert part_of(path) in ROW_OF, f"{path.name} stands in no row of tests/test_layers.py"


@EVERY
def test_imports_run_downwards(path):
    row = ROW_OF[part_of(path)]
    if part_of(path) == "__init__":
        return  # the public face names what lies above and below it, and loads it on first use
    upward = [other for other in imported_files(path) if ROW_OF[part_of(other)] > row]
    assert not upward, f"{path.relative_to(SOURCE)} imports upwards"


def test_no_file_imports_itself_in_a_circle():
    graph = {
        path: {other for other in imported_files(path) if other != path}
        for path in FILES
        if part_of(path) != "__init__"
    }
    done: set[Path] = set()

    def visit(path: Path, way: tuple[Path, ...]) -> None:
        assert path not in way, " -> ".join(step.relative_to(SOURCE).as_posix() for step in (*way, path))
        if path in done:
            return
        for other in graph.get(path, ()):
            if other.name != "__init__.py" or other.parent not in path.parents:  # a file may name its own folder
                visit(other, (*way, path))
        done.add(path)

    for path in FILES:
        visit(path, ())


@EVERY
def test_only_training_imports_lightning(path):
    roots = {name.split(".")[0] for name in imported(path)}
    assert part_of(path) == "training" or not roots & {"lightning", "pytorch_lightning", "tensorboard"}


def test_the_lowest_file_imports_nothing_of_ours():
    assert imported_files(SOURCE / "errors.py") == set()


def test_torchvision_is_imported_nowhere():
    folders = [SOURCE, REPOSITORY / "tests", REPOSITORY / "scripts", REPOSITORY / "benchmarks"]
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        assert "torchvision" not in {name.split(".")[0] for name in imported(path)}, path


def test_importing_the_package_loads_nothing_heavy_and_prints_nothing():
    program = (
        "import sys, unblur\n"
        "heavy = {'torch', 'torchvision', 'lightning', 'pytorch_lightning', 'cv2', 'PIL', 'scipy', 'skimage'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_importing_every_module_but_training_prints_nothing_sets_nothing_global_and_does_without_lightning():
    names = [
        ".".join(("unblur", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
        for path in FILES
        if part_of(path) not in ("training", "web", "__main__")
    ]
    program = (
        "import importlib, random, sys\n"
        "import numpy, torch\n"
        "def state():\n"
        "    return (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(), random.getstate(),\n"
        "            torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist())\n"
        "before = state()\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        "assert state() == before\n"
        "assert not {'torchvision', 'lightning', 'pytorch_lightning', 'tensorboard'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
