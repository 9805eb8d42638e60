"""The time of a function on a device, without the time that the host takes to start it.

A kernel of a GPU may take less time than its start from Python, so one call is no measure. Here
a compiled loop applies the function many times, and several calls of the loop follow each other.
The time of many calls less that of one holds neither the start nor the wait for the end.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def _touched(x: jax.Array, by: jax.Array) -> jax.Array:
    """The same array but for one element, which depends on `by`."""
    return x.at[(0,) * x.ndim].add((by * 1e-30).astype(x.dtype))


def make_loop(function: Callable[..., jax.Array], length: int) -> Callable[..., Any]:
    """A compilable loop that applies `function` `length` times.

    Every round changes one element of each argument by the output of the round before, so that
    rounds cannot overlap, be left out or leave a part before the loop. The output is carried, so
    that all of it must be computed. The two changes take a few microseconds of a GPU.

    Args:
      function: maps arrays to one array.
      length: number of rounds, known when compiled: a GPU does not ask the host after each.

    Returns:
      A function of the arguments and an output, which gives both after the loop.
    """

    def loop(arguments: tuple[jax.Array, ...], output: jax.Array) -> Any:
        def body(_: jax.Array, carry: Any) -> Any:
            arguments, output = carry
            by = output[(0,) * output.ndim]
            arguments = tuple(_touched(x, by) for x in arguments)
            return arguments, function(*arguments)

        return jax.lax.fori_loop(0, length, body, (arguments, output))

    return loop


def device_ms(
    function: Callable[..., jax.Array],
    arguments: tuple[jax.Array, ...],
    *,
    length: int = 20,
    calls: int = 5,
    repeats: int = 3,
    budget_s: float = 0.5,
    hopeless_ms: float = math.inf,
) -> float:
    """Milliseconds of one application of a function on the device of its arguments.

    Args:
      function: maps arrays to one array.
      arguments: the arrays.
      length: applications in a compiled loop.
      calls: calls of the loop that follow each other beside the one that is subtracted.
      repeats: measurements; their median counts.
      budget_s: seconds for all measurements; slow functions take fewer calls, at least one.
      hopeless_ms: a function slower than this is measured by one call alone.

    Returns:
      The time; never less than zero.
    """
    output = jax.eval_shape(function, *arguments)
    carry = arguments, jnp.zeros(output.shape, output.dtype)
    compiled = jax.jit(make_loop(function, length)).lower(*carry).compile()
    carry = jax.block_until_ready(compiled(*carry))

    def seconds(count: int) -> float:
        nonlocal carry
        start = time.perf_counter()
        for _ in range(count):
            carry = compiled(*carry)
        jax.block_until_ready(carry)
        return time.perf_counter() - start

    first_ms = 1e3 * seconds(1) / length
    if first_ms > hopeless_ms:
        return first_ms
    calls = max(1, min(calls, int(budget_s / repeats / max(1e-3 * first_ms * length, 1e-9)) - 2))
    differences = [seconds(1 + calls) - seconds(1) for _ in range(repeats)]
    return max(1e3 * statistics.median(differences) / (calls * length), 0.0)
