"""SIGTERM, SIGINT and SIGHUP become a request that training looks at between steps.

SIGHUP comes when the terminal or the ssh session closes. Under `nohup` it is ignored, and training
goes on.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mexjax import signals


class StopRequest:
    """A request to stop the process, at which training looks between steps."""

    def __init__(self) -> None:
        self.signal_name = ""

    def __bool__(self) -> bool:
        return bool(self.signal_name)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turns SIGTERM, SIGINT and SIGHUP into a `StopRequest` while the block runs.

    Handlers can be installed in the main thread alone; elsewhere the request is never set.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        if number == signal.SIGINT:
            signals.count_interrupt()
        if request:  # a second signal stops at once
            # A terminal that closes may send several SIGHUP, and nobody is impatient then.
            if name != "SIGHUP":
                signals.interrupt_again(number)
            return
        request.signal_name = name
        signals.write_line(f"{name}: saving and stopping; again to stop at once")

    numbers = [signal.SIGTERM, signal.SIGINT]
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        numbers.append(hangup)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
