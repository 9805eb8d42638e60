"""The cost of a run: compilations, memory, operations, and the number of folds in a program."""

from __future__ import annotations

import logging
import math
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mexjax import machine
from mexjax.gpu.bounds import GRAPH_S
from mexjax.gpu.targets import PEAKS, bandwidth_of, peaks_of
from mexjax.target import Target
from mexjax.train import flops

log = logging.getLogger(__name__)

# The largest group where no step was estimated. A CPU is busy with one fold: two in a program take
# as long as two programs, and compile longer.
LARGEST_GROUP = {"cpu": 1, "gpu": 8, "tpu": 8}
# The largest group of all: a larger one only lengthens compilation.
MOST_FOLDS = 64
# A training step beside the forward pass as it is traced: bytes that its kernels move for each byte
# of a result, and kernels for each operation. In the programs that XLA compiles for an H200 these
# are 2.2 to 2.9 and 0.4 to 1.1. The optimiser reads four numbers a parameter and writes three.
BYTES_PER_RESULT, KERNELS_PER_OPERATION, BYTES_PER_PARAMETER = 2.5, 1.0, 28
# Seconds that the host of a GPU loses when it waits for an answer of the device.
ANSWER_S = 20e-6
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


class StepBound(NamedTuple):
    """An estimate of one fold's training step on a GPU, made before it is compiled.

    Attributes:
      work_s: seconds that its operations and bytes take at the peaks of the device.
      launch_s: seconds that its launches take, at 2 microseconds each. A group of folds has
        about as many as one fold.
    """

    work_s: float
    launch_s: float

    @property
    def folds_worth(self) -> int:
        """Folds of a group whose work is as long as its launches; at least one."""
        return max(1, math.ceil(self.launch_s / self.work_s)) if self.work_s > 0 else MOST_FOLDS

    @property
    def seconds(self) -> float:
        """The longer of the two."""
        return max(self.work_s, self.launch_s)


def step_bound(
    forward: flops.Work,
    num_params: int,
    target: Target,
    dtype: str,
    *,
    is_exact: bool = False,
) -> StepBound:
    """Estimates a training step from its forward pass; it is a bound, not a measurement.

    Args:
      forward: the forward pass of a training batch, see `flops.forward_work`.
      num_params: trained parameters of a fold.
      target: the devices; a kind that is not known counts as an A100.
      dtype: the type the network computes in.
      is_exact: true if products of float32 numbers are not rounded to TF32.
    """
    entry = peaks_of(target.kind) or ("A100", PEAKS["A100"])
    num_bytes = BYTES_PER_RESULT * forward.num_bytes + BYTES_PER_PARAMETER * num_params
    bandwidth = bandwidth_of(target.kind)
    rate = entry[1].of(dtype, is_exact=is_exact)
    work = flops.train_flops(int(forward.flops)) / rate + num_bytes / bandwidth
    return StepBound(work, KERNELS_PER_OPERATION * forward.num_operations * GRAPH_S)


def skipping_pays(valid: np.ndarray, num_folds: int, bound: StepBound) -> bool:
    """True if leaving out steps that no fold of a group has saves more than it costs on a GPU.

    Whether a step is run is then known to the device only: the host waits for its answer before
    every step.

    Args:
      valid: bool[F, S], the steps of every fold of the run.
      num_folds: folds in a group, over all devices.
      bound: see `step_bound`.
    """
    starts = range(0, len(valid), num_folds)
    busy = np.stack([valid[start : start + num_folds].any(axis=0) for start in starts])
    num_idle = busy.size - busy.sum()
    return bool(num_idle * bound.seconds > busy.sum() * ANSWER_S)


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


def first_group(
    num_folds: int,
    devices: Sequence[Any],
    asked: int,
    *,
    strategy: str,
    bound: StepBound | None = None,
    begun: int = 0,
) -> GroupSize:
    """The largest group that is worth to be tried.

    On a GPU a small network's step is as long as its launches, which a group of folds shares: the
    group grows until its work outweighs them. A step of a large network is as long as its work; its
    folds gain nothing in a group and take memory each, so that they run one by one.

    Args:
      num_folds: folds of the run.
      devices: those that the strategy uses.
      asked: `folds.per_chunk`; 0: the size follows from memory.
      strategy: `loop`, `vmap` or `shard`; `loop` runs one fold at a time.
      bound: an estimate of one fold's step, for a GPU.
      begun: folds on each device with which the run was begun; 0: it begins now.
    """
    on_each = -(-num_folds // len(devices))
    if strategy == "loop":
        return GroupSize(1, "the strategy loop runs one fold at a time", fits=True)
    if begun > 0:
        return GroupSize(min(begun, on_each), "the run was begun so", fits=True)
    if asked > 0:
        reason = f"folds.per_chunk={asked}, {on_each} folds per device"
        return GroupSize(min(asked, on_each), reason, fits=True)
    platform = Target(tuple(devices)).platform
    largest = LARGEST_GROUP.get(platform, 8)
    if bound is not None:
        largest = min(bound.folds_worth, MOST_FOLDS)
    # Groups are equal: 10 folds and at most 8 give two groups of 5, without padding.
    size = -(-on_each // -(-on_each // largest))
    reason = f"of {on_each} folds per {platform} device: no more than {largest} pays"
    if bound is not None:
        reason += (
            f", a fold's step being bound to {1e3 * bound.work_s:.2g} ms of work and a group's to"
            f" {1e3 * bound.launch_s:.2g} ms of launches"
        )
    return GroupSize(size, reason)


def describe_groups(num_folds: int, num_devices: int, size: GroupSize) -> str:
    """The groups of a run's folds and the reason for their size, in one line.

    Args:
      num_folds: folds of the run.
      num_devices: devices that the strategy uses.
      size: folds in a group on one device.
    """
    per_group = size.per_device * num_devices
    count = -(-num_folds // per_group)
    if per_group == 1:
        text = f"{num_folds} folds, one by one" if num_folds > 1 else "1 fold"
    else:
        folds = "1 fold" if num_folds == 1 else f"{num_folds} folds"
        text = f"{folds} in {f'{count} groups' if count > 1 else 'one group'}"
        if count > 1:
            text += f" of {per_group}"
    if num_devices > 1:
        text += f", {size.per_device} on each of {num_devices} devices"
        # The last places of a group that is not full are empty.
        idle = num_devices - -(-num_folds // size.per_device)
        if idle > 0:
            text += f", of which {idle} {'has' if idle == 1 else 'have'} no fold"
    return f"{text} ({size.reason})"


def measured(size: GroupSize, train: jax.stages.Compiled, devices: Sequence[Any]) -> GroupSize:
    """The size, with the answer whether its training program fits; one fold always does."""
    if size.fits:
        return size
    device = devices[0]
    free = free_bytes(device)
    # The devices of a CPU share its memory.
    needed = needed_bytes(train) * (len(devices) if device.platform == "cpu" else 1)
    text = (
        f"{size.per_device} {size.reason};"
        f" the step needs {needed / 2**30:.2f} GiB of {free / 2**30:.1f} GiB free"
    )
    fits = needed <= MEMORY_SHARE * free or size.per_device == 1
    if fits:
        log.info("folds.per_chunk: %s", text)
    return GroupSize(size.per_device, text if fits else size.reason, fits)


def smaller(size: GroupSize) -> GroupSize:
    """A group of half the size."""
    reason = f"{size.reason.partition(';')[0]}; {size.per_device} do not fit"
    return size._replace(per_device=-(-size.per_device // 2), reason=reason)


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
