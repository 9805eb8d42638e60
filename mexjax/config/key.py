"""One configuration key: an entry of the table of keys, and the range of its numbers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from mexjax.config.conditions import When
from mexjax.errors import ConfigError, quoted


@dataclasses.dataclass(frozen=True)
class Range:
    """The finite numbers that a key takes.

    Attributes:
      least: smallest number that is allowed, itself included.
      most: largest number that is allowed, itself included.
      above: a bound below all numbers that are allowed, itself excluded.
      below: a bound above all numbers that are allowed, itself excluded.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    @property
    def is_bounded(self) -> bool:
        """True if there is a bound on both sides."""
        has_lower = self.least is not None or self.above is not None
        return has_lower and (self.most is not None or self.below is not None)

    def check(self, name: str, value: Any) -> None:
        """Refuse a number that is not finite or out of the range.

        Raises:
          ConfigError: such a number, or a value that is no number.
        """
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{name} takes numbers, found {quoted(value)}.")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{name} must be a finite number, found {value}.")
        if self.least is not None and value < self.least:
            raise ConfigError(f"{name} must be at least {self.least:.10g}, found {quoted(value)}.")
        if self.above is not None and value <= self.above:
            raise ConfigError(f"{name} must be above {self.above:.10g}, found {quoted(value)}.")
        if self.most is not None and value > self.most:
            raise ConfigError(f"{name} must be at most {self.most:.10g}, found {quoted(value)}.")
        if self.below is not None and value >= self.below:
            raise ConfigError(f"{name} must be below {self.below:.10g}, found {quoted(value)}.")


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
      above: a bound below all numbers that are allowed, itself excluded.
      below: a bound above all numbers that are allowed, itself excluded.
      acts: conditions without which the key has no effect; a change is then refused.
      is_path: True: the value is a path, in which `~` is the user's home.
      takes_words: True: a number is taken, and so are words, whose list is text with commas.
    """

    default: Any
    meaning: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    acts: tuple[When, ...] = ()
    is_path: bool = False
    takes_words: bool = False

    @property
    def range(self) -> Range:
        """The numbers that the key takes."""
        return Range(self.least, self.most, self.above, self.below)


def share(default: float, meaning: str, *acts: When) -> Key:
    """A key that holds a share from 0 to 1."""
    return Key(default, meaning, least=0, most=1, acts=acts)


def decay(default: float, meaning: str, *acts: When) -> Key:
    """A key that holds a share from 0 to 1, which itself is not allowed."""
    return Key(default, meaning, least=0, below=1, acts=acts)
