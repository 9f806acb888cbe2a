"""Every experiment that ships can be read, and says in its first lines what it is."""

from pathlib import Path

import pytest

from unblur import models
from unblur.experiment import load

FOLDER = Path(__file__).parents[1] / "experiments"
EXPERIMENTS = sorted(path for path in FOLDER.rglob("*.y*ml") if path.parent.name != "studies")  # those: test_sweep.py
EVERY = pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.relative_to(FOLDER).as_posix())


def test_there_are_experiments():
    assert EXPERIMENTS
    assert {path.suffix for path in EXPERIMENTS} == {".yaml"}


@EVERY
def test_an_experiment_begins_with_what_it_is(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 20


@EVERY
def test_an_experiment_is_read_without_complaint_and_its_network_can_be_built(path):
    settings = load(path).model
    model = models.create(settings.name, **settings.options)
    assert settings.options.items() <= model.arch_options.items()


@EVERY
def test_an_experiment_names_data_sets_and_never_paths(path):
    data = load(path).data
    for name in (data.train, data.valid):
        assert not name.startswith((".", "/", "~"))
        assert "\\" not in name
