"""Gradients written by hand for functions with static arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax

Result = TypeVar("Result")


def custom_vjp(*static: int) -> Callable[[Callable[..., Result]], jax.custom_vjp[Result]]:
    """`jax.custom_vjp` as a decorator, whose calls have the result's type for a type checker.

    Args:
      *static: places of the arguments without gradient (`nondiff_argnums`).
    """

    def wrap(function: Callable[..., Result]) -> jax.custom_vjp[Result]:
        # The type that JAX declares is a union in which the type of the result is lost.
        operation: Any = jax.custom_vjp(function, nondiff_argnums=static)
        return cast("jax.custom_vjp[Result]", operation)

    return wrap
