"""From image tokens to one feature for each action unit, and the state that all units share.

The two attentions of Micro-AU CLIP as functions of their arrays, and the modules that hold their
weights. There are B samples, N action units, J places where a unit is looked for (padded), and d
channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mexjax.data.landmark_tokens import AU_LANDMARKS, MAX_AU_LANDMARKS
from mexjax.errors import unknown_name
from mexjax.models.micro_au_clip.options import Options
from mexjax.nn.layers import torch_kernel_init
from mexjax.ops.activations import relu

Mask = jax.Array | np.ndarray

POOLINGS = ("attention", "mean", "max")
FC_MODES = ("incoming", "outgoing", "flatten")


def stacked_mlp(
    x: jax.Array, w1: jax.Array, b1: jax.Array, w2: jax.Array, b2: jax.Array
) -> jax.Array:
    """The MLP relu(x w1 + b1) w2 + b2 with other weights for each action unit.

    Args:
      x: f[B,N,...,d].
      w1: f[N,d,h].
      b1: f[N,h].
      w2: f[N,h,o].
      b2: f[N,o].

    Returns:
      f[B,N,...,o].
    """
    b, n, *between, d = x.shape
    flat = x.reshape(b, n, -1, d)
    hidden = jax.nn.relu(jnp.einsum("bnjd,ndh->bnjh", flat, w1) + b1[:, None])
    out = jnp.einsum("bnjh,nho->bnjo", hidden, w2) + b2[:, None]
    return out.reshape(b, n, *between, -1)


def patch_token_attention(
    tokens: jax.Array, mask: Mask, scores: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Eq. 2 and 3: the mean of a unit's tokens, weighted by a softmax of their scores.

    A patch in which several landmarks lie is there several times and counts as often.

    Args:
      tokens: f[B,N,J,d].
      mask: bool[B,N,J] or bool[N,J], False where a unit has no such landmark. Each unit has one.
      scores: f[B,N,J], from an MLP of each unit.

    Returns:
      weights f32[B,N,J], zero where there is no landmark, and features f[B,N,d].
    """
    scores = jnp.where(mask, scores.astype(jnp.float32), -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1)
    return weights, jnp.einsum("bnj,bnjd->bnd", weights.astype(tokens.dtype), tokens)


def pool_tokens(tokens: jax.Array, mask: Mask, how: str) -> jax.Array:
    """`mean` or `max` of a unit's tokens f[B,N,J,d] where `mask` bool[B,N,J]: f[B,N,d].

    Raises:
      ValueError: another name.
    """
    has_token = jnp.broadcast_to(mask, tokens.shape[:3])[..., None]
    if how == "mean":
        return jnp.where(has_token, tokens, 0).sum(axis=2) / has_token.sum(axis=2)
    if how == "max":
        return jnp.where(has_token, tokens, -jnp.inf).max(axis=2)
    raise ValueError(unknown_name("pooling", how, POOLINGS))


def relations(features: jax.Array, wq: jax.Array, wk: jax.Array) -> jax.Array:
    """Eq. 4: how much unit m attends to unit n, f32[B,N,N]; rows sum to one.

    Args:
      features: f[B,N,d].
      wq: f[d,d], queries of one head.
      wk: f[d,d], keys of one head.
    """
    q, k = features @ wq, features @ wk
    scores = jnp.einsum("bmd,bnd->bmn", q, k, preferred_element_type=jnp.float32)
    return jax.nn.softmax(scores * features.shape[-1] ** -0.5, axis=-1)


def dependency_scores(
    attention: jax.Array, weight: jax.Array, bias: jax.Array, mode: str
) -> jax.Array:
    """Eq. 5 before its softmax: relu(FC(A)), f32[B,N].

    The paper's FC maps N x N to 1 x N and is printed no further. `incoming` weighs how much a unit
    is attended to, s[n] = sum_m w[m] A[m,n] + b[n]; `outgoing` how it attends, s[m] = sum_n w[n]
    A[m,n] + b[m]; `flatten` is a linear layer of all N^2.

    Args:
      attention: f[B,N,N], see `relations`.
      weight: f[N], for `flatten` f[N*N,N].
      bias: f[N].
      mode: one of `FC_MODES`.

    Raises:
      ValueError: another mode.
    """
    if mode == "incoming":
        scores = jnp.einsum("m,bmn->bn", weight, attention)
    elif mode == "outgoing":
        scores = jnp.einsum("n,bmn->bm", weight, attention)
    elif mode == "flatten":
        scores = attention.reshape(attention.shape[0], -1) @ weight
    else:
        raise ValueError(unknown_name("mode of the dependency layer", mode, FC_MODES))
    return jax.nn.relu(scores + bias)


def global_dependency(
    features: jax.Array, scores: jax.Array, wv: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Eq. 5 and 6: the units' share W_d in the face's state, and that state F_G = W_d F W^V.

    Args:
      features: f[B,N,d].
      scores: f32[B,N], see `dependency_scores`.
      wv: f[d,d].

    Returns:
      W_d f32[B,N], rows sum to one, and F_G f[B,d].
    """
    share = jax.nn.softmax(scores, axis=-1)
    return share, jnp.einsum("bn,bnd->bd", share.astype(features.dtype), features) @ wv


def token_slots(units: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens to be computed for action units; units that share landmarks share tokens.

    Returns:
      Three arrays: i[Q, 2], unit and place of each token to be computed; i[N, J], the token of each
      place of a unit; bool[N, J], true where the unit has that place.
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
        """Runs on features of units."""
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
        return stacked_mlp(x, *layers)


class UnitFeatures(nn.Module):
    """The features F_V of units from tokens, and the outputs that lead to them."""

    options: Options
    num_units: int

    @nn.compact
    def __call__(self, tokens: jax.Array, mask: Mask | None) -> dict[str, jax.Array]:
        """Runs on tokens f[B,N,J,d] with mask bool[N,J], or on class tokens f[B,d] without a mask.

        Returns:
          features f[B,N,d]; attention f32[B,N,J] if tokens are pooled by it; if units attend to
          each other, share f32[B,N] and is_even f32[B], 1 if no unit was scored above zero.
        """
        c, n, d = self.options, self.num_units, tokens.shape[-1]
        outputs: dict[str, jax.Array] = {}
        if mask is None:
            features = self._linear_each(
                jnp.broadcast_to(tokens[:, None], (len(tokens), n, d)), "own"
            )
        elif c.pooling == "attention":
            scores = UnitMlp(c.pooling_width, 1, name="token_scores")(tokens)[..., 0]
            outputs["attention"], features = patch_token_attention(tokens, mask, scores)
        else:
            features = pool_tokens(tokens, mask, c.pooling)
        if c.has_unit_projection:
            features = self._linear_each(features, "unit_projection")
        if c.branches == "local":
            return outputs | {"features": features}
        if c.fusion == "gda":
            wq, wk, wv = (
                self.param(name, torch_kernel_init(), (d, d)).astype(features.dtype)
                for name in ("query", "key", "value")
            )
            attention = relations(features, wq, wk)
            mode = c.fc_mode
            # Positive weights let the ReLU pass gradients at the start.
            weight = self.param(
                "dependency_weight",
                nn.initializers.uniform(2 / n**0.5),
                (n * n, n) if mode == "flatten" else (n,),
            )
            bias = self.param("dependency_bias", nn.initializers.zeros, (n,))
            scores = dependency_scores(attention, weight, bias, mode)
            outputs["share"], state = global_dependency(features, scores, wv)
            outputs["is_even"] = (scores <= 0).all(axis=-1).astype(jnp.float32)
        else:
            joined = (
                features.sum(axis=1)
                if c.fusion == "add_mlp"
                else features.reshape(len(features), -1)
            )
            state = relu(self._dense(joined, d, "fusion_1"))
            state = self._dense(state, d, "fusion_2")
        return outputs | {"features": state[:, None] + features}

    def _dense(self, x: jax.Array, features: int, name: str) -> jax.Array:
        return nn.Dense(features, dtype=x.dtype, kernel_init=torch_kernel_init(), name=name)(x)

    def _linear_each(self, x: jax.Array, name: str) -> jax.Array:
        """Maps f[B,N,d] to f[B,N,d] by a matrix for each unit."""
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", batch_axis=(0,))
        kernel = self.param(name, init, (x.shape[1], x.shape[2], x.shape[2])).astype(x.dtype)
        return jnp.einsum("bnd,nde->bne", x, kernel)
