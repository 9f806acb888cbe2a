"""Strict settings: YAML in, frozen pydantic models out.

Experiments and recipes are plain data. A key that is not known is an error which names the nearest key that is,
so that a slip of the pen cannot change a training silently.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from unblur.errors import SettingsError, suggestion


class Settings(BaseModel):
    """Base of all settings: immutable, no unknown keys, no infinite or undefined numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


SomeSettings = TypeVar("SomeSettings", bound=Settings)


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds. Raises `SettingsError` with line and column where it is not YAML."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise SettingsError(f"{path} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read as text: {error}") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not valid YAML{_problem(error)}") from None


def parse_value(text: str) -> Any:
    """Return the value of a `--set key=value`, read as YAML does: 1e-3 is a number, [1, 2] a list."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise SettingsError(f"'{text}' is not valid YAML{_problem(error)}") from None


def validated(kind: type[SomeSettings], data: Any, source: str) -> SomeSettings:
    """Return `data` as settings of `kind`; every mistake becomes one `SettingsError` that starts with `source`."""
    if not isinstance(data, dict):
        raise SettingsError(f"{source} holds {type(data).__name__}, not a table of keys and values.")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise SettingsError(f"{source}: " + "; ".join(_describe(kind, e) for e in _causes(error))) from None


def _problem(error: yaml.YAMLError) -> str:
    """Return place and problem in one line."""
    mark = getattr(error, "problem_mark", None)
    place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    return f"{place}: {' '.join(str(getattr(error, 'problem', error)).split())}"


def _causes(error: ValidationError) -> list[Any]:
    """Return the mistakes, without those that only follow from one further in (a list that lost its one wrong entry
    is too short).
    """
    mistakes = error.errors()
    places = [mistake["loc"] for mistake in mistakes]
    return [m for m in mistakes if not any(len(p) > len(m["loc"]) and p[: len(m["loc"])] == m["loc"] for p in places)]


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return what differs between two tables of settings, as lines "key.key was ..., is ..."."""
    found = []
    for key in dict.fromkeys([*new, *old]):
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            found += differences(before, now, f"{prefix}{key}.")
        elif before != now:
            found.append(f"{prefix}{key} was {_short(before)}, is {_short(now)}")
    return found


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 40 else text[:12] + "..."


def _describe(kind: type[BaseModel], error: Any) -> str:
    path = [part for part in error["loc"] if part != "__root__"]
    key = ".".join(str(part) for part in path)
    if error["type"] == "extra_forbidden":
        return f"unknown key '{key}'.{suggestion(str(path[-1]), _keys_at(kind, path[:-1]))}"
    if error["type"] == "union_tag_invalid":
        tag, known = error["ctx"]["tag"], re.findall(r"'([^']*)'", error["ctx"]["expected_tags"])
        return f"'{key}' is of an unknown kind, '{tag}'.{suggestion(tag, known)}"
    if error["type"] == "missing":
        return f"'{key}' is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"'{key}' is {error['input']!r}: {message}" if key else message


def _keys_at(kind: Any, path: list[Any]) -> list[str]:
    """Return the keys that are allowed at `path` below `kind` (list positions are skipped, tags of unions choose)."""
    candidates = [kind]
    for part in path:
        following: list[Any] = []
        for candidate in candidates:
            fields = getattr(candidate, "model_fields", {})
            if part in fields:
                following += _models_in(fields[part].annotation)
            elif any(get_args(field.annotation) == (part,) for field in fields.values()):  # blur: Literal["gaussian"]
                following.append(candidate)
        candidates = following or candidates
    return [name for candidate in candidates for name in getattr(candidate, "model_fields", {})]


def _models_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, save that 1e-3 is a number (PyYAML wants 1.0e-3) and keys may not repeat."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                continue  # PyYAML itself refuses a list as a key, and merges `<<: *other`
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key}' stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
