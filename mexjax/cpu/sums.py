"""Sums over large arrays whose intermediate arrays stay in the cache."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable

import chex
import jax
from jax import lax

from mexjax.cpu import is_cpu
from mexjax.cpu.ordering import zeros_after

# These are the bytes of one array in a block, and of the smallest array that is split into blocks.
BLOCK_BYTES, MIN_BYTES = 2**20, 2**25

Sums = tuple[jax.Array, ...]


def sum_terms(terms: Iterable[jax.Array]) -> jax.Array:
    """The sum of at least one array, added from left to right without a reduction."""
    return functools.reduce(operator.add, terms)


def rows_of_a_block(num_rows: int, row_bytes: int, block_bytes: int) -> int:
    """The most rows (or images) that divide `num_rows` and fit into a block; at least one."""
    most = min(num_rows, block_bytes // row_bytes)
    return next((m for m in range(most, 0, -1) if num_rows % m == 0), 1)


def sums_by_blocks(function: Callable[..., Sums], *arrays: jax.Array) -> Sums:
    """The sums of `function` over the rows of arrays f[N,...], at once or block by block.

    XLA:CPU writes the operands of a sum down before it sums them, which takes several passes over
    memory if the arrays are larger than the cache. Then blocks of rows are summed one by one.

    Args:
      function: it maps arrays f[n,...] to sums over the n rows, whose shapes and dtypes do not
        depend on n.
      *arrays: arrays of as many rows.

    Returns:
      The result of `function` for all rows, but for the order of the additions.

    Raises:
      AssertionError: the arrays differ in their number of rows.
    """
    chex.assert_equal_shape_prefix(arrays, 1)
    num_rows = arrays[0].shape[0]
    num_bytes = max(a.size * a.dtype.itemsize for a in arrays)
    rows = max(BLOCK_BYTES * num_rows // max(num_bytes, 1), 1)
    if not is_cpu() or num_bytes < MIN_BYTES or num_rows // rows < 2:
        return function(*arrays)
    return sums_over_blocks(function, rows, *arrays)


def sums_over_blocks(function: Callable[..., Sums], rows: int, *arrays: jax.Array) -> Sums:
    """The same in a loop over blocks of `rows` rows, and of the remaining rows after it."""
    num_rows = arrays[0].shape[0]
    # Axes of length one are dropped: layouts that differ in such an axis alone differ for XLA,
    # which would copy the array in front of the loop.
    squeezed = [a.reshape(num_rows, *(size for size in a.shape[1:] if size != 1)) for a in arrays]

    def add(totals: Sums, block: list[jax.Array]) -> Sums:
        return tuple(a + b for a, b in zip(totals, function(*block), strict=True))

    def body(i: jax.Array, totals: Sums) -> Sums:
        blocks = [lax.dynamic_slice_in_dim(a, i * rows, rows) for a in squeezed]
        pairs = zip(blocks, arrays, strict=True)
        return add(totals, [block.reshape(rows, *a.shape[1:]) for block, a in pairs])

    shapes = jax.eval_shape(function, *arrays)
    zeros = tuple(zeros_after(arrays[-1], s.shape, s.dtype) for s in shapes)
    totals = lax.fori_loop(0, num_rows // rows, body, zeros)
    end = num_rows // rows * rows
    return totals if end == num_rows else add(totals, [a[end:] for a in arrays])
