"""One case after another, each with an outcome; a worker process that dies is a fault too."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mexjax.errors import Interrupted, MexjaxError

SUCCESS, REBUILT, REFUSED, FAULT = "success", "rebuilt", "refused", "FAULT"
LONGEST_MESSAGE = 1500
MOST_SLOW = 4.0  # the most that other work stretches the time of a case
SET_UP_S = 900.0  # the most that a worker needs before its first case
MEMORY_BYTES = 6 * 2**30  # a worker may map so much more than it has after its set-up
ROOT = Path(__file__).resolve().parents[2]


class SilentError(AssertionError):
    """A wrong result without a word."""


class HangError(BaseException):
    """A case that does not end; no handler of the package catches it."""


@dataclasses.dataclass(frozen=True)
class Case:
    """What is done.

    Attributes:
      words: what is wrong in this case, for the list of faults.
      act: does it and gives SUCCESS or REBUILT, or raises.
    """

    words: str
    act: Callable[[], str]


class Kind:
    """A kind of cases; `set_up` is called once in each process, `case` for each number.

    Attributes:
      limit_s: time in which a case must end.
    """

    limit_s = 20.0

    def set_up(self, folder: Path) -> None:
        """Make what all cases share, below `folder`."""

    def case(self, chance: random.Random, folder: Path) -> Case:
        """The case of some random numbers; it may write below `folder`, which is its own."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of a case: its number, SUCCESS .. FAULT, its words, and the error in one line."""

    number: int
    name: str
    words: str
    detail: str = ""
    trace: str = ""


def work_folder() -> Path:
    """A new folder in memory, if there is one, else on disk."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="fuzz_", dir=place))


def run_case(kind: Kind, name: str, seed: int, number: int, folder: Path) -> Outcome:
    """One case, in this process."""
    chance = random.Random(f"{name}/{seed}/{number}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    case = kind.case(chance, folder)
    try:
        with _quiet(), _limited(kind.limit_s):
            return Outcome(number, case.act(), case.words)
    except Interrupted as error:
        return Outcome(number, FAULT, case.words, f"Interrupted: {error}", traceback.format_exc())
    except MexjaxError as error:
        text = str(error)
        if len(text) > LONGEST_MESSAGE:
            detail = f"LongMessage: {len(text)} characters: {text[:150]} ({_place(error)})"
            return Outcome(number, FAULT, case.words, detail, traceback.format_exc())
        return Outcome(number, REFUSED, case.words, f"{type(error).__name__}: {text}")
    except (Exception, HangError) as error:
        text = " ".join(str(error).split())[:200]
        detail = f"{type(error).__name__}: {text} ({_place(error)})"
        return Outcome(number, FAULT, case.words, detail, traceback.format_exc())


def run_cases(kind: Kind, name: str, seed: int, numbers: range) -> Iterator[Outcome]:
    """Several cases, in this process, without a watch on its memory."""
    folder = work_folder()
    try:
        with _quiet():
            kind.set_up(folder / "base")
        for number in numbers:
            yield run_case(kind, name, seed, number, folder / "case")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def supervise(name: str, seed: int, start: int, count: int, silence_s: float) -> Iterator[Outcome]:
    """The cases in a worker process, and in another one behind a case that ends its worker."""
    number, end = start, start + count
    while number < end:
        command = [sys.executable, "-m", "tests.fuzz", name, f"--seed={seed}", "--worker"]
        command += [f"--start={number}", f"--count={end - number}"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
        worker = subprocess.Popen(command, cwd=ROOT, **pipes)
        assert worker.stdout is not None and worker.stderr is not None
        os.set_blocking(worker.stderr.fileno(), False)
        is_late, is_set_up, errors = False, False, b""
        while True:
            patience_s = silence_s if is_set_up else SET_UP_S
            ready, _, _ = select.select([worker.stdout, worker.stderr], [], [], patience_s)
            if not ready:
                is_late = True
                worker.kill()
                break
            if worker.stderr in ready:
                errors = (errors + (worker.stderr.read() or b""))[-4000:]
            if worker.stdout in ready:
                line = worker.stdout.readline()
                if not line:
                    break
                outcome = Outcome(**json.loads(line))
                number, is_set_up = outcome.number + 1, True
                yield outcome
            elif worker.poll() is not None:
                break
        worker.communicate()
        if number < end and (worker.returncode or is_late):
            why = f"no sign for {patience_s:g} s" if is_late else f"status {worker.returncode}"
            last = " ".join(errors.decode(errors="replace").split())[-300:]
            yield Outcome(number, FAULT, "the process ended", f"{why}: {last}")
            number += 1


def work(kind: Kind, name: str, seed: int, numbers: range) -> None:
    """The part of a worker: outcomes as lines of JSON on standard output."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    folder = work_folder()
    try:
        with _quiet():
            kind.set_up(folder / "base")
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES, resource.RLIM_INFINITY))
        for number in numbers:
            outcome = run_case(kind, name, seed, number, folder / "case")
            out.write(json.dumps(dataclasses.asdict(outcome)) + "\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def table(
    name: str, seed: int, outcomes: Counter[str], faults: list[Outcome], took_s: float
) -> str:
    """The outcomes of a kind in lines of text, faults of one kind together."""
    total = sum(outcomes.values())
    parts = [f"{key} {outcomes[key]}" for key in (SUCCESS, REBUILT, REFUSED, FAULT)]
    lines = [f"{name}: {total} cases in {took_s:.0f} s, seed {seed}: {', '.join(parts)}"]
    groups: dict[str, list[Outcome]] = {}
    for fault in faults:
        key = fault.detail.split(":")[0].rstrip("0123456789 ") + fault.detail.rpartition("(")[2]
        groups.setdefault(key, []).append(fault)
    for group in sorted(groups.values(), key=len, reverse=True):
        numbers = ", ".join(str(fault.number) for fault in group[:8])
        lines.append(f"  {FAULT} x{len(group)} (numbers {numbers}): {group[0].detail}")
        lines.append(f"    {group[0].words}")
        lines.append(f"    python -m tests.fuzz {name} --seed={seed} --only={group[0].number}")
    return "\n".join(lines)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing is printed, and no warning shown, in the block."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise `HangError` in the block if it does not end in time."""

    # A machine with other work takes longer.
    seconds *= min(max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)), MOST_SLOW)

    def stop(*_: Any) -> None:
        raise HangError(f"no end after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    # It comes again: somebody may have caught the first one.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _place(error: BaseException) -> str:
    """The deepest line of the package that an error passed."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [f for f in frames if "/mexjax/" in f.filename and "site-packages" not in f.filename]
    frame = (inside or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def count(outcomes: Iterator[Outcome]) -> tuple[Counter[str], list[Outcome], float]:
    """The number of each outcome, the faults, and the time in seconds."""
    start, counts, faults = time.monotonic(), Counter[str](), []
    for outcome in outcomes:
        counts[outcome.name] += 1
        if outcome.name == FAULT:
            faults.append(outcome)
    return counts, faults, time.monotonic() - start
