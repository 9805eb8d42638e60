"""Layers whose statistics ignore padded samples, and the small operations around them.

A module that takes a `Mode` is called as `module(x, mode)`. Frames of a clip are folded into the
batch, batch-major: row b * T + t of `x` is frame t of clip b.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mexjax.errors import ConfigError
from mexjax.nn.batch_norm import BatchNorm
from mexjax.nn.mode import Mode
from mexjax.ops.activations import gelu
from mexjax.ops.conv import conv2d, conv2d_transpose
from mexjax.ops.products import dot_general, matmul

__all__ = [
    "BatchNorm",
    "Conv",
    "ConvTranspose",
    "Dense",
    "DropPath",
    "Dropout",
    "Mlp",
    "Mode",
    "PReLUSlope",
    "PatchConv",
    "avg_pool_2x2",
    "max_pool",
    "max_pool_with_argmax",
    "max_unpool",
    "space_to_depth",
    "torch_bias_init",
    "torch_kernel_init",
    "truncated_normal",
]

Initializer = Callable[..., jax.Array]
# flax.linen.Dense whose weight gradient is that of `mexjax.ops.products`.
Dense = functools.partial(nn.Dense, dot_general=dot_general)


def truncated_normal(std: float = 0.02) -> Initializer:
    """Normal of standard deviation `std`, cut at +-2 absolute, as timm draws ViT weights."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return std * jax.random.truncated_normal(key, -2.0 / std, 2.0 / std, shape, dtype)

    return init


def torch_kernel_init() -> Initializer:
    """Uniform in +-1/sqrt(fan_in): what PyTorch draws for convolutions and linear layers."""
    return nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")


def torch_bias_init(fan_in: int) -> Initializer:
    """Uniform in +-1/sqrt(fan_in): what PyTorch draws for the bias beside such a kernel."""
    limit = fan_in**-0.5

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


class Conv(nn.Module):
    """Convolution f[N,H,W,I] -> f[N,H',W',O], padding k // 2 on every side.

    Attributes:
      features: O.
      kernel: side of the square kernel.
      padding: "same_torch" or ((top, bottom), (left, right)).
      dtype: what it computes in; parameters are float32.
      bias_init: None draws as PyTorch does, from the fan-in.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    use_bias: bool = False
    padding: str | tuple[tuple[int, int], tuple[int, int]] = "same_torch"
    dtype: jnp.dtype = jnp.float32
    kernel_init: Initializer = torch_kernel_init()
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel, self.kernel, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        x = conv2d(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
        )
        if self.use_bias:
            init = self.bias_init or torch_bias_init(shape[0] * shape[1] * shape[2])
            x += self.param("bias", init, (self.features,)).astype(self.dtype)
        return x


class ConvTranspose(nn.Module):
    """Deconvolution whose kernel is its stride: f[N,H,W,I] -> f[N,k*H,k*W,O], with bias."""

    features: int
    kernel: int = 2
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        # PyTorch takes O * k * k as the fan-in of a transposed convolution.
        fan_in = self.features * self.kernel**2
        kernel = self.param("kernel", torch_bias_init(fan_in), shape)
        bias = self.param("bias", torch_bias_init(fan_in), (self.features,))
        x = conv2d_transpose(x.astype(self.dtype), kernel.astype(self.dtype), stride=self.kernel)
        return x + bias.astype(self.dtype)


class PatchConv(nn.Module):
    """Convolution whose kernel is its stride, as the matrix product it is.

    f[N,H,W,I] -> f[N,H//k,W//k,O] with bias; rows and columns that fill no patch are dropped, as a
    convolution without a border does.

    Attributes:
      features: O.
      size: side of a patch, k.
      bias_init: None draws as PyTorch does, from the fan-in.
    """

    features: int
    size: int
    dtype: jnp.dtype = jnp.float32
    kernel_init: Initializer = torch_kernel_init()
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        k, (height, width, channels) = self.size, x.shape[1:]
        if min(height, width) < k:
            raise ConfigError(f"A map of {height}x{width} has no patch of {k}x{k} pixels.")
        kernel = self.param("kernel", self.kernel_init, (k, k, channels, self.features))
        bias_init = self.bias_init or torch_bias_init(k * k * channels)
        bias = self.param("bias", bias_init, (self.features,))
        x = space_to_depth(x[:, : height // k * k, : width // k * k].astype(self.dtype), k)
        kernel = kernel.astype(self.dtype).reshape(-1, self.features)
        return matmul(x, kernel) + bias.astype(self.dtype)


class Mlp(nn.Module):
    """Linear, exact GELU, linear, over the last axis: f[...,C] -> f[...,C].

    Attributes:
      width: of the hidden layer.
      kernel_init: of both kernels; biases start at zero.
    """

    width: int
    dtype: jnp.dtype = jnp.float32
    kernel_init: Initializer = truncated_normal(0.02)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def dense(features: int, name: str) -> nn.Dense:
            return Dense(features, dtype=self.dtype, kernel_init=self.kernel_init, name=name)

        return dense(x.shape[-1], "fc2")(gelu(dense(self.width, "fc1")(x)))


class PReLUSlope(nn.Module):
    """Learnt slopes f32[features] below zero, one a channel (He et al. 2015), for `BatchNorm`."""

    initial: float = 0.25

    @nn.compact
    def __call__(self, features: int) -> jax.Array:
        return self.param("slope", nn.initializers.constant(self.initial), (features,))


class DropPath(nn.Module):
    """Stochastic depth: drops a whole row of the batch, one draw a row (Huang et al. 2016).

    With frames folded into the batch every frame has its own draw. Rows that are kept are divided
    by the probability of being kept. Uses the "drop_path" stream.
    """

    rate: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        if not mode.is_train or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        factor = jax.random.bernoulli(self.make_rng("drop_path"), keep, shape) / keep
        return x * mode.unless_frozen(factor, jnp.ones_like(factor)).astype(x.dtype)


class Dropout(nn.Module):
    """Dropout that a frozen mode turns off. Uses the "dropout" stream."""

    rate: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        if not mode.is_train or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        factor = jax.random.bernoulli(self.make_rng("dropout"), keep, x.shape) / keep
        return x * mode.unless_frozen(factor, jnp.ones_like(factor)).astype(x.dtype)


def max_pool(x: jax.Array, size: int) -> jax.Array:
    """Largest value of each size x size window, f[N,H,W,C] -> f[N,H//size,W//size,C].

    The stride is the size; rows and columns that fill no window are dropped.
    """
    n, h, w, c = x.shape
    h, w = h // size, w // size
    x = x[:, : h * size, : w * size].reshape(n, h, size, w, size, c)
    return x.max(axis=(2, 4))


def _corners(x: jax.Array) -> list[jax.Array]:
    """The four elements of every 2 x 2 window in row-major order, each f[N,H/2,W/2,C]."""
    return [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]


def max_pool_with_argmax(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """2 x 2 max-pooling that remembers where each maximum was.

    Of equal values the first in row-major order of the window counts, as in PyTorch. After a ReLU
    whole windows are zero, so this rule decides where `max_unpool` writes.

    Args:
      x: f[N,H,W,C], H and W even.

    Returns:
      f[N,H/2,W/2,C], and bool[4,N,H/2,W/2,C]: true at the one place of each window.
    """
    if x.shape[1] % 2 or x.shape[2] % 2:
        raise ValueError(f"max_pool_with_argmax needs even height and width; found {x.shape}")
    corners = _corners(x)
    largest = jnp.maximum(jnp.maximum(corners[0], corners[1]), jnp.maximum(*corners[2:]))
    is_free = jnp.ones_like(largest, dtype=bool)
    places = []
    for corner in corners:
        places.append(is_free & (corner == largest))
        is_free &= ~places[-1]
    # Rebuilt from the chosen place, so that the gradient reaches that one element only.
    pooled = sum(jnp.where(p, v, 0) for p, v in zip(places, corners, strict=True))
    return pooled, jnp.stack(places)


def max_unpool(x: jax.Array, places: jax.Array) -> jax.Array:
    """Writes each value back to its place, zero elsewhere: f[N,H,W,C] -> f[N,2H,2W,C].

    Args:
      x: f[N,H,W,C].
      places: bool[4,N,H,W,C] from `max_pool_with_argmax`.
    """
    n, h, w, c = x.shape
    spread = jnp.where(places, x, 0).reshape(2, 2, n, h, w, c)
    return spread.transpose(2, 3, 0, 4, 1, 5).reshape(n, 2 * h, 2 * w, c)


def space_to_depth(x: jax.Array, size: int) -> jax.Array:
    """Squares of pixels become channels: f[N,H,W,C] -> f[N,H/size,W/size,size*size*C]."""
    n, h, w, c = x.shape
    if h % size or w % size:
        raise ConfigError(
            f"The first layer makes channels of squares of {size} pixels, which do not divide an"
            f" image of {h}x{w}: change data.image_size_px, augment.crop_px or model.stem_patch_px."
        )
    x = x.reshape(n, h // size, size, w // size, size, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h // size, w // size, size * size * c)


def avg_pool_2x2(x: jax.Array) -> jax.Array:
    """Mean of each 2 x 2 window; at an odd edge the mean of what is there (ceil mode)."""
    n, h, w, c = x.shape
    odd = (h % 2, w % 2)
    if not any(odd):
        return x.reshape(n, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))
    pad = ((0, 0), (0, odd[0]), (0, odd[1]), (0, 0))
    count = sum(_corners(jnp.pad(jnp.ones((1, h, w, 1), x.dtype), pad)))
    return sum(_corners(jnp.pad(x, pad))) / count
