"""Approximate rank pooling: one image that shows how a clip changes (Bilen et al., CVPR 2016)."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from mexjax.cpu.sums import sum_terms


@functools.cache
def rank_pooling_weights(num_frames: int) -> np.ndarray:
    """The weight of each frame in the dynamic image, f64[T], summing to zero.

    alpha_n = sum_{i=n}^{T} (2 i - T - 1) / i, n = 1 ... T: the closed form for frame features
    that are averaged over time before they are ranked (Bilen et al. 2016, section 2.2).

    Raises:
      ValueError: fewer than one frame.
    """
    if num_frames < 1:
        raise ValueError(f"rank_pooling_weights: expected num_frames >= 1; found {num_frames}")
    i = np.arange(1, num_frames + 1)
    terms = (2 * i - num_frames - 1) / i
    weights = terms[::-1].cumsum()[::-1].copy()
    weights.setflags(write=False)
    return weights


def rank_pool(frames: jax.Array) -> jax.Array:
    """The weighted sum over time, f[...,T,H,W] -> f32[...,H,W], of any range.

    Raises:
      AssertionError: `frames` has fewer than three axes.
    """
    chex.assert_shape(frames, (..., None, None, None))
    weights = rank_pooling_weights(frames.shape[-3]).astype(np.float32)
    # A matrix product would round to 10 bits on recent GPUs, and a reduction over an outer axis is
    # a slow loop on the CPU; so frames are multiplied and added one by one.
    return sum_terms(frames[..., t, :, :].astype(jnp.float32) * w for t, w in enumerate(weights))


def dynamic_image(frames: jax.Array, *, quantize: bool = False) -> jax.Array:
    """The dynamic image of each clip, scaled to [0, 1] by its own smallest and largest value.

    A clip whose frames are all equal has no dynamic image: it gives zeros.

    Args:
      frames: f[...,T,H,W], gray.
      quantize: values are cut down to whole 1/255, as the public code does by saving 8 bits.

    Returns:
      f32[...,H,W].
    """
    return scale_to_unit(rank_pool(frames), magnitude(frames), quantize=quantize)


def magnitude(frames: jax.Array) -> jax.Array:
    """The largest absolute value of each clip: f[...,T,H,W] -> f32[...]."""
    return jnp.abs(frames.astype(jnp.float32)).max(axis=(-3, -2, -1))


def scale_to_unit(pooled: jax.Array, largest: jax.Array, *, quantize: bool = False) -> jax.Array:
    """A rank-pooled image scaled to [0, 1] by its own smallest and largest value.

    Args:
      pooled: f32[...,H,W].
      largest: f32[...], `magnitude` of the frames of the image. A pooled image that varies by no
        more than the rounding of it comes from a still clip and gives zeros.
      quantize: see `dynamic_image`.

    Returns:
      f32[...,H,W].

    Raises:
      AssertionError: not one number of `largest` for each image.
    """
    chex.assert_shape(largest, pooled.shape[:-2])
    low = pooled.min(axis=(-2, -1), keepdims=True)
    span = pooled.max(axis=(-2, -1), keepdims=True) - low
    # The weights sum to zero only up to rounding: a span of that size is a still clip.
    is_still = span <= 1e-5 * jnp.maximum(largest, 1e-30)[..., None, None]
    image = jnp.where(is_still, 0.0, (pooled - low) / jnp.where(is_still, 1.0, span))
    return jnp.floor(image * 255.0) / 255.0 if quantize else image
