"""Arrays that exist no earlier than another one.

XLA:CPU orders a program so that much of it could run at once: what needs no other array, such as
the zeros that a sum starts from, comes first and is held until it is used, and what the backward
pass would compute again is found to be in the forward pass already and held until then. A training
step of a network took a fifth of its memory for that. What is made here needs an element of another
array, which decides nothing.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def _element(x: jax.Array) -> jax.Array:
    """f[], the first of x f[...]."""
    return lax.slice(x, (0,) * x.ndim, (1,) * x.ndim).reshape(())


def room_after(x: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """An array that is about to be overwritten; what is in it is an element of x."""
    return jnp.broadcast_to(_element(x).astype(dtype), shape)


def zeros_after(x: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """Zeros, whatever is in x f[...]; in `shard_map` they vary over the mesh axes that x does."""
    # Nothing is above infinity, and XLA does not know that: it would a product with zero.
    return jnp.broadcast_to((_element(x) > jnp.inf).astype(dtype), shape)


def again_after(a: jax.Array, x: jax.Array) -> jax.Array:
    """A copy of `a` f[...]: what is computed of it is computed after x, and held no earlier."""
    return a + zeros_after(x, (), a.dtype)


def tree_after(tree: Any, other: Any) -> Any:
    """Copies of the leaves of `tree`, computed after every leaf of `other` is."""
    elements = jnp.stack([_element(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(other)])
    zero = (elements > jnp.inf).any()
    return jax.tree.map(lambda a: a + zero.astype(a.dtype), tree)
