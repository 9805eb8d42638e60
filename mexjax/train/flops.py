"""Operations that a network's matrix products need, and that a device can do.

They are counted in the graph of the forward pass, with every convolution in its direct form,
whatever its lowering. One multiplication and one addition are two operations.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mexjax.gpu.targets import peaks_of
from mexjax.ops import conv


class Peak(NamedTuple):
    """Operations per second, and the source of the figure."""

    flops_per_s: float
    source: str


def forward_flops(function: Callable[..., Any], *args: Any) -> int:
    """Operations in the matrix products and convolutions of `function(*args)`.

    Args:
      function: a forward pass; it is traced, not run.
      *args: arrays or their shapes.

    Raises:
      ValueError: a matrix product inside a loop whose length is not known before it runs.
    """
    with conv.use_lowering("native"):
        jaxpr = jax.make_jaxpr(function)(*args)
    return _count(jaxpr.jaxpr)


class Work(NamedTuple):
    """The work of a function as it is traced, before any compilation.

    Attributes:
      flops: operations of its matrix products and convolutions.
      num_bytes: bytes of the results of all its operations.
      num_operations: its operations, those of a loop as often as they run.
    """

    flops: float
    num_bytes: float
    num_operations: float


def forward_work(function: Callable[..., Any], *args: Any) -> Work:
    """The work of a forward pass; the arguments are those of `forward_flops`."""
    with conv.use_lowering("native"):
        jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    sizes = [
        (times, sum(var.aval.size * var.aval.dtype.itemsize for var in eqn.outvars))
        for eqn, times in _operations(jaxpr)
    ]
    return Work(
        flops=_count(jaxpr),
        num_bytes=sum(times * size for times, size in sizes),
        num_operations=sum(times for times, _ in sizes),
    )


def _operations(jaxpr: Any, times: int = 1) -> Iterator[tuple[Any, int]]:
    """The equations that call no others, and how often each runs."""
    for eqn in jaxpr.eqns:
        inner = list(_subgraphs(eqn.params))
        if not inner:
            yield eqn, times
        for sub in inner:
            length = eqn.params["length"] if eqn.primitive.name == "scan" else 1
            yield from _operations(sub, times * length)


def train_flops(forward: int) -> int:
    """Operations of a training step: both gradients of a product cost as much as the product."""
    return 3 * forward


def _count(jaxpr: Any) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            shape = eqn.invars[0].aval.shape
            depth = math.prod(shape[i] for i in contracted)
            total += 2 * math.prod(eqn.outvars[0].aval.shape) * depth
        elif name == "conv_general_dilated":
            numbers = eqn.params["dimension_numbers"]
            kernel = eqn.invars[1].aval.shape
            # The kernel's input axis holds the channels of one group.
            per_output = math.prod(kernel) // kernel[numbers.rhs_spec[0]]
            total += 2 * math.prod(eqn.outvars[0].aval.shape) * per_output
        else:
            inner = sum(_count(sub) for sub in _subgraphs(eqn.params))
            if inner and name == "while":
                raise ValueError("forward_flops: a matrix product inside a while loop")
            total += inner * (eqn.params["length"] if name == "scan" else 1)
    return total


def _subgraphs(params: dict[str, Any]) -> Iterator[Any]:
    """The graphs that an equation calls; the last one of several branches stands for all."""
    for key, value in params.items():
        if key in ("fwd_jaxpr_thunk", "bwd", "jvp_jaxpr_fun"):
            continue
        values = value[-1:] if key == "branches" else [value]
        for item in values:
            if hasattr(item, "jaxpr"):
                yield item.jaxpr
            elif hasattr(item, "eqns"):
                yield item


def device_peak(dtype: str, *, precision: str | None = None) -> Peak:
    """The most operations that the first local device can do in matrix products.

    Args:
      dtype: the type the network computes in, `float32` or `bfloat16`.
      precision: precision of float32 products, as `jax_default_matmul_precision`; on GPUs from
        Ampere on JAX rounds them to TF32 unless it is `highest` or `float32`.

    Returns:
      The maker's figure where the device is known; else a measured product of 2048 x 2048.
    """
    device = jax.local_devices()[0]
    entry = peaks_of(device.device_kind)
    if entry is not None:
        name, peaks = entry
        is_exact = precision in ("highest", "float32")
        kind = dtype if dtype == "bfloat16" else "float32" if is_exact else "TF32"
        rate = peaks.of(dtype, is_exact=is_exact)
        return Peak(rate, f"maker's figure for {name}, {kind}")
    return Peak(_measure_product(dtype), "measured product of 2048 x 2048 matrices")


def _measure_product(dtype: str, size: int = 2048, repeats: int = 3) -> float:
    a = jnp.asarray(np.ones((size, size), np.float32), dtype)
    product = jax.jit(jnp.matmul).lower(a, a).compile()
    jax.block_until_ready(product(a, a))
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(product(a, a))
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
