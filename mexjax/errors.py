"""Every error mexjax raises on purpose, and the wording they share.

A message says what was expected, what was found, where, and what to do. `cli.run_command` prints
the message alone; from Python they are ordinary exceptions.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

QUOTED = 100  # characters of a value that a message quotes
_WORD, _SENTENCES = 240, 1500  # most characters without a blank, and of a message
_NUM_NAMES = 40  # names of a lookup that a message lists
_LONG_WORD = re.compile(rf"\S{{{_WORD + 1},}}")
# A quotation begins and ends at the edge of a word, other than the apostrophe of "subject's".
_LONG_QUOTATION = re.compile(rf"(?<!\w)'[^']{{{2 * QUOTED},}}'(?!\w)")


class MexjaxError(Exception):
    """The base of all errors that come from the user's input, not from a defect.

    Its text is one line without control characters, in which long quotations are shortened.
    """

    def __init__(self, text: str = "", *more: object) -> None:
        super().__init__(one_line(str(text)), *more)


class ConfigError(MexjaxError, ValueError):
    """A configuration key or value that cannot be used."""


class DataError(MexjaxError, ValueError):
    """Data that is missing, damaged or not of the documented form."""


class WorkdirError(MexjaxError, OSError):
    """A run folder that cannot be written or that belongs to another configuration."""


class CheckpointError(MexjaxError, RuntimeError):
    """A checkpoint that cannot be read back."""


class ProcessesError(MexjaxError, RuntimeError):
    """Processes that train a run together do not find each other, or one of them stopped."""


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
    """The text for a name that is not in a lookup: the nearest name and the list of all."""
    names = sorted(known)
    close = difflib.get_close_matches(name[:QUOTED], names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Unknown {kind} {quoted(name)}.{hint} Known: {listed(names, _NUM_NAMES)}."


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def beginning(text: object, most: int = 80) -> str:
    """A name from a file for a message: in one line, and cut at the end where it is long."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def quoted(value: object, most: int = QUOTED) -> str:
    """A value that a user gave, as a message quotes it: in one line and not longer than a line."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of thousands of digits"
    return shortened(printable(text), most)


def shortened(text: str, most: int) -> str:
    """A text of at most so many characters; what lies in the middle goes first."""
    if len(text) <= most:
        return text
    end = (most - 3) // 3
    return f"{text[: most - 3 - end]}...{text[len(text) - end :]}"


def printable(text: str) -> str:
    """A text whose control characters, and bytes that are no UTF-8, are escapes as in Python.

    Ends of lines and tabs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(mark if _is_shown(mark) else ascii(mark)[1:-1] for mark in text)


def one_line(text: str) -> str:
    """A message in one line that any terminal shows, with long words and quotations shortened."""
    text = printable(" ".join(text.split()))
    text = _LONG_WORD.sub(lambda match: shortened(match[0], 2 * QUOTED), text)
    text = _LONG_QUOTATION.sub(lambda match: shortened(match[0], 2 * QUOTED), text)
    return shortened(text, _SENTENCES)


def _is_shown(mark: str) -> bool:
    # Marks that turn the direction of a line could make a message say something else.
    is_turning = "\u202a" <= mark <= "\u202e" or "\u2066" <= mark <= "\u2069"
    return mark in "\n\t" or not (
        mark < " " or "\x7f" <= mark <= "\x9f" or is_turning or "\ud800" <= mark <= "\udfff"
    )
