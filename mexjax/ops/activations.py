"""Activation functions that cost less than their library form; they have one derivative."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from mexjax.cpu.ordering import copy_after


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """The larger of x and 0, with gradient 0 at 0: f[...] -> f[...].

    `jax.nn.relu` keeps x for the gradient; this keeps the result, which the next layer keeps too.
    """
    return jnp.maximum(x, 0)


def _relu_fwd(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = relu(x)
    return y, y


def _relu_bwd(y: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(y > 0, dy, 0),)


relu.defvjp(_relu_fwd, _relu_bwd)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU: x times the normal distribution function of x, f[...] -> f[...].

    `jax.nn.gelu` goes through erfc, which keeps the last digits of a tail that vanishes and takes
    longer; the derivative here needs one exponential, and keeps x alone.
    """
    return x * _normal_distribution(x)


def _normal_distribution(x: jax.Array) -> jax.Array:
    return 0.5 * (1.0 + lax.erf(x * math.sqrt(0.5)))


def _gelu_fwd(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return gelu(x), x


def _gelu_bwd(x: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    x = copy_after(x, dy)
    slope = _normal_distribution(x) + x * jnp.exp(-0.5 * x * x) * (0.5 / math.pi) ** 0.5
    return (slope * dy,)


gelu.defvjp(_gelu_fwd, _gelu_bwd)


def quick_gelu(x: jax.Array) -> jax.Array:
    """The GELU that OpenAI trained CLIP with, x sigmoid(1.702 x): f[...] -> f[...]."""
    return x * jax.nn.sigmoid(1.702 * x)
