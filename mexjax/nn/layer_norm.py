"""Layer normalisation over channels, with a gradient that keeps its input alone."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from mexjax.cpu import is_cpu
from mexjax.cpu.ordering import copy_after, empty_after, zeros_after
from mexjax.cpu.sums import rows_of_a_block
from mexjax.ops.gradients import custom_vjp
from mexjax.ops.mesh import vary_alike

# Bytes of a block of rows, and its fewest rows: with fewer the loop would have many steps.
BLOCK_BYTES, MIN_ROWS = 2**20, 128


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(var + epsilon) * scale + bias over the last axis of f[...,C], in float32.

    The numbers and the parameters `scale` and `bias` are those of `flax.linen.LayerNorm`. The
    gradient here
    keeps x and two numbers a row; under XLA:CPU that of flax keeps six arrays of the size of x,
    among them statistics and parameters that are spread out.

    Attributes:
      epsilon: added to the variance.
      dtype: dtype of the result; parameters and statistics are float32.
    """

    epsilon: float = 1e-6
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise the rows of x f[...,C]; the shape stays."""
        features = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (features,))
        bias = self.param("bias", nn.initializers.zeros, (features,))
        rows, scale = vary_alike(x.reshape(-1, features), scale)
        rows, bias = vary_alike(rows, bias)
        y = _normalise(self.epsilon, rows, scale, bias)
        return y.reshape(x.shape).astype(self.dtype)


def _moments(epsilon: float, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean and 1 / sqrt(var + epsilon) of the rows of f[M,C], f32[M,1] each."""
    x = x.astype(jnp.float32)
    mean = x.mean(axis=1, keepdims=True)
    var = jnp.square(x - mean).mean(axis=1, keepdims=True)
    return mean, lax.rsqrt(var + epsilon)


@custom_vjp(0)
def _normalise(epsilon: float, x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """The rows of x f[M,C] normalised, scaled and shifted: f32[M,C]."""
    return _normalise_fwd(epsilon, x, scale, bias)[0]


def _normalise_fwd(
    epsilon: float, x: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    mean, rate = _moments(epsilon, x)
    return (x - mean) * rate * scale + bias, (x, scale, mean, rate)


def _normalise_bwd(
    epsilon: float, residuals: tuple[jax.Array, ...], dy: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    del epsilon
    x, scale, mean, rate = residuals
    mean, rate = copy_after(mean, dy), copy_after(rate, dy)
    common, slope, d_scale, d_bias = _sums_by_blocks(x, dy, mean, rate, scale)
    dx = rate * (dy * scale - common - (x - mean) * rate * slope)
    return dx.astype(x.dtype), d_scale, d_bias


_normalise.defvjp(_normalise_fwd, _normalise_bwd)


def _sums(
    x: jax.Array, dy: jax.Array, mean: jax.Array, rate: jax.Array, scale: jax.Array
) -> tuple[jax.Array, ...]:
    """The means and sums that the gradients need.

    On a CPU they are products, which XLA computes faster than sums.

    Returns:
      Means over channels of dy * scale and of it times the normalised x, f32[M,1] each; sums over
      rows of dy times the normalised x and of dy, f32[C] each.
    """
    product = dy * ((x - mean) * rate)
    if not is_cpu():
        common, slope = ((a * scale).mean(axis=1, keepdims=True) for a in (dy, product))
        return common, slope, product.sum(axis=0), dy.sum(axis=0)
    dot = functools.partial(lax.dot, precision="highest")
    weights = scale[:, None] / scale.size
    ones = jnp.ones((1, x.shape[0]))
    return dot(dy, weights), dot(product, weights), dot(ones, product)[0], dot(ones, dy)[0]


def _sums_by_blocks(
    x: jax.Array, dy: jax.Array, mean: jax.Array, rate: jax.Array, scale: jax.Array
) -> tuple[jax.Array, ...]:
    """`_sums`, on a CPU by blocks of rows in the cache (all at once if no such block divides them).

    `mexjax.cpu.sums` cannot do it, since there are results of every row too.
    """
    num_rows, channels = x.shape
    rows = rows_of_a_block(num_rows, 4 * channels, BLOCK_BYTES)
    if not is_cpu() or rows == num_rows or rows < MIN_ROWS:
        return _sums(x, dy, mean, rate, scale)

    def body(i: jax.Array, totals: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        x_rows, dy_rows, means, rates = (
            lax.dynamic_slice_in_dim(a, i * rows, rows) for a in (x, dy, mean, rate)
        )
        *of_rows, d_scale, d_bias = _sums(x_rows, dy_rows, means, rates, scale)
        common, slope = (
            lax.dynamic_update_slice_in_dim(whole, part, i * rows, 0)
            for whole, part in zip(totals[:2], of_rows, strict=True)
        )
        return common, slope, totals[2] + d_scale, totals[3] + d_bias

    room = empty_after(dy, (num_rows, 1), jnp.float32)
    zeros = zeros_after(dy, (channels,), jnp.float32)
    return lax.fori_loop(0, num_rows // rows, body, (room, room, zeros, zeros))
