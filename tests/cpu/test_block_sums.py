"""Sums by blocks are the sums, whatever the number of rows, and so are batch norm's gradients."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mexjax.cpu import is_cpu
from mexjax.cpu import sums as block_sums
from mexjax.nn.batch_norm import BatchNorm
from mexjax.nn.mode import Mode


@pytest.fixture(name="small_blocks")
def fixture_small_blocks(monkeypatch):
    monkeypatch.setattr(block_sums, "MIN_BYTES", 0)
    monkeypatch.setattr(block_sums, "BLOCK_BYTES", 4 * 3 * 5)  # three rows of five


def test_arrays_of_other_lengths_are_named():
    with pytest.raises(AssertionError, match="prefix"):
        block_sums.sums_by_blocks(lambda x, y: (x.sum(0),), jnp.ones((4, 3)), jnp.ones((5, 3)))


@pytest.mark.parametrize("rows", [1, 2, 6, 13])
def test_sums_are_those_of_all_rows(small_blocks, rows):
    x, y = jax.random.normal(jax.random.key(rows), (2, rows, 5))
    sums = block_sums.sums_by_blocks(lambda x, y: (x.sum(0), (x * y).sum()), x, y)
    np.testing.assert_allclose(sums[0], x.sum(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sums[1], (x * y).sum(), rtol=1e-5, atol=1e-6)


def test_large_arrays_go_through_a_loop_and_small_ones_do_not():
    def text(rows):
        shape = jax.ShapeDtypeStruct((rows, 2**10), jnp.float32)
        program = jax.jit(lambda x: block_sums.sums_by_blocks(lambda x: (x.sum(0),), x))
        return program.lower(shape).as_text()

    assert ("while" in text(2**14)) == is_cpu() and "while" not in text(2**4)


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("slope", [None, 0.25])
def test_gradients_of_batch_norm_are_the_same_by_blocks(monkeypatch, frames, slope):
    x, dz = jax.random.normal(jax.random.key(0), (2, 14, 3, 3, 5))
    mode = Mode(is_train=True, num_frames=frames, weight=jnp.ones(14).at[-2:].set(0))
    norm = BatchNorm(per_frame=frames > 1)
    variables = norm.init(jax.random.key(1), x, mode)

    def gradients():
        def loss(params, x, slope):
            state = {"params": params, "batch_stats": variables["batch_stats"]}
            y, _ = norm.apply(state, x, mode, slope, mutable=["batch_stats"])
            return (y * dz).sum()

        if slope is None:
            return jax.grad(lambda p, x: loss(p, x, None), (0, 1))(variables["params"], x)
        return jax.grad(loss, (0, 1, 2))(variables["params"], x, jnp.float32(slope))

    whole = gradients()
    monkeypatch.setattr(block_sums, "MIN_BYTES", 0)
    monkeypatch.setattr(block_sums, "BLOCK_BYTES", 2**10)
    blocks = gradients()
    text = jax.jit(gradients).lower().as_text()
    assert ("while" in text) == is_cpu()
    chex.assert_trees_all_close(whole, blocks, rtol=2e-5, atol=2e-5)
