"""What a run costs: compilations, memory, operations, and how many folds fit in one program."""

from __future__ import annotations

import logging
import resource
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import jax
import psutil

from mexjax.train import flops

log = logging.getLogger(__name__)

T = TypeVar("T")

# Small groups keep a GPU busy; larger ones only lengthen compilation. A CPU is busy with one fold:
# two in a program take as long as two programs, and compile longer.
LARGEST_GROUP = {"cpu": 1, "gpu": 8, "tpu": 8}
# Share of the free memory a group may plan for: the rest is for evaluation and checkpoints.
MEMORY_SHARE = 0.8


class CompileCounter:
    """Counts XLA compilations and their seconds while it is entered."""

    _EVENT = "/jax/core/compile/backend_compile_duration"

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0

    def _listen(self, event: str, duration_s: float, **_: Any) -> None:
        if event == self._EVENT:
            self.count += 1
            self.seconds += duration_s

    def __enter__(self) -> CompileCounter:
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)


class GroupSize(NamedTuple):
    """How many folds one program takes on one device, and why."""

    per_device: int
    reason: str


def free_bytes(device: jax.Device) -> int:
    """Memory left on a device; for the CPU the memory the machine has available."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return psutil.virtual_memory().available


def needed_bytes(compiled: jax.stages.Compiled) -> int:
    """Memory a compiled program needs: arguments, temporaries and outputs that reuse neither."""
    memory = compiled.memory_analysis()
    if memory is None:
        return 0
    fresh_outputs = max(memory.output_size_in_bytes - memory.alias_size_in_bytes, 0)
    return memory.temp_size_in_bytes + memory.argument_size_in_bytes + fresh_outputs


def temporary_bytes(compiled: jax.stages.Compiled) -> int:
    """Memory a compiled program takes and gives back at every call; 0 where XLA does not say."""
    memory = compiled.memory_analysis()
    return memory.temp_size_in_bytes if memory else 0


def choose_group(
    num_folds: int,
    num_devices: int,
    asked: int,
    *,
    is_single: bool,
    build: Callable[[int], T],
    train_program: Callable[[T], jax.stages.Compiled],
) -> tuple[GroupSize, T]:
    """Find how many folds a program takes per device, compiling as few candidates as possible.

    Args:
      num_folds: folds of the run.
      num_devices: devices the strategy uses.
      asked: `folds.per_chunk`; 0 means from memory.
      is_single: True for the strategy that runs one fold at a time.
      build: compiles the programs for a given number of folds per device.
      train_program: the training program among what `build` gave.

    Returns:
      The size with its reason, and what `build` gave for it.
    """
    device = jax.local_devices()[0]
    on_each = -(-num_folds // num_devices)
    if is_single:
        return GroupSize(1, "folds.strategy=loop runs one fold at a time"), build(1)
    if asked > 0:
        size = min(asked, on_each)
        return GroupSize(size, f"folds.per_chunk={asked}, {on_each} folds per device"), build(size)
    largest = LARGEST_GROUP.get(device.platform, 8)
    # Equal groups: with 10 folds and at most 8, two groups of 5 and none of padding.
    size = -(-on_each // -(-on_each // largest))
    free = free_bytes(device)
    while True:
        built = build(size)
        needed = needed_bytes(train_program(built)) * (
            num_devices if device.platform == "cpu" else 1
        )
        fits = needed <= MEMORY_SHARE * free
        text = (
            f"{size} of {on_each} folds per {device.platform} device: no more than {largest} pays"
            f" off there; the step needs {needed / 2**30:.2f} GiB of {free / 2**30:.1f} GiB free"
        )
        if fits or size == 1:
            log.info("folds.per_chunk: %s", text)
            return GroupSize(size, text), built
        size = -(-size // 2)


def peak_bytes() -> int:
    """Most memory in use so far: of the first device, or of this process where the CPU is it."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib * (1 if sys.platform == "darwin" else 1024)


def utilisation(
    forward_flops: int, num_clips: float, seconds: float, dtype: str, num_devices: int
) -> dict[str, Any]:
    """What a training run made of its devices.

    Args:
      forward_flops: of one clip, see `mexjax.train.flops`.
      num_clips: trained on.
      seconds: that took; 0 if nothing was trained.
      dtype: what the network computes in.
      num_devices: that shared the work.

    Returns:
      `forward_flops_per_clip`, `model_flops_per_s`, `peak_flops_per_s` of one device and where it
      is from, and `mfu`, the share of the peak that went into the network's matrix products.
    """
    precision = jax.config.jax_default_matmul_precision
    peak = flops.device_peak(dtype, precision=str(precision) if precision else None)
    rate = num_clips * flops.train_flops(forward_flops) / seconds if seconds > 0 else 0.0
    return {
        "forward_flops_per_clip": forward_flops,
        "model_flops_per_s": rate,
        "peak_flops_per_s": peak.flops_per_s,
        "peak_source": peak.source,
        "mfu": rate / (peak.flops_per_s * num_devices),
    }


def cost(compiled: jax.stages.Compiled) -> dict[str, float]:
    """Operations and bytes XLA counts in a program; empty where it does not say."""
    analysis = compiled.cost_analysis() or {}
    memory = compiled.memory_analysis()
    out = {"flops": float(analysis.get("flops", 0.0))}
    if memory is not None:
        out["temp_bytes"] = float(memory.temp_size_in_bytes)
        out["argument_bytes"] = float(memory.argument_size_in_bytes)
    return out
