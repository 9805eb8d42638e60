"""The retention backbone, the place branch and their parts, against sums written out in numpy."""

from __future__ import annotations

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from device_helpers import slack
from papers import network_of
from scipy.special import erf
from st_helpers import SMALL, jit, small_batch, variables_of

from mexjax.errors import ConfigError
from mexjax.interop import common
from mexjax.models.spatio_temporal import weights as st_unit
from mexjax.models.spatio_temporal.place import PositionViT, resize_map
from mexjax.models.spatio_temporal.unit import Head
from mexjax.models.tsfmicro.network import upsample_conv
from mexjax.nn.mode import Mode
from mexjax.nn.rmt import RMT_T, ConvStem, Retention, RetentionBlock, RetentionStages
from mexjax.ops import retention_tables
from mexjax.ops.activations import gelu
from mexjax.train import flops


def test_gelu_and_its_derivative():
    x = np.linspace(-6, 6, 401)
    wanted = x * 0.5 * (1 + erf(x / math.sqrt(2)))
    np.testing.assert_allclose(gelu(jnp.asarray(x, jnp.float32)), wanted, atol=slack(1e-6))
    slope = 0.5 * (1 + erf(x / math.sqrt(2))) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    found = jax.vmap(jax.grad(gelu))(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, slope, atol=slack(2e-6))
    assert gelu(jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16


# ---- a block, in numpy ---------------------------------------------------------------------------


def depthwise(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    k = kernel.shape[0]
    padded = np.pad(x, ((0, 0), (k // 2,) * 2, (k // 2,) * 2, (0, 0)))
    taps = (
        padded[:, i : i + x.shape[1], j : j + x.shape[2]] * kernel[i, j, 0]
        for i in range(k)
        for j in range(k)
    )
    return sum(taps) + bias


def layer_norm(x: np.ndarray, p: dict) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def block_by_hand(x: np.ndarray, p: dict, log_decay, is_decomposed: bool) -> np.ndarray:
    """The released block (qhfan/RMT, `RetBlock`) with two heads, in float64."""

    def dense(x, p):
        return x @ p["kernel"] + p["bias"]

    def conv(x, p):
        return depthwise(x, p["kernel"], p["bias"])

    n, height, width, c = x.shape
    x = x + conv(x, p["position"])

    r, y = p["retention"], layer_norm(x, p["norm1"])
    q, k, v = np.split(y @ r["qkv_kernel"] + r["qkv_bias"], 3, axis=-1)
    lepe = conv(v, r["lepe"])
    d = c // 2
    place = np.arange(height * width).reshape(height, width, 1, 1)
    angle = place * 10000.0 ** (-np.arange(d // 2) / (d // 2 - 1))

    def rotated(a):
        a = a.reshape(n, height, width, 2, d)
        turned = (a[..., ::2] + 1j * a[..., 1::2]) * np.exp(1j * angle)
        return np.stack([turned.real, turned.imag], -1).reshape(n, height * width, 2, d)

    q, k, v = rotated(q), rotated(k * d**-0.5), v.reshape(n, height * width, 2, d)
    ys, xs = np.indices((height, width)).reshape(2, -1)
    dy, dx = np.abs(ys[:, None] - ys), np.abs(xs[:, None] - xs)
    for is_seen in (dy == 0, dx == 0) if is_decomposed else (np.ones_like(dy, bool),):
        scores = np.einsum("nqhd,nkhd->nhqk", q, k)
        scores += np.asarray(log_decay)[:, None, None] * (dy + dx)
        weights = np.where(is_seen, np.exp(scores - scores.max(-1, keepdims=True)), 0)
        v = np.einsum("nhqk,nkhd->nqhd", weights / weights.sum(-1, keepdims=True), v)
    x = x + dense(v.reshape(n, height, width, c) + lepe, r["out"])

    f, y = p["ffn"], layer_norm(x, p["norm2"])
    u = dense(y, f["fc1"])
    u = u * 0.5 * (1 + erf(u / math.sqrt(2)))
    return x + dense(u + conv(u, f["depthwise"]), f["fc2"])


def random_params(module, x, seed: int = 0, **kwargs):
    """Parameters that are all random, norms and biases too."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, **kwargs))
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda s: (rng.standard_normal(s.shape) / math.sqrt(max(s.shape[0], 4))).astype(np.float32),
        shapes,
    )


@pytest.mark.parametrize("is_decomposed", [True, False])
def test_block_equals_the_released_one(is_decomposed: bool):
    log_decay = retention_tables.log_decays(2, 2, 4)
    block = RetentionBlock(2, log_decay, is_decomposed=is_decomposed)
    x = np.random.default_rng(1).standard_normal((2, 4, 5, 16)).astype(np.float32)
    variables = random_params(block, x, mode=Mode())
    found = jit(lambda v, x: block.apply(v, x, Mode()))(variables, x)
    params = jax.tree.map(lambda a: a.astype(np.float64), variables["params"])
    wanted = block_by_hand(x.astype(np.float64), params, log_decay, is_decomposed)
    np.testing.assert_allclose(found, wanted, atol=slack(1e-5) * np.abs(wanted).max())


def test_chunked_retention_is_the_same_network():
    log_decay = retention_tables.log_decays(2, 2, 6)
    x = jnp.asarray(np.random.default_rng(2).standard_normal((2, 6, 6, 16)).astype(np.float32))
    whole, lean = (Retention(2, log_decay, chunk=chunk) for chunk in (0, 8))
    variables = random_params(whole, x)

    def value_and_grads(module):
        def total(v, x):
            return jnp.square(module.apply(v, x)).sum()

        return jit(jax.value_and_grad(total, argnums=(0, 1)))(variables, x)

    (wanted, wanted_grads), (found, grads) = map(value_and_grads, (whole, lean))
    np.testing.assert_allclose(found, wanted, rtol=slack(1e-5))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a, b, rtol=slack(1e-4), atol=slack(1e-4) * np.abs(b).max()
        ),
        grads,
        wanted_grads,
    )


def test_layer_scale_multiplies_both_branches():
    log_decay = retention_tables.log_decays(2, 2, 4)
    x = jnp.ones((1, 3, 3, 8)) * jnp.arange(8.0)
    block = RetentionBlock(2, log_decay, layer_scale=1e-5)
    variables = jit(lambda: block.init(jax.random.key(0), x, Mode()))()
    gammas = variables["params"]["gamma_1"], variables["params"]["gamma_2"]
    assert all(g.shape == (8,) and np.allclose(g, 1e-5) for g in gammas)
    none = {k: jnp.zeros_like(g) for k, g in zip(("gamma_1", "gamma_2"), gammas, strict=True)}
    y = block.apply({"params": variables["params"] | none}, x, Mode())
    p = variables["params"]["position"]
    wanted = x + depthwise(np.asarray(x), np.asarray(p["kernel"]), np.asarray(p["bias"]))
    np.testing.assert_allclose(y, wanted, rtol=slack(1e-5))


def test_stochastic_depth_grows_from_zero_to_the_last_block():
    stages = RetentionStages(drop_path_rate=0.2)
    x = jax.ShapeDtypeStruct((1, 16, 16, 64), jnp.float32)
    rngs = {"params": jax.random.key(0), "drop_path": jax.random.key(1)}
    rates = {}

    def record(next_call, args, kwargs, context):
        if isinstance(context.module, RetentionBlock):
            rates["/".join(context.module.path)] = context.module.drop_path_rate
        return next_call(*args, **kwargs)

    import flax.linen as nn

    with nn.intercept_methods(record):
        jax.eval_shape(lambda x: stages.init(rngs, x, Mode(is_train=True)), x)
    np.testing.assert_allclose(list(rates.values()), [0, 0.05, 0.1, 0.15, 0.2])


# ---- sizes ---------------------------------------------------------------------------------------


def num_params(tree) -> int:
    return sum(math.prod(a.shape) for a in jax.tree.leaves(tree))


def test_parameters_of_the_released_parts():
    x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    init = jax.eval_shape(lambda x: ConvStem().init(jax.random.key(0), x, Mode()), x)
    assert num_params(init["params"]) == 65_952
    x = jax.ShapeDtypeStruct((1, 112, 112, 64), jnp.float32)
    init = jax.eval_shape(lambda x: RetentionStages().init(jax.random.key(0), x, Mode()), x)
    stages = init["params"]
    merges = [
        num_params([stages[f"stage_{i}"].get(k, {}) for k in ("merge", "norm")]) for i in range(4)
    ]
    assert merges == [74_112, 295_680, 1_181_184, 0]
    blocks = [num_params(stages[f"stage_{i}"]) - merges[i] for i in range(4)]
    assert blocks == [45_952, 173_824, 1_350_656, 2_661_376]


def test_stock_rmt_t_has_its_published_size():
    keys = {k: v for k, v in RMT_T.items() if not k.startswith("stem_")}
    stem, stages = ConvStem(RMT_T["stem_channels"], RMT_T["stem_strides"]), RetentionStages(**keys)
    head = Head(1000)

    def forward(x):
        total, modules = 0, []
        for module in (stem, stages, head):
            x, variables = module.init_with_output(jax.random.key(0), x, Mode())
            total += num_params(variables["params"])
            modules.append(x.shape)
        return x, total, modules

    sizes = {}

    def traced(x):
        y, sizes["params"], sizes["shapes"] = forward(x)
        return y

    x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    counted = flops.forward_flops(traced, x)
    assert sizes["shapes"] == [(1, 56, 56, 64), (1, 7, 7, 512), (1, 1000)]
    # Fan et al., Table 3: 14 M parameters, 2.5 G multiply-adds.
    assert 13.5e6 < sizes["params"] < 14.5e6
    assert 2.3e9 < counted / 2 < 2.7e9


# ---- place branch and parts ----------------------------------------------------------------------


def test_shrinking_reads_four_pixels_or_all():
    x = np.random.default_rng(3).random((2, 64, 64, 3)).astype(np.float32)
    found = resize_map(jnp.asarray(x), 4)
    wanted = x.reshape(2, 4, 16, 4, 16, 3)[:, :, 7:9, :, 7:9].mean(axis=(2, 4))
    np.testing.assert_allclose(found, wanted, atol=slack(1e-6))
    np.testing.assert_allclose(
        found, jax.image.resize(x, found.shape, "linear", antialias=False), atol=slack(1e-6)
    )
    # A triangle of 32 pixels around the middle of each of 16, cut at the border.
    offset = np.arange(64)[None] - (np.arange(4)[:, None] * 16 + 7.5)
    weights = np.maximum(1 - np.abs(offset) / 16, 0)
    weights /= weights.sum(1, keepdims=True)
    wanted = np.einsum("ih,jw,nhwc->nijc", weights, weights, x)
    found = resize_map(jnp.asarray(x), 4, "bilinear_antialias")
    np.testing.assert_allclose(found, wanted, atol=slack(1e-5))
    assert resize_map(jnp.asarray(x[:, :60, :60]), 4).shape == (2, 4, 4, 3)  # by 15: not even
    np.testing.assert_array_equal(resize_map(jnp.asarray(x), 64), x)


def test_tokens_are_in_row_major_order_and_know_their_places():
    vit = PositionViT(width=8, depth=0, num_heads=2)
    x = jnp.arange(12.0).reshape(1, 3, 4, 1)
    variables = jit(lambda: vit.init(jax.random.key(0), x, Mode()))()
    assert variables["params"]["position"].shape == (1, 12, 8)
    wanted = vit.apply(variables, x, Mode())
    moved = variables["params"] | {"position": variables["params"]["position"].at[0, 6].add(1.0)}
    changed = np.abs(vit.apply({"params": moved}, x, Mode()) - wanted).max(axis=-1)[0]
    # A constant is taken out by the norm; what is left is where: token 6 is row 1, column 2.
    moved = variables["params"] | {"position": variables["params"]["position"].at[0, 6, 0].add(1.0)}
    changed = np.abs(vit.apply({"params": moved}, x, Mode()) - wanted).max(axis=-1)[0]
    assert np.argwhere(changed > 1e-4).tolist() == [[1, 2]]


def test_a_map_of_another_size_cannot_be_added():
    vit = PositionViT(width=8, depth=0, num_heads=2)
    with pytest.raises(ConfigError, match=r"a map of 2x2x8 to add; found \(3, 3, 8\)"):
        vit.init(jax.random.key(0), jnp.ones((1, 2, 2, 1)), Mode(), added=jnp.ones((1, 3, 3, 8)))


def test_transposed_convolution_spreads_every_pixel():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    w = rng.standard_normal((4, 4, 5, 6)).astype(np.float32)
    wanted = np.zeros((2, 10, 12, 6))
    for y in range(3):
        for u in range(4):
            wanted[:, 2 * y : 2 * y + 4, 2 * u : 2 * u + 4] += np.einsum(
                "ni,hwio->nhwo", x[:, y, u], w
            )
    wanted = wanted[:, 1:7, 1:9]  # padding 1
    found = jit(upsample_conv)(x, w)
    np.testing.assert_allclose(found, wanted, atol=slack(1e-5))


def test_head_normalises_over_positions_and_ignores_padding():
    head = Head(3, 8)
    x = jnp.asarray(np.random.default_rng(5).standard_normal((4, 2, 2, 6)).astype(np.float32))
    variables = jit(lambda: head.init(jax.random.key(0), x, Mode()))()
    run = jit(lambda x, mode: head.apply(variables, x, mode, mutable=["batch_stats"])[0])
    wanted = run(x[:3], Mode(is_train=True))
    padded = run(x, Mode(is_train=True, weight=jnp.array([1.0, 1, 1, 0])))
    np.testing.assert_allclose(padded[:3], wanted, atol=slack(1e-5))
    assert np.abs(padded[:3] - run(x, Mode(is_train=True))[:3]).max() > 1e-4


def test_initial_weights_are_drawn_as_the_released_code_draws_them():
    module = network_of(
        "tsfmicro", {"preset": "paper", "fusion": "t_to_s", "depths": (1, 1, 1, 1)}, 5
    )
    batch = {"onset": jnp.zeros((1, 224, 224, 3)), "apex": jnp.zeros((1, 224, 224, 3))}
    params = jit(lambda: module.init(jax.random.key(0), batch, train=False))()["params"]
    stage = params["stages"]["stage_3"]["block_0"]
    for kernel in (stage["retention"]["qkv_kernel"], stage["ffn"]["fc1"]["kernel"]):
        assert float(kernel.std()) == pytest.approx(0.02, rel=0.02)
    assert float(params["place"]["vit"]["position"].std()) == pytest.approx(0.02, rel=0.02)
    assert not np.any(stage["retention"]["qkv_bias"])
    # Depthwise: a fan-in of 9. The head of this fusion: a fan-in of 512.
    for kernel, fan_in in ((stage["position"]["kernel"], 9), (params["head"]["fc"]["kernel"], 512)):
        limit = fan_in**-0.5
        assert float(jnp.abs(kernel).max()) == pytest.approx(limit, rel=0.01)
        assert float(kernel.std()) == pytest.approx(limit / math.sqrt(3), rel=0.03)


def test_small_unit_round_trips_through_torch_names():
    module = network_of("tsfmicro", SMALL, 3)
    batch = small_batch()
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), batch, train=False))
    entries = st_unit.make_entries(shapes)
    state = common.to_state(entries, variables_of(entries))
    back = common.to_variables(entries, state, "the rule")
    chex.assert_trees_all_equal(back, variables_of(entries))
    assert state["main_branch.layers.1.blocks.0.gamma_1"].shape == (16,)
    kernel = back["params"]["stages"]["stage_0"]["block_0"]["retention"]["qkv_kernel"]
    assert kernel[3, 8 + 1] == state["main_branch.layers.0.blocks.0.retention.k_proj.weight"][1, 3]
