"""Every lowering against XLA's convolution, and the batching rule, gradients and HLO of conv2d."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from device_helpers import slack
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mexjax.cpu import is_cpu
from mexjax.ops.conv import (
    LOWERINGS,
    choice,
    chunks,
    conv2d,
    conv2d_transpose,
    depthwise,
    grouped,
    use_lowering,
    winograd,
)
from mexjax.ops.conv.choice import choose, compute
from mexjax.ops.conv.geometry import OPERATIONS, Geometry, Layer

ONE = ((1, 1), (1, 1))
NONE = ((0, 0), (0, 0))
# (batch, geometry, input channels, output channels)
CASES = {
    "3x3": (5, Geometry((8, 12), (3, 3), (1, 1), ONE), 8, 12),
    "asymmetric padding": (2, Geometry((7, 9), (3, 3), (1, 1), ((0, 1), (2, 1))), 4, 6),
    "few outputs": (3, Geometry((6, 5), (3, 2), (1, 1), ((1, 0), (0, 2))), 13, 2),
    "1x1 map": (3, Geometry((1, 1), (3, 3), (1, 1), ONE), 4, 6),
    "2x2 map": (4, Geometry((2, 2), (3, 3), (1, 1), ONE), 8, 6),
    "4x4 map": (4, Geometry((4, 4), (3, 3), (1, 1), ONE), 4, 6),
    "stride 2": (2, Geometry((8, 7), (3, 3), (2, 2), ONE), 4, 6),
    "5x3, stride 3x2": (2, Geometry((11, 7), (5, 3), (3, 2), ((2, 1), (0, 0))), 4, 6),
    "groups": (2, Geometry((6, 6), (3, 3), (1, 1), ONE, 4), 64, 32),  # merge32: two by two
    "groups, stride 2": (2, Geometry((6, 6), (3, 3), (2, 2), ONE, 2), 4, 6),
    "depthwise 3x3": (2, Geometry((6, 7), (3, 3), (1, 1), ONE, 6), 6, 6),
    "depthwise 5x5, stride 2": (2, Geometry((8, 8), (5, 5), (2, 2), ((2, 2), (2, 2)), 4), 4, 4),
    "depthwise, stride 2, odd": (2, Geometry((7, 9), (3, 3), (2, 2), ((0, 1), (1, 1)), 4), 4, 4),
    "depthwise 2x5, stride 3x2": (2, Geometry((11, 8), (2, 5), (3, 2), ((0, 0), (2, 2)), 3), 3, 3),
    "depthwise, kernel below stride": (2, Geometry((9, 8), (2, 2), (3, 3), NONE, 3), 3, 3),
    "patches": (2, Geometry((9, 8), (4, 4), (4, 4), NONE), 3, 8),
    "1x1, stride 2": (2, Geometry((5, 6), (1, 1), (2, 2), NONE), 3, 8),
    "kernel below stride": (2, Geometry((9, 8), (2, 2), (3, 3), NONE), 3, 4),
}
# Little optimisation: compiling is what takes the time here.
FAST_COMPILE = {"xla_backend_optimization_level": 0} if is_cpu() else {}
PAIRS = [
    pytest.param(case, name, id=f"{case}-{name}")
    for case, (_, geometry, channels, out) in CASES.items()
    for name, lowering in LOWERINGS.items()
    if name not in {"native", "merge64"}  # merge32 is the same code
    and lowering.applies(geometry, channels, out)
]


def reference(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        w,
        geometry.stride,
        geometry.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=geometry.groups,
        precision="highest",
    )


def arrays(case: str, *lead: int) -> tuple[jax.Array, jax.Array, Geometry]:
    batch, geometry, channels, out = CASES[case]
    rng = np.random.default_rng(len(case))
    x = rng.standard_normal((*lead, batch, *geometry.size, channels), np.float32)
    w = rng.standard_normal((*lead, *geometry.kernel, channels // geometry.groups, out), np.float32)
    return jnp.asarray(x), jnp.asarray(w), geometry


def assert_close(found: jax.Array, expected: jax.Array, tolerance: float = 1e-5) -> None:
    """Up to `tolerance` of the largest expected value."""
    assert found.shape == expected.shape
    found, expected = (np.asarray(a, np.float32) for a in (found, expected))
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=slack(tolerance) * np.abs(expected).max()
    )


def compiled_operations(name: str, geometry: Geometry, *values: jax.Array) -> jax.stages.Compiled:
    """The three operations as one program of x, w, dy."""

    def all_three(x: jax.Array, w: jax.Array, dy: jax.Array) -> list[jax.Array]:
        pairs = {"forward": (x, w), "input_gradient": (dy, w), "weight_gradient": (x, dy)}
        return [compute(operation, *pairs[operation], geometry, name) for operation in OPERATIONS]

    return jax.jit(all_three).lower(*values).compile(FAST_COMPILE)


def expected_operations(geometry: Geometry, x: jax.Array, w: jax.Array, dy: jax.Array) -> list:
    x, w, dy = (a.astype(jnp.float32) for a in (x, w, dy))
    y, transpose = jax.vjp(lambda x, w: reference(x, w, geometry), x, w)
    return [y, *transpose(dy)]


def check_operations(case: str, name: str, dtype: jnp.dtype, tolerance: float) -> None:
    x, w, geometry = arrays(case)
    shape = (x.shape[0], *geometry.out_size, w.shape[-1])
    dy = jnp.cos(jnp.arange(np.prod(shape), dtype=jnp.float32)).reshape(shape)
    values = [a.astype(dtype) for a in (x, w, dy)]
    found = compiled_operations(name, geometry, *values)(*values)
    for a, b in zip(found, expected_operations(geometry, *values), strict=True):
        assert a.dtype == dtype
        assert_close(a, b, tolerance)


@pytest.mark.parametrize(("case", "name"), PAIRS)
def test_lowering_equals_native(case: str, name: str):
    check_operations(case, name, jnp.float32, 1e-5)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("2x2 map", "dense_map"),
        *(("3x3", name) for name in ("native_parts", "im2col", "shifted", "winograd2", "native")),
        ("groups", "merge32"),
        ("groups", "grouped"),
        ("depthwise 3x3", "depthwise"),
        ("patches", "patchify"),
    ],
)
def test_bfloat16_is_right_to_its_own_rounding(case: str, name: str):
    check_operations(case, name, jnp.bfloat16, 2.0**-8)


@pytest.mark.parametrize("name", ["im2col", "winograd2"])
@pytest.mark.parametrize(("batch", "chunk"), [(7, 1), (8, 3)])  # the last three overlap by one
def test_chunks_change_nothing(name: str, batch: int, chunk: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1)
    rows = 16 if name == "winograd2" else 64
    monkeypatch.setattr(chunks, "MIN_CHUNK_ROWS", rows * chunk)
    monkeypatch.setattr(winograd, "enough_rows", lambda *_: rows * chunk)
    geometry = Geometry((8, 8), (3, 3), (1, 1), ONE)
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (batch, 8, 8, 4))
    w = jax.random.normal(keys[1], (3, 3, 4, 6))
    dy = jax.random.normal(keys[2], (batch, 8, 8, 6))
    compiled = compiled_operations(name, geometry, x, w, dy)
    assert "while(" in compiled.as_text()
    for a, b in zip(compiled(x, w, dy), expected_operations(geometry, x, w, dy), strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("images", [1, 2, 6])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_blocks_of_the_depthwise_weight_gradient_change_nothing(
    images: int, stride: int, dtype: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(depthwise, "BLOCK_BYTES", images * 4 * 8 * 9 * 4)
    monkeypatch.setattr(depthwise, "MOST_COLUMNS", 4)  # parts of 4, 4 and 1 columns
    geometry = Geometry((8, 9), (3, 5), (stride, stride), ((1, 1), (2, 2)), 4)
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (6, 8, 9, 4), dtype)
    w = jax.random.normal(keys[1], (3, 5, 1, 4), dtype)
    dy = jax.random.normal(keys[2], (6, *geometry.out_size, 4), dtype)
    compiled = compiled_operations("depthwise", geometry, x, w, dy)
    if is_cpu():
        assert ("while(" in compiled.as_text()) == (images < 6)
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    for a, b in zip(compiled(x, w, dy), expected_operations(geometry, x, w, dy), strict=True):
        assert_close(a, b, tolerance)


@pytest.mark.parametrize("images", [1, 2, 6])
def test_blocks_of_the_grouped_weight_gradient_change_nothing(
    images: int, monkeypatch: pytest.MonkeyPatch
):
    # Another padding, kernel and stride on either axis; parts of 4 and 2 columns, rows one by one.
    geometry = Geometry((8, 9), (3, 5), (2, 1), ((0, 1), (1, 0)), 2)
    height, width = geometry.out_size
    sums = 3 * -(-width // 4) * height * 5 * 2 * 6
    image_bytes = 4 * (8 * 9 * 4 + height * width * 6 + sums)
    monkeypatch.setattr(grouped, "BLOCK_BYTES", images * image_bytes)
    monkeypatch.setattr(grouped, "MOST_PIXELS", 4)
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (6, 8, 9, 4))
    w = jax.random.normal(keys[1], (3, 5, 2, 6))
    dy = jax.random.normal(keys[2], (6, height, width, 6))
    compiled = compiled_operations("grouped", geometry, x, w, dy)
    assert ("while(" in compiled.as_text()) == (images < 6)
    for a, b in zip(compiled(x, w, dy), expected_operations(geometry, x, w, dy), strict=True):
        assert_close(a, b)


def test_a_convolution_is_taken_apart_into_many():
    geometry = Geometry((5, 4), (3, 3), (2, 1), ONE)
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (14, 5, 4, 3))
    w = jax.random.normal(keys[1], (3, 3, 3, 2))
    dy = jax.random.normal(keys[2], (14, *geometry.out_size, 2))
    compiled = compiled_operations("native_many", geometry, x, w, dy)
    assert compiled.as_text().count(" convolution(") == 3 * 14
    for a, b in zip(compiled(x, w, dy), expected_operations(geometry, x, w, dy), strict=True):
        assert_close(a, b)


@pytest.mark.skipif(not is_cpu(), reason="rules of the CPU")
def test_rules_choose_the_forms_for_few_channels():
    def chosen(channels: int, out: int, groups: int = 1) -> list[str]:
        # No row of the table is near to this size.
        geometry = Geometry((300, 300), (3, 3), (1, 1), ONE, groups)
        layer = Layer(geometry, 1, channels, out, "float32", "cpu")
        return [choose(operation, layer) for operation in OPERATIONS]

    assert chosen(64, 1) == ["few_outputs", "shifted", "few_outputs"]
    assert "few_outputs" not in chosen(512, 56)
    assert chosen(96, 96, 12) == ["grouped"] * 3
    assert chosen(96, 96, 2) == ["split"] * 3  # 48 channels a group are a matrix product


def loss(x: jax.Array, w: jax.Array, geometry: Geometry, convolve: Callable) -> jax.Array:
    y = convolve(x, w, geometry)
    return jnp.sum(jnp.sin(y.astype(jnp.float32)))


def ours(x: jax.Array, w: jax.Array, g: Geometry) -> jax.Array:
    return conv2d(x, w, stride=g.stride, padding=g.padding, groups=g.groups)


def gradients(geometry: Geometry, convolve: Callable = ours) -> Callable:
    return jax.value_and_grad(lambda x, w: loss(x, w, geometry, convolve), (0, 1))


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("3x3", "auto"),
        ("3x3", "im2col"),
        ("3x3", "winograd2"),
        ("stride 2", "auto"),
        ("groups", "auto"),
        ("groups", "grouped"),
        ("few outputs", "few_outputs"),
        ("depthwise 3x3", "auto"),
        ("1x1, stride 2", "auto"),
    ],
)
def test_vmap_equals_loop(case: str, name: str):
    with use_lowering(name):
        for folds in (1, 3):
            x, w, geometry = arrays(case, folds)
            run, plain = gradients(geometry), gradients(geometry, reference)
            for axes in ((0, 0), (0, None), (None, 0)) if folds == 3 else ((0, 0),):
                values = [a if axis == 0 else a[0] for a, axis in zip((x, w), axes, strict=True)]
                found = jax.jit(jax.vmap(run, axes), compiler_options=FAST_COMPILE)(*values)
                expected = jax.jit(jax.vmap(plain, axes), compiler_options=FAST_COMPILE)(*values)
                jax.tree.map(assert_close, found, expected)


@pytest.mark.parametrize("name", ["auto", "im2col"])
def test_nested_vmap(name: str):
    x, w, geometry = arrays("3x3", 2, 3)
    plain = gradients(geometry, reference)
    with use_lowering(name):
        both = jax.jit(jax.vmap(jax.vmap(gradients(geometry))))(x, w)
        cross = jax.jit(
            jax.vmap(jax.vmap(gradients(geometry), in_axes=(None, 0)), in_axes=(0, None))
        )(x[:, 0], w[0])
        inner = jax.jit(jax.vmap(jax.vmap(gradients(geometry)), in_axes=(None, 0)))(x[0], w)
    jax.tree.map(assert_close, both, jax.vmap(jax.vmap(plain))(x, w))
    expected = jax.vmap(jax.vmap(plain, in_axes=(None, 0)), in_axes=(0, None))(x[:, 0], w[0])
    jax.tree.map(assert_close, cross, expected)
    expected = jax.vmap(jax.vmap(plain), in_axes=(None, 0))(x[0], w)
    jax.tree.map(assert_close, inner, expected)


def test_scan_over_steps():
    x, w, geometry = arrays("3x3", 3)
    step = gradients(geometry)

    def update(w: jax.Array, x: jax.Array):
        value, (_, dw) = step(x, w)
        return w - 0.01 * dw, value

    with use_lowering("im2col"):
        compiled = jax.jit(lambda w, x: lax.scan(update, w, x)).lower(w[0], x).compile()
    assert "convolution(" not in compiled.as_text()
    last, values = compiled(w[0], x)
    one = w[0]
    for i in range(3):
        one, value = update(one, x[i])
        assert_close(value, values[i])
    assert_close(last, one)


def bodies_of_loops(text: str) -> str:
    """The HLO of every computation that a `while` reaches."""
    computations = dict(
        re.findall(r"^(?:ENTRY )?%?([\w.\-]+) [^\n]*\{\n(.*?)^\}", text, re.M | re.S)
    )
    waiting = [
        name
        for pair in re.findall(r"while\(.*?condition=%?([\w.\-]+), body=%?([\w.\-]+)", text)
        for name in pair
    ]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in computations:
            continue
        seen.add(name)
        waiting += re.findall(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)", computations[name])
    return "\n".join(computations[name] for name in seen)


@pytest.mark.skipif(not is_cpu(), reason="XLA:CPU only: a grouped convolution")
@pytest.mark.parametrize("case", ["3x3", "2x2 map", "stride 2", "groups", "depthwise 3x3"])
def test_compiled_program_has_no_slow_convolution(case: str):
    x, w, geometry = arrays(case, 4)
    text = jax.jit(jax.vmap(gradients(geometry))).lower(x, w).compile().as_text()
    counts = re.findall(r"(?:feature|batch)_group_count=(\d+)", text)
    assert all(int(count) == 1 for count in counts)
    assert "convolution(" not in bodies_of_loops(text)


def test_a_convolution_in_a_loop_would_be_seen():
    x, w, geometry = arrays("3x3", 4)
    run = gradients(geometry, reference)
    text = jax.jit(lambda x, w: lax.map(lambda p: run(*p), (x, w))).lower(x, w).compile().as_text()
    assert "convolution(" in bodies_of_loops(text)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("3x3", "winograd2"),
        ("3x3", "native"),
        ("stride 2", "im2col"),
        ("groups", "grouped"),
        ("few outputs", "few_outputs"),
        ("depthwise 3x3", "auto"),
    ],
)
def test_shard_map_has_no_collective(case: str, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1)
    monkeypatch.setattr(chunks, "MIN_CHUNK_ROWS", 1)
    monkeypatch.setattr(winograd, "enough_rows", lambda *_: 1)
    devices = len(jax.devices())
    mesh = jax.make_mesh((devices,), ("folds",), axis_types=(AxisType.Auto,))
    x, w, geometry = arrays(case, 2 * devices)
    one_fold = gradients(geometry)
    with use_lowering(name):
        sharded = jax.shard_map(
            jax.vmap(one_fold), mesh=mesh, in_specs=P("folds"), out_specs=P("folds")
        )
        compiled = jax.jit(sharded).lower(x, w).compile()
    text = compiled.as_text()
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert collective not in text
    expected = jax.vmap(gradients(geometry, reference))(x, w)
    jax.tree.map(assert_close, compiled(x, w), expected)


def test_shard_map_sums_the_gradient_of_shared_weights():
    mesh = jax.make_mesh((len(jax.devices()),), ("batch",), axis_types=(AxisType.Auto,))
    x, w, geometry = arrays("3x3", len(jax.devices()))

    def weight_gradient(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.grad(lambda w: loss(x[0], w, geometry, ours))(w)

    run = jax.shard_map(weight_gradient, mesh=mesh, in_specs=(P("batch"), P()), out_specs=P())
    expected = sum(
        jax.grad(lambda w, i=i: loss(x[i], w, geometry, reference))(w[0]) for i in range(len(x))
    )
    assert_close(jax.jit(run)(x, w[0]), expected)


def test_transposed_convolution():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 5, 4), np.float32)
    w = rng.standard_normal((2, 2, 4, 6), np.float32)
    y = conv2d_transpose(jnp.asarray(x), jnp.asarray(w), stride=2)
    expected = np.zeros((2, 6, 10, 6), np.float32)
    for i, j in np.ndindex(2, 2):
        expected[:, i::2, j::2] = x @ w[i, j]
    assert_close(y, jnp.asarray(expected))


def test_same_torch_padding_and_promotion():
    x, w, geometry = arrays("3x3")
    y = conv2d(x.astype(jnp.bfloat16), w)
    assert y.dtype == jnp.float32
    assert y.shape == reference(x, w, geometry).shape


def test_bad_arguments_are_named():
    x, w, _ = arrays("3x3")
    with pytest.raises(ValueError, match=r"groups=2 .* found x \(5, 8, 12, 8\)"):
        conv2d(x, w, groups=2)
    with pytest.raises(ValueError, match="'same_torch'"):
        conv2d(x, w, padding="SAME")
    with pytest.raises(ValueError, match="does not fit"):
        conv2d(x[:, :2, :2], w, padding=NONE)
    with pytest.raises(ValueError, match="kernel == stride"):
        conv2d_transpose(x, w, stride=2)
    with pytest.raises(ValueError, match="winograd4"), use_lowering("fft"):
        pass


def test_override_and_table(monkeypatch: pytest.MonkeyPatch):
    geometry = Geometry((16, 16), (3, 3), (1, 1), ONE)
    layer = Layer(geometry, 288, 96, 96, "float32", "cpu")
    assert choose("forward", layer, "shifted") == "shifted"
    assert choose("forward", layer, "depthwise") == choose("forward", layer)  # does not apply
    rows = [{"layer": layer, **dict.fromkeys(OPERATIONS, "shifted")}]
    monkeypatch.setattr(choice, "_table", lambda: rows)
    automatic = choose.__wrapped__  # without the memory of earlier choices
    near = Layer(geometry, 144, 128, 128, "float32", "cpu")
    far = Layer(geometry, 288, 16, 16, "float32", "cpu")
    assert automatic("forward", near) == "shifted"
    assert automatic("forward", far) != "shifted"


def test_rows_of_a_kind_of_gpu_go_before_those_of_the_platform(monkeypatch: pytest.MonkeyPatch):
    geometry = Geometry((16, 16), (3, 3), (1, 1), ONE)
    h200, l4, any_gpu = (
        Layer(geometry, 288, 96, 96, "float32", "gpu", kind) for kind in ("NVIDIA H200", "L4", "")
    )
    near = dataclasses.replace(h200, batch=144)
    assert choice.layer_from_json(choice.layer_to_json(h200)) == h200
    assert "kind" not in choice.layer_to_json(any_gpu)
    rows = [
        {"layer": layer, **dict.fromkeys(OPERATIONS, name)}
        for layer, name in ((any_gpu, "shifted"), (l4, "im2col"), (near, "native_parts"))
    ]
    monkeypatch.setattr(choice, "_table", lambda: rows)
    automatic = choose.__wrapped__
    assert automatic("forward", h200) == "native_parts"
    rows.pop()
    assert automatic("forward", h200) == "shifted"


def test_folds_of_small_layers_are_groups_on_a_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choice, "_table", list)
    automatic = functools.partial(choose.__wrapped__, num_folds=8)
    small = Layer(
        Geometry((8, 8), (3, 3), (1, 1), ONE), 16, 16, 16, "float32", "gpu", "NVIDIA H200"
    )
    # 1.1 MB to copy take 0.2 microseconds; seven launches less save 14.
    assert [automatic(name, small) for name in OPERATIONS] == ["native_folds"] * 3
    assert automatic("forward", small, num_folds=1) == "native"
    assert automatic("forward", small, "native") == "native"
    strided = dataclasses.replace(small, geometry=Geometry((8, 8), (3, 3), (2, 2), ONE))
    assert automatic("input_gradient", strided) == "native"
    # 1.6 GB take 0.7 milliseconds.
    large = dataclasses.replace(small, geometry=Geometry((512, 512), (3, 3), (1, 1), ONE))
    assert automatic("forward", large) == "native"
    depthwise = dataclasses.replace(small, geometry=Geometry((8, 8), (3, 3), (1, 1), ONE, 16))
    assert automatic("forward", depthwise) == "native_folds"
    grouped = dataclasses.replace(large, geometry=Geometry((512, 512), (3, 3), (1, 1), ONE, 4))
    assert automatic("weight_gradient", grouped) == "native"


@pytest.mark.parametrize("case", ["3x3", "groups", "groups, stride 2", "depthwise 3x3"])
def test_folds_as_groups_compute_the_same(case: str):
    x, w, geometry = arrays(case, 3)
    each = jax.vmap(gradients(geometry))
    with use_lowering("native"):
        expected = each(x, w)
    with use_lowering("native_folds"):
        text = jax.jit(each).lower(x, w).as_text()
        outputs = each(x, w)
    for a, b in zip(jax.tree.leaves(outputs), jax.tree.leaves(expected), strict=True):
        assert_close(a, b)
    # One convolution forward and one for each gradient.
    assert text.count("stablehlo.convolution") == 3


def test_table_names_lowerings_that_apply():
    for row in choice._table():
        layer = row["layer"]
        for operation in OPERATIONS:
            assert LOWERINGS[row[operation]].applies(layer.geometry, layer.channels, layer.out)
