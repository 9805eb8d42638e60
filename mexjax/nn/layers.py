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
from jax.typing import DTypeLike

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
    "space_to_depth",
    "torch_bias_init",
    "torch_kernel_init",
    "truncated_normal",
]

Initializer = Callable[..., jax.Array]
# This is flax.linen.Dense with the weight gradient of `mexjax.ops.products`.
Dense = functools.partial(nn.Dense, dot_general=dot_general)


def truncated_normal(std: float = 0.02) -> Initializer:
    """A normal draw of standard deviation `std`, cut at +-2, as timm draws ViT weights."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
        return std * jax.random.truncated_normal(key, -2.0 / std, 2.0 / std, shape, dtype)

    return init


def torch_kernel_init() -> Initializer:
    """A uniform draw in +-1/sqrt(fan_in), as PyTorch makes for convolutions and linear layers."""
    return nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")


def torch_bias_init(fan_in: int) -> Initializer:
    """A uniform draw in +-1/sqrt(fan_in), as PyTorch makes for the bias beside such a kernel."""
    limit = fan_in**-0.5

    def init(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


class Conv(nn.Module):
    """Convolution f[N,H,W,I] -> f[N,H',W',O], padding k // 2 on every side.

    Attributes:
      features: O.
      kernel: side of the square kernel.
      padding: "same_torch" or ((top, bottom), (left, right)).
      dtype: dtype of the computation; parameters are float32.
      bias_init: None draws as PyTorch does, from the fan-in.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    use_bias: bool = False
    padding: str | tuple[tuple[int, int], tuple[int, int]] = "same_torch"
    dtype: DTypeLike = jnp.float32
    kernel_init: Initializer = torch_kernel_init()
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve x f[N,H,W,I] in `dtype`: f[N,H',W',O]."""
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
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Enlarge x f[N,H,W,I] in `dtype`: f[N,k*H,k*W,O]."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        # PyTorch takes O * k * k as the fan-in of a transposed convolution.
        fan_in = self.features * self.kernel**2
        kernel = self.param("kernel", torch_bias_init(fan_in), shape)
        bias = self.param("bias", torch_bias_init(fan_in), (self.features,))
        x = conv2d_transpose(x.astype(self.dtype), kernel.astype(self.dtype), stride=self.kernel)
        return x + bias.astype(self.dtype)


class PatchConv(nn.Module):
    """Convolution whose kernel is its stride, computed as one matrix product.

    f[N,H,W,I] -> f[N,H//k,W//k,O] with bias; rows and columns that fill no patch are dropped, as a
    convolution without a border does.

    Attributes:
      features: O.
      size: side of a patch, k.
      bias_init: None draws as PyTorch does, from the fan-in.
    """

    features: int
    size: int
    dtype: DTypeLike = jnp.float32
    kernel_init: Initializer = torch_kernel_init()
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map every patch of x f[N,H,W,I] to O numbers: f[N,H//k,W//k,O].

        Raises:
          ConfigError: the map is smaller than a patch.
        """
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
      width: width of the hidden layer.
      kernel_init: draw of both kernels; biases start at zero.
    """

    width: int
    dtype: DTypeLike = jnp.float32
    kernel_init: Initializer = truncated_normal(0.02)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply both layers to x f[...,C]; the shape stays."""

        def dense(features: int, name: str) -> nn.Dense:
            return Dense(features, dtype=self.dtype, kernel_init=self.kernel_init, name=name)

        return dense(x.shape[-1], "fc2")(gelu(dense(self.width, "fc1")(x)))


class PReLUSlope(nn.Module):
    """Learnt slopes f32[features] below zero, one a channel (He et al. 2015), for `BatchNorm`."""

    initial: float = 0.25

    @nn.compact
    def __call__(self, features: int) -> jax.Array:
        """The slopes f32[features]."""
        return self.param("slope", nn.initializers.constant(self.initial), (features,))


class DropPath(nn.Module):
    """Stochastic depth: drops a whole row of the batch, one draw a row (Huang et al. 2016).

    With frames folded into the batch every frame has its own draw. Rows that are kept are divided
    by the probability of being kept. The draws come from the "drop_path" stream.
    """

    rate: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Drop rows of x f[N,...] in training; the shape stays."""
        if not mode.is_train or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        factor = jax.random.bernoulli(self.make_rng("drop_path"), keep, shape) / keep
        return x * mode.unless_frozen(factor, jnp.ones_like(factor)).astype(x.dtype)


class Dropout(nn.Module):
    """Dropout that a frozen mode turns off; the draws come from the "dropout" stream."""

    rate: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Drop values of x f[...] in training; the shape stays."""
        if not mode.is_train or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        factor = jax.random.bernoulli(self.make_rng("dropout"), keep, x.shape) / keep
        return x * mode.unless_frozen(factor, jnp.ones_like(factor)).astype(x.dtype)


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
