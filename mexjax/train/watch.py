"""The surroundings of a training: display, signals, heap, compilations, and lack of memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from mexjax import processes
from mexjax.cpu.heap import Heap, heap_for_training
from mexjax.errors import OutOfMemoryError
from mexjax.ops import conv
from mexjax.progress import TrainProgress
from mexjax.train import cost
from mexjax.train.stop import StopRequest, stop_on_signals


class Watch(NamedTuple):
    """Everything that follows a run without being part of it.

    Attributes:
      progress: the display.
      stop: true if the process was asked to stop.
      counter: counter of compilations.
      heap: the heap of the process, on a CPU.
    """

    progress: TrainProgress
    stop: StopRequest
    counter: cost.CompileCounter
    heap: Heap


@contextlib.contextmanager
def watched(config: ConfigDict) -> Iterator[Watch]:
    """Prepare the process for a run, and explain it if the device has too little memory."""
    try:
        with (
            stop_on_signals() as stop,
            heap_for_training(config.cpu_heap) as heap,
            conv.use_lowering(config.conv),
            cost.CompileCounter() as counter,
            TrainProgress(is_shown=config.has_progress and processes.is_first()) as progress,
        ):
            yield Watch(progress, stop, counter, heap)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemoryError(
            f"The device has too little memory for this run ({str(error).splitlines()[0][:200]})."
            f" Lower folds.per_chunk (now {config.folds.per_chunk}, 0 means chosen from memory) or"
            f" train.batch_size (now {config.train.batch_size}), or set train.is_remat=true;"
            " finished folds are kept."
        ) from error
