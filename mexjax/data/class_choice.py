"""The classes of a configuration before any image is read: their default, and a line about them."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
from ml_collections import ConfigDict

from mexjax.config import KEYS, set_key
from mexjax.data.loading import count_left_out, load_table
from mexjax.protocol.labelling import OWN, is_own, listed
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
    """The classes, or action units, in their order with their clips, and what is left out.

    No image is read.

    Raises:
      ConfigError, DataError: the same as from `mexjax.data.loading.load`.
    """
    table = load_table(config)
    labels, names = label_table(table, config.protocol)
    is_units = labels.ndim > 1
    keep = np.asarray((labels >= 0).all(axis=1) if is_units else labels >= 0)
    counts = [
        int(((labels[:, k] == 1) if is_units else labels == k).sum()) for k in range(len(names))
    ]
    left_out = count_left_out(table, keep, config.protocol.task)
    rest = ""
    if number := left_out.get("num_clips", 0):
        parts = [f"{count} {name}" for name, count in left_out["clips"].items()]
        why = ", their action units were not coded" if is_units else ""
        rest = f"; {number} clip{'' if number == 1 else 's'} left out{why}: {', '.join(parts)}"
    return (
        f"{len(names)} {'action units' if is_units else 'classes'}: {listed(names, counts)}{rest}"
    )
