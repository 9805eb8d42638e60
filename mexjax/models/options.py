"""Options of a paper: one reader and one check for the frozen dataclasses of all papers."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from mexjax.errors import ConfigError, unknown_name

T = TypeVar("T")
# Keys of config.model that name the options and are no options themselves.
SELECTORS = ("name", "preset")


def read_options(paper: str, presets: Mapping[str, T], given: Mapping[str, Any]) -> T:
    """The options of a model: the given ones, and all others from the preset they name.

    Args:
      paper: name of the model, for messages.
      presets: instances of one frozen dataclass by name; `paper` is the default.
      given: keys of the model, for example `config.model`. Lists count as tuples.

    Raises:
      ConfigError: an unknown preset, key or choice, a value of another type than the field has, or
        values that contradict each other, which the dataclass refuses itself.
    """
    preset = given.get("preset", "paper")
    if preset not in presets:
        raise ConfigError(unknown_name(f"preset of {paper}", preset, presets))
    base = presets[preset]
    kinds = _kinds(type(base))
    values = {}
    for key, value in given.items():
        if key in SELECTORS:
            continue
        if key not in kinds:
            raise ConfigError(unknown_name(f"key of model {paper}", key, kinds))
        values[key] = _checked(f"model.{key}", value, kinds[key])
    return dataclasses.replace(typing.cast(Any, base), **values)


@functools.cache
def _kinds(options: type) -> dict[str, Any]:
    """The type of every field of a dataclass."""
    hints = typing.get_type_hints(options)
    return {field.name: hints[field.name] for field in dataclasses.fields(options)}


def _checked(key: str, value: Any, kind: Any) -> Any:
    """A value as its field holds it, or an error that names the type or choices of the field."""
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise ConfigError(unknown_name(key, str(value), choices))
        return value
    if typing.get_origin(kind) is tuple:
        if isinstance(value, str) or not isinstance(value, list | tuple):
            raise ConfigError(f"{key} takes several values; found {value!r}.")
        item = typing.get_args(kind)[0]
        return tuple(_checked(key, each, item) for each in value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ConfigError(f"{key} takes a finite number; found {value!r}.")
        # An integer stays one, so that the saved configuration has the value as it was written.
        return value
    is_of_kind = isinstance(kind, type | types.UnionType) and isinstance(value, kind)
    if is_of_kind and (kind is bool or not isinstance(value, bool)):
        return value
    name = getattr(kind, "__name__", str(kind))
    raise ConfigError(f"{key} takes a value of type {name}; found {value!r}.")


def check_lengths(what: str, options: Any, keys: tuple[str, ...]) -> None:
    """Refuses options that do not all have one value a stage.

    Raises:
      ConfigError: the lengths of the options named by `keys` differ.
    """
    lengths = {key: len(getattr(options, key)) for key in keys}
    if len(set(lengths.values())) != 1:
        raise ConfigError(f"{what} needs one value a stage for each of these; found {lengths}.")
