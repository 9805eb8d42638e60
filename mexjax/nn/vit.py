"""Vision transformer (Dosovitskiy et al. 2021), pre-norm, with a class token."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mexjax.errors import ConfigError
from mexjax.nn.layers import Dropout, DropPath, space_to_depth, truncated_normal
from mexjax.nn.mode import Mode
from mexjax.ops.activations import gelu

_INIT = truncated_normal(0.02)


class Attention(nn.Module):
    """Multi-head self-attention f[N,L,C] -> f[N,L,C]; softmax in float32."""

    num_heads: int
    use_qkv_bias: bool = True
    dropout_rate: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        n, length, c = x.shape
        if c % self.num_heads:
            raise ConfigError(f"Attention: {self.num_heads} heads do not divide {c} channels.")
        qkv = nn.Dense(
            3 * c, use_bias=self.use_qkv_bias, dtype=self.dtype, kernel_init=_INIT, name="qkv"
        )
        qkv = qkv(x).reshape(n, length, 3, self.num_heads, c // self.num_heads)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        q *= (c // self.num_heads) ** -0.5
        scores = jnp.einsum("nqhd,nkhd->nhqk", q, k, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        weights = Dropout(self.dropout_rate)(weights, mode)
        y = jnp.einsum("nhqk,nkhd->nqhd", weights, v).reshape(n, length, c)
        return nn.Dense(c, dtype=self.dtype, kernel_init=_INIT, name="proj")(y)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), the MLP with an exact GELU."""

    num_heads: int
    mlp_width: int
    use_qkv_bias: bool = True
    dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        def norm(name: str) -> nn.LayerNorm:
            return nn.LayerNorm(1e-6, dtype=self.dtype, name=name)

        def dense(features: int, name: str) -> nn.Dense:
            return nn.Dense(features, dtype=self.dtype, kernel_init=_INIT, name=name)

        drop_path, dropout = DropPath(self.drop_path_rate), Dropout(self.dropout_rate)
        attention = Attention(
            self.num_heads, self.use_qkv_bias, self.dropout_rate, self.dtype, name="attention"
        )
        x += drop_path(dropout(attention(norm("norm1")(x), mode), mode), mode)
        y = gelu(dense(self.mlp_width, "fc1")(norm("norm2")(x)))
        y = dense(x.shape[-1], "fc2")(dropout(y, mode))
        return x + drop_path(dropout(y, mode), mode)


class VisionTransformer(nn.Module):
    """f[N,H,W,C] -> f[N,num_features]: the class token after the last norm, then a linear layer.

    Attributes:
      num_features: width of the linear layer at the end.
      patch_px: side of a patch; it divides H and W.
    """

    num_features: int
    patch_px: int = 16
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_width: int = 3072
    use_qkv_bias: bool = True
    dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        n, height, width, c = x.shape
        p = self.patch_px
        if height % p or width % p:
            raise ConfigError(f"Patches of {p} px do not tile an image of {height}x{width}.")
        # A convolution whose kernel is its stride, as the matrix product it is.
        x = space_to_depth(x, p).reshape(n, (height // p) * (width // p), p * p * c)
        kernel = self.param("patch_kernel", _INIT, (p, p, c, self.width)).astype(self.dtype)
        bias = self.param("patch_bias", nn.initializers.zeros, (self.width,))
        x = x.astype(self.dtype) @ kernel.reshape(-1, self.width) + bias.astype(self.dtype)
        token = self.param("cls_token", _INIT, (1, 1, self.width)).astype(self.dtype)
        x = jnp.concatenate([jnp.broadcast_to(token, (n, 1, self.width)), x], axis=1)
        x += self.param("pos_embed", _INIT, (1, x.shape[1], self.width)).astype(self.dtype)
        for i in range(self.depth):
            x = Block(
                self.num_heads,
                self.mlp_width,
                self.use_qkv_bias,
                self.dropout_rate,
                self.drop_path_rate * i / max(self.depth - 1, 1),
                self.dtype,
                name=f"block_{i}",
            )(x, mode)
        token = nn.LayerNorm(1e-6, dtype=self.dtype, name="norm")(x[:, 0])
        return nn.Dense(self.num_features, dtype=self.dtype, kernel_init=_INIT, name="head")(token)
