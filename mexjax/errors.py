"""Every error mexjax raises on purpose, and the wording they share.

A message says what was expected, what was found, where, and what to do. `cli.run_command` prints
the message alone; from Python they are ordinary exceptions.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MexjaxError(Exception):
    """The base of all errors that come from the user's input, not from a defect."""


class ConfigError(MexjaxError, ValueError):
    """A configuration key or value that cannot be used."""


class DataError(MexjaxError, ValueError):
    """Data that is missing, damaged or not of the documented form."""


class WorkdirError(MexjaxError, OSError):
    """A run folder that cannot be written or that belongs to another configuration."""


class CheckpointError(MexjaxError, RuntimeError):
    """A checkpoint that cannot be read back."""


class DivergedError(MexjaxError, FloatingPointError):
    """Training produced a value that is not finite."""


class OutOfMemoryError(MexjaxError, MemoryError):
    """A device has less memory than the programs of a group of folds need."""


class Interrupted(MexjaxError, RuntimeError):
    """The run was asked to stop (SIGTERM or SIGINT) and has saved its state.

    Attributes:
      signal_name: name of the signal.
    """

    def __init__(self, text: str, signal_name: str = "SIGTERM") -> None:
        super().__init__(text)
        self.signal_name = signal_name


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The text for a name that is not in a lookup: the nearest name and the whole list."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names)}."
