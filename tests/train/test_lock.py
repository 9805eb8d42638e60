"""One process at a time in a run folder; one that was killed leaves it free."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from small import CARD, OVERRIDES, ROOT, small_config

from mexjax import lock
from mexjax.errors import WorkdirError
from mexjax.lock import FolderLock
from mexjax.train.workdir import Workdir

HOLDER = """
import sys
from pathlib import Path
from mexjax import lock
if sys.argv[2] == "files":
    lock.fcntl = None
held = lock.FolderLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def holder(folder: Path, way: str) -> subprocess.Popen:
    """Another process that holds the lock of a folder until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), way],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def training(workdir: Path, **changes: object) -> subprocess.Popen:
    """The command, on the small study."""
    values = OVERRIDES | changes
    options = [f"--config.{key}={value}" for key, value in values.items()]
    environment = dict(os.environ, JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES="4")
    if jax.config.jax_compilation_cache_dir:
        environment["JAX_COMPILATION_CACHE_DIR"] = jax.config.jax_compilation_cache_dir
    return subprocess.Popen(
        [sys.executable, "-m", "mexjax.main", f"--config={CARD}", f"--workdir={workdir}", *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_two_commands_in_one_folder(tmp_path):
    """One trains and the other is refused; a killed one does not keep the folder."""
    workdir = tmp_path / "run"
    first = training(workdir, **{"train.num_epochs": 500})
    deadline = time.monotonic() + 120
    while not (workdir / "config.json").is_file() and time.monotonic() < deadline:
        assert first.poll() is None
        time.sleep(0.02)
    second = training(workdir, seed=1)
    output, _ = second.communicate(timeout=200)
    assert second.returncode == 2, output
    assert f"in use by process {first.pid}" in " ".join(output.split())
    assert json.loads((workdir / "config.json").read_text())["seed"] == 0
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    third = training(workdir, seed=1)
    output, _ = third.communicate(timeout=400)
    # The first one may have been killed after it had trained something.
    assert third.returncode == 0 or "seed is 0 there and 1 now" in " ".join(output.split()), output


@pytest.fixture(params=["system", "files"])
def way(request, monkeypatch):
    """Locks of the operating system, and files where it has none."""
    if request.param == "files":
        monkeypatch.setattr(lock, "fcntl", None)
    return request.param


@pytest.mark.parametrize("end", ["ended", "killed"])
def test_the_second_process_is_refused_until_the_first_is_gone(way, end, tmp_path):
    with holder(tmp_path, way) as process:
        message = rf"in use by process {process.pid} on \S+ since 20\d\d-.*--workdir={tmp_path}_2"
        for _ in range(2):
            with pytest.raises(WorkdirError, match=message):
                FolderLock(tmp_path)
        if end == "killed":
            process.send_signal(signal.SIGKILL)
        process.communicate()
    FolderLock(tmp_path).release()


def test_two_runs_of_one_process_are_told_apart_too(way, tmp_path):
    first = FolderLock(tmp_path)
    with pytest.raises(WorkdirError, match=f"in use by process {os.getpid()} "):
        FolderLock(tmp_path)
    first.release()
    second = FolderLock(tmp_path)
    first.release()  # the second time does nothing
    with pytest.raises(WorkdirError, match="in use by"):
        FolderLock(tmp_path)
    second.release()


def test_a_process_with_the_number_of_a_dead_owner_is_not_it(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    owner = lock._this_process() | {"start": "1"}
    (tmp_path / lock.OWNER).write_text(json.dumps(owner))
    FolderLock(tmp_path).release()
    # Nothing is known of the processes of another machine.
    (tmp_path / lock.OWNER).write_text(json.dumps(owner | {"host": "elsewhere"}))
    with pytest.raises(WorkdirError, match=r"on elsewhere since .* is gone, delete .*\.owner"):
        FolderLock(tmp_path)


@pytest.mark.parametrize(
    "number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EIO]
)
def test_a_file_system_without_locks(number, tmp_path, monkeypatch):
    """A file that one process alone can make takes the place of the lock."""

    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.fcntl, "flock", fails)
    first = FolderLock(tmp_path)
    owner = json.loads((tmp_path / lock.OWNER).read_text())
    assert owner["pid"] == os.getpid() and owner["host"]
    with pytest.raises(WorkdirError, match=f"in use by process {os.getpid()} on") as caught:
        FolderLock(tmp_path)
    assert "\n" not in str(caught.value)
    first.release()
    assert not (tmp_path / lock.OWNER).exists()
    FolderLock(tmp_path).release()


def test_an_owner_that_came_meanwhile_is_put_back(tmp_path, monkeypatch):
    """Two processes find the same dead owner; the slower one finds the faster one's file."""
    monkeypatch.setattr(lock, "fcntl", None)
    dead = lock._this_process() | {"start": "1"}
    (tmp_path / lock.OWNER).write_text(json.dumps(dead))
    is_gone = lock._is_gone

    def faster(owner):
        answer = is_gone(owner)
        if answer:
            monkeypatch.setattr(lock, "_is_gone", is_gone)
            (tmp_path / lock.OWNER).write_text(json.dumps(lock._this_process()))
        return answer

    monkeypatch.setattr(lock, "_is_gone", faster)
    with pytest.raises(WorkdirError, match=f"in use by process {os.getpid()} "):
        FolderLock(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [lock.LOCK, lock.OWNER]


def test_a_folder_in_use_is_neither_changed_nor_emptied(tmp_path):
    folder = tmp_path / "run"
    config = small_config()
    with Workdir.open(folder, config, is_overwritten=False) as first:
        (first.groups / "group_000.npz").touch()
        before = (folder / "config.json").read_bytes()
        for is_overwritten in (False, True):
            with pytest.raises(WorkdirError, match="in use by"):
                Workdir.open(folder, small_config(seed=1), is_overwritten=is_overwritten)
        assert (folder / "config.json").read_bytes() == before
        assert (first.groups / "group_000.npz").is_file()
    with pytest.raises(WorkdirError, match="seed is 0 there and 1 now"):
        Workdir.open(folder, small_config(seed=1), is_overwritten=False)
    # A refusal does not keep the folder.
    Workdir.open(folder, config, is_overwritten=False).close()
