"""Mesh axes of `shard_map` over which arrays vary."""

from __future__ import annotations

from typing import Any

import jax
from jax import lax
from jax.typing import DTypeLike


def varying_axes(x: jax.Array) -> frozenset[str]:
    """The `shard_map` mesh axes over which `x` varies (none outside of `shard_map`)."""
    kind = jax.typeof(x)
    return kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying


def vary_alike(x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Inside `shard_map`, let both arrays vary over the mesh axes that either varies over.

    This is outside of the custom derivative, so that the gradient of an array which the devices
    share is summed over them.
    """
    axes = [varying_axes(a) for a in (x, w)]
    surplus = [tuple(sorted((axes[0] | axes[1]) - axis)) for axis in axes]
    if surplus[0]:
        x = lax.pcast(x, surplus[0], to="varying")
    if surplus[1]:
        w = lax.pcast(w, surplus[1], to="varying")
    return x, w


def struct_like(x: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.ShapeDtypeStruct:
    """The type of an array that varies over the mesh axes of `x`."""
    kind: Any = jax.typeof(x)
    name = "vma" if hasattr(kind, "vma") else "manual_axis_type"
    axes: dict[str, Any] = {name: getattr(kind, name)}
    return jax.ShapeDtypeStruct(shape, dtype, **axes)
