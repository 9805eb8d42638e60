"""A mixture of experts for action units: every unit is a mix of the same few experts.

AUsER of AC4AU (ACM MM 2025), equations 4 and 5: E experts give one number each, and each of A units
has a gate that weighs them by a softmax.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mexjax.errors import ConfigError, unknown_name
from mexjax.nn.layers import Dropout, Initializer
from mexjax.nn.mode import Mode
from mexjax.ops.activations import gelu

EXPERTS = ("mlp", "linear")
MIXES = ("prob", "logit")
_NOT_CHOSEN = -1e30


class ExpertBank(nn.Module):
    """E networks of one output each, side by side: f[B,C] -> f32[B,E].

    Attributes:
      num_experts: E.
      kind: `mlp`, linear, GELU, dropout, linear; or `linear`.
      hidden: width of the MLPs.
    """

    num_experts: int
    kind: str = "mlp"
    hidden: int = 128
    dropout_rate: float = 0.1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Runs on features.

        Raises:
          ConfigError: an unknown kind.
        """
        if self.kind not in EXPERTS:
            raise ConfigError(unknown_name("kind of expert", self.kind, EXPERTS))
        x = x.astype(self.dtype)
        if self.kind == "linear":
            return nn.Dense(self.num_experts, dtype=self.dtype, name="out")(x).astype(jnp.float32)
        y = jnp.einsum("bc,ech->beh", x, self._kernel("fc1", x.shape[-1], self.hidden))
        y = gelu(y + self._bias("fc1", self.hidden))
        y = Dropout(self.dropout_rate)(y, mode)
        y = jnp.einsum("beh,eho->beo", y, self._kernel("fc2", self.hidden, 1))
        return (y + self._bias("fc2", 1))[..., 0].astype(jnp.float32)

    def _kernel(self, name: str, inputs: int, outputs: int) -> jax.Array:
        shape = (self.num_experts, inputs, outputs)
        return self.param(f"{name}_kernel", _stacked_init(), shape).astype(self.dtype)

    def _bias(self, name: str, outputs: int) -> jax.Array:
        shape = (self.num_experts, outputs)
        return self.param(f"{name}_bias", nn.initializers.zeros, shape).astype(self.dtype)


def _stacked_init() -> Initializer:
    """LeCun's normal, scaled for each of the stacked kernels by its own number of inputs."""
    return nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", batch_axis=(0,))


class ExpertMixture(nn.Module):
    """Probabilities of A action units from features f[B,C].

    Attributes:
      num_units: A.
      num_experts: E; 0: as many as units.
      kind: kind of the experts.
      hidden: width of the experts that are MLPs.
      dropout_rate: dropout rate of the experts.
      mix: `prob`, the probabilities of the experts are mixed, as equation 5 reads; `logit`, their
        logits are, and the mix is made a probability.
      top_k: each unit listens to its k heaviest experts alone; 0: to all, as in the paper.
      diagonal_bias: initial advantage of expert k in the gate of unit k.
      has_gates: False: expert k is unit k, without any mixing.
    """

    num_units: int
    num_experts: int = 0
    kind: str = "mlp"
    hidden: int = 128
    dropout_rate: float = 0.1
    mix: str = "prob"
    top_k: int = 0
    diagonal_bias: float = 0.0
    has_gates: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> dict[str, jax.Array]:
        """Runs on features.

        Returns:
          `log_p` and `log_not_p` f32[B,A], logarithms of p and 1 - p; `logits` f32[B,A], their
          difference; `gates` f32[B,A,E], weights that sum to 1; `expert_logits` f32[B,E].

        Raises:
          ConfigError: an unknown mix, or numbers of experts that do not fit.
        """
        num_experts = self.num_experts or self.num_units
        if self.mix not in MIXES:
            raise ConfigError(unknown_name("mix of experts", self.mix, MIXES))
        if not 0 <= self.top_k <= num_experts:
            raise ConfigError(f"top_k={self.top_k} of {num_experts} experts: 0 means all.")
        if not self.has_gates and num_experts != self.num_units:
            raise ConfigError(
                f"Without gates expert k is unit k: {num_experts} experts, {self.num_units} units."
            )
        bank = ExpertBank(
            num_experts, self.kind, self.hidden, self.dropout_rate, self.dtype, name="experts"
        )
        logits = bank(x, mode)
        if not self.has_gates:
            gates = jnp.broadcast_to(jnp.eye(num_experts), (x.shape[0],) + (num_experts,) * 2)
            return binary_outputs(logits) | {"gates": gates, "expert_logits": logits}

        def start(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
            del key
            diagonal = jnp.eye(self.num_units, num_experts, dtype=dtype) * self.diagonal_bias
            return diagonal.reshape(shape)

        # With zeros every unit at first listens to all experts alike.
        gate = nn.Dense(
            self.num_units * num_experts,
            dtype=self.dtype,
            kernel_init=nn.initializers.zeros,
            bias_init=start,
            name="gates",
        )
        scores = gate(x).astype(jnp.float32).reshape(-1, self.num_units, num_experts)
        if self.top_k:
            scores = jnp.where(_is_among(scores, self.top_k), scores, _NOT_CHOSEN)
        log_gates = jax.nn.log_softmax(scores)
        gates = jnp.exp(log_gates)
        if self.mix == "logit":
            outputs = binary_outputs(jnp.einsum("bae,be->ba", gates, logits))
        else:
            # These are logarithms of sums of weight x probability: exact, for weights sum to 1.
            log_p = jax.nn.logsumexp(log_gates + jax.nn.log_sigmoid(logits)[:, None], axis=-1)
            log_not_p = jax.nn.logsumexp(log_gates + jax.nn.log_sigmoid(-logits)[:, None], axis=-1)
            outputs = {"log_p": log_p, "log_not_p": log_not_p, "logits": log_p - log_not_p}
        return outputs | {"gates": gates, "expert_logits": logits}


def _is_among(scores: jax.Array, k: int) -> jax.Array:
    """Mask of the same shape: true for the k largest scores; the first of equal scores wins."""
    _, places = jax.lax.top_k(scores, k)
    return jax.nn.one_hot(places, scores.shape[-1], dtype=bool).any(axis=-2)


def binary_outputs(logits: jax.Array) -> dict[str, jax.Array]:
    """`log_p`, `log_not_p` and `logits`, all f32[B,A], of logits f[B,A]."""
    logits = logits.astype(jnp.float32)
    log_p, log_not_p = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return {"log_p": log_p, "log_not_p": log_not_p, "logits": logits}


def gate_statistics(gates: jax.Array) -> dict[str, jax.Array]:
    """Averages of the gates f32[B,A,E].

    Returns:
      `matrix` f32[A,E], mean weight of each expert in each unit; `load` f32[E], its mean over the
      units; `entropy` f32[A], mean entropy of a unit's weights over log E: 1 if all weigh alike, 0
      if there is one expert alone.
    """
    matrix = gates.mean(axis=0)
    entropy = -(gates * jnp.log(jnp.maximum(gates, 1e-30))).sum(axis=-1).mean(axis=0)
    return {
        "matrix": matrix,
        "load": matrix.mean(axis=0),
        "entropy": entropy / max(float(jnp.log(gates.shape[-1])), 1e-12),
    }
