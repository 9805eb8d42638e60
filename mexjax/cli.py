"""The parts that all commands share: their parser, the printing of errors, and exit statuses."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from mexjax import signals, terminal
from mexjax.errors import ConfigError, Interrupted, MexjaxError, one_line, quoted
from mexjax.signals import INTERRUPTED, STOPPED

ERROR, BROKEN_PIPE = 2, 141
PREFIX = "--config."  # options that set a key of the configuration begin with it


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
    """The end of a command.

    Attributes:
      status: the exit status; 0 unless an error or the command sets another.
      is_output: True: the command was asked for nothing but what it prints, so losing that is an
        error. The work of other commands counts without it.
    """

    status: int = 0
    is_output: bool = False


@contextlib.contextmanager
def errors_printed(when_stopped: str = STOPPED) -> Iterator[Outcome]:
    """Print an error of the block in one line, without a traceback, and set the exit status.

    Standard output that is closed or full does not stop the block.

    Args:
      when_stopped: the line that is printed after Ctrl-C.

    Yields:
      The outcome. Its status is that of the block; 2 after an error that the user can mend; 130
      after Ctrl-C; 128 plus the number of the signal after a run that was asked to stop; 141 if
      the reader of a pipe has gone and the command was asked for its output alone.
    """
    outcome = Outcome()
    with terminal.lenient_output() as output:
        try:
            with signals.work(when_stopped):
                yield outcome
        except SystemExit as stopped:  # --help and --version end this way
            outcome.status = int(stopped.code or 0)
            outcome.is_output = True
        except Interrupted as stopped:
            _print(str(stopped), "bold yellow")
            outcome.status = 128 + signal.Signals[stopped.signal_name].value
        except KeyboardInterrupt:
            if signals.is_command():
                signals.leave_at_once(line=when_stopped)
            _print(when_stopped, "bold yellow")
            outcome.status = INTERRUPTED
        except BrokenPipeError:
            outcome.status = BROKEN_PIPE
        except (MexjaxError, OSError) as error:
            errors = terminal.console(is_error=True)
            errors.print(terminal.Text("Error:", style="bold red"), end=" ")
            errors.print(terminal.plain(message(error)), soft_wrap=True)
            outcome.status = ERROR
        output.flush()  # a reader that has gone is noticed here, not at the end of the process
        _tell_lost_output(output, outcome)


def _tell_lost_output(output: terminal.Output, outcome: Outcome) -> None:
    if output.fault is None:
        return
    status = BROKEN_PIPE
    if not isinstance(output.fault, BrokenPipeError):
        status = ERROR
        why = output.fault.strerror or output.fault
        rest = "" if outcome.is_output else " The work went on without it."
        _print(f"Standard output cannot be written: {why}.{rest}", "bold yellow")
    if outcome.is_output and not outcome.status:
        outcome.status = status


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Arguments split into `key=value` overrides and the others.

    Args:
      argv: `--config.key=value`, or `--config.key value`, among others.

    Raises:
      ConfigError: a key without a value.
    """
    overrides: list[str] = []
    others: list[str] = []
    rest = iter(argv)
    for text in rest:
        if not text.startswith(PREFIX):
            others.append(text)
            continue
        override = text.removeprefix(PREFIX)
        if "=" not in override:
            value = next(rest, None)
            if value is None or value.startswith("--"):
                raise ConfigError(f"{text} has no value; write {text}=VALUE.")
            override += f"={value}"
        overrides.append(override)
    return overrides, others


def path(text: str) -> Path:
    """A path of the command line, in which `~` at the beginning is the user's home.

    Raises:
      ConfigError: no file can have this name.
    """
    if "\0" in text:
        raise ConfigError(f"The name of a file cannot have a NUL in it, found {quoted(text)}.")
    return Path(os.path.expanduser(text))


def run_command(action: Callable[[], int], *, when_stopped: str = STOPPED) -> int:
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
    signals.begin()
    logging.getLogger("absl").setLevel(logging.WARNING)  # orbax and grain log every step
    try:
        status = command()
    except KeyboardInterrupt:  # behind the work, where nothing is left to stop
        signals.leave_at_once()
    signals.leave(status)


def message(error: Exception) -> str:
    """The text of an error in one line."""
    if isinstance(error, MexjaxError) or not isinstance(error, OSError):
        return one_line(str(error))
    return one_line(f"{error.filename or 'A file'}: {error.strerror or error}.")


def _print(text: str, style: str) -> None:
    terminal.console(is_error=True).print(terminal.plain(text, style), soft_wrap=True)
