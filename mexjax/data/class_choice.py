"""The classes of a configuration before any image is read: their default, and a line about them."""

from __future__ import annotations

from collections.abc import Container

from ml_collections import ConfigDict

from mexjax.config import KEYS, set_key
from mexjax.data.loading import count_left_out, load_table
from mexjax.protocol.labelling import OWN, class_counts, is_own
from mexjax.protocol.splits import label_table

_KEY = "protocol.classes"


def settle_classes(config: ConfigDict, asked: Container[str]) -> None:
    """Let a table of a user's own clips have its own classes where nobody says others.

    Numbers of classes belong to the published datasets.

    Args:
      config: the whole configuration, which is changed.
      asked: keys that the user gave.
    """
    is_default = _KEY not in asked and config.protocol.classes == KEYS[_KEY].default
    is_prepared = config.data.name == "prepared" and config.protocol.task == "emotion"
    if is_default and is_prepared and is_own(load_table(config)):
        set_key(config, _KEY, OWN)


def describe_classes(config: ConfigDict) -> str:
    """The classes in their order with their clips, and what is left out: one line, or "".

    No image is read. Action units have no such line.

    Raises:
      ConfigError, DataError: the same as from `mexjax.data.loading.load`.
    """
    if config.protocol.task != "emotion":
        return ""
    table = load_table(config)
    labels, names = label_table(table, config.protocol)
    left_out = count_left_out(table, labels >= 0, "emotion")
    counts = [f"{count} {name}" for name, count in left_out.get("clips", {}).items()]
    number = left_out.get("num_clips", 0)
    rest = f"; {number} clip{'' if number == 1 else 's'} left out: {', '.join(counts)}"
    rest = rest if number else ""
    return f"{len(names)} classes: {class_counts(labels, names)}{rest}"
