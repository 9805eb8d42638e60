"""The parts that all commands share: their parser, the printing of errors, and exit statuses."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from mexjax.errors import ConfigError, Interrupted, MexjaxError

ERROR, INTERRUPTED, BROKEN_PIPE = 2, 130, 141


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes end in a ConfigError that names the nearest option.

    Args:
      prog: the command, as a user types it.
      description: one or more sentences.
      examples: text below the options, printed as it is written.
    """

    def __init__(self, prog: str, description: str, examples: str = "") -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments.

        Raises:
          ConfigError: always.
        """
        raise ConfigError(f"{message[:1].upper()}{message[1:]}. See {self.prog} --help.")

    def read(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """The options, all of them known.

        Raises:
          ConfigError: an argument that is not understood.
        """
        options, rest = self.parse_known_args(argv)
        if rest:
            raise ConfigError(self.not_understood(rest))
        return options

    def not_understood(self, arguments: Sequence[str]) -> str:
        """The text about arguments that are no options, with the nearest option of the first."""
        names = [text for action in self._actions for text in action.option_strings]
        name = arguments[0].partition("=")[0]
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
        hint = f" Did you mean {close[0]}?" if close else ""
        return f"Not understood: {' '.join(arguments)}.{hint} See {self.prog} --help."


@dataclasses.dataclass
class Outcome:
    """The exit status of a command; 0 unless an error or the command sets another."""

    status: int = 0


@contextlib.contextmanager
def errors_printed(
    when_stopped: str = "Stopped at once; what was saved before is kept.",
) -> Iterator[Outcome]:
    """Print an error of the block in one line, without a traceback, and set the exit status.

    Args:
      when_stopped: the line that is printed after Ctrl-C.

    Yields:
      The outcome. Its status is that of the block; 2 after an error that the user can mend; 130
      after Ctrl-C; 128 plus the number of the signal after a run that was asked to stop; 141 if the
      reader of a pipe has gone.
    """
    outcome = Outcome()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may have letters that a terminal lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        yield outcome
        sys.stdout.flush()  # a missing reader is noticed here, not at the end of the process
    except SystemExit as stopped:  # --help and --version end this way
        outcome.status = int(stopped.code or 0)
    except Interrupted as stopped:
        _print(str(stopped), "bold yellow")
        outcome.status = 128 + signal.Signals[stopped.signal_name].value
    except KeyboardInterrupt:
        _print(when_stopped, "bold yellow")
        outcome.status = INTERRUPTED
    except BrokenPipeError:
        # Python would complain once more when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        outcome.status = BROKEN_PIPE
    except (MexjaxError, OSError) as error:
        errors = Console(stderr=True, highlight=False)
        errors.print("[bold red]Error:[/]", end=" ")
        errors.print(message(error), markup=False, soft_wrap=True)
        outcome.status = ERROR


def path(text: str) -> Path:
    """A path of the command line, in which `~` at the beginning is the user's home."""
    return Path(os.path.expanduser(text))


def run_command(
    action: Callable[[], int],
    *,
    when_stopped: str = "Stopped at once; what was saved before is kept.",
) -> int:
    """The exit status of a command, whose errors are printed as by `errors_printed`.

    Args:
      action: the work of the command; it returns the exit status.
      when_stopped: the line that is printed after Ctrl-C.
    """
    with errors_printed(when_stopped) as outcome:
        outcome.status = action()
    return outcome.status


def entry_point(command: Callable[[], int]) -> NoReturn:
    """Run a command as this process; its status is that of the process."""
    logging.getLogger("absl").setLevel(logging.WARNING)  # orbax and grain log every step
    sys.exit(command())


def message(error: Exception) -> str:
    """The text of an error in one line."""
    if isinstance(error, MexjaxError) or not isinstance(error, OSError):
        return " ".join(str(error).split())
    return f"{error.filename or 'A file'}: {error.strerror or error}."


def _print(text: str, style: str) -> None:
    Console(stderr=True, highlight=False).print(text, style=style, markup=False, soft_wrap=True)
