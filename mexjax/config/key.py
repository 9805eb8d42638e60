"""One configuration key: an entry of the table of keys."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Key:
    """One configuration key.

    Attributes:
      default: value if neither the card nor the command line gives one; it fixes the type.
      meaning: one or more plain sentences.
      unit: unit of a number; empty for shares, factors and counts that the meaning names.
      choices: every value that is allowed; empty: any. For a tuple, the choices of its items.
      least: smallest number that is allowed, itself included.
      most: largest number that is allowed, itself included.
    """

    default: Any
    meaning: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None


def share(default: float, meaning: str) -> Key:
    """A key that holds a share from 0 to 1."""
    return Key(default, meaning, least=0, most=1)
