"""The mode of a forward pass: it reaches every layer that behaves differently in training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Mode:
    """The mode of a forward pass.

    Attributes:
      is_train: batch statistics, stochastic depth and dropout are on (static).
      weight: f32[N] or None. A sample of weight 0 is padding: it enters no batch statistic.
      is_frozen: bool[] or None, may be traced. True: batch norm uses and keeps its running
        statistics, stochastic depth and dropout are off, although `is_train`.
      num_frames: T, the frames of a clip that are folded into the batch (static).
    """

    is_train: bool = struct.field(pytree_node=False, default=False)
    weight: jax.Array | None = None
    is_frozen: jax.Array | None = None
    num_frames: int = struct.field(pytree_node=False, default=1)

    @classmethod
    def from_batch(cls, batch: Mapping[str, jax.Array], *, train: bool) -> Mode:
        """The mode of whole clips: `weight` and `is_frozen` are optional entries of `batch`."""
        return cls(is_train=train, weight=batch.get("weight"), is_frozen=batch.get("is_frozen"))

    def per_frame(self, num_frames: int) -> Mode:
        """The same mode for B * T frames: every frame has the weight of its clip."""
        weight = None if self.weight is None else jnp.repeat(self.weight, num_frames)
        return dataclasses.replace(self, weight=weight, num_frames=num_frames)

    def unless_frozen(self, noisy: jax.Array, plain: jax.Array) -> jax.Array:
        """`noisy` in training, `plain` where training is frozen."""
        return noisy if self.is_frozen is None else jnp.where(self.is_frozen, plain, noisy)
