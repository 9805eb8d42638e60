"""Swin Transformer (Liu et al. 2021, arXiv 2103.14030), any size; the defaults are Swin-T.

The facts come from the public microsoft/Swin-Transformer (`models/swin_transformer.py`). Images
that patches do not tile and maps that windows do not tile are padded with zeros, as in the public
copies for detection, and a map that is not larger than a window is one window.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from mexjax.errors import ConfigError
from mexjax.nn.layer_norm import LayerNorm
from mexjax.nn.layers import Dense, DropPath, Mlp, PatchConv, truncated_normal
from mexjax.nn.mode import Mode
from mexjax.ops.products import matmul

_INIT = truncated_normal(0.02)
_APART = -100.0  # added to the scores of pixels that were no neighbours before the shift


@functools.cache
def relative_places(window: int) -> np.ndarray:
    """The row of the bias table for each pair of pixels of a window, i32[w*w, w*w].

    The row of a query at (y, x) and a key at (y', x') is (y-y'+w-1) (2w-1) + (x-x'+w-1).
    """
    y, x = np.divmod(np.arange(window * window), window)
    rows, columns = (np.subtract.outer(p, p) + window - 1 for p in (y, x))
    return (rows * (2 * window - 1) + columns).astype(np.int32)


@functools.cache
def shift_mask(size: tuple[int, int], window: int, shift: int) -> np.ndarray:
    """The mask f32[windows, w*w, w*w] of a shifted map: 0 where two pixels may see each other.

    Everywhere else it is -100, which is added to the scores.

    Args:
      size: height and width of the map, multiples of `window`.
      window: w.
      shift: pixels by which the map was rolled up and to the left.
    """

    def parts(length: int) -> np.ndarray:
        """The strip of three that each row or column lies in; the last came around the edge."""
        i = np.arange(length)
        return (i >= length - window).astype(int) + (i >= length - shift)

    height, width = size
    part = 3 * parts(height)[:, None] + parts(width)
    part = part.reshape(height // window, window, width // window, window)
    part = part.swapaxes(1, 2).reshape(-1, window * window)
    return np.where(part[:, :, None] == part[:, None], 0.0, _APART).astype(np.float32)


def to_windows(x: jax.Array, window: int) -> jax.Array:
    """The windows of a map f[N,H,W,C], and their pixels, in row-major order: f[N,windows,w*w,C]."""
    n, height, width, c = x.shape
    x = x.reshape(n, height // window, window, width // window, window, c)
    return x.swapaxes(2, 3).reshape(n, -1, window * window, c)


def from_windows(x: jax.Array, size: tuple[int, int], window: int) -> jax.Array:
    """The inverse of `to_windows`: f[N,windows,w*w,C] -> f[N,H,W,C]."""
    n, c = x.shape[0], x.shape[-1]
    height, width = size
    x = x.reshape(n, height // window, width // window, window, window, c)
    return x.swapaxes(2, 3).reshape(n, height, width, c)


def padded(x: jax.Array, size: int) -> jax.Array:
    """A map f[N,H,W,C] with zeros below and to the right, so that `size` divides both sides."""
    rows, columns = -x.shape[1] % size, -x.shape[2] % size
    if not rows and not columns:
        return x
    return jnp.pad(x, ((0, 0), (0, rows), (0, columns), (0, 0)))


class WindowAttention(nn.Module):
    """Self-attention within windows, with a learnt bias for each offset of two pixels.

    f[N,windows,w*w,C] -> f[N,windows,w*w,C]; softmax in float32. The columns of `qkv_kernel` are
    queries, keys and values.

    Attributes:
      num_heads: they divide C.
      window: w of the table of biases. Smaller windows use its middle.
    """

    num_heads: int
    window: int = 7
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: np.ndarray | None) -> jax.Array:
        """Attend within the windows of x f[N,windows,w*w,C]; the shape stays.

        Args:
          x: the windows.
          mask: f32[windows, w*w, w*w], added to the scores; None: nothing is.

        Raises:
          ConfigError: heads that do not divide the channels.
        """
        n, windows, pixels, c = x.shape
        if c % self.num_heads:
            raise ConfigError(f"Swin: {self.num_heads} heads do not divide {c} channels.")
        head_dim = c // self.num_heads
        kernel = self.param("qkv_kernel", _INIT, (c, 3 * c)).astype(self.dtype)
        bias = self.param("qkv_bias", nn.initializers.zeros, (3 * c,)).astype(self.dtype)
        qkv = matmul(x.astype(self.dtype), kernel) + bias
        q, k, v = (
            a.reshape(n, windows, pixels, self.num_heads, head_dim) for a in jnp.split(qkv, 3, -1)
        )
        scores = jnp.einsum(
            "nwqhd,nwkhd->nwhqk", q * head_dim**-0.5, k, preferred_element_type=jnp.float32
        )
        scores += self._bias(pixels)
        if mask is not None:
            scores += mask[:, None]
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        y = jnp.einsum("nwhqk,nwkhd->nwqhd", weights, v).reshape(x.shape)
        return Dense(c, dtype=self.dtype, kernel_init=_INIT, name="out")(y)

    def _bias(self, pixels: int) -> jax.Array:
        """The bias of each pair of pixels, f32[heads, pixels, pixels]."""
        side = 2 * self.window - 1
        table = self.param("position_bias", _INIT, (side * side, self.num_heads))
        window = round(pixels**0.5)
        if window < self.window:
            cut = self.window - window
            table = table.reshape(side, side, -1)[cut : side - cut, cut : side - cut]
            table = table.reshape(-1, self.num_heads)
        return table[relative_places(window)].transpose(2, 0, 1)


class SwinBlock(nn.Module):
    """The steps x + attention(norm(x)) in windows, perhaps shifted, and x + mlp(norm(x)).

    Attributes:
      is_shifted: the windows lie half a window further down and to the right.
      mlp_ratio: hidden width of the MLP over C.
    """

    num_heads: int
    window: int = 7
    is_shifted: bool = False
    mlp_ratio: int = 4
    drop_path_rate: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Apply the block to x f[N,H,W,C]; the shape stays."""
        drop_path = DropPath(self.drop_path_rate)
        attention = WindowAttention(self.num_heads, self.window, self.dtype, name="attention")
        y = LayerNorm(1e-5, dtype=self.dtype, name="norm1")(x)
        x += drop_path(self._in_windows(attention, y), mode)
        y = LayerNorm(1e-5, dtype=self.dtype, name="norm2")(x)
        mlp = Mlp(self.mlp_ratio * x.shape[-1], self.dtype, name="mlp")
        return x + drop_path(mlp(y), mode)

    def _in_windows(self, attention: WindowAttention, x: jax.Array) -> jax.Array:
        height, width = x.shape[1:3]
        window = min(self.window, height, width)
        # A map of one window has nothing to exchange with others.
        is_shifted = self.is_shifted and min(height, width) > self.window
        shift = self.window // 2 if is_shifted else 0
        x = padded(x, window)
        size = x.shape[1], x.shape[2]
        mask = None
        if shift:
            x = jnp.roll(x, (-shift, -shift), axis=(1, 2))
            mask = shift_mask(size, window, shift)
        x = from_windows(attention(to_windows(x, window), mask), size, window)
        if shift:
            x = jnp.roll(x, (shift, shift), axis=(1, 2))
        return x[:, :height, :width]


class PatchMerging(nn.Module):
    """Squares of 2x2 pixels, normalised and mapped to `features`; an odd edge is padded.

    f[N,H,W,C] -> f[N,ceil(H/2),ceil(W/2),features]. The four pixels follow each other column by
    column, as in the public code.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Merge squares of x f[N,H,W,C]: f[N,ceil(H/2),ceil(W/2),features]."""
        x = padded(x, 2)
        x = jnp.concatenate([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], axis=-1)
        x = LayerNorm(1e-5, dtype=self.dtype, name="norm")(x)
        dense = Dense(
            self.features, use_bias=False, dtype=self.dtype, kernel_init=_INIT, name="reduction"
        )
        return dense(x)


class Swin(nn.Module):
    """The network f[N,H,W,I] -> f[N,ceil(H/s),ceil(W/s),channels[-1]], up to its last norm.

    s is `patch_px` times 2 for each stage after the first. Sequences have one entry a stage.

    Attributes:
      channels: width.
      depths: blocks; every other one is shifted.
      num_heads: heads of the attention.
      window: side of a window, in pixels of the map.
      patch_px: side of the patches of the first layer.
      mlp_ratio: hidden width of the MLPs over the width.
      drop_path_rate: rate of the last block; it grows linearly from 0.
    """

    channels: Sequence[int] = (96, 192, 384, 768)
    depths: Sequence[int] = (2, 2, 6, 2)
    num_heads: Sequence[int] = (3, 6, 12, 24)
    window: int = 7
    patch_px: int = 4
    mlp_ratio: int = 4
    drop_path_rate: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """The last map of images x f[N,H,W,I], after the last norm."""

        def norm(name: str) -> LayerNorm:
            return LayerNorm(1e-5, dtype=self.dtype, name=name)

        rates = iter(np.linspace(0.0, self.drop_path_rate, sum(self.depths)).tolist())
        patch = PatchConv(self.channels[0], self.patch_px, self.dtype, name="patch")
        x = norm("patch_norm")(patch(padded(x, self.patch_px)))
        stages = zip(self.channels, self.depths, self.num_heads, strict=True)
        for i, (width, depth, heads) in enumerate(stages):
            if i > 0:
                x = PatchMerging(width, self.dtype, name=f"merge_{i}")(x)
            for j in range(depth):
                block = SwinBlock(
                    heads,
                    self.window,
                    j % 2 == 1,
                    self.mlp_ratio,
                    next(rates),
                    self.dtype,
                    name=f"stage_{i}_block_{j}",
                )
                x = block(x, mode)
        return norm("norm")(x)
