"""ConvNeXt (Liu et al. 2022, arXiv 2201.03545), any size; the defaults are ConvNeXt-T.

The facts come from the public facebookresearch/ConvNeXt (`models/convnext.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from mexjax.nn.layer_norm import LayerNorm
from mexjax.nn.layers import Conv, DropPath, Mlp, PatchConv, truncated_normal
from mexjax.nn.mode import Mode

_INIT = truncated_normal(0.02)
_ZEROS = nn.initializers.zeros


class ConvNeXtBlock(nn.Module):
    """The step x + scale * mlp(norm(depthwise 7x7 convolution of x)): f[N,H,W,C] -> f[N,H,W,C].

    Attributes:
      layer_scale: initial value of a factor for each channel; 0: no factors.
      kernel: side of the depthwise kernel.
      mlp_ratio: hidden width of the MLP over C.
    """

    drop_path_rate: float = 0.0
    layer_scale: float = 1e-6
    kernel: int = 7
    mlp_ratio: int = 4
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Apply the block to a map f[N,H,W,C]; the shape stays."""
        c = x.shape[-1]
        conv = Conv(
            c,
            self.kernel,
            groups=c,
            use_bias=True,
            dtype=self.dtype,
            kernel_init=_INIT,
            bias_init=_ZEROS,
            name="depthwise",
        )
        y = LayerNorm(1e-6, dtype=self.dtype, name="norm")(conv(x))
        y = Mlp(self.mlp_ratio * c, self.dtype, name="mlp")(y)
        if self.layer_scale:
            init = nn.initializers.constant(self.layer_scale)
            y *= self.param("gamma", init, (c,)).astype(self.dtype)
        return x + DropPath(self.drop_path_rate)(y, mode)


class ConvNeXt(nn.Module):
    """The network f[N,H,W,I] -> f[N,H/s,W/s,channels[-1]]; its last map has no norm.

    s is `patch_px` times 2 for each stage after the first.

    Attributes:
      channels: width of each stage.
      depths: blocks of each stage.
      patch_px: side of the patches of the first layer.
      drop_path_rate: rate of the last block; it grows linearly from 0.
      layer_scale: see `ConvNeXtBlock`.
    """

    channels: Sequence[int] = (96, 192, 384, 768)
    depths: Sequence[int] = (3, 3, 9, 3)
    patch_px: int = 4
    drop_path_rate: float = 0.0
    layer_scale: float = 1e-6
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """The last map f[N,H/s,W/s,channels[-1]] of images f[N,H,W,I]."""

        def norm(name: str) -> LayerNorm:
            return LayerNorm(1e-6, dtype=self.dtype, name=name)

        rates = iter(np.linspace(0.0, self.drop_path_rate, sum(self.depths)).tolist())
        for i, (width, depth) in enumerate(zip(self.channels, self.depths, strict=True)):
            patch = PatchConv(
                width,
                self.patch_px if i == 0 else 2,
                self.dtype,
                kernel_init=_INIT,
                bias_init=_ZEROS,
                name=f"patch_{i}",
            )
            # The norm is after the first of these convolutions and before the others.
            x = norm("norm_0")(patch(x)) if i == 0 else patch(norm(f"norm_{i}")(x))
            for j in range(depth):
                block = ConvNeXtBlock(
                    next(rates), self.layer_scale, dtype=self.dtype, name=f"stage_{i}_block_{j}"
                )
                x = block(x, mode)
        return x
