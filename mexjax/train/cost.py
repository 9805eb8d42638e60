"""The cost of a run: compilations, memory, operations, and the number of folds in a program."""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from mexjax import machine
from mexjax.target import Target
from mexjax.train import flops

log = logging.getLogger(__name__)

# Small groups keep a GPU busy; larger ones only lengthen compilation. A CPU is busy with one fold:
# two in a program take as long as two programs, and compile longer.
LARGEST_GROUP = {"cpu": 1, "gpu": 8, "tpu": 8}
# Share of the free memory a group may plan for: the rest is for evaluation and checkpoints.
MEMORY_SHARE = 0.8


class CompileCounter:
    """Counts XLA compilations while it is entered.

    Attributes:
      count: compilations so far.
      num_before_training: those between `begin` and `end`.
      seconds: time between the two.
    """

    _EVENT = "/jax/core/compile/backend_compile_duration"

    def __init__(self) -> None:
        self.count = self.num_before_training = 0
        self.seconds = 0.0

    def _listen(self, event: str, duration_secs: float, **_: Any) -> None:
        del duration_secs
        if event == self._EVENT:
            self.count += 1

    def begin(self) -> None:
        """Mark the time from which programs are compiled."""
        self.count, self.seconds = 0, -time.perf_counter()

    def end(self) -> None:
        """Mark the time from which programs run."""
        self.num_before_training = self.count
        self.seconds += time.perf_counter()

    def __enter__(self) -> CompileCounter:
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)


class GroupSize(NamedTuple):
    """The number of folds that one program takes on one device, and the reason.

    Attributes:
      per_device: number of folds.
      reason: a sentence for perf.json and the log.
      fits: False if the program needs too much memory, or if that is not known yet.
    """

    per_device: int
    reason: str
    fits: bool = False


# The checker takes jax.Device, which is a second name of a class, for a variable.
def free_bytes(device: jax.Device) -> int:  # pyright: ignore[reportInvalidTypeForm]
    """Memory left on a device; for the CPU the memory the machine has available."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return machine.free_bytes()


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


def first_group(num_folds: int, devices: Sequence[Any], asked: int, *, strategy: str) -> GroupSize:
    """The largest group that is worth to be tried.

    Args:
      num_folds: folds of the run.
      devices: those that the strategy uses.
      asked: `folds.per_chunk`; 0: the size follows from memory.
      strategy: `loop`, `vmap` or `shard`; `loop` runs one fold at a time.
    """
    on_each = -(-num_folds // len(devices))
    if strategy == "loop":
        return GroupSize(1, "folds.strategy=loop runs one fold at a time", fits=True)
    if asked > 0:
        reason = f"folds.per_chunk={asked}, {on_each} folds per device"
        return GroupSize(min(asked, on_each), reason, fits=True)
    platform = Target(tuple(devices)).platform
    largest = LARGEST_GROUP.get(platform, 8)
    # Groups are equal: 10 folds and at most 8 give two groups of 5, without padding.
    size = -(-on_each // -(-on_each // largest))
    return GroupSize(size, f"of {on_each} folds per {platform} device: no more than {largest} pays")


def measured(size: GroupSize, train: jax.stages.Compiled, devices: Sequence[Any]) -> GroupSize:
    """The size, with the answer whether its training program fits; one fold always does."""
    if size.fits:
        return size
    device = devices[0]
    free = free_bytes(device)
    # The devices of a CPU share its memory.
    needed = needed_bytes(train) * (len(devices) if device.platform == "cpu" else 1)
    text = (
        f"{size.per_device} {size.reason}"
        f" off there; the step needs {needed / 2**30:.2f} GiB of {free / 2**30:.1f} GiB free"
    )
    fits = needed <= MEMORY_SHARE * free or size.per_device == 1
    if fits:
        log.info("folds.per_chunk: %s", text)
    return GroupSize(size.per_device, text if fits else size.reason, fits)


def smaller(size: GroupSize) -> GroupSize:
    """A group of half the size."""
    return size._replace(per_device=-(-size.per_device // 2))


def peak_bytes() -> int:
    """Most memory in use so far by the first device or, if that is the CPU, by this process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib * (1 if sys.platform == "darwin" else 1024)


def utilisation(
    forward_flops: int, num_clips: float, seconds: float, dtype: str, num_devices: int
) -> dict[str, Any]:
    """The share of its devices that a training run used.

    Args:
      forward_flops: operations for one clip, see `mexjax.train.flops`.
      num_clips: number of clips trained on.
      seconds: time of training; 0 if nothing was trained.
      dtype: the type the network computes in.
      num_devices: number of devices that shared the work.

    Returns:
      `forward_flops_per_clip`, `model_flops_per_s`, `peak_flops_per_s` of one device and where it
      is from, and `mfu`, the share of the peak that went into the network's matrix products.
    """
    # JAX defines the attributes of its configuration when it runs.
    precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
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
