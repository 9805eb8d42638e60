"""Pooling over windows that do not overlap, and its inverse.

XLA:CPU's reductions over two small axes do not vectorise, and the gradients of slices spread each
slice out by itself. Here the step from windows to one value is an elementwise expression of the
slices, the step back is one of the broadcast values, and each is the gradient of the other (but for
the mean at odd edges). Both can be differentiated in reverse mode. NaN goes through the maximum,
but its place and gradient are those of another value.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from mexjax.ops.gradients import custom_vjp


def max_pool(x: jax.Array, size: int) -> jax.Array:
    """The largest value of each size x size window: f[N,H,W,C] -> f[N,H//size,W//size,C].

    The stride is the size; rows and columns that fill no window are dropped. The first of equal
    values gets the gradient, as in PyTorch.
    """
    h, w = (side // size * size for side in x.shape[1:3])
    return _max_and_place(x[:, :h, :w], size)[0]


def max_pool_with_argmax(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """2 x 2 max-pooling that remembers where each maximum was.

    The first of equal values in row-major order of the window counts, as in PyTorch. After a ReLU
    whole windows are zero, so this rule decides where `max_unpool` writes.

    Args:
      x: f[N,H,W,C], H and W even.

    Returns:
      f[N,H/2,W/2,C], and i8[N,H/2,W/2,C]: the place in the window, row-major, 0 to 3.

    Raises:
      ValueError: H or W is odd.
    """
    if x.shape[1] % 2 or x.shape[2] % 2:
        raise ValueError(f"max_pool_with_argmax needs even height and width; found {x.shape}")
    return _max_and_place(x, 2)


def max_unpool(x: jax.Array, places: jax.Array) -> jax.Array:
    """Write each value back to its place, zero elsewhere: f[N,H,W,C] -> f[N,2H,2W,C].

    Args:
      x: f[N,H,W,C].
      places: i8[N,H,W,C] from `max_pool_with_argmax`.
    """
    return _put(x, places, 2)


def avg_pool_2x2(x: jax.Array) -> jax.Array:
    """The mean of each 2 x 2 window; windows at an odd edge are smaller (ceil mode).

    Args:
      x: f[N,H,W,C].

    Returns:
      f[N,ceil(H/2),ceil(W/2),C].
    """
    odd = (x.shape[1] % 2, x.shape[2] % 2)
    if not any(odd):
        return _mean_2x2(x)
    pad = ((0, 0), (0, odd[0]), (0, odd[1]), (0, 0))
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    return _total(_slices(jnp.pad(x, pad), 2)) / _total(_slices(jnp.pad(ones, pad), 2))


def _total(parts: Iterable[jax.Array]) -> jax.Array:
    """The sum of at least one array."""
    return cast(jax.Array, sum(parts))  # a number only if there are no arrays


def _slices(x: jax.Array, size: int) -> list[jax.Array]:
    """The elements of every window in row-major order, each f[N,H/size,W/size,C]."""
    return [x[:, i::size, j::size] for i in range(size) for j in range(size)]


def _along_windows(x: jax.Array) -> jax.Array:
    """A map f[N,H,W,C] as f[N,H,1,W,1,C], to be broadcast over rows and columns of a window."""
    return x[:, :, None, :, None]


def _joined(windows: jax.Array) -> jax.Array:
    """Windows f[N,H,s,W,s,C] as one map f[N,s*H,s*W,C]."""
    n, h, size, w, _, c = windows.shape
    return windows.reshape(n, h * size, w * size, c)


def _kind_of_place(size: int) -> type[np.signedinteger]:
    return np.int8 if size**2 <= 128 else np.int32


@custom_vjp(1)
def _max_and_place(x: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    largest, *others = _slices(x, size)
    kind = _kind_of_place(size)
    place = jnp.zeros(largest.shape, kind)
    for i, other in enumerate(others, start=1):
        # No test for "equal to the largest": a value computed twice may be rounded in two ways.
        place = jnp.where(other > largest, kind(i), place)
        largest = jnp.maximum(largest, other)
    return largest, place


def _max_and_place_fwd(x, size):
    largest, place = _max_and_place(x, size)
    return (largest, place), place


def _max_and_place_bwd(size, place, gradients):
    return (_put(gradients[0], place, size),)


_max_and_place.defvjp(_max_and_place_fwd, _max_and_place_bwd)


@custom_vjp(2)
def _put(x: jax.Array, place: jax.Array, size: int) -> jax.Array:
    here = np.arange(size**2, dtype=_kind_of_place(size)).reshape(size, 1, size, 1)
    return _joined(jnp.where(_along_windows(place) == here, _along_windows(x), 0))


def _put_fwd(x, place, size):
    return _put(x, place, size), place


def _put_bwd(size, place, dy):
    dx = _total(jnp.where(place == i, part, 0) for i, part in enumerate(_slices(dy, size)))
    return dx, np.zeros(place.shape, jax.dtypes.float0)


_put.defvjp(_put_fwd, _put_bwd)


@jax.custom_vjp
def _mean_2x2(x: jax.Array) -> jax.Array:
    return (_total(part.astype(jnp.float32) for part in _slices(x, 2)) / 4).astype(x.dtype)


def _mean_2x2_bwd(_, dy):
    n, h, w, c = dy.shape
    return (_joined(jnp.broadcast_to(_along_windows(dy / 4), (n, h, 2, w, 2, c))),)


_mean_2x2.defvjp(lambda x: (_mean_2x2(x), None), _mean_2x2_bwd)
