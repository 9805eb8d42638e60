"""The statistics of batch norm in one pass, the form for GPUs, against float64 and two passes."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from device_helpers import slack

from mexjax.nn import batch_norm
from mexjax.nn.layers import BatchNorm, Mode


@pytest.fixture
def is_gpu(monkeypatch):
    monkeypatch.setattr(batch_norm, "is_cpu", lambda: False)


def values(mean: float, rows: int = 6, frames: int = 2, pixels: int = 49) -> np.ndarray:
    """Numbers f32[rows,frames,pixels,3] of deviation 1."""
    x = np.random.default_rng(0).standard_normal((rows, frames, pixels, 3))
    return (x + mean).astype(np.float32)


@pytest.mark.parametrize("garbage", [0.0, 1e6, np.inf])
@pytest.mark.parametrize("mean", [0.0, -1000.0])
@pytest.mark.parametrize("pixels", [1, 49])
def test_one_pass_reaches_the_moments_of_float64(is_gpu, garbage, mean, pixels):
    x = values(mean, pixels=pixels)
    mask = np.ones(x.shape[:2], bool)
    mask[0], mask[3, 1] = False, False
    x[~mask] = garbage
    means, variances, counts = jax.jit(batch_norm.masked_moments)(x, jnp.asarray(mask))
    for frame in range(2):
        rows = x[mask[:, frame], frame].astype(np.float64).reshape(-1, 3)
        np.testing.assert_allclose(
            means[frame], rows.mean(axis=0), rtol=slack(1e-6), atol=slack(1e-6)
        )
        np.testing.assert_allclose(variances[frame], rows.var(axis=0), rtol=slack(1e-5))
        assert counts[frame] == len(rows)


def test_one_pass_bears_a_border_far_from_the_mean(is_gpu):
    x = values(1000.0)
    x[:, :, :7] = 0  # the first row of 7 x 7 pixels, as padding of a convolution may make it
    _, variances, _ = batch_norm.masked_moments(x, None)
    expected = x.astype(np.float64).var(axis=(0, 2))
    np.testing.assert_allclose(variances, expected, rtol=slack(1e-5))


def test_one_pass_of_no_rows_gives_zeros(is_gpu):
    x = np.full((2, 1, 4, 3), np.inf, np.float32)
    moments = batch_norm.masked_moments(x, jnp.zeros((2, 1), bool))
    chex.assert_trees_all_equal(moments, (jnp.zeros((1, 3)), jnp.zeros((1, 3)), jnp.zeros(1)))


@pytest.mark.parametrize("slope", [None, 0.1])
def test_gradients_of_one_pass_equal_those_of_two(monkeypatch, slope):
    x = values(3.0).reshape(12, 7, 7, 3)
    mode = Mode(True, jnp.repeat(jnp.array([0.0, 1, 1, 1, 1, 0]), 2))
    variables = BatchNorm().init(jax.random.key(0), x, mode)
    cotangent = values(0.0).reshape(x.shape)[::-1]

    def loss(params, x):
        outputs, stats = BatchNorm().apply(
            {**variables, "params": params}, x, mode, slope, mutable=["batch_stats"]
        )
        return (outputs * cotangent).sum(), stats

    results = []
    for is_cpu in (True, False):
        monkeypatch.setattr(batch_norm, "is_cpu", lambda value=is_cpu: value)
        gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
        results.append(jax.jit(lambda *a, g=gradient: g(*a))(variables["params"], jnp.asarray(x)))
    chex.assert_trees_all_close(*results, rtol=slack(1e-5), atol=slack(2e-5))
