"""From a recipe card and `key=value` overrides to one locked configuration."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from mexjax.errors import ConfigError

LEAST = {
    "seed": 0,
    "data.num_frames": 1,
    "data.image_size_px": 8,
    "augment.crop_px": 0,
    "augment.shift_px": 0,
    "augment.gain_std": 0,
    "augment.rotation_deg": 0,
    "augment.brightness": 0,
    "augment.contrast": 0,
    "augment.saturation": 0,
    "augment.hue": 0,
    "train.num_epochs": 0,
    "train.num_steps": 0,
    "train.batch_size": 1,
    "train.steps_per_call": 0,
    "train.learning_rate": 0,
    "train.weight_decay": 0,
    "folds.per_chunk": 0,
    "eval.every_epochs": 1,
    "eval.batch_size": 1,
    "checkpoint.every_epochs": 0,
    "checkpoint.min_seconds": 0,
    "report.num_sheet_clips": 0,
}


def load_config(
    path: str | Path, overrides: Mapping[str, Any] | Iterable[str] = ()
) -> ml_collections.ConfigDict:
    """Read a recipe card and lock it.

    Args:
      path: `configs/fdp.py`, or `configs/fdp.py:paper` to select a variant of the card.
      overrides: `{"train.batch_size": 16}` or `["train.batch_size=16"]`. An override of
        `model.preset` selects that variant of the card before the others are applied.

    Returns:
      The configuration with every key of `configs/common.py`, locked against new keys.

    Raises:
      ConfigError: no such file, no such variant, an unknown key (the nearest one is named), or
        a value of the wrong type.
    """
    name, _, variant = str(path).partition(":")
    file = Path(name)
    if not file.is_file():
        cards = sorted(
            str(p) for p in Path("configs").glob("*.py") if p.stem not in ("common", "__init__")
        )
        known = f" Recipe cards here: {', '.join(cards)}." if cards else ""
        raise ConfigError(
            f"No recipe card at {name!r} (looked from {Path.cwd()}).{known}"
            " Run from the root of the checkout, or give the whole path."
        )
    pairs = _as_pairs(overrides)
    if "model.preset" in pairs:
        variant = str(pairs.pop("model.preset"))
    config = _run_card(file, variant)
    for key, value in pairs.items():
        set_key(config, key, value)
    if not config.model.name:
        raise ConfigError(f"{name} is not a recipe card: it names no model (model.name).")
    return config.lock()


def set_key(config: ml_collections.ConfigDict, key: str, value: Any) -> None:
    """Set the dotted `key`, converting text to the type the key has now."""
    known = flat(config)
    if key not in known:
        close = difflib.get_close_matches(key, known, n=5, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        others = f" Others like it: {', '.join(close[1:])}." if close[1:] else ""
        raise ConfigError(
            f"Unknown configuration key {key!r}.{hint}{others} configs/common.py explains every"
            " key; those of the network are in mexjax/models/."
        )
    old = known[key]
    new = _as_type(key, value, old)
    node = config
    *parents, leaf = key.split(".")
    for parent in parents:
        node = node[parent]
    with node.ignore_type():
        node[leaf] = new


def flat(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The configuration as `{dotted key: value}`, in the order of the keys."""
    out: dict[str, Any] = {}

    def visit(node: ml_collections.ConfigDict, prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, ml_collections.ConfigDict):
                visit(value, f"{prefix}{key}.")
            else:
                out[prefix + key] = value

    visit(config, "")
    return out


def to_json(config: ml_collections.ConfigDict) -> str:
    """The configuration as JSON text with sorted keys: what `config.json` of a run holds."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def check_values(config: ml_collections.ConfigDict) -> None:
    """Refuse numbers that no run can be made with, before anything is written or compiled.

    Raises:
      ConfigError: a key out of its range, or two that contradict each other.
    """
    values = flat(config)
    for key, least in LEAST.items():
        if values[key] < least:
            raise ConfigError(f"{key} must be at least {least}, found {values[key]}.")
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


def _run_card(file: Path, variant: str) -> ml_collections.ConfigDict:
    # The cards import their siblings as `configs.common`, wherever the command is started from.
    root = str(file.resolve().parent.parent)
    sys.path.insert(0, root)
    try:
        spec = importlib.util.spec_from_file_location(f"_mexjax_card_{file.stem}", file)
        if spec is None or spec.loader is None:
            raise ConfigError(f"{file} is not a Python file; a recipe card is one.")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(root)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{file} defines no get_config(variant), so it is not a recipe card.")
    return module.get_config(variant)


def _as_pairs(overrides: Mapping[str, Any] | Iterable[str]) -> dict[str, Any]:
    if isinstance(overrides, Mapping):
        return dict(overrides)
    pairs: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"Expected key=value, found {text!r}; for example seed=1.")
        pairs[key] = value
    return pairs


def _as_type(key: str, value: Any, old: Any) -> Any:
    """`value` as the type of `old`; text is read as Python literals are written."""
    wanted = type(old).__name__
    error = ConfigError(f"{key} takes a value of type {wanted} (now {old!r}), found {value!r}.")
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
