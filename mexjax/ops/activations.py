"""Activation functions whose library form costs more than it must."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


@jax.custom_jvp
def gelu(x: jax.Array) -> jax.Array:
    """x times the normal distribution function of x, exact: f[...] -> f[...].

    `jax.nn.gelu` goes through erfc, which keeps the last digits of a tail that vanishes and takes
    twice the time; the derivative here needs one exponential.
    """
    return 0.5 * x * (1.0 + jax.lax.erf(x * math.sqrt(0.5)))


@gelu.defjvp
def _gelu_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    share = 0.5 * (1.0 + jax.lax.erf(x * math.sqrt(0.5)))
    slope = share + x * jnp.exp(-0.5 * x * x) * (0.5 / math.pi) ** 0.5
    return x * share, slope * dx


def quick_gelu(x: jax.Array) -> jax.Array:
    """x sigmoid(1.702 x): the approximation that OpenAI trained CLIP with."""
    return x * jax.nn.sigmoid(1.702 * x)
