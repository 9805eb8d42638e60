"""VMamba (Liu et al. 2024, arXiv 2401.10166), any size; the defaults are VMamba-T.

The public MzeroMiko/VMamba (`classification/models/vmamba.py`) has several tiny networks. This is
the one in the paper's table, `vmamba_tiny_s1l8`: one number of state a channel, no gate, a stem and
reductions of overlapping 3x3 convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from mexjax.nn.layer_norm import LayerNorm
from mexjax.nn.layers import Conv, Dense, DropPath, Mlp, truncated_normal
from mexjax.nn.mode import Mode
from mexjax.ops.activations import gelu
from mexjax.ops.selective_scan import CHUNK, cross_merge, cross_scan, selective_scan

_INIT = truncated_normal(0.02)
_STEP_RANGE = (1e-3, 1e-1)  # least and largest delta at the start


def uniform(limit: float) -> nn.initializers.Initializer:
    """A uniform draw in +-limit."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


def step_bias_init(
    key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> jax.Array:
    """A draw that softplus turns into steps whose logarithm is uniform over `_STEP_RANGE`."""
    low, high = (math.log(x) for x in _STEP_RANGE)
    step = jnp.exp(jax.random.uniform(key, shape, dtype, low, high))
    return step + jnp.log(-jnp.expm1(-step))


def log_rate_init(
    key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> jax.Array:
    """The logarithms log(1), log(2), ... over the S numbers of a state."""
    del key
    return jnp.broadcast_to(jnp.log(jnp.arange(1, shape[-1] + 1, dtype=dtype)), shape)


class SS2D(nn.Module):
    """Four selective scans over the pixels of a map, added: f[N,H,W,C] -> f[N,H,W,C].

    Attributes:
      ratio: channels of the scan over C.
      state: numbers of state in each channel, S.
      rank: rank of the map that makes the steps; 0: a sixteenth of C.
      form: form of the scan, see `mexjax.ops.selective_scan`.
      chunk: most positions in a chunk of the scan.
    """

    ratio: float = 1.0
    state: int = 1
    rank: int = 0
    form: str = "auto"
    chunk: int = CHUNK
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Scan the pixels of x f[N,H,W,C] in four directions; the shape stays."""

        def dense(features: int, name: str) -> nn.Dense:
            return Dense(features, use_bias=False, dtype=self.dtype, kernel_init=_INIT, name=name)

        channels, size = x.shape[-1], (x.shape[1], x.shape[2])
        width, rank = int(self.ratio * channels), self.rank or math.ceil(channels / 16)
        x = dense(width, "in_proj")(x)
        x = nn.silu(Conv(width, groups=width, dtype=self.dtype, name="conv")(x))

        # Parameters of the four directions, in the order of `cross_scan`.
        into = self.param("into_kernel", uniform(width**-0.5), (4, width, rank + 2 * self.state))
        step = self.param("step_kernel", uniform(rank**-0.5), (4, rank, width))
        step_bias = self.param("step_bias", step_bias_init, (4, width))
        log_rate = self.param("log_rate", log_rate_init, (4, width, self.state))
        skip = self.param("skip", nn.initializers.ones, (4, width))

        u = cross_scan(x)  # (4, N, L, width)
        inputs = jnp.einsum("gnlc,gcr->gnlr", u, into.astype(self.dtype))
        delta, b, c = jnp.split(inputs, [rank, rank + self.state], axis=-1)
        delta = jnp.einsum("gnlr,grc->gnlc", delta, step.astype(self.dtype))
        delta = jax.nn.softplus(delta.astype(jnp.float32) + step_bias[:, None, None])
        y = selective_scan(
            u, delta, -jnp.exp(log_rate), b, c, skip, form=self.form, chunk=self.chunk
        )
        y = LayerNorm(1e-5, dtype=self.dtype, name="norm")(cross_merge(y, size))
        return dense(channels, "out_proj")(y)


class VSSBlock(nn.Module):
    """The steps x + scan(norm(x)) and x + mlp(norm(x)).

    Attributes:
      scan: fields of `SS2D`.
      mlp_ratio: hidden width of the MLP over C.
    """

    scan: dict[str, Any]
    mlp_ratio: int = 4
    drop_path_rate: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Apply the block to x f[N,H,W,C]; the shape stays."""
        drop_path = DropPath(self.drop_path_rate)
        y = LayerNorm(1e-5, dtype=self.dtype, name="norm1")(x)
        x += drop_path(SS2D(**self.scan, dtype=self.dtype, name="scan")(y), mode)
        y = LayerNorm(1e-5, dtype=self.dtype, name="norm2")(x)
        mlp = Mlp(self.mlp_ratio * x.shape[-1], self.dtype, name="mlp")
        return x + drop_path(mlp(y), mode)


class VMamba(nn.Module):
    """The network f[N,H,W,I] -> f[N,H/s,W/s,channels[-1]], up to its last norm.

    s is 4 times 2 for each stage after the first.

    Attributes:
      channels: width of each stage.
      depths: blocks of each stage.
      ratio: channels of a scan over those of its stage.
      state: numbers of state in each channel.
      rank: rank of the map that makes the steps.
      form: form of the scan.
      chunk: most positions in a chunk.
      mlp_ratio: hidden width of the MLPs over the width.
      drop_path_rate: rate of the last block; it grows linearly from 0.
    """

    channels: Sequence[int] = (96, 192, 384, 768)
    depths: Sequence[int] = (2, 2, 8, 2)
    ratio: float = 1.0
    state: int = 1
    rank: int = 0
    form: str = "auto"
    chunk: int = CHUNK
    mlp_ratio: int = 4
    drop_path_rate: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """The last map of images x f[N,H,W,I], after the last norm."""

        def halved(x: jax.Array, width: int, name: str) -> jax.Array:
            conv = Conv(width, stride=2, use_bias=True, dtype=self.dtype, name=f"{name}_conv")
            return LayerNorm(1e-5, dtype=self.dtype, name=f"{name}_norm")(conv(x))

        scan = {key: getattr(self, key) for key in ("ratio", "state", "rank", "form", "chunk")}
        rates = iter(np.linspace(0.0, self.drop_path_rate, sum(self.depths)).tolist())
        x = gelu(halved(x, self.channels[0] // 2, "stem"))
        for i, (width, depth) in enumerate(zip(self.channels, self.depths, strict=True)):
            x = halved(x, width, f"reduction_{i}")
            for j in range(depth):
                block = VSSBlock(
                    scan, self.mlp_ratio, next(rates), self.dtype, name=f"stage_{i}_block_{j}"
                )
                x = block(x, mode)
        return LayerNorm(1e-5, dtype=self.dtype, name="norm")(x)
