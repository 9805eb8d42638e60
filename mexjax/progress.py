"""What a person sees while folds train: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0


class TrainProgress:
    """Counts fold-steps; shows folds, epoch, loss, clips per second and the time left."""

    def __init__(self, total_steps: int, *, is_shown: bool) -> None:
        self._total, self._done, self._fresh, self._clips = max(total_steps, 1), 0, 0, 0
        self._start = self._last_line = time.monotonic()
        self._is_line = is_shown and not sys.stdout.isatty()
        self._bar: Progress | None = None
        if is_shown and not self._is_line:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:3.0f}%"),
                TextColumn("{task.fields[detail]}"),
                TimeRemainingColumn(compact=True),
                console=Console(),
            )
            self._task = self._bar.add_task("starting", total=self._total, detail="")

    def __enter__(self) -> TrainProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def restart_clock(self) -> None:
        """Rates count from now: what went before was not training."""
        self._start = self._last_line = time.monotonic()

    def skip(self, steps: int) -> None:
        """Count steps that an earlier run has made."""
        self._done += steps
        if self._bar:
            self._bar.update(self._task, completed=self._done)

    def say(self, text: str) -> None:
        """Show what is happening between steps."""
        if self._bar:
            self._bar.update(self._task, description=text)
        elif self._is_line:
            print(text, flush=True)

    def update(self, steps: int, clips: int, *, folds: str, epoch: str, loss: float) -> None:
        """Count `steps` more fold-steps over `clips` clips."""
        self._done += steps
        self._fresh += steps
        self._clips += clips
        now = time.monotonic()
        rate = self._clips / max(now - self._start, 1e-9)
        detail = f"{epoch}  loss {loss:.3f}  {rate:.0f} clips/s"
        if self._bar:
            self._bar.update(self._task, completed=self._done, description=folds, detail=detail)
        elif self._is_line and now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            left = (now - self._start) / max(self._fresh, 1) * (self._total - self._done)
            share = 100 * self._done / self._total
            print(f"{share:3.0f}%  {folds}  {detail}  {left:.0f} s left", flush=True)
