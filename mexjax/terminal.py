"""Any name is printed as it is, on any terminal and in Markdown, and no fault of it stops the work.

`plain` and `markdown` take names of subjects, classes and files, which may hold rich's markup,
emoji codes, control characters, bytes that are no UTF-8, or the marks of Markdown and HTML.
`lenient_output` lets the work go on when nobody can read what is printed.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from mexjax.errors import printable

# Characters with a meaning in Markdown or HTML. An underscore within a word has none.
_MARKS = re.compile(r"[\\`*\[\]<>|~$]|(?<!\w)_|_(?!\w)")
_REFERENCE = re.compile(r"&(?=#?\w+;)")

WIDE = 200  # characters of a line in a file or a pipe, where no column need be cut


def plain(text: object, style: str = "") -> Text:
    """A text of which no character has a meaning, and which any terminal can show."""
    return Text(printable(str(text)), style=style)


def markdown(text: object) -> str:
    """A text as Markdown that shows it as it is, in one line; it may stand in a table."""
    line = printable(" ".join(str(text).split()))
    return _REFERENCE.sub(r"\\\g<0>", _MARKS.sub(r"\\\g<0>", line))


def console(*, is_error: bool = False) -> Console:
    """The terminal, without markup, highlighting and emoji."""
    return Console(stderr=is_error, markup=False, highlight=False, emoji=False)


def table_console() -> Console:
    """A console for wide tables: in a file or a pipe no column is cut to fit 80 characters."""
    narrow = console()
    if narrow.is_terminal:
        return narrow
    return Console(markup=False, highlight=False, emoji=False, width=WIDE)


def say(place: Console, text: object, style: str = "") -> None:
    """Print one line, which the terminal wraps."""
    place.print(plain(text, style), soft_wrap=True)


class Output:
    """A text stream whose faults do not stop the work.

    What the encoding lacks is written as an escape. After the first fault nothing more is written.

    Attributes:
      fault: the error of the first write that failed; None: there was none.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.fault: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        if self._stream is None and name in ("encoding", "errors"):
            return {"encoding": "utf-8", "errors": "backslashreplace"}[name]
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, if it can be; return its length."""
        if self._stream is None or self.fault is not None:
            return len(text)
        try:
            self._write(self._stream, text)
        except OSError as error:
            self._give_up(error)
        except ValueError:  # the stream was closed
            self._stream = None
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand over what was written, if it can be."""
        if self._stream is None or self.fault is not None:
            return
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)
        except ValueError:
            self._stream = None

    def close(self) -> None:
        """Do nothing but flush: the stream is the process's, which a logger closes at its end."""
        self.flush()

    def isatty(self) -> bool:
        """True if a person may be reading."""
        try:
            return self._stream is not None and self.fault is None and self._stream.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        """The number of the file.

        Raises:
          OSError: there is none.
        """
        if self._stream is None:
            raise OSError("no file")
        return self._stream.fileno()

    def _write(self, stream: TextIO, text: str) -> None:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def _give_up(self, error: OSError) -> None:
        """Let the buffer, which Python writes once more at its end, go nowhere."""
        self.fault = error
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def lenient_output() -> Iterator[Output]:
    """Make standard output and standard error streams whose faults do not stop the work.

    Yields:
      Standard output.
    """
    before = sys.stdout, sys.stderr
    output = Output(sys.stdout)
    # A text stream in all that is used of it.
    sys.stdout, sys.stderr = output, Output(sys.stderr)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield output
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
