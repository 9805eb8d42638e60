"""First parameters: fewer operations, the same bits, and numbers that are equal up to rounding."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import initializers as init

from mexjax.train import draws
from mexjax.train.draws import alike_at_once

DRAWS = (
    init.lecun_normal(),
    init.he_uniform(),
    init.normal(0.02),
    init.truncated_normal(0.5),
    init.variance_scaling(2.0, "fan_avg", "uniform"),
    init.zeros_init(),
)


class Network(nn.Module):
    """Layers alike and unlike, a norm with statistics, and a parameter drawn from a permutation."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, kernel in enumerate(DRAWS * 2):
            x = nn.Dense(6 if i else 5, kernel_init=kernel, bias_init=init.normal(1.0))(x)
        x = nn.BatchNorm(use_running_average=True)(x)
        order = self.param("order", lambda key: jax.random.permutation(key, 7))
        large = self.param("large", init.uniform(), (3, draws.BLOCK // 2 + 1))
        return x.sum() + order.sum() + large.sum()


def plain(key: jax.Array) -> dict:
    return Network().init(key, jnp.ones((2, 4)))


def assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    # XLA computes the rest of a row of numbers by other instructions than whole vectors.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), found, expected
    )


def test_numbers_are_the_same():
    key = jax.random.key(3)
    assert_equal(jax.jit(lambda k: alike_at_once(plain, k))(key), jax.jit(plain)(key))


def test_so_it_is_in_a_group_of_folds():
    keys = jax.random.split(jax.random.key(4), 3)
    found = jax.jit(jax.vmap(lambda k: alike_at_once(plain, k)))(keys)
    assert_equal(found, jax.jit(jax.vmap(plain))(keys))


def test_so_it_is_off_the_cpu(monkeypatch):
    monkeypatch.setattr(draws, "is_cpu", lambda: False)
    key = jax.random.key(5)
    assert_equal(jax.jit(lambda k: alike_at_once(plain, k))(key), jax.jit(plain)(key))


def test_other_generators_are_left_alone():
    key = jax.random.key(3, impl="rbg")
    assert_equal(jax.jit(lambda k: alike_at_once(plain, k))(key), jax.jit(plain)(key))


@pytest.mark.parametrize("on_cpu", [True, False])
def test_bits_are_the_same_to_the_last(monkeypatch, on_cpu):
    monkeypatch.setattr(draws, "is_cpu", lambda: on_cpu)
    shapes = [(3,), (2, draws.BLOCK), (5, 7), (draws.BLOCK + 1,), (3,), ()]

    def function(key: jax.Array) -> list[jax.Array]:
        keys = jax.random.split(key, len(shapes))
        return [jax.random.bits(k, shape) for k, shape in zip(keys, shapes, strict=True)]

    key = jax.random.key(6)
    for found, expected in zip(alike_at_once(function, key), function(key), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_draws_of_one_kind_are_one_operation():
    def many(key: jax.Array) -> list[jax.Array]:
        return [init.lecun_normal()(k, (8, 8)) for k in jax.random.split(key, 20)]

    key = jax.random.key(0)
    count = "erf_inv"
    assert str(jax.make_jaxpr(lambda k: alike_at_once(many, k))(key)).count(count) == 1
    assert str(jax.make_jaxpr(lambda k: alike_at_once(many, k))(key)).count("random_bits") == 0


def test_what_is_not_needed_is_left_out():
    def function(key: jax.Array) -> jax.Array:
        jnp.linalg.svd(jnp.ones((4, 4)))
        return jax.random.normal(key, (3,))

    text = str(jax.make_jaxpr(lambda k: alike_at_once(function, k))(jax.random.key(0)))
    assert "svd" not in text


@pytest.mark.parametrize("value", [np.float32(2.0), jnp.arange(3.0)])
def test_arguments_that_are_returned_pass_through(value):
    np.testing.assert_array_equal(alike_at_once(lambda x: {"x": x}, value)["x"], value)
