"""Decays, rotations and distances, which retention has before it sees an image.

Everything here follows from sizes alone and nothing is learnt. The tables are numpy arrays of a few
kilobytes, made in float64 and rounded once, that a compiled program holds as constants (the folds
share them).
The rotation is that of RetNet (Sun et al. 2023, arXiv 2307.08621), the decay over the Manhattan
distance that of RMT (Fan et al. 2024, arXiv 2309.11523; qhfan/RMT, `RMT.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

Size = tuple[int, int]
Array = jax.Array | np.ndarray
# The score of a key that is not there: its weight is zero, and no infinity meets another.
ABSENT = -1e30


def log_decays(num_heads: int, initial: float, span: float) -> tuple[float, ...]:
    """The logarithm of 1 - 2^-(initial + span * head / num_heads) for each head: below 0, rising.

    A head that decays fast sees its neighbourhood, one that decays slowly the whole image.
    """
    exponents = initial + span * np.arange(num_heads) / num_heads
    return tuple(float(x) for x in np.log1p(-(2.0**-exponents)))


def frequencies(head_dim: int) -> np.ndarray:
    """The frequencies 10000^(-k / (d/2 - 1)), from 1 down to 1e-4, both included: f64[d/2].

    Raises:
      ValueError: `head_dim` is odd or less than 4: there are no pairs, or no last frequency.
    """
    if head_dim < 4 or head_dim % 2:
        raise ValueError(f"Rotation needs an even head width of at least 4; found {head_dim}.")
    half = head_dim // 2
    return 10000.0 ** (-np.arange(half) / (half - 1))


def rotation_tables(size: Size, head_dim: int) -> tuple[np.ndarray, np.ndarray]:
    """The sine and cosine of position times frequency, each f32[H,W,d/2].

    The position of a pixel is its number in row-major order, y * W + x: two pixels of a row turn
    against each other by their distance, two of a column by W times theirs.
    """
    height, width = size
    position = np.arange(height * width).reshape(height, width, 1)
    angle = position * frequencies(head_dim)
    return np.sin(angle).astype(np.float32), np.cos(angle).astype(np.float32)


def rotate_halves(x: jax.Array, sin: Array, cos: Array) -> jax.Array:
    """Turn the pairs (a, b) = (x[k], x[d/2+k]) to (a cos - b sin, b cos + a sin).

    RetNet turns neighbours, (x[2k], x[2k+1]). The scores are the same where queries and keys are
    reordered alike, since a score is a sum over channels, and memory is read in whole pieces here.

    Args:
      x: f[...,d], d even.
      sin: sine of the angle of each pair, broadcast against f[...,d/2].
      cos: cosine of that angle.

    Returns:
      f[...,d] in the dtype of `x`; computed in float32.

    Raises:
      AssertionError: d is odd, or the tables are not of d/2 pairs.
    """
    chex.assert_is_divisible(x.shape[-1], 2)
    chex.assert_axis_dimension((sin, cos), -1, x.shape[-1] // 2)
    half = x.shape[-1] // 2
    a, b = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    pairs = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return pairs.astype(x.dtype)


def line_decay(length: int, log_decay: Sequence[float]) -> np.ndarray:
    """The log decay times the distance |i - j| on a line, f32[heads,length,length]."""
    place = np.arange(length)
    distance = np.abs(place[:, None] - place)
    return np.multiply.outer(np.asarray(log_decay), distance).astype(np.float32)


def coordinates(size: Size) -> np.ndarray:
    """The row and column of every pixel in row-major order, f32[2,H*W]."""
    return np.indices(size, dtype=np.float32).reshape(2, -1)


def plane_decay(queries: Array, keys: Array, log_decay: Sequence[float] | jax.Array) -> jax.Array:
    """The log decay times the Manhattan distance of every query from every key.

    It is made of coordinates inside the program, so that no table of all pairs is stored in it.

    Args:
      queries: f32[2,Q], rows and columns (see `coordinates`).
      keys: f32[2,K].
      log_decay: f32[heads].

    Returns:
      f32[heads,Q,K].
    """
    distance = jnp.abs(queries[:, :, None] - keys[:, None, :])
    return jnp.asarray(log_decay, jnp.float32)[:, None, None] * (distance[0] + distance[1])
