"""The one progress bar: a bar on a terminal, a line now and then elsewhere.

It shows a spinner, the present task, its share that is done, details, the time gone by and the
time left. Training, the preparation of releases and the views of prepared clips use it.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mexjax import signals, terminal
from mexjax.errors import printable

LINE_EVERY_S = 10.0


class ProgressBar:
    """One bar, which appears with the first call of `say` or `show`.

    Args:
      total: amount of work; None while that is not known.
      is_shown: False: nothing is printed.
      console: its place; standard output by default.
      is_kept: True: the bar stays on the terminal when all is done.
    """

    def __init__(
        self,
        total: int | None = None,
        *,
        is_shown: bool = True,
        console: Console | None = None,
        is_kept: bool = True,
    ) -> None:
        self._console = console or terminal.console()
        self._total, self._done = total, 0
        self._begin = self._last_line = time.monotonic()
        self._is_line = is_shown and not self._console.is_terminal
        self._bar: Progress | None = None
        if is_shown and not self._is_line:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TaskProgressColumn(),
                TextColumn("{task.fields[detail]}", markup=False),
                TimeElapsedColumn(),
                TextColumn("gone,"),
                TimeRemainingColumn(compact=True),
                TextColumn("left"),
                console=self._console,
                transient=not is_kept,
            )
            self._task = self._bar.add_task("starting", total=total, detail="")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Print the present task at once."""
        if self._bar:
            self._bar.start()
            self._bar.update(self._task, description=printable(text))
        elif self._is_line:
            self._print(text)

    def note(self, text: str) -> None:
        """Print a line that stays, above the bar if there is one."""
        if self._bar:
            terminal.say(self._bar.console, text)
        elif self._is_line:
            self._print(text)

    def show(self, done: int, description: str, detail: str = "", left_s: float = 0.0) -> None:
        """Show the progress.

        Args:
          done: amount of the total that is done.
          description: the present task.
          detail: further numbers.
          left_s: seconds left, for a line; a bar estimates them itself.
        """
        self._done = done
        if self._bar:
            self._bar.start()
            self._bar.update(
                self._task,
                completed=done,
                total=self._total,
                description=printable(description),
                detail=printable(detail),
            )
        elif self._is_line and time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            share = 100 * done / max(self._total or 1, 1)
            gone = self._last_line - self._begin
            texts = [
                f"{share:3.0f}%",
                description,
                detail,
                f"{gone:.0f} s gone, {left_s:.0f} s left",
            ]
            self._print("  ".join(filter(None, texts)))

    def _print(self, text: str) -> None:
        self._console.print(terminal.plain(text), soft_wrap=True)


class ClipProgress(ProgressBar):
    """A bar that counts clips of a preparation, of a view or of a study."""

    def __init__(
        self,
        what: str = "clips",
        *,
        is_shown: bool = True,
        console: Console | None = None,
        is_kept: bool = True,
    ) -> None:
        super().__init__(is_shown=is_shown, console=console, is_kept=is_kept)
        self._what = what

    def __call__(self, done: int, total: int, frames: int = 0) -> None:
        """Count: `done` clips of `total`, with `frames` frames if they are known."""
        self._total = total
        gone = max(time.monotonic() - self._begin, 1e-9)
        detail = f"{done} of {total}" + (f"  {frames / gone:.0f} frames/s" if frames else "")
        self.show(done, self._what, detail, gone / max(done, 1) * (total - done))


class TrainProgress(ProgressBar):
    """A bar that counts fold-steps, with the folds, epoch, loss and clips per second.

    Args:
      total_steps: fold-steps of the whole run; `begin` says it later.
      is_shown: False: nothing is printed.
    """

    def __init__(self, total_steps: int = 1, *, is_shown: bool) -> None:
        super().__init__(max(total_steps, 1), is_shown=is_shown)
        self._fresh, self._clips, self._where = 0, 0, ""
        self._clock = self._begin
        self._alarms = ExitStack()

    def __exit__(self, *_: object) -> None:
        self._alarms.close()
        super().__exit__()

    def begin(self, total_steps: int) -> None:
        """Start the clock of a run whose number of fold-steps is known now."""
        self._total = max(total_steps, 1)
        self._begin = self._clock = time.monotonic()

    def start_compiling(self, clip_flops: int, *, is_cpu: bool) -> None:
        """Say that programs are compiled and how long that takes, until `restart_clock`.

        Args:
          clip_flops: operations of the network's forward pass for one clip.
          is_cpu: True: the programs are for a CPU; for other devices no time is said.
        """
        about = f" ({compile_time(clip_flops)} on a CPU, kept for next time)" if is_cpu else ""
        self._alarms.enter_context(without_alarms())
        self.say(f"compiling{about}")

    def restart_clock(self) -> None:
        """Count rates from now on, since the time before was not training."""
        self._alarms.close()
        self._clock = self._last_line = time.monotonic()
        if self._is_line:
            self._print(f"compiled in {self._clock - self._begin:.0f} s")

    def skip(self, steps: int) -> None:
        """Count steps that an earlier run has made."""
        self._done += steps
        if self._bar and steps:
            self._bar.update(self._task, completed=self._done)

    def enter_folds(self, first: int, count: int, total: int) -> None:
        """Name the folds of the next steps: `count` from the `first`, which counts from 0."""
        is_one = count == 1
        numbers = f"fold {first + 1}" if is_one else f"folds {first + 1} to {first + count}"
        self._where = f"{numbers} of {total}"

    def update(self, steps: int, clips: int, *, folds: str, epoch: str, loss: float) -> None:
        """Count `steps` more fold-steps over `clips` clips.

        Args:
          steps: steps, added over the folds of the group.
          clips: clips trained on.
          folds: names of the folds.
          epoch: number of the epoch, and how many there are.
          loss: mean loss of the epoch.
        """
        self._fresh += steps
        self._clips += clips
        position = self._done + steps
        gone = max(time.monotonic() - self._clock, 1e-9)
        detail = f"{epoch}  loss {loss:.3f}  {self._clips / gone:.0f} clips/s"
        left = gone / max(self._fresh, 1) * ((self._total or 1) - position)
        self.show(position, f"{self._where}: {folds}" if self._where else folds, detail, left)


def compile_time(clip_flops: int) -> str:
    """The rough time that the programs of a network take to compile on two CPU cores.

    The measured times are 8 to 38 s for networks below 0.1 GFLOP a clip, 40 to 90 s for those of 4,
    one to three minutes for those of 6 to 27; a busy machine takes several times as long.
    """
    if clip_flops < 5e8:
        return "about half a minute"
    return "a minute or two" if clip_flops < 5e9 else "several minutes"


_ALARM = b"slow_operation_alarm.cc"
_ALARM_END = b"attach the results."
_STARS = re.compile(rb"\**\s*")
_LOG_LINE = re.compile(rb"[EWIF]\d{4} |\d{4}-\d\d-\d\d ")


@contextmanager
def without_alarms() -> Iterator[None]:
    """Keep XLA's alarms about slow compilation off the terminal; let everything else through.

    XLA writes them to file descriptor 2 of the process, so they are taken out there.
    """
    sys.stderr.flush()
    try:
        before = os.dup(2)
    except OSError:  # a process without standard error
        yield
        return
    reading, writing = os.pipe()
    os.set_inheritable(writing, False)
    thread = threading.Thread(target=_forward, args=(reading, before), daemon=True)
    thread.start()
    os.dup2(writing, 2)
    os.close(writing)
    try:
        with signals.errors_to(before):
            yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)  # the last writer of the pipe is gone, so the thread ends
        thread.join(timeout=5)


def _forward(reading: int, writing: int) -> None:
    """Pass all lines but alarms on to the terminal; read on if it can take none."""
    with os.fdopen(reading, "rb", buffering=0) as pipe, os.fdopen(writing, "wb", 0) as out:
        lines, rest = AlarmFilter(), b""
        while chunk := pipe.read(65536):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                if lines.keeps(line):
                    with suppress(OSError):
                        out.write(line + b"\n")
        if rest and lines.keeps(rest):
            with suppress(OSError):
                out.write(rest)


class AlarmFilter:
    """A filter that tells lines of XLA's alarms from others.

    An alarm is a log line and the lines after it, up to the request to attach results and the row
    of stars after that.
    """

    def __init__(self) -> None:
        self._is_in_alarm = self._is_after_alarm = False

    def keeps(self, line: bytes) -> bool:
        """True if a line, without its end, is none of an alarm; call it for each line in order."""
        if _ALARM in line:
            self._is_in_alarm, self._is_after_alarm = True, False
            return False
        if self._is_in_alarm and not _LOG_LINE.match(line):
            if _ALARM_END in line:
                self._is_in_alarm, self._is_after_alarm = False, True
            return False
        is_stars = self._is_after_alarm and bool(line) and _STARS.fullmatch(line) is not None
        self._is_in_alarm = self._is_after_alarm = False
        return not is_stars
