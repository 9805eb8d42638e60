"""Options of a paper: one reader and one check for the frozen dataclasses of all papers."""

from __future__ import annotations

import dataclasses
import functools
import os
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from mexjax.config.conditions import When, refuse_void
from mexjax.config.key import Range
from mexjax.errors import ConfigError, quoted, unknown_name

T = TypeVar("T")
# Keys of config.model that name the options and are no options themselves.
SELECTORS = ("name", "preset")
# Ranges of numbers, where a paper's own table (`bounds` of its dataclass) has none.
SIZE = Range(least=1, most=65_536)
COUNT = Range(least=0, most=65_536)
WEIGHT = Range(least=0, most=1e6)
POSITIVE = Range(above=0, most=1e6)
ANY = Range(least=-1e6, most=1e6)
RATE = Range(least=0, below=1)  # of dropout, of stochastic depth, and of label smoothing
_RATES = ("dropout_rate", "drop_path_rate", "label_smoothing")


def read_options(paper: str, presets: Mapping[str, T], given: Mapping[str, Any]) -> T:
    """The options of a model: the given ones, and all others from the preset they name.

    A `~` at the beginning of a text, which is a path, becomes the user's home.

    Args:
      paper: name of the model, for messages.
      presets: instances of one frozen dataclass by name; `paper` is the default. The class may
        have a table `acts`, the conditions without which an option has no effect, and a table
        `bounds` of numbers and of lengths that differ from those of this module, by option.
      given: keys of the model, for example `config.model`. Lists count as tuples.

    Raises:
      ConfigError: an unknown preset, key or choice, a value of another type than the field has or
        out of its range, an option that differs from the preset and has no effect, or values that
        contradict each other, which the dataclass refuses itself.
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
        if not values[key] and isinstance(values[key], tuple) and getattr(base, key):
            raise ConfigError(f"model.{key} needs one value or more; found none.")
        _check_range(key, values[key], kinds[key], getattr(base, "bounds", {}))
    options = dataclasses.replace(typing.cast(Any, base), **values)
    _check_changes(options, base)
    return options


def void_options(presets: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that differ from the preset and have no effect, with the preset's values.

    A table of runs that share most of their keys sets these back, where another key of a row leaves
    them without effect; anywhere else `read_options` refuses them.

    Args:
      presets: as in `read_options`.
      given: as in `read_options`.
    """
    base = presets[given.get("preset", "paper")]
    kinds = _kinds(type(base))
    values = {key: getattr(base, key) for key in kinds}
    values |= {key: value for key, value in given.items() if key in kinds}
    return {
        key: getattr(base, key)
        for key, conditions in _changed(values, base)
        if not all(when.holds(values) for when in conditions)
    }


def _check_changes(options: Any, base: Any) -> None:
    """Refuse options that differ from the preset and have no effect beside the others."""
    values = {key: getattr(options, key) for key in _kinds(type(base))}
    for key, conditions in _changed(values, base):
        refuse_void(key, getattr(base, key), conditions, values, prefix="model.")


def _changed(values: Mapping[str, Any], base: Any) -> list[tuple[str, tuple[When, ...]]]:
    """The options with conditions that differ from the preset, and their conditions."""
    acts: Mapping[str, tuple[When, ...]] = getattr(base, "acts", {})
    return [(key, each) for key, each in acts.items() if values[key] != getattr(base, key)]


def _check_range(key: str, value: Any, kind: Any, bounds: Mapping[str, Range]) -> None:
    """Refuse numbers out of range."""
    if typing.get_origin(kind) is tuple:
        for item in value:
            _check_range(key, item, typing.get_args(kind)[0], bounds)
    elif kind in (int, float):
        default = SIZE if kind is int else WEIGHT
        default = RATE if key.endswith(_RATES) else default
        bounds.get(key, default).check(f"model.{key}", value)


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
            raise ConfigError(f"{key} takes several values; found {quoted(value)}.")
        item = typing.get_args(kind)[0]
        return tuple(_checked(key, each, item) for each in value)
    if kind is str and isinstance(value, str):
        return os.path.expanduser(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        # An integer stays one, so that the saved configuration has the value as it was written.
        return value
    is_of_kind = isinstance(kind, type | types.UnionType) and isinstance(value, kind)
    if is_of_kind and (kind is bool or not isinstance(value, bool)):
        return value
    name = getattr(kind, "__name__", str(kind))
    raise ConfigError(f"{key} takes a value of type {name}; found {quoted(value)}.")


def check_lengths(what: str, options: Any, keys: tuple[str, ...]) -> None:
    """Refuses options that do not all have one value a stage.

    Raises:
      ConfigError: the lengths of the options named by `keys` differ.
    """
    lengths = {key: len(getattr(options, key)) for key in keys}
    if len(set(lengths.values())) != 1:
        raise ConfigError(f"{what} needs one value a stage for each of these; found {lengths}.")
