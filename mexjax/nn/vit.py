"""Vision transformer (Dosovitskiy et al. 2021), pre-norm, with a class token."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mexjax.errors import ConfigError, unknown_name
from mexjax.nn.layer_norm import LayerNorm
from mexjax.nn.layers import Dense, Dropout, DropPath, Initializer, space_to_depth, truncated_normal
from mexjax.nn.mode import Mode
from mexjax.ops.activations import gelu, quick_gelu, relu
from mexjax.ops.products import matmul

_INIT = truncated_normal(0.02)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "quick_gelu": quick_gelu,
    "relu": relu,
}


def at_places(x: jax.Array, places: jax.Array | None) -> jax.Array:
    """The tokens f[N,Q,C] of f[N,L,C] at places i32[N,Q]; all of them for None."""
    return x if places is None else jnp.take_along_axis(x, places[..., None], axis=1)


class _Projections(nn.Module):
    """Queries, keys and values of all heads by one product; queries of some tokens by another."""

    use_bias: bool
    dtype: DTypeLike
    kernel_init: Initializer

    @nn.compact
    def __call__(
        self, x: jax.Array, places: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        c = x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (c, 3 * c)).astype(self.dtype)
        bias = jnp.zeros((3 * c,), self.dtype)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (3 * c,)).astype(self.dtype)
        x = x.astype(self.dtype)
        if places is None:
            q, k, v = jnp.split(matmul(x, kernel) + bias, 3, axis=-1)
            return q, k, v
        q = at_places(x, places) @ kernel[:, :c] + bias[:c]
        k, v = jnp.split(matmul(x, kernel[:, c:]) + bias[c:], 2, axis=-1)
        return q, k, v


class Attention(nn.Module):
    """Multi-head self-attention; softmax in float32.

    Attributes:
      num_heads: they divide the channels.
      is_causal: a token sees itself and those before it.
      out_init: draw of the last kernel; None: as the others.
    """

    num_heads: int
    use_qkv_bias: bool = True
    dropout_rate: float = 0.0
    dtype: DTypeLike = jnp.float32
    is_causal: bool = False
    kernel_init: Initializer = _INIT
    out_init: Initializer | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mode: Mode,
        places: jax.Array | None = None,
        is_key: jax.Array | None = None,
    ) -> jax.Array:
        """Attend from every token, or from some of them, to all.

        Args:
          x: f[N,L,C].
          mode: see `mexjax.nn.mode`.
          places: i32[N,Q], the tokens to compute; None: all, Q = L.
          is_key: bool[N,L], false for tokens that no token looks at; None: all are true.

        Returns:
          f[N,Q,C].

        Raises:
          ConfigError: heads that do not divide the channels.
        """
        n, length, c = x.shape
        if c % self.num_heads:
            raise ConfigError(f"Attention: {self.num_heads} heads do not divide {c} channels.")
        project = _Projections(self.use_qkv_bias, self.dtype, self.kernel_init, name="qkv")
        q, k, v = (
            a.reshape(n, -1, self.num_heads, c // self.num_heads) for a in project(x, places)
        )
        q *= (c // self.num_heads) ** -0.5
        scores = jnp.einsum("nqhd,nkhd->nhqk", q, k, preferred_element_type=jnp.float32)
        if self.is_causal:
            at = jnp.arange(length)[None] if places is None else places
            is_seen = jnp.arange(length) <= at[:, None, :, None]  # (N or 1, 1, Q, L)
            scores = jnp.where(is_seen, scores, -jnp.inf)
        if is_key is not None:
            scores = jnp.where(is_key[:, None, None], scores, -jnp.inf)
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        weights = Dropout(self.dropout_rate)(weights, mode)
        y = jnp.einsum("nhqk,nkhd->nqhd", weights, v).reshape(n, -1, c)
        init = self.out_init or self.kernel_init
        return Dense(c, dtype=self.dtype, kernel_init=init, name="proj")(y)


class Block(nn.Module):
    """The steps x + attention(norm(x)) and x + mlp(norm(x)).

    Attributes:
      activation: activation of the MLP, a key of `ACTIVATIONS`.
      epsilon: epsilon of the layer norms.
      is_post_norm: the steps are norm(x + attention(x)) and norm(x + mlp(x)).
      out_init: draw of the last kernel of attention and of MLP; None: as the others. Zeros make a
        block that is not `is_post_norm` begin as the identity.
    """

    num_heads: int
    mlp_width: int
    use_qkv_bias: bool = True
    dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    dtype: DTypeLike = jnp.float32
    activation: str = "gelu"
    epsilon: float = 1e-6
    is_causal: bool = False
    kernel_init: Initializer = _INIT
    is_post_norm: bool = False
    out_init: Initializer | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mode: Mode,
        places: jax.Array | None = None,
        is_key: jax.Array | None = None,
    ) -> jax.Array:
        """Apply the block to x f[N,L,C]: f[N,L,C], or f[N,Q,C] with `places`.

        `places` and `is_key` are those of `Attention`.

        Raises:
          ConfigError: an unknown activation, or heads that do not divide the channels.
        """
        if self.activation not in ACTIVATIONS:
            raise ConfigError(unknown_name("activation", self.activation, ACTIVATIONS))

        def norm(name: str) -> LayerNorm:
            return LayerNorm(self.epsilon, dtype=self.dtype, name=name)

        out_init = self.out_init or self.kernel_init

        def mlp(x: jax.Array) -> jax.Array:
            options = {"dtype": self.dtype, "name": "fc1", "kernel_init": self.kernel_init}
            y = ACTIVATIONS[self.activation](Dense(self.mlp_width, **options)(x))
            options |= {"name": "fc2", "kernel_init": out_init}
            return dropout(Dense(x.shape[-1], **options)(dropout(y, mode)), mode)

        drop_path, dropout = DropPath(self.drop_path_rate), Dropout(self.dropout_rate)
        attention = Attention(
            self.num_heads,
            self.use_qkv_bias,
            self.dropout_rate,
            self.dtype,
            self.is_causal,
            self.kernel_init,
            out_init,
            name="attention",
        )
        if self.is_post_norm:
            mixed = dropout(attention(x, mode, places, is_key), mode)
            x = norm("norm1")(at_places(x, places) + drop_path(mixed, mode))
            return norm("norm2")(x + drop_path(mlp(x), mode))
        mixed = dropout(attention(norm("norm1")(x), mode, places, is_key), mode)
        x = at_places(x, places) + drop_path(mixed, mode)
        return x + drop_path(mlp(norm("norm2")(x)), mode)


class VisionTransformer(nn.Module):
    """The network f[N,H,W,C] -> f[N,num_features]: a linear layer on the class token at the end.

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
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Features f[N,num_features] of images x f[N,H,W,C].

        Raises:
          ConfigError: patches that do not tile the images.
        """
        n, height, width, c = x.shape
        p = self.patch_px
        if height % p or width % p:
            raise ConfigError(f"Patches of {p} px do not tile an image of {height}x{width}.")
        # A convolution whose kernel is its stride is a matrix product.
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
        token = LayerNorm(1e-6, dtype=self.dtype, name="norm")(x[:, 0])
        return nn.Dense(self.num_features, dtype=self.dtype, kernel_init=_INIT, name="head")(token)
