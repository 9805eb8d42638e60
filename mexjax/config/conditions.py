"""Conditions on other keys, without which a key has no effect and may not be changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mexjax.errors import ConfigError, quoted


@dataclasses.dataclass(frozen=True)
class When:
    """A condition on the value of another key.

    Attributes:
      key: the other key.
      values: the values with which the condition holds; empty: any number above 0, any text, True,
        and a tuple with one of these.
      is_unless: True: the condition holds with any value but these.
      instead: a condition that is enough as well.
    """

    key: str
    values: tuple[Any, ...] = ()
    is_unless: bool = False
    instead: When | None = None

    def holds(self, values: Mapping[str, Any]) -> bool:
        """True if the configuration `values` meets the condition."""
        value = values.get(self.key)
        if self.values:
            is_met = (value in self.values) != self.is_unless
        else:
            is_met = any(value) if isinstance(value, list | tuple) else bool(value)
        return is_met or (self.instead is not None and self.instead.holds(values))

    def text(self, prefix: str = "") -> str:
        """The condition in words; `prefix` stands before each key."""
        name = f"{prefix}{self.key}"
        words = f"{name}={' or '.join(map(str, self.values))}"
        if not self.values:
            words = f"a value of {name} that is set or above 0"
        elif self.is_unless:
            words = f"another {words.replace('=', ' than ', 1)}"
        return words if self.instead is None else f"{words}, or with {self.instead.text(prefix)}"


def refuse_void(
    key: str,
    before: Any,
    conditions: tuple[When, ...],
    values: Mapping[str, Any],
    *,
    prefix: str = "",
) -> None:
    """Refuse a key that was changed although it has no effect.

    Args:
      key: the key, a name in `values`.
      before: its value before the change, by the card or the preset.
      conditions: those under which it acts; all of them must hold.
      values: the configuration after all changes.
      prefix: text before keys in the message, for example `model.`.

    Raises:
      ConfigError: a condition does not hold; the message names the key that makes this one act.
    """
    for when in conditions:
        if not when.holds(values):
            name = f"{prefix}{key}"
            state = f"{prefix}{when.key}={_short(values.get(when.key, 'none'))}"
            raise ConfigError(
                f"{name}={_short(values[key])} has no effect with {state}: it acts with"
                f" {when.text(prefix)}. Set that too, or leave {name} at {_short(before)}."
            )


def _short(value: Any) -> str:
    """A value as text of at most 60 characters."""
    text = quoted(value)
    # Other texts stand as they are typed.
    return text.strip("'") if isinstance(value, str) and value else text
