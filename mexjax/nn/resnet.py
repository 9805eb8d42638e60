"""ResNets of basic blocks (He et al. 2016) with masked batch norm, laid out as in torchvision."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mexjax.nn.layers import BatchNorm, Conv
from mexjax.nn.mode import Mode
from mexjax.ops.activations import relu

_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def max_pool_3x3_stride_2(x: jax.Array) -> jax.Array:
    """Overlapping max-pooling with a border of one: f[N,H,W,C] -> f[N,ceil(H/2),ceil(W/2),C]."""
    rows, columns = (x.shape[1] + 1) // 2, (x.shape[2] + 1) // 2
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    taps = [
        x[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2]
        for i in range(3)
        for j in range(3)
    ]
    largest = taps[0]
    for tap in taps[1:]:
        largest = jnp.maximum(largest, tap)
    return largest


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip, which is a 1x1 convolution where the shape changes."""

    features: int
    stride: int = 1
    per_frame: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Apply the block to x f[N,H,W,I]: f[N,H',W',features]."""

        def conv_norm(
            x: jax.Array, kernel: int, stride: int, tag: str, slope: float | None = None
        ) -> jax.Array:
            conv = Conv(
                self.features,
                kernel,
                stride,
                dtype=self.dtype,
                kernel_init=_INIT,
                name=f"{tag}_conv",
            )
            norm = BatchNorm(per_frame=self.per_frame, dtype=self.dtype, name=f"{tag}_norm")
            return norm(conv(x), mode, slope)

        y = conv_norm(x, 3, self.stride, "first", 0.0)
        y = conv_norm(y, 3, 1, "second")
        if x.shape != y.shape:
            x = conv_norm(x, 1, self.stride, "skip")
        return relu(x + y)


class ResNet(nn.Module):
    """The network f[N,H,W,C] -> f[N,num_features], or the last map; the defaults are ResNet-18.

    It is a stem of stride `stem_stride`, max-pooling of stride 2, and stages.

    Attributes:
      num_features: width of the linear layer after the mean over the map; 0: there is neither, and
        the result is f[N,h,w,channels[-1]].
      channels: width of each stage; stages after the first halve the map.
      blocks: basic blocks of each stage.
      stem_kernel: side of the first kernel.
      stem_stride: stride of the first convolution.
    """

    num_features: int = 0
    channels: Sequence[int] = (64, 128, 256, 512)
    blocks: Sequence[int] = (2, 2, 2, 2)
    stem_kernel: int = 7
    stem_stride: int = 2
    per_frame: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Features of images x f[N,H,W,C]: f[N,num_features] or the last map."""
        common = {"per_frame": self.per_frame, "dtype": self.dtype}
        stem = Conv(
            self.channels[0],
            self.stem_kernel,
            self.stem_stride,
            dtype=self.dtype,
            kernel_init=_INIT,
            name="stem_conv",
        )
        # The ReLU is not part of the norm: the gradient of the pooling looks for equal numbers, and
        # XLA may compute the norm twice, rounded in two ways.
        x = relu(BatchNorm(**common, name="stem_norm")(stem(x), mode))
        x = max_pool_3x3_stride_2(x)
        for i, (features, blocks) in enumerate(zip(self.channels, self.blocks, strict=True)):
            for j in range(blocks):
                stride = 2 if i > 0 and j == 0 else 1
                block = BasicBlock(features, stride, **common, name=f"stage_{i}_block_{j}")
                x = block(x, mode)
        if self.num_features == 0:
            return x
        return nn.Dense(self.num_features, dtype=self.dtype, name="head")(x.mean(axis=(1, 2)))
