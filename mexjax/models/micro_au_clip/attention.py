"""From image tokens to one feature for each action unit, and what the units have in common.

The two attentions of Micro-AU CLIP as functions of their arrays. B samples, N action units, J
places a unit is looked for (padded), d channels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mexjax.errors import unknown_name

POOLINGS = ("attention", "mean", "max")
FC_MODES = ("incoming", "outgoing", "flatten")


def stacked_mlp(
    x: jax.Array, w1: jax.Array, b1: jax.Array, w2: jax.Array, b2: jax.Array
) -> jax.Array:
    """relu(x w1 + b1) w2 + b2 with weights of its own for each action unit.

    Args:
      x: f[B,N,...,d].
      w1, b1: f[N,d,h], f[N,h].
      w2, b2: f[N,h,o], f[N,o].

    Returns:
      f[B,N,...,o].
    """
    b, n, *between, d = x.shape
    flat = x.reshape(b, n, -1, d)
    hidden = jax.nn.relu(jnp.einsum("bnjd,ndh->bnjh", flat, w1) + b1[:, None])
    out = jnp.einsum("bnjh,nho->bnjo", hidden, w2) + b2[:, None]
    return out.reshape(b, n, *between, -1)


def patch_token_attention(
    tokens: jax.Array, mask: jax.Array, scores: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Eq. 2 and 3: the mean of a unit's tokens, weighted by a softmax of their scores.

    A patch in which several landmarks lie is there several times and counts as often.

    Args:
      tokens: f[B,N,J,d].
      mask: bool[B,N,J] or bool[N,J], False where a unit has no such landmark. Each unit has one.
      scores: f[B,N,J], of an MLP of the unit's own.

    Returns:
      weights f32[B,N,J], zero where there is no landmark, and features f[B,N,d].
    """
    scores = jnp.where(mask, scores.astype(jnp.float32), -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1)
    return weights, jnp.einsum("bnj,bnjd->bnd", weights.astype(tokens.dtype), tokens)


def pool_tokens(tokens: jax.Array, mask: jax.Array, how: str) -> jax.Array:
    """`mean` or `max` of a unit's tokens f[B,N,J,d] where `mask` bool[B,N,J]: f[B,N,d].

    Raises:
      ValueError: another name.
    """
    mask = jnp.broadcast_to(mask, tokens.shape[:3])[..., None]
    if how == "mean":
        return jnp.where(mask, tokens, 0).sum(axis=2) / mask.sum(axis=2)
    if how == "max":
        return jnp.where(mask, tokens, -jnp.inf).max(axis=2)
    raise ValueError(unknown_name("pooling", how, POOLINGS))


def relations(features: jax.Array, wq: jax.Array, wk: jax.Array) -> jax.Array:
    """Eq. 4: how much unit m attends to unit n, f32[B,N,N]; rows sum to one.

    Args:
      features: f[B,N,d].
      wq, wk: f[d,d], one head.
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
      weight: f[N], of `flatten` f[N*N,N].
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
