"""One process at a time in a run folder; one that was killed leaves it free."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small import ROOT, small_config

from mexjax.errors import WorkdirError
from mexjax.train import lock
from mexjax.train.lock import FolderLock
from mexjax.train.workdir import Workdir

HOLDER = """
import sys
from pathlib import Path
from mexjax.train import lock
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
