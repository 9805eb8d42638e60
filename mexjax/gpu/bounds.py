"""Bounds of the time of a program on a GPU, from the kernels it is made of.

A kernel takes no less than its operations at the peak rate, and no less than its bytes at the
bandwidth of the memory (the roofline). Nor does it take less than the time of a launch: about
2 microseconds in a CUDA graph and 5 microseconds alone. A step that is measured takes longer.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

from mexjax.gpu.kernels import Contents, Kernel
from mexjax.gpu.targets import Gpu

GRAPH_S, LAUNCH_S = 2e-6, 5e-6


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Counts of one step, and bounds of its time in milliseconds.

    Attributes:
      kernels: launches.
      products: matrix products.
      convolutions: convolutions by direction, `groups` those with several groups.
      grouped: convolutions with several groups.
      gflop: operations of products and convolutions, in 10^9.
      convolution_gflop: those of convolutions.
      gbytes: bytes moved, in 10^9.
      by_kind: kernels and 10^9 bytes of each kind of kernel.
      dtypes: products and convolutions by the type of their first operand.
      roofline_ms: the sum over kernels of the greater of both limits.
      graph_ms: the same with at least 2 microseconds a kernel.
      launch_ms: the same with at least 5 microseconds a kernel.
    """

    kernels: int
    products: int
    convolutions: dict[str, int]
    grouped: int
    gflop: float
    convolution_gflop: float
    gbytes: float
    by_kind: dict[str, tuple[int, float]]
    dtypes: dict[str, int]
    roofline_ms: float
    graph_ms: float
    launch_ms: float

    def as_json(self) -> dict[str, Any]:
        """The fields, with figures rounded to four digits behind the point."""
        fields = dataclasses.asdict(self)
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in fields.items()}


def step_kernels(contents: Contents, num_steps: int) -> list[Kernel]:
    """The kernels of one step of a program that loops over `num_steps` steps.

    Those outside of the loop, which run once a call, do not count. A loop whose length is known
    only when it runs is read as one step already.
    """
    outer = [loop.trips for loop in contents.loops if loop.depth == 0]
    turns = num_steps if num_steps in outer else 1
    if num_steps == 1 or not {num_steps, None} & set(outer):
        return contents.kernels
    return [
        dataclasses.replace(kernel, trips=kernel.trips // turns)
        for kernel in contents.kernels
        if kernel.depth >= 1 and kernel.trips % turns == 0
    ]


def seconds(kernel: Kernel, gpu: Gpu, *, is_exact: bool = False) -> float:
    """The roofline of one kernel."""
    rate = gpu.peaks.of(kernel.dtype or "float32", is_exact=is_exact)
    return max(kernel.flops / rate, kernel.num_bytes / gpu.bytes_per_s)


def bounds(kernels: list[Kernel], gpu: Gpu, *, is_exact: bool = False) -> Bounds:
    """The bounds of kernels that run one after the other.

    Args:
      kernels: those of a step.
      gpu: the device.
      is_exact: true if products of float32 numbers are not rounded to TF32.
    """
    times = [(k.trips, seconds(k, gpu, is_exact=is_exact)) for k in kernels]
    convolutions = [k for k in kernels if k.kind == "convolution"]
    directions: collections.Counter[str] = collections.Counter()
    dtypes: collections.Counter[str] = collections.Counter()
    kinds: dict[str, tuple[int, float]] = {}
    for k in kernels:
        count, gbytes = kinds.get(k.kind, (0, 0.0))
        kinds[k.kind] = count + k.trips, round(gbytes + k.trips * k.num_bytes / 1e9, 6)
        if k.kind == "convolution":
            directions[k.label] += k.trips
        if k.kind in ("convolution", "product"):
            dtypes[k.dtype] += k.trips

    def at_least(floor: float) -> float:
        return 1e3 * sum(trips * max(time, floor) for trips, time in times)

    return Bounds(
        kernels=sum(k.trips for k in kernels),
        products=sum(k.trips for k in kernels if k.kind == "product"),
        convolutions=dict(sorted(directions.items())),
        grouped=sum(k.trips for k in convolutions if k.groups > 1),
        gflop=sum(k.trips * k.flops for k in kernels) / 1e9,
        convolution_gflop=sum(k.trips * k.flops for k in convolutions) / 1e9,
        gbytes=sum(k.trips * k.num_bytes for k in kernels) / 1e9,
        by_kind=dict(sorted(kinds.items())),
        dtypes=dict(sorted(dtypes.items())),
        roofline_ms=at_least(0.0),
        graph_ms=at_least(GRAPH_S),
        launch_ms=at_least(LAUNCH_S),
    )
