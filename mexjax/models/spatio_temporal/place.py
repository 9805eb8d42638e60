"""A small transformer that keeps the positions of a face: each pixel of a tiny image is a token."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mexjax.errors import ConfigError
from mexjax.nn.layer_norm import LayerNorm
from mexjax.nn.layers import torch_bias_init, torch_kernel_init, truncated_normal
from mexjax.nn.mode import Mode
from mexjax.nn.vit import Block

_INIT = truncated_normal(0.02)

RESIZES = ("bilinear", "bilinear_antialias")


def resize_map(x: jax.Array, size: int, method: str = "bilinear") -> jax.Array:
    """Shrinks images: f[N,H,W,C] -> f[N,size,size,C].

    Args:
      x: images.
      size: side of the result, in pixels.
      method: `bilinear` reads the four pixels around each point and skips those between
        (torchvision before 0.17 on tensors); `bilinear_antialias` averages all (torchvision from
        0.17 on).
    """
    height, width = x.shape[1:3]
    factor = height // size
    if method == "bilinear" and height == width == factor * size and factor % 2 == 0:
        # The points lie between two pixels: a mean of four slices.
        low = slice(factor // 2 - 1, None, factor)
        high = slice(factor // 2, None, factor)
        rows = x[:, low] + x[:, high]
        return (rows[:, :, low] + rows[:, :, high]) / 4
    shape = (x.shape[0], size, size, x.shape[3])
    return jax.image.resize(x, shape, "linear", antialias=method == "bilinear_antialias")


class PositionViT(nn.Module):
    """A transformer f[N,S,S,C] -> f[N,S,S,width] of pixels, with a learnt code of their places.

    Blocks are pre-norm with an exact GELU; a last layer norm follows. No class token.

    Attributes:
      width: channels of a token.
      depth: number of blocks.
      num_heads: heads of the attention.
      mlp_ratio: hidden width of the MLPs over `width`.
    """

    width: int = 512
    depth: int = 2
    num_heads: int = 4
    mlp_ratio: int = 4
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mode: Mode,
        *,
        added: jax.Array | None = None,
        added_at: str = "before_norm",
    ) -> jax.Array:
        """Runs the transformer.

        Args:
          x: f[N,S,S,C].
          mode: how the pass is run.
          added: f[N,S,S,width], added to the tokens; None: nothing is added.
          added_at: `before_norm`, after the last block, or `before_blocks`.
        """
        n, height, width, c = x.shape
        if added is not None and added.shape != (n, height, width, self.width):
            raise ConfigError(
                f"PositionViT: expected a map of {height}x{width}x{self.width} to add; found "
                f"{added.shape[1:]}."
            )
        tokens = added.reshape(n, height * width, -1) if added is not None else None
        x = x.reshape(n, height * width, c)
        # A convolution with a kernel of one pixel has the same weights.
        x = nn.Dense(
            self.width,
            dtype=self.dtype,
            kernel_init=torch_kernel_init(),
            bias_init=torch_bias_init(c),
            name="embed",
        )(x)
        x += self.param("position", _INIT, (1, height * width, self.width)).astype(self.dtype)
        if tokens is not None and added_at == "before_blocks":
            x += tokens
        for i in range(self.depth):
            block = Block(
                self.num_heads, self.mlp_ratio * self.width, dtype=self.dtype, name=f"block_{i}"
            )
            x = block(x, mode)
        if tokens is not None and added_at == "before_norm":
            x += tokens
        x = LayerNorm(1e-6, dtype=self.dtype, name="norm")(x)
        return x.reshape(n, height, width, self.width)
