"""Work on clips on all cores, in order, by grain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import cv2

if TYPE_CHECKING:
    import grain

_Item = TypeVar("_Item")
_Output = TypeVar("_Output")


def parallel(
    work: Callable[[_Item], _Output], jobs: Sequence[_Item], num_workers: int
) -> grain.DatasetIterator[_Output]:
    """Do `work` for every job on all cores, in the order of the jobs, a few ahead of the reader.

    Args:
      work: called by threads, or, with workers, by threads of other processes.
      jobs: what to do; results that are None are left out.
      num_workers: processes; 0: threads of this one.

    Returns:
      An iterator that `close` ends.
    """
    # These bring JAX and Orbax; a finished folder need not wait a second for them.
    import grain
    from absl import flags

    from mexjax.machine import num_cores

    cores = num_cores()
    threads = max(1, cores // max(1, num_workers))
    # The buffer holds two clips a thread: a long clip at the front does not stop those behind it.
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    results = grain.MapDataset.source(list(jobs)).map(work).to_iter_dataset(read)
    if num_workers:
        if not flags.FLAGS.is_parsed():  # grain reads its own; only absl programs parse them
            flags.FLAGS.mark_as_parsed()
        results = results.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=1),
            worker_init_fn=_start_worker,
        )
    return iter(results)


def _start_worker(index: int, count: int) -> None:
    cv2.setNumThreads(1)


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Keep OpenCV from starting threads of its own, because the clips already use all cores."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
