"""Matrix products whose weight gradient goes over the rows in blocks."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from device_helpers import needs_devices, slack
from jax.sharding import Mesh, PartitionSpec

from mexjax.nn.layers import BatchNorm, Dense
from mexjax.nn.mode import Mode
from mexjax.ops import products

ROWS = 1300  # five blocks of the smallest size, and some


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(products, "BLOCK_BYTES", 2**12)


def arrays(*lead: int, wide: int = 6) -> tuple[jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    shapes = ((*lead, ROWS, 4), (*lead, 4, wide), (*lead, ROWS, wide))
    return tuple(jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes)


@pytest.mark.parametrize("wide", [2, 6])
def test_both_gradients_are_those_of_a_plain_product(wide):
    x, w, dy = arrays(wide=wide)
    found = jax.jit(jax.vjp(products.matmul, x, w)[1])(dy)
    for gradient, expected in zip(found, jax.vjp(jnp.matmul, x, w)[1](dy), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=slack(1e-5), atol=slack(1e-4))


def test_rows_are_summed_in_a_loop_of_blocks():
    x, _, dy = arrays()
    program = jax.jit(products.sum_of_outer_products).lower(x, dy).as_text()
    assert "while" in program
    short = jax.jit(products.sum_of_outer_products).lower(x[:300], dy[:300]).as_text()
    assert "while" not in short


def test_folds_have_gradients_of_their_own():
    x, w, dy = arrays(3)
    gradient = jax.jit(jax.vmap(lambda x, w, dy: jax.vjp(products.matmul, x, w)[1](dy)[1]))
    np.testing.assert_allclose(
        gradient(x, w, dy), np.einsum("fmk,fmn->fkn", x, dy), rtol=slack(1e-5), atol=slack(1e-4)
    )


@needs_devices(2)
def test_devices_may_share_the_weights():
    x, w, _ = arrays()
    x = jnp.concatenate([x, x])
    mesh = Mesh(np.array(jax.devices()[:2]), ("d",))
    rows, everywhere = PartitionSpec("d"), PartitionSpec()

    def shared(x, w):
        each = jax.shard_map(
            lambda x, w: products.matmul(x, w) ** 2,
            mesh=mesh,
            in_specs=(rows, everywhere),
            out_specs=rows,
        )
        return each(x, w).sum()

    gradient = jax.jit(jax.grad(shared, (0, 1)))
    assert "while" in gradient.lower(x, w).as_text()
    found = gradient(x, w)
    expected = jax.grad(lambda x, w: ((x @ w) ** 2).sum(), (0, 1))(x, w)
    for ours, plain in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=slack(1e-4), atol=slack(1e-3))


def test_bfloat16_is_summed_in_float32():
    x, _, dy = (a.astype(jnp.bfloat16) for a in arrays())
    found = products.sum_of_outer_products(x, dy)
    exact = np.asarray(x, np.float64).T @ np.asarray(dy, np.float64)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact, atol=slack(1e-3))


def test_arrays_that_do_not_fit_are_named():
    with pytest.raises(AssertionError, match="axis"):
        products.matmul(jnp.ones((4, 3)), jnp.ones((2, 5)))
    with pytest.raises(AssertionError, match="prefix"):
        products.sum_of_outer_products(jnp.ones((4, 3)), jnp.ones((5, 3)))


def test_dense_layers_use_it_and_other_contractions_do_not():
    x, w, _ = arrays()
    layer = Dense(6)
    variables = layer.init(jax.random.key(0), x)
    loss = jax.jit(jax.grad(lambda v: layer.apply(v, x).sum()))
    assert "while" in loss.lower(variables).as_text()
    turned = products.dot_general(x, w.T, (((1,), (1,)), ((), ())))
    np.testing.assert_allclose(turned, x @ w, rtol=slack(1e-5), atol=slack(1e-5))


@pytest.mark.parametrize("slope", [0.0, 0.2, "learnt"])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("per_frame", [True, False])
def test_norm_with_slope_is_norm_and_then_a_slope(slope, train, per_frame):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(2.0, 3.0, (6, 4, 5, 3)), jnp.float32)
    dz = jnp.asarray(rng.standard_normal(x.shape), jnp.float32)
    weight = jnp.asarray([1, 1, 0, 1, 1, 1], jnp.float32)
    mode = Mode(is_train=train, weight=weight, num_frames=3 if per_frame else 1)
    norm = BatchNorm(per_frame=per_frame)
    variables = norm.init(jax.random.key(0), x, mode)
    params = {
        "scale": jnp.asarray([0.5, -1.5, 2.0]),
        "bias": jnp.asarray([0.3, 0.0, -1.0]),
    }
    slopes = jnp.asarray([0.1, 0.25, -0.5]) if slope == "learnt" else jnp.full(3, slope)

    def apart(params, x, slopes):
        variables_ = {**variables, "params": params}
        y = norm.apply(variables_, x, mode, mutable=["batch_stats"])[0]
        return jnp.where(y > 0, y, slopes * y)

    def together(params, x, slopes):
        given = slopes if slope == "learnt" else slope
        variables_ = {**variables, "params": params}
        return norm.apply(variables_, x, mode, given, mutable=["batch_stats"])[0]

    expected, back = jax.vjp(apart, params, x, slopes)
    found, own_back = jax.vjp(together, params, x, slopes)
    np.testing.assert_allclose(found, expected, rtol=slack(1e-5), atol=slack(1e-5))
    wanted, own = back(dz), own_back(dz)
    chex.assert_trees_all_close(own[:2], wanted[:2], rtol=slack(2e-5), atol=slack(2e-5))
    if slope == "learnt":
        np.testing.assert_allclose(own[2], wanted[2], rtol=slack(2e-5), atol=slack(2e-5))


def test_norm_with_slope_in_bfloat16_agrees():
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.normal(1.0, 2.0, (6, 4, 5, 3)), jnp.bfloat16)
    norm, mode = BatchNorm(dtype=jnp.bfloat16), Mode(is_train=True)
    variables = norm.init(jax.random.key(0), x, mode)

    def loss(x, *slope):
        y = norm.apply(variables, x, mode, *slope, mutable=["batch_stats"])[0]
        assert y.dtype == jnp.bfloat16
        y = y.astype(jnp.float32)
        return jnp.sum(jnp.square(y if slope else jnp.where(y > 0, y, 0.2 * y)))

    expected, found = jax.grad(loss)(x), jax.grad(loss)(x, 0.2)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        np.asarray(found, np.float32), np.asarray(expected, np.float32), rtol=0.05, atol=0.05
    )
