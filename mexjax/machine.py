"""The machine a run is on: caches, threads of events, and what to write down about it."""

from __future__ import annotations

import ctypes
import importlib.metadata
import mmap
import os
import platform
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import psutil

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
# Of this process: whether `settle_memory` had its way, and the largest hole of `make_room`.
_heap = types.SimpleNamespace(is_settled=False, room_bytes=0)


def use_compilation_cache(folder: str | Path | None = None) -> Path:
    """Keep compiled programs on disk, so that a second run starts at once.

    Args:
      folder: where; by default `$JAX_COMPILATION_CACHE_DIR`, else `~/.cache/mexjax/xla`.
    """
    folder = folder or os.environ.get("JAX_COMPILATION_CACHE_DIR")
    path = Path(folder) if folder else Path.home() / ".cache" / "mexjax" / "xla"
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return path


def use_callers_memory() -> None:
    """Have XLA:CPU run programs in the thread that calls them; call it before any JAX work.

    In threads of its own it takes large arrays from heaps that give every one back to the kernel
    at once, whatever `settle_memory` says: a third of the time of a training step, and memory that
    lies among what compiling left. Other devices are not touched, nor is a backend that exists.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def settle_memory() -> bool:
    """Between compilation and training: keep what is freed, on large pages.

    XLA:CPU takes the temporary memory of a program anew at every call. Fresh pages of it, zeroed
    by the kernel, cost a fifth of the training step of a small network, and where Linux gives
    large pages only to who asks (the usual setting), pages of 4 KiB cost as much again. So what
    compiling freed is given back, from here on freed memory is kept, and in the main thread half of
    the memory that is available is asked for as large pages and freed without being touched: what
    is allocated later lies in it. Better not before compilation, whose many small pieces stay in
    the way. It is a setting of the whole process and of glibc.

    Returns:
      Whether all settings were accepted. False, and nothing is done, in a process that did not
      call `use_callers_memory`: a library does not change its user's memory unasked.
    """
    if jax.config.read("jax_cpu_enable_async_dispatch"):
        return False
    mmap_max, trim_threshold, top_pad, arena_max = -4, -1, -2, -8
    unlimited = -1
    settings = {mmap_max: 0, trim_threshold: unlimited, top_pad: 2**26, arena_max: 1}
    try:
        libc = _libc()
        libc.malloc_trim(0)
        is_kept = all([libc.mallopt(key, value) == 1 for key, value in settings.items()])
        # Another thread would reserve them in a heap of its own, another device in vain.
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and jax.default_backend() == "cpu":
            _heap.is_settled = is_kept
            is_kept &= _reserve_large_pages(libc, psutil.virtual_memory().available // 2)
        return is_kept
    except (AttributeError, OSError, TypeError):
        return False


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc


def _reserve_large_pages(libc: ctypes.CDLL, num_bytes: int) -> bool:
    """Grow the heap by address space that is on large pages once it is used; no memory yet."""
    page, large_page, advice = mmap.PAGESIZE, 2**21, 14  # MADV_HUGEPAGE
    start = libc.malloc(num_bytes)
    if not start:  # a limit on address space
        return False
    first = -(-start // page) * page
    length = max(0, start + num_bytes - first) // page * page
    is_advised = length < large_page or libc.madvise(first, length, advice) == 0
    libc.free(start)
    return is_advised


def make_room(num_bytes: int) -> bool:
    """Once what stays is allocated: leave a hole in the heap for the temporary memory of a step.

    A program takes that memory in one piece at every call. Where the piece lies in a hole that it
    just fits, the first small array to settle in a corner sends the next call to fresh memory, and
    training holds the piece twice. So the hole is larger than the piece, and there is a smaller
    one, which glibc prefers for whatever is small; an array of more than 64 MiB that outlives a
    step can still take the hole. Only address space is taken here: no page is touched, and pages
    that are free are given back. Nothing is done where `settle_memory` did nothing, and once there
    is a hole of the size.

    Args:
      num_bytes: of the piece; 0 if it is not known.

    Returns:
      Whether there is a hole.
    """
    if not num_bytes or not _heap.is_settled:
        return False
    if num_bytes > _heap.room_bytes:
        libc = _libc()
        places = [_walled_off(libc, size) for size in (2**26, num_bytes + 2**27)]
        for place in filter(None, places):
            libc.free(place)
        # What programs before left free here and there, the hole does not need. The top of the heap
        # goes with it.
        libc.malloc_trim(0)
        _reserve_large_pages(libc, psutil.virtual_memory().available // 2)
        if not all(places):  # a limit on address space
            return False
        _heap.room_bytes = num_bytes
    return True


def _walled_off(libc: ctypes.CDLL, num_bytes: int) -> int | None:
    """A piece with a megabyte above it that is never freed, so that it never grows together."""
    place, below = libc.malloc(num_bytes), []
    wall = libc.malloc(2**20) if place else None
    while wall and wall < place:  # free pieces further down come first
        below.append(wall)
        wall = libc.malloc(2**20)
    for each in below:
        libc.free(each)
    if place and not wall:
        libc.free(place)
    return place if wall else None


class StopRequest:
    """Set when the process is asked to stop; training looks at it between steps."""

    def __init__(self) -> None:
        self.signal_name = ""

    def __bool__(self) -> bool:
        return bool(self.signal_name)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGTERM and SIGINT into a `StopRequest` while the block runs.

    Handlers can be installed in the main thread alone; elsewhere the request is never set.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, _: FrameType | None) -> None:
        if request:  # a second signal means: now
            raise KeyboardInterrupt
        request.signal_name = signal.Signals(number).name
        print(f"{request.signal_name}: saving and stopping; again to stop at once", file=sys.stderr)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def environment() -> dict[str, Any]:
    """Versions, devices, processor and commit, for `results.json`."""
    devices = jax.local_devices()
    return {
        "python": platform.python_version(),
        **{name.replace("-", "_"): importlib.metadata.version(name) for name in PACKAGES},
        "devices": [device.device_kind for device in devices],
        "platform": devices[0].platform,
        "processor": processor(),
        "cpu_count": os.cpu_count(),
        "git": git_commit(),
    }


def num_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def git_commit() -> str:
    """The commit the package was run from, `-dirty` with changes; empty outside a checkout."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
