"""The configuration: its keys, recipe cards, and `key=value` overrides made into one ConfigDict."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from mexjax.config.cards import Card, find_card, list_cards, run_card
from mexjax.config.key import Key
from mexjax.config.keys import KEYS, defaults
from mexjax.config.older import completed, refuse_renamed
from mexjax.config.values import (
    as_pairs,
    check_changes,
    check_values,
    expand_paths,
    flat,
    has_sweep,
    remember_card,
    set_key,
    to_json,
)
from mexjax.errors import ConfigError

__all__ = [
    "KEYS",
    "Card",
    "Key",
    "check_values",
    "completed",
    "defaults",
    "find_card",
    "flat",
    "has_sweep",
    "list_cards",
    "load_config",
    "set_key",
    "to_json",
]


def load_config(
    path: str | Path, overrides: Mapping[str, Any] | Iterable[str] = ()
) -> ml_collections.ConfigDict:
    """Read a recipe card and lock it.

    Args:
      path: a card of the package by name (`fdp`) or any card by its path (`configs/fdp.py`); a
        variant follows a colon (`fdp:paper`).
      overrides: `{"train.batch_size": 16}` or `["train.batch_size=16"]`. An override of
        `model.preset` selects that variant of the card before the others are applied.

    Returns:
      The configuration with every key of `KEYS`, the options of the paper and the fields of
      `data.synthetic`, locked against new keys.

    Raises:
      ConfigError: no such card, a card that fails, no such variant, an unknown key (the nearest
        one is named), a value of the wrong type, or a key that was changed although it has no
        effect with the others.
    """
    name, _, variant = str(path).partition(":")
    file = find_card(name)
    pairs = as_pairs(overrides)
    if "model.preset" in pairs:
        variant = str(pairs.pop("model.preset"))
    config = run_card(file, variant)
    card = copy.deepcopy(flat(config))
    refuse_renamed(card)
    for key, value in pairs.items():
        set_key(config, key, value)
    if "protocol.classes" not in pairs and flat(config).get("protocol.class_map"):
        _follow_class_map(config)
    if not config.model.name:
        raise ConfigError(f"{name} is not a recipe card: it names no model (model.name).")
    expand_paths(config)
    remember_card(config, card)
    check_changes(config, card)
    return config.lock()


def _follow_class_map(config: ml_collections.ConfigDict) -> None:
    """Let the file say how many classes there are, where nothing else does."""
    if config.protocol.classes == KEYS["protocol.classes"].default:
        set_key(config, "protocol.classes", "own")
