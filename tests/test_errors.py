"""Errors form the tree that is drawn above them, and say what would be right."""

import re

import pytest

from unblur import errors
from unblur.errors import MissingExtra, UnblurError, UnknownName, suggestion


def all_errors() -> list[type[UnblurError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, UnblurError)]


def test_the_tree_is_drawn_as_it_is():
    drawn: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"( *)[*x+] (\w+)", line)
        if match:
            drawn.append((len(match[1]), match[2]))
    assert {name for _, name in drawn} == {kind.__name__ for kind in all_errors()}
    parents: list[tuple[int, str]] = []
    for depth, name in drawn:
        parents = [parent for parent in parents if parent[0] < depth]
        if parents:
            assert getattr(errors, name).__base__.__name__ == parents[-1][1]
        parents.append((depth, name))


def test_every_error_can_be_caught_as_one():
    assert len(all_errors()) > 5
    assert not any(issubclass(kind, ValueError | OSError) for kind in all_errors())
    assert all(kind.__doc__ for kind in all_errors())


def test_an_unknown_name_is_answered_with_the_nearest_one():
    error = UnknownName("model", "nafent", ["restormer", "nafnet"], "`unblur models` lists all of them.")
    assert str(error) == "No model is called 'nafent'. Did you mean 'nafnet'? `unblur models` lists all of them."
    assert (error.kind, error.name, error.known) == ("model", "nafent", ["nafnet", "restormer"])


def test_a_name_that_is_near_to_nothing_is_answered_with_all_there_are():
    assert str(UnknownName("loss", "zzz", ["mse", "l1"])) == "No loss is called 'zzz'. Known: l1, mse."
    assert str(UnknownName("loss", "zzz", [])) == "No loss is called 'zzz'."


@pytest.mark.parametrize(("name", "near"), [("NAFNET", "nafnet"), ("naf", "nafnet"), ("nafnets", "nafnet")])
def test_case_and_small_slips_do_not_matter(name, near):
    assert suggestion(name, ["nafnet", "uformer"]) == f" Did you mean '{near}'?"


def test_known_names_may_come_from_any_iterable():
    assert suggestion("mes", iter(["mse", "l1"])) == " Did you mean 'mse'?"
    assert UnknownName("loss", "mes", iter(["mse"])).known == ["mse"]


def test_a_missing_extra_is_answered_with_the_command_that_installs_it():
    said = str(MissingExtra("Training", "train"))
    assert said == "Training needs packages that are not installed: pip install 'unblur[train]'"
