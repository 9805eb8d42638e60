"""The signals of a command's process, and its end: one line on the terminal, and no traceback.

Ctrl-C raises KeyboardInterrupt the first time, so that files in the making are removed and worker
processes end. It ends the process at once the second time, and also outside the work of a command
and while modules are imported, when there is nothing to put in order. A command calls `begin`
before it imports anything slow; a library never does.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

from mexjax import plugins

INTERRUPTED = 130
STOPPED = "Stopped at once; what was saved before is kept."
GRACE_S = 0.5  # the main thread has so long to end by itself after the second Ctrl-C
_IMPORTS = "<frozen importlib._bootstrap>"


class _Process:
    """The state of a command's process.

    Attributes:
      pid: number of the process; None: no command runs here. A forked child has another one.
      line: the line that is printed when the process ends at once.
      errors: file descriptor that takes this line; not 2 while standard error is filtered.
      is_working: True while an interrupt is raised in the main thread.
      num_interrupts: interrupts so far.
      leaver: number of the thread that ends the process.
      lock: of `leaver`.
    """

    pid: int | None = None
    line = STOPPED
    errors = 2
    is_working = False
    num_interrupts = 0
    leaver: int | None = None
    lock = threading.RLock()


def begin() -> None:
    """Take over Ctrl-C for this process, and give it the standard files that it lacks.

    JAX's plugin for CUDA is left out where it could only complain, see `mexjax.plugins`.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # it would be given to the next file that is opened
            os.open(os.devnull, os.O_RDWR)
    if _Process.pid == os.getpid() or threading.current_thread() is not threading.main_thread():
        return
    _Process.pid = os.getpid()
    plugins.leave_out_unused()
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return  # nohup, or a shell that runs the command in the background
    signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = _unraisable
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), name="interrupts", daemon=True).start()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)


def is_command() -> bool:
    """True if this process is a command, which may be ended at any place."""
    return _Process.pid == os.getpid()


@contextlib.contextmanager
def work(line: str = STOPPED) -> Iterator[None]:
    """Raise an interrupt as KeyboardInterrupt inside the block, unless it is the second one.

    Args:
      line: the line that is printed when the process ends at once.
    """
    before = _Process.line, _Process.is_working
    _Process.line, _Process.is_working = line, True
    try:
        yield
    finally:
        _Process.line, _Process.is_working = before


@contextlib.contextmanager
def errors_to(number: int) -> Iterator[None]:
    """Write lines about signals to another file descriptor than 2 in the block.

    A filter behind descriptor 2 would lose the last line when the process ends at once.
    """
    before, _Process.errors = _Process.errors, number
    try:
        yield
    finally:
        _Process.errors = before


def write_line(text: str) -> None:
    """Write a line to standard error, from a signal's handler or before the process ends."""
    # A stream of Python cannot be written to from a handler while it is being written to.
    with contextlib.suppress(OSError):
        os.write(_Process.errors, f"{text}\n".encode())


@contextlib.contextmanager
def kept_from_children() -> Iterator[None]:
    """Keep Ctrl-C from processes that are started in the block; this one ends them itself.

    A terminal sends it to all of them, and each would print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # its start would lift the mask
    # Threads and processes inherit the mask of the thread that starts them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def count_interrupt() -> int:
    """Count an interrupt that another handler took, and return the number of all."""
    _Process.num_interrupts += 1
    return _Process.num_interrupts


def interrupt_again(number: int = signal.SIGINT) -> NoReturn:
    """End after a signal that is not the first: the process, or the work in a library.

    Raises:
      KeyboardInterrupt: this process is no command.
    """
    if is_command():
        leave_at_once(128 + number)
    raise KeyboardInterrupt


def leave_at_once(status: int = INTERRUPTED, line: str | None = None) -> NoReturn:
    """End the process where it is, like SIGKILL, after the line that says so."""
    with _Process.lock:
        _Process.leaver = _Process.leaver or threading.get_ident()
    if _Process.leaver != threading.get_ident():
        time.sleep(60)  # another thread ends the process meanwhile
    _end_children()
    cursor = "\r\x1b[?25h\x1b[K" if os.isatty(_Process.errors) else ""  # a bar hides the cursor
    write_line(cursor + (line or _Process.line))
    os._exit(status)


def leave(status: int) -> NoReturn:
    """End the process in order, but not by Python's own way.

    When the interpreter takes itself apart, threads of C++ libraries that still run may come back
    to it and abort the process ("terminate called without an active exception"). Everything that
    is to be kept has been written and closed before, so the process ends behind the functions that
    were registered for its end.

    Args:
      status: the exit status.
    """
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    _flush()
    atexit._run_exitfuncs()
    _flush()
    os._exit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a reader that has gone, a full disk
            stream.flush()


def _interrupt(_: int, frame: FrameType | None) -> None:
    if _Process.pid != os.getpid():
        os._exit(INTERRUPTED)
    if _Process.leaver is not None:
        return
    if count_interrupt() > 1 or not _Process.is_working or _is_importing(frame):
        leave_at_once()
    raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTS:
            return True
        frame = frame.f_back
    return False


def _unraisable(fault: Any) -> None:
    """Stop where Python would print an interrupt and forget it: in `__del__` and the like."""
    if fault.exc_type is KeyboardInterrupt and is_command():
        leave_at_once()
    sys.__unraisablehook__(fault)


def _watch(reading: int) -> None:
    """End the process at the second Ctrl-C if the main thread is busy in a library."""
    count = 0
    while numbers := os.read(reading, 64):
        count += numbers.count(signal.SIGINT)
        if count > 1:
            time.sleep(GRACE_S)
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
                leave_at_once()


def _end_children() -> None:
    """Kill the worker processes, which would wait for this one for ever, and their semaphores."""
    if "multiprocessing" not in sys.modules:
        return
    import multiprocessing
    from multiprocessing import util

    with contextlib.suppress(Exception):
        for child in multiprocessing.active_children():
            child.kill()
        for child in multiprocessing.active_children():
            child.join(1)
        util._run_finalizers(0)  # pyright: ignore[reportAttributeAccessIssue] # the stub lacks it


def _after_fork() -> None:
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)
