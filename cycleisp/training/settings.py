"""Settings of a run: a frozen dataclass, filled from a YAML recipe and from KEY=VALUE overrides."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml

from cycleisp_runtime.errors import SettingsError

__all__ = [
    "check_ranges",
    "read_recipe",
    "resolve_settings",
    "settings_as_yaml",
    "unknown_setting",
]

_Settings = TypeVar("_Settings")


def read_recipe(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML recipe.

    Raises:
        SettingsError: where it is no YAML mapping.
    """
    try:
        loaded = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(
            "the recipe cannot be read", subject=path, met=error.strerror
        ) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError("the recipe is not YAML", subject=path) from error
    if not isinstance(loaded, dict):
        raise SettingsError("the recipe is not a mapping of keys to values", subject=path)
    return loaded


def resolve_settings(
    kind: type[_Settings], recipe: Mapping[str, Any], overrides: Sequence[str]
) -> _Settings:
    """Settings from the recipe's keys, then from the overrides, then from the defaults.

    Raises:
        SettingsError: for an unknown key (the nearest valid one is named), a value of the wrong
            type, or a missing key without default.
    """
    values = dict(recipe)
    hints = get_type_hints(kind)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise SettingsError("an override is KEY=VALUE", met=override)
        # Text stands for itself: as YAML, a pattern such as *.png would be an alias.
        values[key] = text if _required(hints.get(key)) in (str, Path) else _parsed_value(key, text)

    for key in values:
        if key not in hints:
            raise unknown_setting(key, hints)
    typed = {key: _typed(key, value, hints[key]) for key, value in values.items()}
    missing = [
        field.name
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if field.name not in typed
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise SettingsError(
            "settings without a value",
            met=", ".join(missing),
            hint=f"add them to the recipe or give {missing[0]}=VALUE",
        )
    return kind(**typed)


def unknown_setting(key: object, known: Collection[str]) -> SettingsError:
    """The error of a key that no setting has; it names the nearest that one has."""
    near = difflib.get_close_matches(str(key), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
    return SettingsError("unknown setting", subject=str(key), hint=hint)


def check_ranges(settings: object, ranges: Mapping[str, tuple[bool, str]]) -> None:
    """Nothing, where every named setting holds; else the first that does not is refused.

    Args:
        settings: a dataclass.
        ranges: by name, whether the value is right, and what would be, in words.

    Raises:
        SettingsError: with the value met and the one wanted.
    """
    for name, (holds, wanted) in ranges.items():
        if not holds:
            raise SettingsError(
                "out of range", subject=name, met=getattr(settings, name), wanted=wanted
            )


def _required(hint: object) -> object:
    """The type that a setting has where it has one: ``X`` of ``X | None``."""
    given = [each for each in get_args(hint) if each is not type(None)]
    return given[0] if given else hint


def _parsed_value(key: str, text: str) -> object:
    """The value that an override's text stands for, as YAML reads it.

    Raises:
        SettingsError: where it is no YAML.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError("the value is not YAML", subject=key, met=text) from error


def _typed(key: str, value: object, hint: object) -> object:
    if value is None and type(None) in get_args(hint):
        return None
    wanted = _required(hint)
    # YAML reads 2e-3 as text because YAML 1.1 asks for a dot; people write it all the same.
    if wanted is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError as error:
            raise SettingsError("not a number", subject=key, met=value) from error
    if wanted is Path and isinstance(value, str):
        return Path(value)
    if type(value) is not wanted:
        raise SettingsError(
            "wrong type", subject=key, met=repr(value), wanted=getattr(wanted, "__name__", wanted)
        )
    return value


def settings_as_yaml(settings: object, *, without: Collection[str] = ()) -> str:
    """The resolved settings as a recipe that gives the same settings again, save those left out."""
    values = dataclasses.asdict(settings)  # type: ignore[call-overload]
    plain = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in values.items()
        if key not in without
    }
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
