"""Batch normalisation that ignores padded samples, as PyTorch counts."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mexjax.cpu import is_cpu
from mexjax.cpu.ordering import copy_after
from mexjax.cpu.sums import sums_by_blocks
from mexjax.nn.mode import Mode
from mexjax.ops.gradients import custom_vjp

# Pixels, about, that the statistics of a GPU are shifted by the mean of.
SHIFT_PIXELS = 16


class BatchNorm(nn.Module):
    """Batch normalisation of f[N,...,C] over everything but C, in float32.

    - Rows of weight 0 (`mode.weight`) enter no statistic and no count.
    - The stored variance is the unbiased one, n/(n-1) times what is used to normalise (PyTorch).
    - With fewer than two values (all rows padded, or one pixel) there is no variance to estimate:
      the running statistics normalise, and stay as they are.
    - If `mode.is_frozen` is true, the same happens by choice.

    Attributes:
      eps: added to the variance.
      momentum: share of the running statistics that an update keeps.
      per_frame: statistics for each of the `mode.num_frames` frame positions on its own, and T
        updates of the running ones in time order, as if the network ran frame by frame.
      dtype: dtype of the result; parameters and statistics are float32.
      scale_init: a zero initial scale makes a residual branch start as nothing.
    """

    eps: float = 1e-5
    momentum: float = 0.9
    per_frame: bool = False
    dtype: DTypeLike = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(
        self, x: jax.Array, mode: Mode, negative_slope: jax.Array | float | None = None
    ) -> jax.Array:
        """Normalise x; values below zero are multiplied by `negative_slope`, a number or f32[C].

        A ReLU (0), leaky or parametric ReLU that follows is better done here: its input is then
        neither written nor kept for the gradient.
        """
        features = x.shape[-1]
        scale = self.param("scale", self.scale_init, (features,))
        bias = self.param("bias", nn.initializers.zeros, (features,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (features,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (features,))
        old = (running_mean.value, running_var.value)
        if not mode.is_train:
            factor = scale * jax.lax.rsqrt(old[1] + self.eps)
            y = (x - old[0]) * factor + bias
            return (
                y if negative_slope is None else jnp.where(y > 0, y, negative_slope * y)
            ).astype(self.dtype)

        times = mode.num_frames if self.per_frame else 1
        if x.shape[0] % times or (mode.weight is not None and mode.weight.shape != x.shape[:1]):
            weights = None if mode.weight is None else mode.weight.shape
            raise ValueError(
                f"BatchNorm: expected N rows, N a multiple of {times} frames, and one weight a "
                f"row; found x {x.shape}, weight {weights}. Frames folded into the batch need "
                "Mode.per_frame(num_frames)."
            )
        grouped = x.reshape(x.shape[0] // times, times, math.prod(x.shape[1:-1]), features)
        mask = None if mode.weight is None else (mode.weight > 0).reshape(-1, times)
        mean, var, count = masked_moments(grouped, mask)

        is_used = count > 1  # (T,)
        if mode.is_frozen is not None:
            is_used &= ~mode.is_frozen
        share = is_used / jnp.maximum(count, 1)
        share = jnp.broadcast_to(share, grouped.shape[:2]) if mask is None else mask * share
        column = is_used[:, None]
        mean, var = jnp.where(column, mean, old[0]), jnp.where(column, var, old[1])
        if negative_slope is None:
            y = _normalise(self.eps, grouped, scale, bias, mean, var, share)
        else:
            negative_slope = jnp.broadcast_to(jnp.asarray(negative_slope, jnp.float32), (features,))
            y = _normalise_activate(
                self.eps, grouped, scale, bias, mean, var, share, negative_slope
            )

        if not self.is_initializing():
            unbiased = var * (count / jnp.maximum(count - 1, 1))[:, None]
            for variable, new in ((running_mean, mean), (running_var, unbiased)):
                variable.value = _run(variable.value, new, is_used, self.momentum)
        return y.reshape(x.shape).astype(self.dtype)


def masked_moments(x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The mean and biased variance over rows and pixels, without gradient.

    On a CPU there are two passes: the mean of squares minus the squared mean loses digits where
    the mean is large. Elsewhere there is one, of what is left after `_shift`, which loses none.

    Args:
      x: f[B,T,P,C], P pixels.
      mask: bool[B,T], true where a row counts; None: all count.

    Returns:
      f32[T,C] mean, f32[T,C] variance, f32[T] number of values. Zeros where nothing counts.
    """
    x = jax.lax.stop_gradient(x).astype(jnp.float32)
    b, t, pixels, _ = x.shape
    if mask is None:
        count = jnp.full((t,), b * pixels, jnp.float32)
    else:
        count = mask.sum(axis=0).astype(jnp.float32) * pixels
    n = jnp.maximum(count, 1)[:, None]

    def mean_of(rows: jax.Array) -> jax.Array:
        """The mean over the rows that count of f32[B,T,C], sums over the pixels of a row."""
        return (rows if mask is None else jnp.where(mask[..., None], rows, 0)).sum(axis=0) / n

    # Padding is left out of the sums of rows, which are small, and not of the pixels.
    if is_cpu():
        mean = mean_of(x.sum(axis=2))
        return mean, mean_of(jnp.square(x - mean[:, None]).sum(axis=2)), count
    # Sums over all at once: XLA:GPU writes x - shift down for sums over the pixels of a row.
    shift = jax.lax.optimization_barrier(_shift(x, mask))
    rest = x - shift[:, None]
    if mask is not None:
        rest = jnp.where(mask[:, :, None, None], rest, 0)
    excess, square = rest.sum(axis=(0, 2)) / n, jnp.square(rest).sum(axis=(0, 2)) / n
    mean = jnp.where(count[:, None] > 0, shift + excess, 0)
    return mean, jnp.maximum(square - jnp.square(excess), 0), count


def _shift(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Numbers f32[T,C] near the means of f32[B,T,P,C]: of some pixels of a row that counts."""
    if mask is None:
        row = x[0]
    else:
        first = mask.argmax(axis=0)[None, :, None, None]
        row = jnp.take_along_axis(x, first, axis=0, mode="clip")[0]
    pixels = x.shape[2]
    # Pixels at the border, which see the padding of a convolution, are few among these.
    return row[:, :: max(pixels // SHIFT_PIXELS, 1)].mean(axis=1)


def _affine(
    eps: float, x: jax.Array, scale: jax.Array, bias: jax.Array, mean: jax.Array, var: jax.Array
) -> jax.Array:
    factor = scale * jax.lax.rsqrt(var + eps)
    return (x - mean[:, None]) * factor[:, None] + bias


@custom_vjp(0)
def _normalise(
    eps: float,
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    share: jax.Array,
) -> jax.Array:
    """(x - mean) / sqrt(var + eps) * scale + bias, with the gradient through the statistics.

    `mean` and `var` (f32[T,C]) are taken as functions of x f[B,T,P,C]: `share` f32[B,T] is the
    part one value of a row has in them, 0 for padding and where they are constants. Written by
    hand because it keeps x alone and needs two sums, where autodiff keeps and sums more.
    """
    return _affine(eps, x, scale, bias, mean, var)


def _normalise_fwd(eps, x, scale, bias, mean, var, share):
    return _affine(eps, x, scale, bias, mean, var), (x, scale, mean, var, share)


def _normalise_bwd(eps, residuals, dy):
    x, scale, mean, var, share = residuals
    mean = copy_after(mean, dy)
    residuals = (x, scale, mean, var, share)
    sums = sums_by_blocks(lambda x, dy: _sums(x - mean[:, None], dy), x, dy)
    return *_gradients(eps, residuals, dy, *sums), *_zeros_like(mean, var, share)


def _sums(centred: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sums over rows and pixels of the gradient, and of it times x - mean: f32[T,C] each."""
    return dy.sum(axis=(0, 2)), (dy * centred).sum(axis=(0, 2))


def _gradients(eps, residuals, dy, sum_dy, sum_dy_centred):
    """Gradients of x, scale and bias."""
    x, scale, mean, var, share = residuals
    rate = jax.lax.rsqrt(var + eps)
    sum_dy_normal = rate * sum_dy_centred
    # dx = (dy - share * (sum_dy + normal * sum_dy_normal)) * factor, all that is per row at once.
    factor = scale * rate
    slope = share[..., None] * (sum_dy_normal * rate * factor)  # (B, T, C)
    offset = share[..., None] * (sum_dy * factor)
    dx = dy * factor[:, None] - (x - mean[:, None]) * slope[:, :, None] - offset[:, :, None]
    return dx.astype(x.dtype), sum_dy_normal.sum(axis=0), sum_dy.sum(axis=0)


def _zeros_like(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(jnp.zeros_like(array) for array in arrays)


_normalise.defvjp(_normalise_fwd, _normalise_bwd)


@custom_vjp(0)
def _normalise_activate(
    eps: float,
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    share: jax.Array,
    negative_slope: jax.Array,
) -> jax.Array:
    """`_normalise`, then `negative_slope` f32[C] times what is below zero; keeps x alone too."""
    y = _affine(eps, x, scale, bias, mean, var)
    return jnp.where(y > 0, y, negative_slope * y)


def _normalise_activate_fwd(eps, x, scale, bias, mean, var, share, negative_slope):
    z = _normalise_activate(eps, x, scale, bias, mean, var, share, negative_slope)
    return z, (x, scale, bias, mean, var, share, negative_slope)


def _normalise_activate_bwd(eps, residuals, dz):
    x, scale, bias, mean, var, share, negative_slope = residuals
    mean = copy_after(mean, dz)

    def activation(x, dz):
        y = _affine(eps, x, scale, bias, mean, var)
        return y, jnp.where(y > 0, dz, negative_slope * dz)

    def sums(x, dz):
        y, dy = activation(x, dz)
        d_slope = jnp.where(y > 0, 0, dz * y).sum(axis=(0, 1, 2))
        return *_sums(x - mean[:, None], dy), d_slope

    sum_dy, sum_dy_centred, d_slope = sums_by_blocks(sums, x, dz)
    if not is_cpu():
        # Otherwise XLA:GPU writes the activation's gradient down for both of its uses.
        mean, sum_dy = jax.lax.optimization_barrier((mean, sum_dy))
    dy = activation(x, dz)[1]
    gradients = _gradients(eps, (x, scale, mean, var, share), dy, sum_dy, sum_dy_centred)
    return *gradients, *_zeros_like(mean, var, share), d_slope


_normalise_activate.defvjp(_normalise_activate_fwd, _normalise_activate_bwd)


def _run(old: jax.Array, new: jax.Array, is_used: jax.Array, momentum: float) -> jax.Array:
    """`old` f32[C] after one update with each of `new` f32[T,C] in order, where `is_used` bool[T].

    This is the closed form: the share of an update shrinks by `momentum` with each later one.
    """
    uses = is_used.astype(jnp.float32)
    later = jnp.cumsum(uses[::-1])[::-1] - uses
    gain = (1.0 - momentum) * uses * momentum**later
    return momentum ** uses.sum() * old + (gain[:, None] * new).sum(axis=0)
