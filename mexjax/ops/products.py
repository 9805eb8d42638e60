"""Matrix products of many rows whose weight gradient reads the rows once.

The weight gradient of y = x w sums over the rows of x and dy, tens of thousands where a row is a
pixel. XLA:CPU transposes one of the two for it, and fuses that with the elementwise operations that
make the array: these then run down the columns of arrays of many megabytes, a cache line for each
number. A loop over blocks of rows that fit into the cache keeps both apart.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax import lax

from mexjax.cpu import is_cpu
from mexjax.cpu.sums import sums_over_blocks
from mexjax.ops.mesh import vary_alike

# A block holds so many bytes of the rows of x and dy together.
BLOCK_BYTES = 2**21
MIN_BLOCKS, MIN_ROWS = 4, 256


def matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    """The product of x f[...,K] and w f[K,N]: f[...,N], in their promoted dtype.

    Sums are float32 or wider. On a CPU it has one derivative, in reverse mode.

    Raises:
      AssertionError: the last axis of x is not the last but one of w.
    """
    chex.assert_axis_dimension(w, w.ndim - 2, x.shape[-1])
    dtype = jnp.promote_types(x.dtype, w.dtype)
    x, w = x.astype(dtype), w.astype(dtype)
    if not is_cpu() or w.ndim != 2:
        return jnp.matmul(x, w)
    x, w = vary_alike(x, w)
    return _product(x.reshape(-1, x.shape[-1]), w).reshape(*x.shape[:-1], w.shape[-1])


def dot_general(x: jax.Array, w: jax.Array, dimension_numbers: Any, **options: Any) -> jax.Array:
    """`lax.dot_general` as `flax.linen.Dense` calls it: over the last axis of x, the first of w."""
    if dimension_numbers != (((x.ndim - 1,), (0,)), ((), ())) or any(options.values()):
        return lax.dot_general(x, w, dimension_numbers, **options)
    return matmul(x, w)


@jax.custom_vjp
def _product(x: jax.Array, w: jax.Array) -> jax.Array:
    return jnp.matmul(x, w)


def _product_fwd(x: jax.Array, w: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return jnp.matmul(x, w), (x, w)


def _product_bwd(saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, w = saved
    return jnp.matmul(dy, w.T), sum_of_outer_products(x, dy).astype(w.dtype)


_product.defvjp(_product_fwd, _product_bwd)


def sum_of_outer_products(x: jax.Array, y: jax.Array) -> jax.Array:
    """The product of x f[M,K] transposed and y f[M,N]: f[K,N], float32 or wider.

    Raises:
      AssertionError: not two matrices of as many rows.
    """
    chex.assert_rank([x, y], 2)
    chex.assert_equal_shape_prefix([x, y], 1)
    row_bytes = x.shape[1] * x.dtype.itemsize + y.shape[1] * y.dtype.itemsize
    rows = max(BLOCK_BYTES // row_bytes, MIN_ROWS)
    if x.shape[0] // rows < MIN_BLOCKS:
        return _outer(x, y)
    return sums_over_blocks(lambda x, y: (_outer(x, y),), rows, x, y)[0]


def _wide(x: jax.Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)


def _outer(x: jax.Array, y: jax.Array) -> jax.Array:
    contract = (((0,), (0,)), ((), ()))
    if x.shape[1] <= y.shape[1]:
        return lax.dot_general(x, y, contract, preferred_element_type=_wide(x))
    # The narrower one is transposed.
    return lax.dot_general(y, x, contract, preferred_element_type=_wide(x)).T
