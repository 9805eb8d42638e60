"""Ctrl-C, the closing of a terminal, and the end of a command: one line and the right status."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from process_helpers import own_lines
from small import CARD, OVERRIDES, ROOT

from mexjax import signals
from mexjax.train.stop import stop_on_signals

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
LINE = "stopped here\n"
COMMAND = """
import hashlib, os, sys, threading, time
from mexjax import signals
signals.begin()
from mexjax import cli

def say(text):
    os.write(1, f"{text}\\n".encode())

def action():
    WORK

cli.entry_point(lambda: cli.run_command(action, when_stopped="stopped here"))
"""
# The ways in which a main thread can be busy when the user loses patience.
WORK = {
    "waiting": "say('ready'); time.sleep(60)",
    "putting in order": """
    try:
        say('ready'); time.sleep(60)
    finally:
        time.sleep(60)
""",
    "in a library": """
    say('ready')
    hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)
""",
    "in __del__": """
    class Slow:
        def __del__(self):
            say('ready'); time.sleep(60)
    Slow()
    time.sleep(60)
""",
    "deaf": """
    say('ready')
    try:
        time.sleep(60)
    except BaseException:
        time.sleep(60)
""",
    "with threads": """
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(2) as pool:
        rest = [pool.submit(time.sleep, 60) for _ in range(4)]
        say('ready')
        [item.result() for item in rest]
""",
    "with processes": """
    import multiprocessing
    context = multiprocessing.get_context('spawn')
    with signals.kept_from_children():
        children = [context.Process(target=time.sleep, args=(60,)) for _ in range(2)]
        [child.start() for child in children]
    say('ready')
    [child.join() for child in children]
""",
}


@pytest.fixture(autouse=True)
def _signals_of_a_terminal():
    """What a job in the background or under nohup ignores, its processes would ignore, too."""
    defaults = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, new) for number, new in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def started(*arguments: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def interrupted(process: subprocess.Popen, *waits_s: float) -> tuple[int, str]:
    """Ctrl-C goes to every process of the terminal, after each wait; then status and errors."""
    for wait in waits_s:
        time.sleep(wait)
        os.killpg(process.pid, signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    if process.returncode is None and min(waits_s) < 0.1:
        # Where the process did not run between the two, the system made one of them.
        os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    return process.returncode, errors


def members(group: int) -> list[psutil.Process]:
    """The living processes of a group."""
    out = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            is_alive = process.status() != psutil.STATUS_ZOMBIE
            if is_alive and os.getpgid(process.pid) == group:
                out.append(process)
    return out


def test_the_last_line_does_not_wait_for_a_filter():
    """While XLA's alarms are filtered a thread passes lines on; it ends with the process."""
    code = "with progress.without_alarms(): signals.leave_at_once()"
    for _ in range(5):
        process = started("-c", f"from mexjax import progress, signals\n{code}")
        assert process.communicate(timeout=20) == ("", f"{signals.STOPPED}\n")
        assert process.returncode == signals.INTERRUPTED


@pytest.mark.parametrize("gap_s", [0.05, 0.4])
@pytest.mark.parametrize("place", WORK)
def test_two_interrupts_end_in_the_message_alone(place, gap_s):
    process = started("-c", COMMAND.replace("WORK", WORK[place]))
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert interrupted(process, 0.0, gap_s) == (130, LINE)
    deadline = time.monotonic() + 10
    while members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not members(process.pid)  # no worker is left behind


def test_one_interrupt_lets_the_work_put_things_in_order(tmp_path):
    place = tmp_path / "half"
    work = f"""
    open({str(place)!r}, 'w').close()
    try:
        say('ready'); time.sleep(60)
    finally:
        os.remove({str(place)!r})
"""
    process = started("-c", COMMAND.replace("WORK", work))
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert interrupted(process, 0.0) == (130, LINE)
    assert not place.exists()


def test_an_interrupt_while_modules_are_imported(tmp_path):
    (tmp_path / "slow_module.py").write_text(
        "import time\nprint('ready', flush=True)\n"
        "try:\n    time.sleep(60)\nexcept BaseException:\n"
        "    raise ImportError('no extension module')\n"
    )
    work = f"sys.path.insert(0, {str(tmp_path)!r}); import slow_module"
    process = started("-c", COMMAND.replace("WORK", work))
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert interrupted(process, 0.0) == (130, LINE)


@pytest.mark.parametrize(
    "module", ["mexjax", "mexjax.main", "mexjax.prepare", "mexjax.report", "mexjax.studies"]
)
def test_every_command_takes_over_before_it_imports(module):
    """The slow imports of a command come after `begin`."""
    code = f"""
import builtins, runpy, sys
from mexjax import signals
begin = signals.begin
def first():
    print([name for name in ("rich", "ml_collections", "argparse") if name in sys.modules])
    begin()
    sys.exit(0)
signals.begin = first
sys.argv = ["x", "--help"]
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""
    answer, errors = started("-c", code).communicate(timeout=20)
    assert answer == "[]\n", errors


def test_an_end_behind_the_work_runs_what_was_registered_and_no_more(tmp_path):
    """C++ threads that come back to an interpreter in parts abort the process; here none can."""
    work = """
    import atexit, weakref
    atexit.register(lambda: print('registered'))
    class Late:
        def __del__(self): os.write(1, b'taken apart')
    sys.late = Late()
    print('printed')
    return 3
"""
    process = started("-c", COMMAND.replace("WORK", work))
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (3, "printed\nregistered\n", "")


def test_a_library_keeps_its_users_interrupts():
    assert not signals.is_command()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        signals.interrupt_again()


def test_a_closed_terminal_is_a_request_to_stop(capfd):
    """The kernel and the shell may both send SIGHUP; only another signal is impatience."""
    before = signal.getsignal(signal.SIGHUP)
    with stop_on_signals() as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signal_name == "SIGHUP"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
    assert signal.getsignal(signal.SIGHUP) == before
    assert capfd.readouterr().err == "SIGHUP: saving and stopping; again to stop at once\n"


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.parametrize("waits_s", [(0.3, 0.05), (0.3, 0.5), (1.5, 0.2)])
def test_training_twice_interrupted(waits_s, tmp_path):
    options = [f"--config.{key}={value}" for key, value in OVERRIDES.items()]
    options.append("--config.train.num_epochs=2000")
    process = started("-m", "mexjax.main", f"--config={CARD}", f"--workdir={tmp_path}", *options)
    assert process.stdout is not None and process.stdout.readline().startswith("mexjax")
    status, errors = interrupted(process, *waits_s)
    assert status == 130
    lines = own_lines(errors)
    # Two threads write the two lines; on a busy machine either may be the first.
    assert signals.STOPPED in lines
    assert set(lines) <= {signals.STOPPED, "SIGINT: saving and stopping; again to stop at once"}


@pytest.mark.slow
def test_training_goes_on_after_its_terminal_closed(tmp_path):
    """The terminal takes no more output either."""
    options = [f"--config.{key}={value}" for key, value in OVERRIDES.items()]
    options += ["--config.train.num_epochs=3000", "--config.has_progress=True"]
    command = ["-m", "mexjax.main", f"--config={CARD}", f"--workdir={tmp_path}", *options]
    process = started(*command)
    assert process.stdout is not None and process.stderr is not None
    while "compiled in" not in process.stdout.readline():
        assert process.poll() is None
    process.stdout.close()
    process.stderr.close()
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(timeout=60) == 128 + signal.SIGHUP
    assert list(tmp_path.glob("checkpoints/group_000/[0-9]*"))
