"""Layer norm and ReLU beside those of flax and jax."""

from __future__ import annotations

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from device_helpers import slack

from mexjax.nn.layer_norm import BLOCK_BYTES, LayerNorm
from mexjax.ops.activations import relu


# One block of rows, several, and a number of rows that only one block divides.
@pytest.mark.parametrize("shape", [(2, 5, 12), (4, 1024, 128), (4099, 128)])
def test_layer_norm_is_that_of_flax(shape):
    has_blocks = 4 * np.prod(shape) > BLOCK_BYTES and shape[0] != 4099
    keys = jax.random.split(jax.random.key(0), 4)
    x = 2.0 * jax.random.normal(keys[0], shape) + 0.5
    dy = jax.random.normal(keys[1], shape)
    params = {
        "scale": 1.0 + 0.3 * jax.random.normal(keys[2], shape[-1:]),
        "bias": jax.random.normal(keys[3], shape[-1:]),
    }

    @jax.jit
    def both(x, dy, params):
        found = []
        for module in (LayerNorm(1e-5), nn.LayerNorm(1e-5, use_fast_variance=False)):
            y, pull = jax.vjp(lambda x, p, m=module: m.apply({"params": p}, x), x, params)
            found.append((y, pull(dy)))
        return found

    ours, wanted = both(x, dy, params)
    assert LayerNorm().init(keys[0], x)["params"].keys() == params.keys()
    chex.assert_trees_all_close(ours, wanted, rtol=slack(2e-5), atol=slack(2e-4))
    ours, wanted = jax.tree.leaves(ours), jax.tree.leaves(wanted)
    for a, b in zip(ours, wanted, strict=True):
        assert float(jnp.abs(a - b).max()) <= 1e-5 * float(jnp.abs(b).max())
    program = str(jax.make_jaxpr(both)(x, dy, params))
    assert ("scan[" in program or "while[" in program) == has_blocks


def test_layer_norm_over_folds_and_in_bfloat16():
    x = jax.random.normal(jax.random.key(0), (3, 4, 1024, 128))
    params = {"scale": jnp.full((3, 128), 0.5), "bias": jnp.ones((3, 128))}

    def total(params, x):
        return jnp.square(LayerNorm().apply({"params": params}, x)).sum()

    together = jax.jit(jax.vmap(jax.grad(total)))(params, x)
    alone = [
        jax.jit(jax.grad(total))(jax.tree.map(lambda a, i=i: a[i], params), x[i]) for i in range(3)
    ]
    for name in params:
        wanted = np.stack([one[name] for one in alone])
        np.testing.assert_allclose(together[name], wanted, rtol=slack(1e-4), atol=1e-2)
    one = {name: value[0] for name, value in params.items()}
    found = []
    for module in (LayerNorm, nn.LayerNorm):
        half = module(dtype=jnp.bfloat16)
        y, pull = jax.vjp(
            lambda p, x, m=half: m.apply({"params": p}, x), one, x[0].astype(jnp.bfloat16)
        )
        found.append((y, *pull(jnp.cos(y))))
    for ours, wanted in zip(*map(jax.tree.leaves, found), strict=True):
        assert ours.dtype == wanted.dtype
        ours, wanted = ours.astype(jnp.float32), wanted.astype(jnp.float32)
        assert float(jnp.abs(ours - wanted).max()) <= 0.02 * float(jnp.abs(wanted).max())


def test_layer_norm_of_no_rows():
    x, params = jnp.zeros((0, 8)), {"scale": jnp.ones(8), "bias": jnp.ones(8)}
    gradient = jax.grad(lambda p: LayerNorm().apply({"params": p}, x).sum())(params)
    np.testing.assert_array_equal(gradient["scale"], np.zeros(8))


def test_relu_and_its_derivative():
    x = jnp.asarray([-2.0, -0.0, 0.0, 1e-30, 3.0, jnp.nan])
    y, pull = jax.vjp(relu, x)
    np.testing.assert_array_equal(y, jax.nn.relu(x))
    np.testing.assert_array_equal(pull(jnp.ones(6))[0], [0, 0, 0, 1, 1, 0])
