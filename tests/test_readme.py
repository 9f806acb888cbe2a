"""README says what is true: its test command is CI's, its tables are the committed results, its limits hold."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

from unblur import models, weights
from unblur.cli import parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_ci_runs_the_test_command_of_readme() -> None:
    commands = re.findall(r"^make test\b", README, re.MULTILINE)
    assert commands
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1] == "exec make test"


def test_the_tables_are_those_of_the_committed_results() -> None:
    checked = subprocess.run(
        [sys.executable, "scripts/fill_tables.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_first_screen_shows_what_it_is_a_picture_the_two_commands_and_one_table() -> None:
    first_screen = README[: README.index("## ")]
    assert "![" in first_screen
    assert "make demo" in first_screen
    assert first_screen.count("| --- |") == 1


def test_no_place_for_a_figure_is_left_unfilled() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        left = re.findall(r"\b(?:TIME|MEMORY|BUDGET|TODO|FIXME|XXX)_?[A-Z0-9]*\b", document.read_text(encoding="utf-8"))
        assert not left, document.name


def test_the_number_of_networks_is_that_of_the_list() -> None:
    assert f"[{len(models.ARCHITECTURES)} networks](docs/models.md)" in README


def test_every_command_and_every_page_of_the_documents_can_be_found_from_readme() -> None:
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")}
    assert not {page for page in pages if page not in README}
    (commands,) = (action.choices for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    assert not {command for command in commands or () if f"`unblur {command}`" not in README}


@pytest.mark.parametrize("name", sorted(weights.shipped()))
def test_the_shipped_weights_stand_in_readme_with_their_size(name: str) -> None:
    row = next(line for line in README.splitlines() if line.startswith(f"| `{name}` |"))
    parameters = weights.num_parameters(weights.load(name))
    assert f"| {parameters / 1e6:.2f} M |" in row
    assert parameters <= 7_000_000


def test_the_shipped_weights_are_at_most_24_mb_and_fp16() -> None:
    assert sum(entry.path.stat().st_size for entry in weights.shipped().values()) <= 24e6
    for entry in weights.shipped().values():
        assert entry.path.stat().st_size < 2.3 * weights.num_parameters(weights.load(entry.path)) + 50_000


@pytest.mark.parametrize("name", sorted(weights.shipped()))
def test_the_shipped_weights_come_from_the_experiment_that_they_name(name: str) -> None:
    from unblur import experiment

    entry = weights.shipped()[name]
    settings = experiment.load(ROOT / entry.experiment)
    checkpoint = weights.describe(name)
    assert checkpoint.architecture == settings.model.name
    full = [models.full_options(settings.model.name, **given) for given in (checkpoint.options, settings.model.options)]
    assert full[0] == full[1]
    trained = experiment.Experiment.model_validate(checkpoint.facts["experiment"])  # with defaults of newer keys
    assert trained == settings
