"""Losses that more than one paper can use: angular margin, focal and plain binary cross-entropy.

All take and give float32, whatever the network computes in.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import optax

from mexjax.errors import ConfigError, unknown_name

MARGIN_MODES = ("literal", "monotone", "easy")
_LARGEST_COSINE = 1 - 1e-7
_NO_CLASS = -1e9


def angular_margin_logits(
    cosines: jax.Array,
    label: jax.Array,
    *,
    scale: float = 32.0,
    margin: float = 0.5,
    mode: str = "monotone",
) -> jax.Array:
    """Scale * cos(theta), and scale * cos(theta + margin) for the class of the label.

    Equation 7 of AC4AU; ArcFace (Deng et al., CVPR 2019). Where theta + margin passes pi, cos(theta
    + margin) rises again and would reward moving away. `literal` lets it; `monotone` goes on from
    there by cos(theta) - margin * sin(margin); `easy` has a margin only where cos(theta) > 0.

    Args:
      cosines: f[B, S] of the angles to S prototypes.
      label: i32[B].
      scale, margin: s without unit, m in radians.
      mode: one of `MARGIN_MODES`.

    Returns:
      f32[B, S]. Gradients are finite everywhere, cosines of +-1 included.
    """
    if mode not in MARGIN_MODES:
        raise ConfigError(unknown_name("mode of the angular margin", mode, MARGIN_MODES))
    # No arccos, and a sine that has a slope at 0: both are steep without bound at +-1.
    cosines = jnp.clip(cosines.astype(jnp.float32), -_LARGEST_COSINE, _LARGEST_COSINE)
    sines = jnp.sqrt(jnp.maximum(1 - jnp.square(cosines), 0) + 1e-12)
    moved = cosines * math.cos(margin) - sines * math.sin(margin)
    if mode == "monotone":
        is_past = cosines <= math.cos(math.pi - margin)
        moved = jnp.where(is_past, cosines - margin * math.sin(margin), moved)
    elif mode == "easy":
        moved = jnp.where(cosines > 0, moved, cosines)
    is_own = jax.nn.one_hot(label, cosines.shape[-1], dtype=bool)
    return scale * jnp.where(is_own, moved, cosines)


def angular_margin_loss(
    cosines: jax.Array,
    label: jax.Array,
    is_class: jax.Array | None = None,
    *,
    scale: float = 32.0,
    margin: float = 0.5,
    mode: str = "monotone",
) -> jax.Array:
    """Softmax cross-entropy of `angular_margin_logits`: f32[B].

    Args:
      cosines: f[B, S].
      label: i32[B].
      is_class: bool[S]: false for a prototype that is padding; None: none is.
      scale, margin, mode: as there.
    """
    logits = angular_margin_logits(cosines, label, scale=scale, margin=margin, mode=mode)
    if is_class is not None:
        logits = jnp.where(is_class, logits, _NO_CLASS)
    return optax.softmax_cross_entropy_with_integer_labels(logits, label)


def focal_terms(
    log_p: jax.Array,
    log_not_p: jax.Array,
    target: jax.Array,
    alpha: jax.Array,
    *,
    focus: float = 2.0,
) -> jax.Array:
    """Focal loss of each action unit, balanced by how rare it is (equation 8 of AC4AU).

        -(1 - alpha) (1 - p)^focus log p          where the unit is present
        -alpha p^focus log(1 - p)                 where it is not

    Args:
      log_p, log_not_p: f32[..., A], log p and log(1 - p). Logarithms, so that nothing saturates.
      target: 0/1 [..., A].
      alpha: f32[A], share of clips that show the unit.
      focus: exponent; 0 is balanced cross-entropy.

    Returns:
      f32[..., A].
    """
    target = target.astype(jnp.float32)
    present = (1 - alpha) * jnp.exp(focus * log_not_p) * log_p
    absent = alpha * jnp.exp(focus * log_p) * log_not_p
    return -(target * present + (1 - target) * absent)


def cross_entropy_terms(log_p: jax.Array, log_not_p: jax.Array, target: jax.Array) -> jax.Array:
    """Binary cross-entropy of each action unit, f32[..., A]; arguments as of `focal_terms`."""
    target = target.astype(jnp.float32)
    return -(target * log_p + (1 - target) * log_not_p)
