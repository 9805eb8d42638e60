"""The selective scan: every form gives the numbers of its definition, in value and gradient."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from device_helpers import slack
from st_helpers import jit

from mexjax.errors import ConfigError
from mexjax.ops import selective_scan as scan

G, N, D, S = 2, 2, 3, 4
FORMS = [("sequential", 8), ("associative", 8), ("chunked", 4), ("chunked", 11), ("chunked", 64)]


def draw(length: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return {
        "u": normal(G, N, length, D),
        "delta": np.log1p(np.exp(normal(G, N, length, D))),
        "a": -np.exp(normal(G, D, S)),
        "b": normal(G, N, length, S),
        "c": normal(G, N, length, S),
        "skip": normal(G, D),
    }


def by_hand(u, delta, a, b, c, skip) -> np.ndarray:
    """The two equations, position by position, in float64."""
    u, delta, a, b, c, skip = (np.asarray(x, np.float64) for x in (u, delta, a, b, c, skip))
    state, out = np.zeros((G, N, D, S)), np.zeros_like(u)
    for i in range(u.shape[2]):
        step = delta[:, :, i, :, None]
        state = np.exp(step * a[:, None]) * state
        state += step * b[:, :, i, None] * u[:, :, i, :, None]
        out[:, :, i] = (state * c[:, :, i, None]).sum(-1) + skip[:, None] * u[:, :, i]
    return out


@pytest.mark.parametrize("length", [1, 13])  # 13: the last of four chunks has one position
@pytest.mark.parametrize(("form", "chunk"), FORMS)
def test_forms_are_the_definition(form: str, chunk: int, length: int):
    arrays = draw(length)
    found = jit(lambda x: scan.selective_scan(**x, form=form, chunk=chunk))(arrays)
    np.testing.assert_allclose(found, by_hand(**arrays), rtol=slack(1e-5), atol=slack(1e-5))


@pytest.fixture(scope="module")
def plain_gradients() -> dict[str, jax.Array]:
    """Autodiff through a plain loop, which knows nothing of the backward pass by hand."""

    def total(u, delta, a, b, c, skip):
        state, value = jnp.zeros((G, N, D, S)), 0.0
        for i in range(u.shape[2]):
            step = delta[:, :, i, :, None]
            state = jnp.exp(step * a[:, None]) * state
            state += step * b[:, :, i, None] * u[:, :, i, :, None]
            y = (state * c[:, :, i, None]).sum(-1) + skip[:, None] * u[:, :, i]
            value += jnp.sin(y).sum()
        return value

    return jit(jax.grad(lambda x: total(**x)))(draw(13))


@pytest.mark.parametrize(("form", "chunk"), FORMS)
def test_gradients_are_those_of_the_definition(form: str, chunk: int, plain_gradients):
    def total(x):
        return jnp.sin(scan.selective_scan(**x, form=form, chunk=chunk)).sum()

    found = jit(jax.grad(total))(draw(13))
    for name, value in plain_gradients.items():
        np.testing.assert_allclose(
            found[name], value, rtol=slack(1e-5), atol=slack(1e-5), err_msg=name
        )


def test_long_sequences_agree():
    """The length of VMamba's first map at 224 px; decays from nearly none to nearly all."""
    rng = np.random.default_rng(0)
    decay = jnp.asarray(rng.random((1, 3136, 4)) ** np.array([0.01, 0.1, 1, 10]), jnp.float32)
    new = jnp.asarray(rng.standard_normal(decay.shape), jnp.float32)
    found = {
        form: jit(lambda d, n, form=form: scan.linear_scan(d, n, form=form)) for form in scan.FORMS
    }
    wanted = found.pop("sequential")(decay, new)
    for form, run in found.items():
        np.testing.assert_allclose(
            run(decay, new), wanted, rtol=slack(1e-5), atol=slack(1e-5), err_msg=form
        )


@pytest.mark.parametrize("form", scan.FORMS)
def test_vmap_over_folds_is_fold_by_fold(form: str):
    folds = [draw(13, seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *folds)

    def value_and_grads(x):
        def total(x):
            y = scan.selective_scan(**x, form=form, chunk=4)
            return jnp.cos(y).sum(), y

        return jax.grad(total, has_aux=True)(x)

    grads, y = jit(jax.vmap(value_and_grads))(stacked)
    for i, fold in enumerate(folds):
        np.testing.assert_allclose(y[i], by_hand(**fold), rtol=slack(1e-5), atol=slack(1e-5))
        alone, _ = jit(value_and_grads)(fold)
        for name, value in alone.items():
            np.testing.assert_allclose(
                grads[name][i], value, rtol=slack(1e-5), atol=slack(1e-5), err_msg=name
            )


@pytest.mark.parametrize("form", scan.FORMS)
def test_shards_scan_for_themselves(form: str):
    """Inside `shard_map`, as a step sharded over folds runs it: value and gradient."""
    mesh = jax.make_mesh((2,), ("folds",), axis_types=(jax.sharding.AxisType.Auto,))
    folds = [draw(13, seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *folds)

    def grads(x):
        return jax.grad(lambda x: scan.selective_scan(**x, form=form, chunk=4).sum())(x)

    spec = jax.sharding.PartitionSpec("folds")
    sharded = jax.shard_map(jax.vmap(grads), mesh=mesh, in_specs=(spec,), out_specs=spec)
    found, wanted = jit(sharded)(stacked), jit(jax.vmap(grads))(stacked)
    chex.assert_trees_all_close(found, wanted, atol=slack(1e-5))


def test_states_are_float32_under_bfloat16():
    """300 equal inputs, all kept: a bfloat16 state would stop growing at 256."""
    length = 300
    ones = jnp.ones((1, 1, length, 1), jnp.bfloat16)
    a = jnp.full((1, 1, 1), -1e-9)
    for form in scan.FORMS:
        y = jit(lambda x, form=form: scan.selective_scan(x, x, a, x, x, form=form))(ones)
        assert y.dtype == jnp.bfloat16
        # Rounded once, at the end: 300 is a bfloat16.
        assert float(y[0, 0, -1, 0]) == length, form


def test_four_orders_of_a_map():
    x = np.arange(6.0).reshape(1, 2, 3, 1)
    found = np.asarray(scan.cross_scan(jnp.asarray(x)))[:, 0, :, 0]
    np.testing.assert_array_equal(
        found, [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5], [5, 4, 3, 2, 1, 0], [5, 2, 4, 1, 3, 0]]
    )


def test_merge_is_the_transpose_of_the_scan():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 4, 5)), jnp.float32)
    y = jnp.asarray(np.random.default_rng(1).standard_normal((4, 2, 12, 5)), jnp.float32)
    _, transpose = jax.vjp(scan.cross_scan, x)
    np.testing.assert_allclose(scan.cross_merge(y, (3, 4)), transpose(y)[0], atol=slack(1e-6))
    np.testing.assert_allclose(
        scan.cross_merge(scan.cross_scan(x), (3, 4)), 4 * x, atol=slack(1e-6)
    )


def test_what_does_not_fit_is_refused():
    arrays = draw(5)
    with pytest.raises(ConfigError, match="associative"):
        scan.selective_scan(**arrays, form="parallel")
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        scan.selective_scan(**arrays, chunk=0)
    with pytest.raises(ValueError, match=r"a \[G,D,S\]"):
        scan.selective_scan(**{**arrays, "a": arrays["a"][:1]})
    with pytest.raises(ValueError, match=r"\[4,N,12,C\]"):
        scan.cross_merge(jnp.zeros((4, 1, 10, 2)), (3, 4))
