"""One owner of a folder that a command writes at a time.

The owner holds a lock of the operating system on the file `.lock`, which a process that dies
releases by itself. Where the file system has no such locks, the file `.owner` takes its place, and
a process of this machine that is gone is told by its number and the time it started.
"""

from __future__ import annotations

import datetime
import errno
import json
import os
import socket
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

from mexjax.errors import WorkdirError

try:
    import fcntl
except ImportError:  # a system without locks of this kind
    fcntl = None

LOCK, OWNER = ".lock", ".owner"
_HELD_BY_OTHERS = (errno.EAGAIN, errno.EACCES)


class FolderLock:
    """The right to write into a folder, held until `release` or the end of the process."""

    def __init__(self, folder: Path, option: str = "--workdir") -> None:
        """Takes the lock.

        Args:
          folder: it must exist.
          option: the option of the command that names the folder, for the message.

        Raises:
          WorkdirError: another process, or another run of this one, holds it.
          OSError: the folder cannot be written.
        """
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        self._finalizer = weakref.finalize(self, os.close, file)
        try:
            if _is_locked_by_system(file, folder, option):
                os.ftruncate(file, 0)
                os.pwrite(file, json.dumps(_this_process()).encode(), 0)
            else:
                _claim(folder, option)
                self._finalizer.detach()
                os.close(file)
                self._finalizer = weakref.finalize(self, (folder / OWNER).unlink, missing_ok=True)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Lets others have the folder; nothing happens the second time."""
        self._finalizer()


def _is_locked_by_system(file: int, folder: Path, option: str) -> bool:
    """Takes the system's lock; False where the file system has none."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD_BY_OTHERS:
            raise _refusal(folder, option, _read(folder / LOCK)) from None
        return False
    return True


def _claim(folder: Path, option: str) -> None:
    """Takes the folder by a file that only one process can make."""
    path = folder / OWNER
    for _ in range(2):
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            owner = _read(path)
            if not _is_gone(owner):
                text = f" If that process is gone, delete {path}."
                raise _refusal(folder, option, owner, text) from None
            _remove_dead(path, owner)
            continue
        with os.fdopen(file, "w", encoding="utf-8") as opened:
            json.dump(_this_process(), opened)
        return
    raise _refusal(folder, option, _read(path))


def _remove_dead(path: Path, owner: dict[str, Any]) -> None:
    """Removes the file of a dead owner; that of another one, who came meanwhile, is put back."""
    stale = path.with_name(f"{OWNER}.{os.getpid()}")
    with suppress(FileNotFoundError):  # another process moved it away
        os.replace(path, stale)
        if _read(stale) != owner:
            with suppress(FileExistsError):
                os.link(stale, path)
        stale.unlink()


def _this_process() -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "since": now, "start": _start_of(pid)}


def _read(path: Path) -> dict[str, Any]:
    """The owner that a file names; empty if it names none."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_gone(owner: dict[str, Any]) -> bool:
    """True if the owner was a process of this machine that has ended."""
    if owner.get("host") != socket.gethostname() or not isinstance(owner.get("pid"), int):
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    start = _start_of(owner["pid"])
    return start is not None and owner.get("start") is not None and start != owner["start"]


def _start_of(pid: int) -> str | None:
    """The start time of a process in ticks of the kernel; None where it is not told."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return status.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _refusal(folder: Path, option: str, owner: dict[str, Any], more: str = "") -> WorkdirError:
    who = "another process"
    if {"host", "pid", "since"} <= owner.keys():
        who = f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    return WorkdirError(
        f"{folder} is in use by {who}. Wait until it ends, or choose another folder, for example"
        f" {option}={folder}_2.{more}"
    )
