"""Transposed convolution that doubles a map: kernel 4, stride 2, padding 1."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mexjax.nn.layers import torch_bias_init
from mexjax.ops.conv import conv2d

# Taps of the kernel that reach even and odd output pixels, and the zeros before and after.
_PHASES = ((slice(3, None, -2), (1, 0)), (slice(2, None, -2), (0, 1)))


def upsample_conv(x: jax.Array, w: jax.Array) -> jax.Array:
    """f[N,H,W,I], f[4,4,I,O] -> f[N,2H,2W,O], as PyTorch's ConvTranspose2d(k=4, s=2, p=1).

    Input pixel m with tap t gives output pixel 2m - 1 + t, so each of the four parities of an
    output pixel is a plain convolution with a quarter of the taps: no multiplication by a zero.

    Args:
      x: images.
      w: the kernel of the transposed convolution, its taps not mirrored.
    """
    rows = []
    for row_taps, row_padding in _PHASES:
        row = []
        for column_taps, column_padding in _PHASES:
            part = w[row_taps, column_taps]
            row.append(conv2d(x, part, padding=(row_padding, column_padding)))
        rows.append(jnp.stack(row, axis=3))
    y = jnp.stack(rows, axis=2)  # (N, H, 2, W, 2, O)
    n, height, _, width, _, out = y.shape
    return y.reshape(n, 2 * height, 2 * width, out)


class UpConv(nn.Module):
    """`upsample_conv` with a kernel and a bias of its own, drawn as PyTorch draws them."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        # PyTorch takes O * k * k as the fan-in of a transposed convolution.
        init = torch_bias_init(self.features * 16)
        kernel = self.param("kernel", init, (4, 4, x.shape[-1], self.features))
        bias = self.param("bias", init, (self.features,))
        y = upsample_conv(x.astype(self.dtype), kernel.astype(self.dtype))
        return y + bias.astype(self.dtype)
