"""Settings are strict: what cannot be meant is refused, in one line that names the place and what would be right."""

import textwrap
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from unblur.errors import SettingsError
from unblur.settings import Settings, parse_value, read_yaml, validated


class Lens(Settings):
    kind: Literal["lens"]
    aperture: float = 8.0


class Pinhole(Settings):
    kind: Literal["pinhole"]
    diameter_px: float = Field(1.0, gt=0)


class Camera(Settings):
    exposure: float
    optics: tuple[Annotated[Lens | Pinhole, Field(discriminator="kind")], ...] = ()
    spare: Lens | None = None


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def complaint(data: Any) -> str:
    """Return what is said of settings that are wrong."""
    with pytest.raises(SettingsError) as caught:
        validated(Camera, data, "camera.yaml")
    return str(caught.value)


# -- YAML --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e-3", 1e-3), ("5E4", 5e4), ("-2e+1", -20.0), ("1.0e-7", 1e-7), ("1.e3", 1000.0), ("1_000e1", 10_000.0)],
)
def test_a_number_with_an_exponent_is_a_number(text, number):
    assert parse_value(text) == number
    assert isinstance(parse_value(text), float)


@pytest.mark.parametrize("text", ["448x256", "bce1", "e5", "1e", "v1e3"])
def test_what_only_looks_like_a_number_stays_text(text):
    assert parse_value(text) == text


def test_whole_numbers_and_lists_are_read_as_yaml_does():
    assert parse_value("25_000") == 25_000
    assert parse_value("[1, 2e0, x]") == [1, 2.0, "x"]
    assert parse_value("") is None
    assert parse_value("true") is True


@pytest.mark.parametrize("text", ["[1", "{a: 1", "a: b: c", "{a: 1, a: 2}"])
def test_a_value_that_is_not_yaml_is_refused_in_one_line(text):
    with pytest.raises(SettingsError) as caught:
        parse_value(text)
    assert "\n" not in str(caught.value)


def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path):
    with pytest.raises(SettingsError, match=r"line 4, column 3.*'lr' stands twice"):
        read_yaml(written(tmp_path, "seed: 1\noptimizer:\n  lr: 1\n  lr: 2\n"))


def test_the_same_key_may_stand_in_two_tables(tmp_path):
    assert read_yaml(written(tmp_path, "a: {x: 1}\nb: {x: 2}\n")) == {"a": {"x": 1}, "b": {"x": 2}}


def test_a_table_may_be_merged_into_another(tmp_path):
    text = "base: &base {lr: 1e-3, seed: 1}\nother: {<<: *base, seed: 2}\n"
    assert read_yaml(written(tmp_path, text))["other"] == {"lr": 1e-3, "seed": 2}


@pytest.mark.parametrize(
    "text", ["a: [1", "a: 'b", "a: b: c", "a:\n\tb: 1", "? [1, 2]\n: 3", "a: \x07", "!!python/name:os.system x"]
)
def test_a_file_that_is_not_yaml_is_refused_in_one_line_with_its_name(tmp_path, text):
    path = written(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path} is not valid YAML")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere.yaml does not exist"):
        read_yaml(tmp_path / "nowhere.yaml")


def test_a_folder_or_a_picture_instead_of_a_file_is_refused(tmp_path):
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    for path in (tmp_path, tmp_path / "picture.yaml"):
        with pytest.raises(SettingsError, match="cannot be read as text"):
            read_yaml(path)


# -- Settings ----------------------------------------------------------------------------------------------------------


def test_right_settings_are_taken_and_cannot_be_changed():
    camera = validated(Camera, {"exposure": 0.5, "optics": [{"kind": "lens"}]}, "camera.yaml")
    assert camera.optics == (Lens(kind="lens"),)
    with pytest.raises(ValidationError, match="frozen"):
        camera.exposure = 1.0


def test_an_unknown_key_is_answered_with_the_nearest_one():
    assert complaint({"exposure": 1, "optiks": []}) == "camera.yaml: unknown key 'optiks'. Did you mean 'optics'?"


def test_an_unknown_key_in_a_table_is_answered_with_the_nearest_one_there():
    assert "'spare.apertur'. Did you mean 'aperture'?" in complaint(
        {"exposure": 1, "spare": {"kind": "lens", "apertur": 4}}
    )


def test_an_unknown_key_in_a_list_is_answered_with_one_of_its_own_kind():
    said = complaint({"exposure": 1, "optics": [{"kind": "lens", "diameter_px": 4}]})
    assert said == "camera.yaml: unknown key 'optics.0.lens.diameter_px'. Known: aperture, kind."


def test_an_unknown_kind_is_answered_with_the_nearest_one():
    said = complaint({"exposure": 1, "optics": [{"kind": "pinhoel"}]})
    assert "'pinhoel'" in said
    assert "Did you mean 'pinhole'?" in said


def test_an_unknown_key_that_is_near_to_nothing_lists_what_there_is():
    assert "Known: exposure, optics, spare." in complaint({"exposure": 1, "zzz": 1})


def test_every_mistake_is_listed_and_none_twice():
    said = complaint({"exposur": 1, "optics": [{"kind": "pinhole", "diameter_px": -1}], "spare": 3})
    assert "'exposure' is missing" in said
    assert "Did you mean 'exposure'?" in said
    assert "'optics.0.pinhole.diameter_px' is -1: Input should be greater than 0" in said
    assert "'spare' is 3" in said
    assert said.count("; ") == 3
    assert "\n" not in said


@pytest.mark.parametrize("data", [None, [1], "text", 3])
def test_what_is_no_table_is_refused(data):
    assert "not a table of keys and values" in complaint(data)
