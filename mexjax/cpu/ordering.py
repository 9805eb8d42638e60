"""Arrays that exist no earlier than another one.

XLA:CPU orders a program so that much of it could run at once. Arrays that need no other array, such
as the zeros that a sum starts from, come first and are held until they are used. Arrays that the
backward pass would compute again exist in the forward pass already, so they are held until then.
That takes memory for the whole of the step. The arrays here need an element of another array, whose
value does not matter.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike


def _element(x: jax.Array) -> jax.Array:
    """The first element f[] of x f[...]; 0 if x is empty."""
    if x.size == 0:
        return jnp.zeros((), x.dtype)
    return lax.slice(x, (0,) * x.ndim, (1,) * x.ndim).reshape(())


def empty_after(x: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """An array that is about to be overwritten; its values are an element of x."""
    return jnp.broadcast_to(_element(x).astype(dtype), shape)


def zeros_after(x: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """Zeros that come after x f[...]; in `shard_map` they vary over the mesh axes of x."""
    # Nothing is above infinity, but XLA does not know that. A product with zero would not do: it is
    # NaN where x is.
    return jnp.broadcast_to((_element(x) > jnp.inf).astype(dtype), shape)


def copy_after(a: jax.Array, x: jax.Array) -> jax.Array:
    """A copy of `a` f[...] (-0 becomes 0): results that are computed from it come after x."""
    return a + zeros_after(x, (), a.dtype)


def tree_after(tree: Any, other: Any) -> Any:
    """Copies of the leaves of `tree` (-0 becomes 0), after the first element of each of `other`."""
    elements = [_element(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(other)]
    if not elements:
        return tree
    zero = (jnp.stack(elements) > jnp.inf).any()
    return jax.tree.map(lambda a: a + zero.astype(a.dtype), tree)
