"""Values of a configuration: overrides, their types, and the checks before a run."""

from __future__ import annotations

import ast
import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from mexjax.config.conditions import refuse_void
from mexjax.config.key import Key, Range
from mexjax.config.keys import KEYS, MOST_CLIPS
from mexjax.config.older import refuse_renamed
from mexjax.errors import ConfigError, quoted, unknown_name

_CARD = "_values_of_card"
SYNTHETIC = "data.synthetic."  # keys of the embedded dataset begin with it
PUBLISHED = "report.paper_results."
SWEPT = "sweep.values."  # keys of a sweep begin with it
# Keys of which a sweep has no values: they name or show a run and change no number of it.
_NOT_SWEPT = ("sweep.", "report.", "checkpoint.", "folds.", "has_progress", "cpu_heap", "data.root")
_NOT_SWEPT += ("data.cache", "model.name", "model.preset", "protocol.class_map", "gpu.")


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
            raise ConfigError(f"Expected key=value, found {quoted(text)}; for example seed=1.")
        pairs[key] = value
    return pairs


def set_key(config: ConfigDict, key: str, value: Any) -> None:
    """Set the dotted `key`, converting text to the type the key has now.

    Raises:
      ConfigError: an unknown key, or a value that does not become one of the type.
    """
    if key.startswith(SWEPT):
        _set_swept(config, key.removeprefix(SWEPT), value)
        return
    values = flat(config)
    refuse_renamed([key])
    if key not in values:
        close = difflib.get_close_matches(key, values, n=5, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        others = f" Others like it: {', '.join(close[1:])}." if close[1:] else ""
        raise ConfigError(
            f"Unknown configuration key {quoted(key)}.{hint}{others} docs/configuration.md explains"
            " every key."
        )
    _put(config, key, _converted(key, value, values[key]))


def _put(config: ConfigDict, key: str, value: Any) -> None:
    """Set the dotted `key` to a value of any type; parents that are missing are made."""
    node = config
    *parents, leaf = key.split(".")
    for parent in parents:
        if parent not in node:
            node[parent] = ConfigDict()
        node = node[parent]
    with node.ignore_type():
        node[leaf] = value


def _converted(key: str, value: Any, old: Any) -> Any:
    """A value in the type of the key's present one."""
    has_words = key in KEYS and KEYS[key].takes_words
    return _number_or_words(key, value) if has_words else _as_type(key, value, old)


def _set_swept(config: ConfigDict, key: str, value: Any) -> None:
    """Set the values of a key that a sweep combines, each in the type of the key.

    Raises:
      ConfigError: an unknown key, one of which a sweep has no values, or values that are none.
    """
    values = flat(config)
    if key not in values:
        raise ConfigError(unknown_name("key of sweep.values", key, values))
    if key == "seed":
        raise ConfigError(f"Seeds have a key of their own: sweep.seeds={value}.")
    if key.startswith(_NOT_SWEPT):
        other = " Start a sweep for each." if key.startswith("model.") else ""
        raise ConfigError(f"A sweep has no values of {key}.{other}")
    if isinstance(values[key], tuple | list):
        raise ConfigError(
            f"{key} is a list itself, so a sweep has no values of it. Start a sweep for each."
        )
    items = value
    if isinstance(value, str):
        texts = (item.strip() for item in value.strip().strip("()[]").split(","))
        items = [item.strip("'\"") for item in texts if item]
    elif not isinstance(value, tuple | list):
        items = [value]
    new = tuple(_converted(key, item, values[key]) for item in items)
    if not new:
        raise ConfigError(f"{SWEPT}{key} needs one value or more, found none.")
    if len(set(new)) < len(new):
        raise ConfigError(f"{SWEPT}{key} has a value twice: {', '.join(map(str, new))}.")
    _put(config, SWEPT + key, new)


def has_sweep(config: ConfigDict) -> bool:
    """True if several seeds or settings are asked for."""
    sweep = config.get("sweep", {})
    return bool(sweep and (sweep.seeds or flat(sweep["values"])))


def flat(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """The configuration, or the content of its file, as `{dotted key: value}` in its order."""
    out: dict[str, Any] = {}

    def visit(node: ConfigDict | Mapping[str, Any], prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, ConfigDict | Mapping):
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
    check_changes(config, getattr(config, _CARD, {}))
    for name, key in KEYS.items():
        if isinstance(key.default, ConfigDict):
            continue
        if name not in values:
            raise ConfigError(
                f"The configuration has no {name}. A recipe card begins with"
                " mexjax.models.card.start(name, variant), which gives every key."
            )
        value = values[name]
        if key.is_path:
            _check_path(name, value)
        for item in value if isinstance(value, tuple | list) else (value,):
            _check_value(name, key, item)
    if config.conv not in ("auto", *conv.LOWERINGS):
        raise ConfigError(
            unknown_name("convolution lowering", config.conv, ["auto", *conv.LOWERINGS])
        )
    for name, value in values.items():
        # Options of a paper have ranges of their own; those of other keys were checked above.
        most = MOST_CLIPS if ".num_" in name and name.startswith(SYNTHETIC) else 2**32 - 1
        if name.startswith((SYNTHETIC, PUBLISHED)):
            for item in value if isinstance(value, tuple | list) else (value,):
                if isinstance(item, int | float) and not isinstance(item, bool):
                    Range(-most, most).check(name, item)
    _check_together(config)


def expand_paths(config: ConfigDict) -> None:
    """Write the user's home for a `~` at the beginning of every path among the keys.

    Raises:
      ConfigError: a path that no system can have.
    """
    for name, value in flat(config).items():
        if name in KEYS and KEYS[name].is_path:
            _check_path(name, value)
            if value.startswith("~"):
                set_key(config, name, os.path.expanduser(value))


def _check_path(name: str, path: str) -> None:
    """Refuse a path that the system cannot look for: it has a NUL, or half of a surrogate pair."""
    try:
        is_name = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        is_name = False
    if not is_name:
        raise ConfigError(f"{name} takes the name of a file or folder, found {quoted(path)}.")


def remember_card(config: ConfigDict, card: dict[str, Any]) -> None:
    """Let `check_values` know the card, so that it sees what is changed in Python later.

    Args:
      config: a configuration; a copy of it does not remember.
      card: the values of the card alone, by dotted key; `~` in its paths is expanded here.
    """
    for name, value in card.items():
        if name in KEYS and KEYS[name].is_path:
            card[name] = os.path.expanduser(value)
    # An attribute of the object: every other name would be a key.
    object.__setattr__(config, _CARD, card)


def recall_card(config: ConfigDict) -> dict[str, Any]:
    """The values that `remember_card` gave a configuration; none for a copy."""
    return dict(getattr(config, _CARD, {}))


def check_changes(config: ConfigDict, card: Mapping[str, Any]) -> None:
    """Refuse keys that differ from the card and have no effect in this configuration.

    Options of a paper are compared with its presets instead, see `mexjax.models.options`.

    Args:
      config: the configuration with the changes.
      card: the values of the card alone, by dotted key.

    Raises:
      ConfigError: such a key; the message names the key that makes it act.
    """
    values = flat(config)
    for name, value in values.items():
        acts = KEYS[name].acts if name in KEYS else ()
        if acts and name in card and value != card[name]:
            refuse_void(name, card[name], acts, values)


def _check_value(name: str, key: Key, value: Any) -> None:
    if key.choices and value not in key.choices:
        raise ConfigError(unknown_name(name, str(value), key.choices))
    if key.range.is_bounded and not (key.takes_words and isinstance(value, str)):
        key.range.check(name, value)


def _check_together(config: ConfigDict) -> None:
    data = config.data
    if data.name == "synthetic" and data.sampling != KEYS["data.sampling"].default:
        raise ConfigError(
            f"data.sampling={data.sampling} has no effect with data.name=synthetic, whose frames"
            " are rendered at even times. Leave it at linspace, or set data.name=synthetic_sets."
        )
    size, crop = config.data.image_size_px, config.augment.crop_px
    if crop > size:
        raise ConfigError(
            f"augment.crop_px={crop} is larger than the images, data.image_size_px={size}."
        )
    if config.augment.shift_px >= size:
        raise ConfigError(
            f"augment.shift_px={config.augment.shift_px} moves a face out of the images,"
            f" data.image_size_px={size}. Take a smaller shift."
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
    error = ConfigError(
        f"{key} takes a value of type {kind} (now {quoted(old)}), found {quoted(value)}."
    )
    if isinstance(old, str):
        return str(value)
    if isinstance(value, str):
        text = value.strip()
        if isinstance(old, bool):
            value = {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
        elif isinstance(old, tuple):
            items = [item.strip() for item in text.strip("()[]").split(",") if item.strip()]
            is_text = _item_type(key, old) is str
            value = tuple(item.strip("'\"") if is_text else _literal(item) for item in items)
        else:
            value = _literal(text)
    if isinstance(old, bool):
        if not isinstance(value, bool):
            raise error
    elif isinstance(old, float):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise error
        try:
            value = float(value)
        except OverflowError:
            raise error from None
    elif isinstance(old, int):
        if isinstance(value, bool) or not isinstance(value, int):
            raise error
    elif isinstance(old, tuple):
        value = _items(key, value if isinstance(value, tuple | list) else (value,), old)
    return value


def _number_or_words(key: str, value: Any) -> int | str:
    """A whole number, or words: text, with commas where there are several."""
    if isinstance(value, tuple | list) and all(isinstance(item, str) for item in value):
        value = ",".join(value)
    if isinstance(value, str):
        value = value.strip()
        return int(value) if re.fullmatch("[+-]?[0-9]{1,9}", value) else value
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{key} takes a whole number or words, found {quoted(value)}.")
    return value


def _items(key: str, values: Iterable[Any], old: tuple[Any, ...]) -> tuple[Any, ...]:
    """Several values in the type that the items of a key have."""
    item = _item_type(key, old)
    new = tuple(map(str, values) if item is str else values)
    wrong = [each for each in new if item is not None and not _is_of(each, item)]
    if wrong:
        kinds = {int: "whole numbers", float: "numbers", bool: "true or false"}
        raise ConfigError(f"{key} takes {kinds.get(item, item)}, found {quoted(wrong[0])}.")
    return new


def _item_type(key: str, old: tuple[Any, ...]) -> type | None:
    """The type of the items of a key; None: any."""
    if old:
        return float if any(isinstance(item, float) for item in old) else type(old[0])
    if key.startswith(SYNTHETIC):
        return int
    return None if key not in KEYS else int if KEYS[key].range.is_bounded else str


def _is_of(value: Any, kind: type) -> bool:
    """True if a value is of a type; whole numbers serve as numbers, truth values do not."""
    if isinstance(value, bool) and kind is not bool:
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
