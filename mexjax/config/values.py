"""Values of a configuration: overrides, their types, and the checks before a run."""

from __future__ import annotations

import ast
import difflib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from mexjax.config.key import Key
from mexjax.config.keys import KEYS
from mexjax.errors import ConfigError, unknown_name


def as_pairs(overrides: Mapping[str, Any] | Iterable[str]) -> dict[str, Any]:
    """Overrides as `{dotted key: value}`.

    Raises:
      ConfigError: a text without `=`.
    """
    if isinstance(overrides, Mapping):
        return dict(overrides)
    pairs: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"Expected key=value, found {text!r}; for example seed=1.")
        pairs[key] = value
    return pairs


def set_key(config: ConfigDict, key: str, value: Any) -> None:
    """Set the dotted `key`, converting text to the type the key has now.

    Raises:
      ConfigError: an unknown key, or a value that does not become one of the type.
    """
    values = flat(config)
    if key not in values:
        close = difflib.get_close_matches(key, values, n=5, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        others = f" Others like it: {', '.join(close[1:])}." if close[1:] else ""
        raise ConfigError(
            f"Unknown configuration key {key!r}.{hint}{others} docs/configuration.md explains"
            " every key."
        )
    new = _as_type(key, value, values[key])
    node = config
    *parents, leaf = key.split(".")
    for parent in parents:
        node = node[parent]
    with node.ignore_type():
        node[leaf] = new


def flat(config: ConfigDict) -> dict[str, Any]:
    """The configuration as `{dotted key: value}`, in the order of the keys."""
    out: dict[str, Any] = {}

    def visit(node: ConfigDict, prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, ConfigDict):
                visit(value, f"{prefix}{key}.")
            else:
                out[prefix + key] = value

    visit(config, "")
    return out


def to_json(config: ConfigDict) -> str:
    """The configuration as JSON text with sorted keys, as `config.json` of a run holds it."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def check_values(config: ConfigDict) -> None:
    """Refuse values that no run can be made with, before anything is written or compiled.

    Raises:
      ConfigError: a key that is missing, has no such choice, is not finite or out of its range, or
        two that contradict each other.
    """
    # The import is here because reading a configuration must not wait for JAX.
    from mexjax.ops import conv

    values = flat(config)
    for name, key in KEYS.items():
        if isinstance(key.default, ConfigDict):
            continue
        if name not in values:
            raise ConfigError(
                f"The configuration has no {name}. A recipe card begins with"
                " mexjax.models.card.start(name, variant), which gives every key."
            )
        value = values[name]
        for item in value if isinstance(value, tuple | list) else (value,):
            _check_value(name, key, item)
    if config.conv not in ("auto", *conv.LOWERINGS):
        raise ConfigError(
            unknown_name("convolution lowering", config.conv, ["auto", *conv.LOWERINGS])
        )
    _check_together(config)


def _check_value(name: str, key: Key, value: Any) -> None:
    if key.choices and value not in key.choices:
        raise ConfigError(unknown_name(name, str(value), key.choices))
    has_bounds = key.least is not None or key.most is not None
    if has_bounds and not isinstance(value, int | float):
        raise ConfigError(f"{name} takes numbers, found {value!r}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number, found {value}.")
    if key.least is not None and value < key.least:
        raise ConfigError(f"{name} must be at least {key.least}, found {value}.")
    if key.most is not None and value > key.most:
        raise ConfigError(f"{name} must be at most {key.most}, found {value}.")


def _check_together(config: ConfigDict) -> None:
    size, crop = config.data.image_size_px, config.augment.crop_px
    if crop > size:
        raise ConfigError(
            f"augment.crop_px={crop} is larger than the images, data.image_size_px={size}."
        )
    if config.data.split_scale != "none" and config.data.center != "none":
        raise ConfigError(
            f"data.split_scale={config.data.split_scale} scales raw frames, and data.center="
            f"{config.data.center} removes them. Set one of the two to none."
        )
    train = config.train
    if (train.num_epochs > 0) == (train.num_steps > 0):
        raise ConfigError(
            "Give one of train.num_epochs and train.num_steps, found"
            f" num_epochs={train.num_epochs} and num_steps={train.num_steps}; 0 means not given."
        )


def _as_type(key: str, value: Any, old: Any) -> Any:
    """The value in the type of `old`; text is read like a Python literal."""
    kind = type(old).__name__
    error = ConfigError(f"{key} takes a value of type {kind} (now {old!r}), found {value!r}.")
    if isinstance(old, str):
        return str(value)
    if isinstance(value, str):
        text = value.strip()
        if isinstance(old, bool):
            value = {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
        elif isinstance(old, tuple):
            items = text.strip("()[]")
            value = tuple(_literal(item.strip()) for item in items.split(",") if item.strip())
        else:
            value = _literal(text)
    if isinstance(old, bool):
        if not isinstance(value, bool):
            raise error
    elif isinstance(old, float):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise error
        value = float(value)
    elif isinstance(old, int):
        if isinstance(value, bool) or not isinstance(value, int):
            raise error
    elif isinstance(old, tuple):
        if not isinstance(value, tuple | list):
            value = (value,)
        value = tuple(value)
        kinds = {type(item) for item in old}
        if kinds == {int} and any(not isinstance(item, int) for item in value):
            raise error
    return value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
