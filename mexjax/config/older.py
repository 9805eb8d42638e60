"""Configurations of older versions: keys that have another name now, and keys that came later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mexjax.config.keys import KEYS
from mexjax.errors import ConfigError

# The name of each key that was renamed, and today's name of it.
RENAMED = {"dtype": "precision"}
# Keys that runs of older versions lack. Those runs were made with their defaults.
ADDED = ("gpu.graphs", "precision", "deterministic")


def refuse_renamed(names: Iterable[str]) -> None:
    """Refuse a key by a name that it does not have any more.

    Raises:
      ConfigError: such a key; the message has today's name and choices.
    """
    for name in names:
        if name in RENAMED:
            new = RENAMED[name]
            choices = ", ".join(KEYS[new].choices)
            raise ConfigError(
                f"The key {name} is now {new}, which is one of {choices}; docs/configuration.md"
                f" says what each reaches. Set {new} instead of {name}."
            )


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a run in today's keys.

    Args:
      values: the content of its `config.json` by dotted key; keys of `ADDED` may be absent.
    """
    out = dict(values)
    dtype = out.pop("dtype", None)
    if "precision" not in out and dtype is not None:
        out["precision"] = "tf32" if dtype == "float32" else dtype
    return out | {name: KEYS[name].default for name in ADDED if name not in out}


def as_digested(values: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a run in the keys of the first version, of which its digest is made.

    Keys of `ADDED` that have their default are left out, so that a run of an older version has the
    same digest as the same run today.

    Args:
      values: see `completed`.
    """
    out = completed(values)
    out["dtype"] = "bfloat16" if out["precision"] == "bfloat16" else "float32"
    if out["precision"] == "bfloat16":
        del out["precision"]
    return {
        name: value
        for name, value in out.items()
        if name not in ADDED or value != KEYS[name].default
    }
