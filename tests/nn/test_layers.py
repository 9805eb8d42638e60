"""Layers: batch norm that ignores padding, stochastic depth, pooling with remembered maxima."""

from __future__ import annotations

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mexjax.errors import ConfigError
from mexjax.nn import layers, pooling
from mexjax.nn.layers import BatchNorm, Conv, Dropout, DropPath, Mode
from mexjax.nn.next_vit import GlobalAggregator, LocalConv, PatchEmbed, round_channels
from mexjax.nn.resnet import max_pool_3x3_stride_2
from mexjax.nn.segnet import EncoderDecoder


def normal(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def trained_stats(features: int) -> dict:
    return {
        "params": {"scale": 1 + 0.1 * normal((features,), 1), "bias": normal((features,), 2)},
        "batch_stats": {"mean": normal((features,), 3), "var": 0.5 + normal((features,), 4) ** 2},
    }


@functools.partial(jax.jit, static_argnums=0)
def apply_train(norm: BatchNorm, variables: dict, x: jax.Array, mode: Mode):
    y, updated = norm.apply(variables, x, mode, mutable=["batch_stats"])
    return y, updated["batch_stats"]


def test_batch_norm_counts_as_pytorch_does():
    x, variables = 3 + 2 * normal((4, 3, 3, 5)), trained_stats(5)
    y, stats = apply_train(BatchNorm(), variables, x, Mode(is_train=True))
    mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    scale, bias = variables["params"]["scale"], variables["params"]["bias"]
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5) * scale + bias, atol=1e-5)
    old, n = variables["batch_stats"], 4 * 9
    np.testing.assert_allclose(stats["mean"], 0.9 * old["mean"] + 0.1 * mean, rtol=1e-5)
    unbiased = var * n / (n - 1)
    np.testing.assert_allclose(stats["var"], 0.9 * old["var"] + 0.1 * unbiased, rtol=1e-5)


def test_batch_norm_gradient_equals_that_of_the_plain_formula():
    x, variables = normal((6, 2, 2, 3)), trained_stats(3)
    cotangent = normal(x.shape, 9)
    weight = jnp.array([1.0, 1.0, 0.0, 1.0, 1.0, 0.0])

    def plain(params, x):
        kept = x[np.array(weight) > 0]
        mean, var = kept.mean(axis=(0, 1, 2)), kept.var(axis=(0, 1, 2))
        y = (x - mean) / jnp.sqrt(var + 1e-5) * params["scale"] + params["bias"]
        return (y * cotangent).sum()

    def ours(params, x):
        y, _ = BatchNorm().apply(
            {**variables, "params": params}, x, Mode(True, weight), mutable=["batch_stats"]
        )
        return (y * cotangent).sum()

    wanted, found = (
        jax.jit(jax.grad(f, argnums=(0, 1)))(variables["params"], jnp.asarray(x))
        for f in (plain, ours)
    )
    chex.assert_trees_all_close(found, wanted, atol=2e-5)


@pytest.mark.parametrize("garbage", [0.0, 1e6, np.inf])
@pytest.mark.parametrize("per_frame", [False, True])
def test_padding_enters_no_statistic(garbage: float, per_frame: bool):
    times, x, variables = 2, normal((3, 2, 4, 4, 6)), trained_stats(6)
    padded = np.concatenate([x, np.full((2, *x.shape[1:]), garbage, np.float32)])
    norm = BatchNorm(per_frame=per_frame)

    def frames(clips):
        return clips.reshape(-1, *clips.shape[2:])

    mode = Mode(is_train=True).per_frame(times)
    wanted, wanted_stats = apply_train(norm, variables, frames(x), mode)
    mode = Mode(True, jnp.array([1.0, 1.0, 1.0, 0.0, 0.0])).per_frame(times)
    found, stats = apply_train(norm, variables, frames(padded), mode)
    np.testing.assert_allclose(found[: 3 * times], wanted, atol=1e-6)
    chex.assert_trees_all_close(stats, wanted_stats, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "weight"), [((4, 3, 3, 2), (0.0, 0.0, 0.0, 0.0)), ((3, 1, 1, 2), (0.0, 1.0, 0.0))]
)
def test_too_few_values_leave_the_running_statistics(shape, weight):
    x, variables = normal(shape), trained_stats(2)
    mode = Mode(True, jnp.array(weight))
    y, stats = apply_train(BatchNorm(), variables, x, mode)
    np.testing.assert_array_equal(stats["mean"], variables["batch_stats"]["mean"])
    np.testing.assert_array_equal(stats["var"], variables["batch_stats"]["var"])
    np.testing.assert_allclose(y, BatchNorm().apply(variables, x, Mode()), rtol=1e-5, atol=1e-6)

    def total(x):
        return (apply_train(BatchNorm(), variables, x, mode)[0] ** 2).sum()

    chex.assert_tree_all_finite(jax.jit(jax.grad(total))(jnp.asarray(x)))


def test_per_frame_equals_one_call_a_frame_in_order():
    times, x, variables = 3, normal((4, 3, 2, 2, 5)), trained_stats(5)
    mode = Mode(is_train=True).per_frame(times)
    y, stats = apply_train(BatchNorm(per_frame=True), variables, x.reshape(12, 2, 2, 5), mode)
    running = variables["batch_stats"]
    for t in range(times):
        step = {"params": variables["params"], "batch_stats": running}
        one, running = apply_train(BatchNorm(), step, x[:, t], Mode(is_train=True))
        np.testing.assert_allclose(y.reshape(x.shape)[:, t], one, atol=1e-6)
    chex.assert_trees_all_close(stats, running, rtol=1e-5)


def test_one_compiled_function_serves_frozen_and_unfrozen():
    x, variables = jnp.asarray(normal((4, 3, 3, 2))), trained_stats(2)

    @jax.jit
    def run(is_frozen):
        mode = Mode(True, None, is_frozen)
        return BatchNorm().apply(variables, x, mode, mutable=["batch_stats"])

    y, updated = run(jnp.array(True))
    np.testing.assert_allclose(y, BatchNorm().apply(variables, x, Mode()), atol=1e-6)
    chex.assert_trees_all_equal(updated["batch_stats"], variables["batch_stats"])
    y, updated = run(jnp.array(False))
    wanted, stats = apply_train(BatchNorm(), variables, x, Mode(is_train=True))
    np.testing.assert_allclose(y, wanted, atol=1e-6)
    chex.assert_trees_all_close(updated["batch_stats"], stats)
    assert run._cache_size() == 1


def test_batch_norm_of_bfloat16_keeps_float32_statistics():
    x, variables = 100 + normal((8, 4, 4, 2)), trained_stats(2)
    norm = BatchNorm(dtype=jnp.bfloat16)
    half = jnp.asarray(x, jnp.bfloat16)
    y, stats = apply_train(norm, variables, half, Mode(is_train=True))
    assert y.dtype == jnp.bfloat16
    assert stats["mean"].dtype == jnp.float32
    mean = np.asarray(half, np.float32).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(
        stats["mean"], 0.9 * variables["batch_stats"]["mean"] + 0.1 * mean, rtol=1e-5
    )


def test_initialising_updates_nothing():
    x = jnp.asarray(5 + normal((4, 2, 2, 3)))
    variables = BatchNorm().init(jax.random.key(0), x, Mode(is_train=True))
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], np.zeros(3))


def test_weights_of_another_length_are_an_error():
    mode = Mode(True, jnp.ones(2))
    with pytest.raises(ValueError, match=r"found x \(8, 2, 2, 3\), weight \(2,\)"):
        BatchNorm().init(jax.random.key(0), jnp.ones((8, 2, 2, 3)), mode)


def test_vmap_over_folds_equals_separate_calls():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, mode):
            x = nn.relu(BatchNorm(per_frame=True)(Conv(4, stride=2)(x), mode))
            return DropPath(0.5)(Conv(4, 1)(x), mode)

    x, weight = jnp.asarray(normal((3, 8, 4, 4, 2))), jnp.ones((3, 8)).at[1, 6:].set(0)
    keys = jax.random.split(jax.random.key(0), 3)

    def run(key, x, weight):
        mode = Mode(True, weight, num_frames=2)
        variables = Net().init({"params": key, "drop_path": key}, x, Mode())

        def total(params):
            y, updated = Net().apply(
                {**variables, "params": params},
                x,
                mode,
                mutable=["batch_stats"],
                rngs={"drop_path": key},
            )
            return (y**2).sum(), updated

        return jax.value_and_grad(total, has_aux=True)(variables["params"])

    together = jax.jit(jax.vmap(run))(keys, x, weight)
    for fold in range(3):
        alone = jax.jit(run)(keys[fold], x[fold], weight[fold])
        one_of_all = jax.tree.map(lambda a, f=fold: a[f], together)
        chex.assert_trees_all_close(one_of_all, alone, rtol=2e-5, atol=1e-5)


def test_drop_path_drops_whole_rows_and_rescales():
    x = jnp.ones((1000, 2, 2, 3))

    def drop(mode):
        return DropPath(0.25).apply({}, x, mode, rngs={"drop_path": jax.random.key(0)})

    y = np.asarray(drop(Mode(is_train=True)))
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    assert (y == y[:, :1, :1, :1]).all()
    assert abs((y > 0).mean() - 0.75) < 0.05
    np.testing.assert_array_equal(drop(Mode()), x)
    np.testing.assert_array_equal(drop(Mode(True, None, jnp.array(True))), x)


def test_dropout_is_off_when_frozen():
    x = jnp.ones((64, 64))

    def run(mode):
        return Dropout(0.5).apply({}, x, mode, rngs={"dropout": jax.random.key(0)})

    assert abs(float((run(Mode(is_train=True)) > 0).mean()) - 0.5) < 0.05
    np.testing.assert_array_equal(run(Mode(True, None, jnp.array(True))), x)


def test_max_pool_takes_the_first_of_equal_values():
    x = jnp.array([[0.0, 0.0, 1.0, 5.0], [0.0, 0.0, 5.0, 2.0]])[None, :, :, None]
    pooled, places = pooling.max_pool_with_argmax(x)
    np.testing.assert_array_equal(pooled[0, 0, :, 0], [0, 5])
    np.testing.assert_array_equal(places[0, 0, :, 0], [0, 1])
    back = pooling.max_unpool(jnp.array([[[[7.0], [8.0]]]]), places)
    np.testing.assert_array_equal(back[0, :, :, 0], [[7, 0, 0, 8], [0, 0, 0, 0]])
    grad = jax.grad(lambda x: pooling.max_pool_with_argmax(x)[0].sum())(x)
    np.testing.assert_array_equal(grad[0, :, :, 0], [[1, 0, 0, 1], [0, 0, 0, 0]])
    with pytest.raises(ValueError, match="even height"):
        pooling.max_pool_with_argmax(jnp.ones((1, 3, 4, 1)))


def test_pooling_at_the_edges():
    x = jnp.arange(35.0).reshape(1, 5, 7, 1)
    assert pooling.max_pool(x, 3).shape == (1, 1, 2, 1)
    np.testing.assert_array_equal(pooling.max_pool(x, 3).ravel(), [16, 19])
    mean = pooling.avg_pool_2x2(x)
    assert mean.shape == (1, 3, 4, 1)
    np.testing.assert_allclose(mean[0, 0, :, 0], [4, 6, 8, 9.5])
    np.testing.assert_allclose(mean[0, 2, :, 0], [28.5, 30.5, 32.5, 34])
    np.testing.assert_array_equal(max_pool_3x3_stride_2(x)[0, 0, :, 0], [8, 10, 12, 13])


def test_pooling_gradients_equal_those_of_reductions():
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, 3, 6, 12, 5))  # a fold axis in front

    def by_reduction(x, size, reduce):
        n, h, w, c = x.shape
        windows = x.reshape(n, h // size, size, w // size, size, c)
        return reduce(windows, axis=(2, 4))

    for pool, reference in (
        (lambda x: pooling.max_pool(x, 3), lambda x: by_reduction(x, 3, jnp.max)),
        (lambda x: pooling.max_pool_with_argmax(x)[0], lambda x: by_reduction(x, 2, jnp.max)),
        (pooling.avg_pool_2x2, lambda x: by_reduction(x, 2, jnp.mean)),
    ):
        (y, pull), (expected, pull_expected) = (jax.vjp(jax.vmap(f), x) for f in (pool, reference))
        np.testing.assert_allclose(y, expected, rtol=1e-6)
        dy = jax.random.normal(keys[1], y.shape)
        np.testing.assert_allclose(pull(dy)[0], pull_expected(dy)[0], rtol=1e-6)

    # Unpooling is linear: its gradient takes from where it put.
    small = jax.random.normal(keys[1], (2, 3, 3, 6, 5))
    places = jax.vmap(pooling.max_pool_with_argmax)(x)[1]
    put, pull = jax.vjp(lambda y: jax.vmap(pooling.max_unpool)(y, places), small)
    dy = jax.random.normal(keys[2], put.shape)
    np.testing.assert_allclose((put * dy).sum(), (small * pull(dy)[0]).sum(), rtol=1e-4)
    assert float((put != 0).mean()) == 0.25


def test_pooling_lets_nan_through():
    x = jnp.array([[1.0, jnp.nan, 2.0, 3.0], [0.0, 2.0, 4.0, 1.0]])[None, :, :, None]
    np.testing.assert_array_equal(pooling.max_pool(x, 2).ravel(), [jnp.nan, 4])


def test_max_pool_of_large_windows_and_of_equal_values():
    x = jnp.zeros((1, 12, 12, 1)).at[0, 11, 10, 0].set(1)
    grad = jax.grad(lambda x: pooling.max_pool(x, 12).sum())
    np.testing.assert_array_equal(grad(x), x)  # place 142, beyond eight bits
    np.testing.assert_array_equal(grad(jnp.zeros_like(x)), jnp.zeros_like(x).at[0, 0, 0, 0].set(1))


def test_space_to_depth_keeps_every_pixel_beside_its_neighbours():
    x = jnp.arange(32.0).reshape(1, 4, 4, 2)
    y = layers.space_to_depth(x, 2)
    np.testing.assert_array_equal(y[0, 0, 1], [4, 5, 6, 7, 12, 13, 14, 15])
    with pytest.raises(ValueError, match="3 pixels, which do not divide an image of 4x4"):
        layers.space_to_depth(x, 3)


def test_initial_values():
    key = jax.random.key(0)
    values = layers.truncated_normal(0.02)(key, (200, 100))
    assert abs(float(values.std()) - 0.02) < 3e-4
    kernel = layers.torch_kernel_init()(key, (3, 3, 16, 32))
    assert 0.98 < float(jnp.abs(kernel).max()) * (9 * 16) ** 0.5 <= 1.0
    params = jax.jit(Conv(64, use_bias=True).init)(key, jnp.ones((1, 4, 4, 16)))["params"]
    assert 0.8 < float(jnp.abs(params["bias"]).max()) * (9 * 16) ** 0.5 <= 1.0


def test_multi_head_convolution_keeps_heads_apart():
    x, mode = jnp.asarray(normal((2, 4, 4, 24))), Mode()
    conv = LocalConv("multi_head", head_dim=8)
    variables = jax.jit(conv.init)(jax.random.key(0), x, mode)
    assert variables["params"]["spatial"]["kernel"].shape == (3, 3, 8, 24)
    # The identity as projection: a change of head 0 must stay in head 0.
    variables["params"]["projection"]["kernel"] = jnp.eye(24)[None, None]
    apply = jax.jit(conv.apply)
    changed = apply(variables, x.at[..., :8].add(1.0), mode) != apply(variables, x, mode)
    assert changed[..., :8].any()
    assert not changed[..., 8:].any()
    with pytest.raises(ConfigError, match="24 channels are not a multiple of head_dim 16"):
        LocalConv("multi_head", head_dim=16).init(jax.random.key(0), x, mode)


def test_widths_follow_the_rounding_rule():
    assert [round_channels(0.75 * c, 32) for c in (128, 256, 512, 1024)] == [96, 192, 384, 768]
    assert round_channels(10, 8) == 16  # 8 would be more than 10% below
    assert PatchEmbed(6).init(jax.random.key(0), jnp.ones((1, 2, 2, 6)), Mode()) == {}


def test_errors_name_the_key_to_change():
    x, key = jnp.ones((1, 4, 4, 24)), jax.random.key(0)
    with pytest.raises(ConfigError, match="lower spatial_reduction"):
        GlobalAggregator(128, reduction=8).init(key, x, Mode())
    with pytest.raises(ConfigError, match="lower channel_divisor"):
        GlobalAggregator(32, channel_divisor=64).init(key, x, Mode())
    with pytest.raises(ConfigError, match="dense, dense_projected, multi_head"):
        LocalConv("C*").init(key, x, Mode())
    with pytest.raises(ConfigError, match=r"decoder_channels must be \(8,\)"):
        EncoderDecoder((8, 16), (16, 8)).init(key, x, Mode())
    with pytest.raises(ConfigError, match="multiple of 8"):
        EncoderDecoder((8, 8, 8), (8, 8, 8)).init(key, x, Mode())
