"""One feature for each action unit, from the tokens of its landmarks (Micro-AU CLIP)."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mexjax.data.landmark_tokens import AU_LANDMARKS, MAX_AU_LANDMARKS
from mexjax.models.micro_au_clip import attention as au_attention
from mexjax.models.micro_au_clip.options import Options
from mexjax.nn.layers import torch_kernel_init
from mexjax.ops.activations import relu


def token_slots(units: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Units that share landmarks share tokens: which are to be computed, and who takes which.

    Returns:
      (i[Q, 2]: unit and place of each token to be computed; i[N, J]: token of a unit's place;
      bool[N, J]: whether it has that place).
    """
    first: dict[tuple[int, ...], int] = {}
    slots: list[tuple[int, int]] = []
    index = np.zeros((len(units), MAX_AU_LANDMARKS), int)
    mask = np.zeros((len(units), MAX_AU_LANDMARKS), bool)
    for n, unit in enumerate(units):
        landmarks = AU_LANDMARKS[unit]
        if landmarks not in first:
            first[landmarks] = len(slots)
            slots += [(n, j) for j in range(len(landmarks))]
        index[n, : len(landmarks)] = first[landmarks] + np.arange(len(landmarks))
        mask[n, : len(landmarks)] = True
    return np.array(slots), index, mask


class UnitMlp(nn.Module):
    """Two linear layers for each unit: f[B,N,...,d] -> f[B,N,...,features]."""

    hidden: int
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, d = x.shape[1], x.shape[-1]

        def layer(i: int, before: int, after: int) -> tuple[jax.Array, jax.Array]:
            init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", batch_axis=(0,))
            kernel = self.param(f"kernel_{i}", init, (n, before, after))
            limit = before**-0.5
            bias = self.param(
                f"bias_{i}",
                lambda key, shape: jax.random.uniform(key, shape, minval=-limit, maxval=limit),
                (n, after),
            )
            return kernel.astype(x.dtype), bias.astype(x.dtype)

        layers = (*layer(1, d, self.hidden), *layer(2, self.hidden, self.features))
        return au_attention.stacked_mlp(x, *layers)


class UnitFeatures(nn.Module):
    """F_V and what leads to it, from tokens; the keys are those of the presets."""

    options: Options
    num_units: int

    @nn.compact
    def __call__(self, tokens: jax.Array, mask: jax.Array | None) -> dict[str, jax.Array]:
        """From f[B,N,J,d] with mask bool[N,J] or, of the class token, f[B,d] without.

        Returns:
          features f[B,N,d]; attention f32[B,N,J] where tokens are pooled by it; share f32[B,N] and
          is_even f32[B], whether no unit was scored above zero, where units attend to each other.
        """
        c, n, d = self.options, self.num_units, tokens.shape[-1]
        outputs: dict[str, jax.Array] = {}
        if mask is None:
            own = self._linear_each(jnp.broadcast_to(tokens[:, None], (len(tokens), n, d)), "own")
        elif c.pooling == "attention":
            scores = UnitMlp(c.pooling_width, 1, name="token_scores")(tokens)[..., 0]
            outputs["attention"], own = au_attention.patch_token_attention(tokens, mask, scores)
        else:
            own = au_attention.pool_tokens(tokens, mask, c.pooling)
        if c.has_unit_projection:
            own = self._linear_each(own, "unit_projection")
        if c.branches == "local":
            return outputs | {"features": own}
        if c.fusion == "gda":
            wq, wk, wv = (
                self.param(name, torch_kernel_init(), (d, d)).astype(own.dtype)
                for name in ("query", "key", "value")
            )
            relations = au_attention.relations(own, wq, wk)
            mode = c.fc_mode
            # Positive, so that the ReLU passes gradients at the start.
            weight = self.param(
                "dependency_weight",
                nn.initializers.uniform(2 / n**0.5),
                (n * n, n) if mode == "flatten" else (n,),
            )
            bias = self.param("dependency_bias", nn.initializers.zeros, (n,))
            scores = au_attention.dependency_scores(relations, weight, bias, mode)
            outputs["share"], state = au_attention.global_dependency(own, scores, wv)
            outputs["is_even"] = (scores <= 0).all(axis=-1).astype(jnp.float32)
        else:
            joined = own.sum(axis=1) if c.fusion == "add_mlp" else own.reshape(len(own), -1)
            state = relu(self._dense(joined, d, "fusion_1"))
            state = self._dense(state, d, "fusion_2")
        return outputs | {"features": state[:, None] + own}

    def _dense(self, x: jax.Array, features: int, name: str) -> jax.Array:
        return nn.Dense(features, dtype=x.dtype, kernel_init=torch_kernel_init(), name=name)(x)

    def _linear_each(self, x: jax.Array, name: str) -> jax.Array:
        """f[B,N,d] -> f[B,N,d] by a matrix for each unit."""
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", batch_axis=(0,))
        kernel = self.param(name, init, (x.shape[1], x.shape[2], x.shape[2])).astype(x.dtype)
        return jnp.einsum("bnd,nde->bne", x, kernel)
