"""The cases of `cpu_tricks.py` that are one operation, and ways to leave a trick out."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mexjax.cpu import ordering, sums
from mexjax.nn import layer_norm
from mexjax.nn.batch_norm import BatchNorm
from mexjax.nn.mode import Mode
from mexjax.ops import activations, products, rank_pooling, retention

# Functions that order a program, and those that take their place without the trick.
UNORDERED: dict[Callable, Callable] = {
    ordering.empty_after: lambda x, shape, dtype: jnp.zeros(shape, dtype),
    ordering.zeros_after: lambda x, shape, dtype: jnp.zeros(shape, dtype),
    ordering.copy_after: lambda a, x: a,
    ordering.tree_after: lambda tree, other: tree,
}


@contextlib.contextmanager
def replaced(substitutes: dict[Any, Any]) -> Iterator[None]:
    """Puts other functions in the place of some in every module of the package that has them."""
    by_id = {id(old): new for old, new in substitutes.items()}
    modules = [module for name, module in sys.modules.items() if name.startswith("mexjax")]
    places = [
        (module, name, value)
        for module in modules
        for name, value in vars(module).items()
        if id(value) in by_id
    ]
    for module, name, value in places:
        setattr(module, name, by_id[id(value)])
    try:
        yield
    finally:
        for module, name, value in places:
            setattr(module, name, value)


@contextlib.contextmanager
def constant(module: Any, name: str, value: Any) -> Iterator[None]:
    """Gives a constant of a module another value."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def gradient(function: Callable) -> Callable:
    """Value and gradients of `function(*arrays)` for an output gradient that comes first."""

    def run(dy: jax.Array, *arrays: jax.Array) -> Any:
        y, pull = jax.vjp(function, *arrays)
        return y, pull(dy)

    return run


def operation_cases(scale: int) -> list[tuple[str, str, Callable, Callable, tuple, tuple]]:
    """Tricks of one operation: name, case, functions with it and without it, contexts, shapes.

    The contexts are those in which each side is traced; the first shape is that of the output
    gradient. `scale` divides the number of images.
    """
    n = 64 // scale
    mode = Mode(is_train=True)

    def norm(x: jax.Array, slope: float | None) -> jax.Array:
        module = BatchNorm()
        variables = {
            "params": {"scale": jnp.ones(x.shape[-1]), "bias": jnp.zeros(x.shape[-1])},
            "batch_stats": {"mean": jnp.zeros(x.shape[-1]), "var": jnp.ones(x.shape[-1])},
        }
        return module.apply(variables, x, mode, slope, mutable=["batch_stats"])[0]

    def layer(module: nn.Module) -> Callable:
        return lambda x, s, b: module.apply({"params": {"scale": s, "bias": b}}, x)

    def attend(function: Callable) -> Callable:
        decays = (-0.2877, -0.0645)
        return lambda q, k, v: function((28, 28), decays, q, k, v)

    def mlp(x: jax.Array, v: jax.Array, w: jax.Array) -> jax.Array:
        x = layer(layer_norm.LayerNorm())(x, jnp.ones(x.shape[-1]), jnp.zeros(x.shape[-1]))
        return products.matmul(activations.gelu(products.matmul(x, v)), w)

    none = contextlib.nullcontext
    image, large, tokens, wide = (n, 56, 56, 64), (2 * n, 56, 56, 64), (n, 784, 128), (n * 784, 512)
    return [
        ("batch norm with ReLU", "norm, ReLU", lambda x: norm(x, 0.0),
         lambda x: jax.nn.relu(norm(x, None)), (none, none), (image, image)),
        ("sums by blocks", "batch norm with ReLU", lambda x: norm(x, 0.0), lambda x: norm(x, 0.0),
         (none, lambda: constant(sums, "MIN_BYTES", 2**62)), (large, large)),
        ("weight gradients by blocks", "layer norm, dense, GELU, dense", mlp, mlp,
         (none, lambda: constant(products, "MIN_BLOCKS", 2**62)),
         ((n * 784, 64), (n * 784, 64), (64, 256), (256, 64))),
        ("layer norm that keeps one array", "beside flax", layer(layer_norm.LayerNorm()),
         layer(nn.LayerNorm(use_fast_variance=False)), (none, none),
         (tokens, tokens, (128,), (128,))),
        ("layer norm by blocks", "gradient", layer(layer_norm.LayerNorm()),
         layer(layer_norm.LayerNorm()),
         (none, lambda: constant(layer_norm, "MIN_ROWS", 2**62)),
         (tokens, tokens, (128,), (128,))),
        ("ReLU that keeps its result", "dense, ReLU, dense",
         lambda x, v, w: activations.relu(x @ v) @ w, lambda x, v, w: jax.nn.relu(x @ v) @ w,
         (none, none), ((n * 784, 128), (n * 784, 128), (128, 512), (512, 128))),
        ("GELU that keeps its input", "beside jax.nn.gelu", activations.gelu,
         lambda x: jax.nn.gelu(x, approximate=False), (none, none), (wide, wide)),
        ("retention that keeps divided weights", "28 x 28, 2 heads", attend(retention._attend),
         attend(retention._attend.fun), (none, none),
         ((n // 4, 2, 784, 32),) * 4),
        ("sums of terms", "rank pooling of 16 frames", rank_pooling.rank_pool,
         rank_pooling.rank_pool,
         (none, lambda: replaced({sums.sum_terms: lambda terms: jnp.stack(list(terms)).sum(0)})),
         ((n, 112, 112), (n, 16, 112, 112))),
    ]  # fmt: skip
