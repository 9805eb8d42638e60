"""Retention backbone on the image plane: RMT (Fan et al. 2024, arXiv 2309.11523), any size.

TSFmicro and GAMDSS run a shallow one with a finer stem on the difference of two frames. The facts
come from the public qhfan/RMT (`classification_release/RMT.py`) and from the copies in the
released code of the two papers, which are the same function. `RMT_T` are the numbers of the
published tiny network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from mexjax.errors import ConfigError
from mexjax.nn.layer_norm import LayerNorm
from mexjax.nn.layers import BatchNorm, Conv, Dense, DropPath, truncated_normal
from mexjax.nn.mode import Mode
from mexjax.ops import retention, retention_tables
from mexjax.ops.activations import gelu
from mexjax.ops.products import matmul

_INIT = truncated_normal(0.02)

# `RMT_T3` of qhfan/RMT has 14 M parameters with its head of 1000 classes.
RMT_T: dict[str, Any] = {
    "stem_channels": (32, 32, 64, 64),
    "stem_strides": (2, 1, 2, 1),
    "channels": (64, 128, 256, 512),
    "depths": (2, 2, 8, 2),
    "num_heads": (4, 4, 8, 16),
    "decay_start": (2, 2, 2, 2),
    "decay_span": (4, 4, 6, 6),
    "is_decomposed": (True, True, False, False),
    "ffn_ratio": (3, 3, 3, 3),
    "drop_path_rate": 0.1,
}


class ConvStem(nn.Module):
    """3x3 convolutions with batch norm and, but for the last, GELU: f[N,H,W,I] -> f[N,H/s,W/s,O].

    Attributes:
      channels: width of each convolution; the last is O.
      strides: stride of each convolution; s is their product.
      per_frame: see `BatchNorm`.
    """

    channels: Sequence[int] = (32, 32, 64, 64)
    strides: Sequence[int] = (2, 1, 1, 1)
    per_frame: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Apply the stem to images x f[N,H,W,I]: f[N,H/s,W/s,O]."""
        last = len(self.channels) - 1
        for i, (width, stride) in enumerate(zip(self.channels, self.strides, strict=True)):
            conv = Conv(width, stride=stride, use_bias=True, dtype=self.dtype, name=f"conv_{i}")
            norm = BatchNorm(per_frame=self.per_frame, dtype=self.dtype, name=f"norm_{i}")
            x = norm(conv(x), mode)
            x = x if i == last else gelu(x)
        return x


class Retention(nn.Module):
    """Multi-head retention and a local code of the values (LEPE): f[N,H,W,C] -> f[N,H,W,C].

    The columns of `qkv_kernel` are queries, keys and values. Neighbouring channels of queries and
    keys are a pair that is rotated.

    Attributes:
      num_heads: they divide C into widths that are multiples of 2.
      log_decay: one number a head, see `retention_tables.log_decays`.
      is_decomposed: rows, then columns, instead of all pairs of pixels.
      chunk: keys whose scores are held at a time; 0: all (see `retention.chunked_retention`).
    """

    num_heads: int
    log_decay: Sequence[float]
    is_decomposed: bool = False
    chunk: int = 0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Retain between the pixels of x f[N,H,W,C]; the shape stays.

        Raises:
          ConfigError: heads that do not divide the channels into even widths.
        """
        n, height, width, c = x.shape
        if c % (2 * self.num_heads):
            raise ConfigError(f"Retention: {self.num_heads} heads do not divide {c} channels.")
        head_dim = c // self.num_heads
        kernel = self.param("qkv_kernel", _INIT, (c, 3 * c)).astype(self.dtype)
        bias = self.param("qkv_bias", nn.initializers.zeros, (3 * c,)).astype(self.dtype)
        # Scores do not depend on the order of channels: the order in halves rotates faster, and
        # it is cheaper to bring the kernel into it than the pixels.
        kernel, bias = self._in_halves(kernel), self._in_halves(bias)
        q, k, v = jnp.split(matmul(x.astype(self.dtype), kernel) + bias, 3, axis=-1)
        lepe = Conv(c, 5, groups=c, use_bias=True, dtype=self.dtype, name="lepe")(v)

        q, k, v = (a.reshape(n, height, width, self.num_heads, head_dim) for a in (q, k, v))
        sin, cos = retention_tables.rotation_tables((height, width), head_dim)
        sin, cos = sin[:, :, None], cos[:, :, None]
        q = retention_tables.rotate_halves(q, sin, cos)
        k = retention_tables.rotate_halves(k * head_dim**-0.5, sin, cos)
        if self.is_decomposed:
            y = retention.decomposed_retention(q, k, v, self.log_decay)
        elif self.chunk:
            y = retention.chunked_retention(q, k, v, self.log_decay, chunk=self.chunk)
        else:
            y = retention.full_retention(q, k, v, self.log_decay)
        out = Dense(c, dtype=self.dtype, kernel_init=_INIT, name="out")
        return out(y.reshape(n, height, width, c) + lepe)

    def _in_halves(self, weights: jax.Array) -> jax.Array:
        """The columns f[...,3C] with queries and keys in the order of `rotate_halves`."""
        c = weights.shape[-1] // 3
        pairs = weights[..., : 2 * c]
        halves = pairs.reshape(*pairs.shape[:-1], 2 * self.num_heads, -1, 2).swapaxes(-1, -2)
        return jnp.concatenate([halves.reshape(pairs.shape), weights[..., 2 * c :]], axis=-1)


class FeedForward(nn.Module):
    """Two linear layers, and between them a 3x3 depthwise convolution added to the GELU."""

    hidden: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the layers to x f[N,H,W,C]; the shape stays."""

        def dense(features: int, name: str) -> nn.Dense:
            return Dense(features, dtype=self.dtype, kernel_init=_INIT, name=name)

        y = gelu(dense(self.hidden, "fc1")(x))
        conv = Conv(
            self.hidden, groups=self.hidden, use_bias=True, dtype=self.dtype, name="depthwise"
        )
        return dense(x.shape[-1], "fc2")(y + conv(y))


class RetentionBlock(nn.Module):
    """The steps x + position code, x + retention(norm(x)), x + feed-forward(norm(x)).

    Attributes:
      layer_scale: initial value of a factor for each channel of the last two; 0: no factors.
    """

    num_heads: int
    log_decay: Sequence[float]
    ffn_ratio: int = 3
    is_decomposed: bool = False
    chunk: int = 0
    drop_path_rate: float = 0.0
    layer_scale: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Apply the block to x f[N,H,W,C]; the shape stays."""
        c = x.shape[-1]
        drop_path = DropPath(self.drop_path_rate)

        def scaled(y: jax.Array, name: str) -> jax.Array:
            if self.layer_scale == 0.0:
                return y
            init = nn.initializers.constant(self.layer_scale)
            return y * self.param(name, init, (c,)).astype(self.dtype)

        x += Conv(c, groups=c, use_bias=True, dtype=self.dtype, name="position")(x)
        retain = Retention(
            self.num_heads,
            self.log_decay,
            self.is_decomposed,
            self.chunk,
            self.dtype,
            name="retention",
        )
        y = LayerNorm(1e-6, dtype=self.dtype, name="norm1")(x)
        x += drop_path(scaled(retain(y), "gamma_1"), mode)
        y = LayerNorm(1e-6, dtype=self.dtype, name="norm2")(x)
        y = FeedForward(self.ffn_ratio * c, self.dtype, name="ffn")(y)
        return x + drop_path(scaled(y, "gamma_2"), mode)


class Stage(nn.Module):
    """Blocks of one size, then (`merged_width` > 0) a 3x3 convolution of stride 2 and a norm.

    Attributes:
      block: fields of `RetentionBlock` that all blocks share.
      drop_path_rates: rate of each block.
      merged_width: channels after the last convolution; 0: there is none.
      per_frame: see `BatchNorm`.
    """

    block: dict[str, Any]
    drop_path_rates: Sequence[float]
    merged_width: int = 0
    per_frame: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Apply the blocks to x f[N,H,W,C]; a merge halves the sides of the result."""
        for i, rate in enumerate(self.drop_path_rates):
            block = RetentionBlock(
                **self.block, drop_path_rate=rate, dtype=self.dtype, name=f"block_{i}"
            )
            x = block(x, mode)
        if not self.merged_width:
            return x
        merge = Conv(self.merged_width, stride=2, use_bias=True, dtype=self.dtype, name="merge")
        return BatchNorm(per_frame=self.per_frame, dtype=self.dtype, name="norm")(merge(x), mode)


class RetentionStages(nn.Module):
    """The stages of an RMT, each half the size of the one before: after the stem, without a head.

    With S stages they map f[N,H,W,channels[0]] to f[N,H/2^(S-1),W/2^(S-1),channels[-1]]. There is
    no norm at the end. Sequences have one entry a stage.

    Attributes:
      channels: width.
      depths: number of blocks.
      num_heads: heads of the retention.
      decay_start: see `retention_tables.log_decays`.
      decay_span: see `retention_tables.log_decays`.
      is_decomposed: retention along rows and columns instead of over all pairs.
      ffn_ratio: hidden width of the feed-forward over the width.
      layer_scale: initial layer scale, 0: none; empty: none in any stage.
      drop_path_rate: rate of the last block; it grows linearly from 0.
      chunk: keys at a time in stages that are not decomposed; 0: all.
      per_frame: see `BatchNorm`.
    """

    channels: Sequence[int] = (64, 128, 256, 512)
    depths: Sequence[int] = (1, 1, 2, 1)
    num_heads: Sequence[int] = (2, 2, 2, 2)
    decay_start: Sequence[float] = (2, 2, 2, 2)
    decay_span: Sequence[float] = (4, 4, 6, 6)
    is_decomposed: Sequence[bool] = (True, True, False, False)
    ffn_ratio: Sequence[int] = (3, 3, 3, 3)
    layer_scale: Sequence[float] = ()
    drop_path_rate: float = 0.1
    chunk: int = 0
    per_frame: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Apply the stages to x f[N,H,W,channels[0]]: the last map."""
        rates = np.linspace(0.0, self.drop_path_rate, sum(self.depths)).tolist()
        for i, depth in enumerate(self.depths):
            is_last = i == len(self.depths) - 1
            heads = self.num_heads[i]
            block = {
                "num_heads": heads,
                "log_decay": retention_tables.log_decays(
                    heads, self.decay_start[i], self.decay_span[i]
                ),
                "ffn_ratio": self.ffn_ratio[i],
                "is_decomposed": self.is_decomposed[i],
                "chunk": self.chunk,
                "layer_scale": self.layer_scale[i] if self.layer_scale else 0.0,
            }
            stage = Stage(
                block,
                rates[:depth],
                0 if is_last else self.channels[i + 1],
                self.per_frame,
                self.dtype,
                name=f"stage_{i}",
            )
            x, rates = stage(x, mode), rates[depth:]
        return x
