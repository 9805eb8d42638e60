"""Losses of Micro-AU CLIP, each a value for every sample; and its zero-shot scores.

There are B samples and N action units. A batch may be padded: a sample of weight 0 is in no other
sample's loss, and the caller gives its own loss no weight.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from mexjax.errors import unknown_name

GD_TARGETS = ("multi_hot", "normalised")
CONTRASTS = ("bce", "softmax_multihot", "softmax_normalised", "diagonal")


def multitask_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy of each action unit, f32[B,N].

    The softmax that Eq. 7 prints is taken as the one inside of the cross-entropy.

    Args:
      logits: f[B,N,2], inactive and active.
      labels: 0 or 1, [B,N].
    """
    return optax.softmax_cross_entropy_with_integer_labels(
        logits.astype(jnp.float32), labels.astype(jnp.int32)
    )


def dependency_loss(share: jax.Array, labels: jax.Array, target: str = "multi_hot") -> jax.Array:
    """GD, Eq. 8: mean squared distance of the units' shares from the labels, f32[B].

    Shares sum to one and labels to k, so with `multi_hot`, as printed, the least value is
    (k - 1)^2 / (k N), reached at labels / k, or 1 / N^2 at equal shares for k = 0. `normalised`
    has the same minimiser and the least value zero. Samples with different k do not compare.

    Args:
      share: f[B,N], W_d.
      labels: 0 or 1, [B,N].
      target: one of `GD_TARGETS`.

    Raises:
      ValueError: another target.
    """
    target_share = labels.astype(jnp.float32)
    if target == "normalised":
        count = target_share.sum(axis=-1, keepdims=True)
        target_share = jnp.where(
            count > 0, target_share / jnp.maximum(count, 1), 1 / target_share.shape[-1]
        )
    elif target != "multi_hot":
        raise ValueError(unknown_name("target of the dependency loss", target, GD_TARGETS))
    return jnp.square(share.astype(jnp.float32) - target_share).mean(axis=-1)


def text_cosines(features: jax.Array, texts: jax.Array) -> jax.Array:
    """Cosines of every unit's feature with its own two texts, f32[B,N,2].

    Args:
      features: f[B,N,d], F_V.
      texts: f[N,2,d], negative and positive.
    """
    a, b = (_unit(x.astype(jnp.float32)) for x in (features, texts))
    return jnp.einsum("bnd,nkd->bnk", a, b)


def _unit(x: jax.Array) -> jax.Array:
    square = jnp.square(x).sum(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


def similarities(cosines: jax.Array, labels: jax.Array) -> jax.Array:
    """M, Eq. 9, f32[N,B,B]: sample i's feature with the text that is right for sample j.

    Args:
      cosines: f32[B,N,2], see `text_cosines`.
      labels: 0 or 1, [B,N].
    """
    is_active = (labels > 0).T[:, None, :]  # (N, 1, B)
    inactive, active = (cosines[..., k].T[:, :, None] for k in (0, 1))  # (N, B, 1)
    return jnp.where(is_active, active, inactive)


def contrast_loss(
    m: jax.Array,
    labels: jax.Array,
    weight: jax.Array | None = None,
    *,
    how: str = "bce",
    scale: float | jax.Array = 1.0,
    has_columns: bool = True,
) -> jax.Array:
    """MiAUCL, Eq. 10 and 11, summed over the units: f32[B].

    LM[i,j] is 1 where samples i and j have the same label of a unit. `bce` asks every pair's cosine
    to agree with it. The others are cross-entropies of a softmax over j and, with `has_columns`,
    half of that and half of one over i: with LM as it is (`softmax_multihot`), with rows of LM
    that sum to one (`softmax_normalised`), or with the identity (`diagonal`, the contrastive loss
    of CLIP). A unit has two texts only, so the columns of a class are all alike, and the last two
    are equal.

    Args:
      m: f32[N,B,B], see `similarities`.
      labels: 0 or 1, [B,N].
      weight: f32[B], 0 for padding; None: no padding.
      how: one of `CONTRASTS`.
      scale: factor on the cosines, the inverse of a temperature.
      has_columns: True: the softmax forms have a term over i too.

    Raises:
      ValueError: another form.
    """
    if how not in CONTRASTS:
        raise ValueError(unknown_name("contrast", how, CONTRASTS))
    count = m.shape[-1]
    real = jnp.ones((count,)) if weight is None else (weight > 0).astype(jnp.float32)
    matches = (labels.T[:, :, None] == labels.T[:, None, :]).astype(jnp.float32)
    if how == "diagonal":
        matches = jnp.broadcast_to(jnp.eye(count), matches.shape)
    matches *= real[:, None] * real
    logits = scale * m
    if how == "bce":
        losses = optax.sigmoid_binary_cross_entropy(logits, matches) * real
        return (losses.sum(axis=-1) / jnp.maximum(real.sum(), 1)).sum(axis=0)
    if how == "softmax_normalised":
        # The row of a real sample has at least the sample itself.
        targets = matches / jnp.maximum(matches.sum(axis=-1, keepdims=True), 1)
    else:
        targets = matches  # LM and the identity are symmetric
    rows = _cross_entropy(logits, targets, real)
    if has_columns:
        columns = _cross_entropy(logits.swapaxes(-1, -2), targets, real)
        rows = (rows + columns) / 2
    return rows.sum(axis=0)


def _cross_entropy(logits: jax.Array, targets: jax.Array, real: jax.Array) -> jax.Array:
    """The sum -sum_j target[i,j] log softmax_j(logits[i,j]) over real j: f32[N,B]."""
    shifted = jnp.where(real > 0, logits, -jnp.inf)
    log_p = jax.nn.log_softmax(shifted, axis=-1)
    return -jnp.where(targets > 0, targets * log_p, 0.0).sum(axis=-1)


def combination_scores(cosines: jax.Array, members: jax.Array) -> jax.Array:
    """Eq. 13: how well each combination of action units describes a sample, f32[B,R].

    The sum over all units of the cosine with the positive text where the unit is in the
    combination, and with the negative where it is not, so that combinations of any size compare.

    Args:
      cosines: f[B,N,2], see `text_cosines`.
      members: 0 or 1, [R,N].
    """
    members = members.astype(cosines.dtype)
    gain = cosines[..., 1] - cosines[..., 0]
    return cosines[..., 0].sum(axis=-1, keepdims=True) + gain @ members.T
