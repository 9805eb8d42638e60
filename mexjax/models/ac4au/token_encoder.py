"""A stack of transformer blocks over tokens that learn where, or when, they are."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mexjax.errors import ConfigError, unknown_name
from mexjax.nn.layer_norm import LayerNorm
from mexjax.nn.layers import truncated_normal
from mexjax.nn.mode import Mode
from mexjax.nn.vit import Block

# Fields of the blocks: norms come before the branches, or the defaults of PyTorch's encoder layer
# hold.
STYLES: dict[str, dict[str, Any]] = {
    "pre_norm": {},
    "torch_default": {"is_post_norm": True, "activation": "relu", "epsilon": 1e-5},
}


class TokenEncoder(nn.Module):
    """A map f[N,L,C] -> f[N,L,C] by position code, blocks and, if asked for, a last layer norm.

    Attributes:
      depth: number of blocks; with 0 and without position and norm tokens stay as they are.
      has_position: True: a learnt code f[1,L,C] is added; without it the tokens have no order.
      has_last_norm: True: a layer norm follows the blocks.
      style: a key of `STYLES`.
      starts_as_identity: True: branches of `pre_norm` end with zeros at the start.
    """

    depth: int
    num_heads: int
    mlp_width: int
    dropout_rate: float = 0.0
    style: str = "pre_norm"
    has_position: bool = True
    has_last_norm: bool = False
    starts_as_identity: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode, is_seen: jax.Array | None = None) -> jax.Array:
        """Runs on tokens; none looks at those where `is_seen` bool[N,L] is false."""
        if self.style not in STYLES:
            raise ConfigError(unknown_name("style of a transformer", self.style, STYLES))
        x = x.astype(self.dtype)
        if self.has_position:
            position = self.param("position", truncated_normal(0.02), (1, *x.shape[1:]))
            x += position.astype(self.dtype)
        for i in range(self.depth):
            block = Block(
                self.num_heads,
                self.mlp_width,
                dropout_rate=self.dropout_rate,
                dtype=self.dtype,
                out_init=nn.initializers.zeros if self.starts_as_identity else None,
                name=f"block_{i}",
                **STYLES[self.style],
            )
            x = block(x, mode, is_key=is_seen)
        if self.has_last_norm:
            x = LayerNorm(1e-6, dtype=self.dtype, name="norm")(x)
        return x
