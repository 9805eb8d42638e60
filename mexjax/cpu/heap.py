"""The heap of a process that trains on the CPU: memory that XLA frees is kept for the next call.

XLA:CPU takes the temporary memory of a program anew at every call. By default the C library gives
large pieces back to the kernel at once, which hands out fresh, zeroed pages at the next call. Three
settings mend that, and their order matters:

1. `run_in_calling_thread`, before JAX starts its backend;
2. `Heap.keep_freed_memory`, after compilation, whose many small pieces would stay in the way;
3. `KeptHeap.reserve_hole`, once the arrays that stay are allocated. The result of
   `keep_freed_memory` alone has this method.

They are settings of the whole process and of glibc; elsewhere nothing is done. No number changes.
The key `cpu_heap` turns them off. `docs/performance.md` has the gains.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import psutil

from mexjax.cpu import is_cpu


def run_in_calling_thread() -> None:
    """Make XLA:CPU run programs in the thread that calls them; call it before any JAX work.

    In threads of its own XLA takes large arrays from heaps that give every one back to the kernel
    at once, whatever `keep_freed_memory` says. Other devices are not touched, nor is a backend that
    exists already.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)


@contextmanager
def heap_for_training(is_on: bool = True) -> Iterator[Heap]:
    """Hold the heap settings of a training run.

    A library does not change its user's memory unasked: in a process that did not call
    `run_in_calling_thread`, the heap that is yielded does nothing. The memory that the heap walled
    off is free again after the block; the settings of the C library stay, since it cannot take them
    back.

    Args:
      is_on: False for a heap that does nothing.
    """
    if is_on and not jax.config.read("jax_cpu_enable_async_dispatch"):
        heap = Heap(_libc())
    else:
        heap = Heap(None)
    try:
        yield heap
    finally:
        heap.close()


class Heap:
    """The heap before training; `heap_for_training` gives it."""

    def __init__(self, libc: ctypes.CDLL | None) -> None:
        self._libc = libc
        self._walls: list[int] = []

    def keep_freed_memory(self) -> KeptHeap:
        """Keep freed memory, on large pages; call it between compilation and training.

        Where Linux gives large pages only to a process that asks (the usual setting), pages of
        4 KiB cost as much as fresh ones. So the memory that compiling freed is given back, from
        here on freed memory is kept, and in the main thread half of the available memory is asked
        for as large pages and freed without being touched: later allocations lie in it.
        """
        libc = self._libc
        if libc is None:
            return KeptHeap(None, [], is_kept=False)
        mmap_max, trim_threshold, top_pad, arena_max = -4, -1, -2, -8
        unlimited = -1
        settings = {mmap_max: 0, trim_threshold: unlimited, top_pad: 2**26, arena_max: 1}
        try:
            libc.malloc_trim(0)
            is_kept = all([libc.mallopt(key, value) == 1 for key, value in settings.items()])
            # Another thread would reserve them in a heap of its own; another device needs none.
            is_main = threading.current_thread() is threading.main_thread()
            if not (is_main and is_cpu()):
                return KeptHeap(None, [], is_kept=is_kept)
            is_advised = _reserve_large_pages(libc, psutil.virtual_memory().available // 2)
        except AttributeError:  # a C library without these functions
            return KeptHeap(None, [], is_kept=False)
        return KeptHeap(libc if is_kept else None, self._walls, is_kept=is_kept and is_advised)

    def close(self) -> None:
        """Free the walls of the holes."""
        while self._libc is not None and self._walls:
            self._libc.free(self._walls.pop())


class KeptHeap:
    """The heap during training; `Heap.keep_freed_memory` gives it.

    Attributes:
      is_kept: true if the C library accepted all settings.
    """

    def __init__(self, libc: ctypes.CDLL | None, walls: list[int], *, is_kept: bool) -> None:
        self.is_kept = is_kept
        self._libc, self._walls, self._hole_bytes = libc, walls, 0

    def reserve_hole(self, num_bytes: int) -> bool:
        """Leave a hole in the heap for the memory of a step; call it once lasting arrays are there.

        A program takes its temporary memory in one piece at every call. If the piece lies in a hole
        of its own size, the first small array to settle in a corner sends the next call to fresh
        memory, and training holds the piece twice. So the hole is larger than the piece, and
        there is a smaller one, which glibc prefers for small pieces; an array of more than 64 MiB
        that outlives a step can still take the hole. Only address space is taken here: no page is
        touched, and pages that are free are given back. Nothing is done once there is a hole of the
        size.

        Args:
          num_bytes: size of the piece; 0 if it is not known.

        Returns:
          True if there is a hole.
        """
        libc = self._libc
        if not num_bytes or libc is None:
            return False
        if num_bytes > self._hole_bytes:
            places = [self._walled_off(libc, size) for size in (2**26, num_bytes + 2**27)]
            for place in filter(None, places):
                libc.free(place)
            # The hole does not need the pieces that earlier programs left free here and there. The
            # top of the heap goes with them.
            libc.malloc_trim(0)
            _reserve_large_pages(libc, psutil.virtual_memory().available // 2)
            if not all(places):  # a limit on address space
                return False
            self._hole_bytes = num_bytes
        return True

    def _walled_off(self, libc: ctypes.CDLL, num_bytes: int) -> int | None:
        """A piece with a megabyte above it, a wall, so that it never grows together with others."""
        place, below = libc.malloc(num_bytes), []
        wall = libc.malloc(2**20) if place else None
        while wall and wall < place:  # free pieces further down come first
            below.append(wall)
            wall = libc.malloc(2**20)
        for piece in below:
            libc.free(piece)
        if wall:
            self._walls.append(wall)
        elif place:
            libc.free(place)
        return place if wall else None


def _libc() -> ctypes.CDLL | None:
    """The C library of this process; None where it has no `malloc` of the usual kind."""
    try:
        libc = ctypes.CDLL(None)
        libc.malloc.restype = ctypes.c_void_p
        libc.malloc.argtypes = [ctypes.c_size_t]
        libc.free.argtypes = [ctypes.c_void_p]
        libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    except (AttributeError, OSError, TypeError):
        return None
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
