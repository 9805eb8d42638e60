"""Retention: tables by hand, every form against sums in plain loops, derivatives, folds."""

from __future__ import annotations

import functools
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from device_helpers import slack

from mexjax import target
from mexjax.ops import retention, retention_tables

HEADS, WIDTH, VALUES = 2, 8, 6
DECAYS = retention_tables.log_decays(HEADS, 2, 4)


def plane_arrays(n: int = 2, height: int = 4, width: int = 5, seed: int = 0) -> list[jax.Array]:
    """q, k, v as for retention on the plane."""
    rng = np.random.default_rng(seed)
    shape = (n, height, width, HEADS)
    return [
        jnp.asarray(rng.standard_normal((*shape, d)).astype(np.float32) * scale)
        for d, scale in ((WIDTH, 1.0), (WIDTH, WIDTH**-0.5), (VALUES, 1.0))
    ]


# ---- tables --------------------------------------------------------------------------------------


def test_log_decays_of_the_released_stages():
    found = [retention_tables.log_decays(2, 2, span) for span in (4, 6)]
    wanted = [[-0.28768206, -0.06453852], [-0.28768206, -0.03174870]]
    np.testing.assert_allclose(found, wanted, rtol=slack(1e-6))


def test_frequencies_end_at_the_last_one():
    found = retention_tables.frequencies(32)
    assert len(found) == 16
    np.testing.assert_allclose(found[[0, 1, -1]], [1.0, 0.5411695, 1e-4], rtol=slack(1e-6))
    for width in (2, 7):
        with pytest.raises(ValueError, match=f"even head width of at least 4; found {width}"):
            retention_tables.frequencies(width)


def test_decay_of_two_by_three_pixels():
    line = retention_tables.line_decay(3, DECAYS)
    wanted = [[0, -0.2877, -0.5754], [-0.2877, 0, -0.2877], [-0.5754, -0.2877, 0]]
    np.testing.assert_allclose(line[0], wanted, atol=slack(5e-5))
    place = retention_tables.coordinates((2, 3))
    plane = retention_tables.plane_decay(place, place, DECAYS)
    assert plane.shape == (HEADS, 6, 6)
    wanted = [0, -0.2877, -0.5754, -0.2877, -0.5754, -0.8630]
    np.testing.assert_allclose(plane[0, 0], wanted, atol=slack(5e-5))


def test_positions_are_row_major_in_both_directions():
    sin, cos = retention_tables.rotation_tables((3, 5), WIDTH)
    assert sin.dtype == cos.dtype == np.float32
    angle = (2 * 5 + 4) * retention_tables.frequencies(WIDTH)
    np.testing.assert_allclose(sin[2, 4], np.sin(angle), atol=slack(1e-6))
    np.testing.assert_allclose(cos[2, 4], np.cos(angle), atol=slack(1e-6))


def rotate_pairs(x: jax.Array, sin: jax.Array, cos: jax.Array) -> jax.Array:
    """Turns neighbours: (a, b) = (x[2k], x[2k+1]) -> (a cos - b sin, b cos + a sin)."""
    a, b = x[..., ::2], x[..., 1::2]
    return jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape)


def test_a_rotation_of_another_width_is_named():
    sin, cos = retention_tables.rotation_tables((1, 3), WIDTH)
    with pytest.raises(AssertionError, match="divisible"):
        retention_tables.rotate_halves(jnp.ones((1, 3, WIDTH - 1)), sin, cos)
    with pytest.raises(AssertionError, match="axis"):
        retention_tables.rotate_halves(jnp.ones((1, 3, 2 * WIDTH)), sin, cos)


def test_halves_give_the_scores_of_pairs():
    q, k, _ = plane_arrays()
    sin, cos = (t[:, :, None] for t in retention_tables.rotation_tables((4, 5), WIDTH))
    order = np.arange(WIDTH).reshape(-1, 2).T.ravel()

    def scores(rotate, order=slice(None)):
        turned = [rotate(a[..., order], sin, cos) for a in (q, k)]
        return jnp.einsum("nyxhd,nuvhd->nhyxuv", *turned)

    wanted = scores(rotate_pairs)
    found = scores(retention_tables.rotate_halves, order)
    np.testing.assert_allclose(found, wanted, atol=slack(1e-5))
    # Without the order the same pairs of numbers do not turn together.
    assert np.abs(scores(retention_tables.rotate_halves) - wanted).max() > 0.1


# ---- softmax on the plane ------------------------------------------------------------------------


def softmax_by_hand(q, k, v, keys_of) -> np.ndarray:
    """Every pixel attends to the pixels `keys_of(y, x)`; all in float64, one at a time."""
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    out = np.zeros_like(v)
    n, height, width, heads, _ = q.shape
    for b, y, x, h in itertools.product(range(n), range(height), range(width), range(heads)):
        keys = keys_of(y, x)
        scores = np.array(
            [q[b, y, x, h] @ k[b, u, w, h] + DECAYS[h] * (abs(u - y) + abs(w - x)) for u, w in keys]
        )
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        for weight, (u, w) in zip(weights, keys, strict=True):
            out[b, y, x, h] += weight * v[b, u, w, h]
    return out


def full_by_hand(q, k, v) -> np.ndarray:
    places = list(np.ndindex(q.shape[1:3]))
    return softmax_by_hand(q, k, v, lambda y, x: places)


def decomposed_by_hand(q, k, v) -> np.ndarray:
    height, width = q.shape[1:3]
    v = softmax_by_hand(q, k, v, lambda y, x: [(y, w) for w in range(width)])
    return softmax_by_hand(q, k, v, lambda y, x: [(u, x) for u in range(height)])


def chunked(chunk: int):
    return functools.partial(retention.chunked_retention, chunk=chunk)


FORMS = {
    "full": (retention.full_retention, full_by_hand),
    "decomposed": (retention.decomposed_retention, decomposed_by_hand),
    # 20 keys: chunks that fit, that do not, of one key and of more keys than there are.
    "chunks of 5": (chunked(5), full_by_hand),
    "chunks of 7": (chunked(7), full_by_hand),
    "chunks of 1": (chunked(1), full_by_hand),
    "chunks of 64": (chunked(64), full_by_hand),
}


@pytest.mark.parametrize("name", FORMS)
def test_softmax_forms_equal_the_sums(name: str):
    form, by_hand = FORMS[name]
    arrays = plane_arrays()
    found = jax.jit(lambda *a: form(*a, DECAYS))(*arrays)
    np.testing.assert_allclose(found, by_hand(*arrays), atol=slack(1e-5))


def test_rows_come_before_columns():
    q, k, v = plane_arrays()
    turned = [a.swapaxes(1, 2) for a in (q, k, v)]
    columns_first = retention.decomposed_retention(*turned, DECAYS).swapaxes(1, 2)
    found = retention.decomposed_retention(q, k, v, DECAYS)
    assert np.abs(found - columns_first).max() > 0.05


def test_large_scores_stay_finite():
    q, k, v = plane_arrays()
    for form, _ in FORMS.values():
        found = form(100 * q, 100 * k, v, DECAYS)
        assert np.isfinite(found).all()
        assert np.abs(found).max() <= np.abs(v).max() * 1.0001


def gradients(form, arrays, weights) -> list[jax.Array]:
    """Gradients of a weighted sum of the output, with respect to q, k and v."""
    return jax.grad(lambda a: (form(*a, DECAYS) * weights).sum())(arrays)


def plain(q, k, v, log_decay, *, mask) -> jax.Array:
    """Retention as one writes it, for JAX to differentiate; `mask` f[heads,L,L]."""
    del log_decay
    q, k, v = (a.reshape(a.shape[0], -1, *a.shape[3:]) for a in (q, k, v))
    weights = jax.nn.softmax(jnp.einsum("nqhd,nkhd->nhqk", q, k) + mask, axis=-1)
    return jnp.einsum("nhqk,nkhd->nqhd", weights, v)


def plain_full(q, k, v, log_decay) -> jax.Array:
    place = retention_tables.coordinates(q.shape[1:3])
    mask = retention_tables.plane_decay(place, place, DECAYS)
    return plain(q, k, v, log_decay, mask=mask).reshape(v.shape)


def plain_decomposed(q, k, v, log_decay) -> jax.Array:
    place = retention_tables.coordinates(q.shape[1:3])
    mask = retention_tables.plane_decay(place, place, DECAYS)
    for axis in range(2):
        same = place[axis][:, None] == place[axis]
        v = plain(q, k, v, log_decay, mask=jnp.where(same, mask, -jnp.inf)).reshape(v.shape)
    return v


@pytest.mark.parametrize("name", FORMS)
def test_softmax_derivatives(name: str):
    form = FORMS[name][0]
    reference = plain_decomposed if name == "decomposed" else plain_full
    arrays = plane_arrays(seed=1)
    weights = jnp.asarray(np.random.default_rng(2).standard_normal(arrays[2].shape), jnp.float32)
    np.testing.assert_allclose(form(*arrays, DECAYS), reference(*arrays, DECAYS), atol=slack(1e-5))
    found, wanted = (
        jax.jit(functools.partial(gradients, f))(arrays, weights) for f in (form, reference)
    )
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=slack(2e-5))


@pytest.mark.parametrize("name", ["full", "decomposed", "chunks of 7"])
def test_softmax_forms_under_vmap_over_folds(name: str):
    form = FORMS[name][0]
    folds = [plane_arrays(seed=s) for s in (3, 4)]
    weights = jnp.ones_like(folds[0][2])
    both = [jnp.stack(pair) for pair in zip(*folds, strict=True)]
    together = jax.jit(jax.vmap(lambda *a: gradients(form, list(a), weights)))(*both)
    for i, fold in enumerate(folds):
        for a, b in zip(together, gradients(form, fold, weights), strict=True):
            np.testing.assert_allclose(a[i], b, atol=slack(1e-5))


@pytest.mark.parametrize("name", ["full", "decomposed", "chunks of 7"])
def test_half_precision_keeps_its_type_and_softmax_in_float32(name: str):
    form, by_hand = FORMS[name]
    half = [a.astype(jnp.bfloat16) for a in plane_arrays()]
    found = form(*half, DECAYS)
    assert found.dtype == jnp.bfloat16
    wanted = by_hand(*(a.astype(jnp.float32) for a in half))
    np.testing.assert_allclose(found.astype(jnp.float32), wanted, atol=0.05)
    grads = gradients(form, half, jnp.ones(found.shape, jnp.bfloat16))
    assert all(g.dtype == jnp.bfloat16 for g in grads)


def test_chunks_hold_no_array_of_all_pairs():
    arrays = plane_arrays(1, 14, 14)

    def largest(form) -> int:
        jaxpr = jax.make_jaxpr(lambda a: gradients(form, a, 1.0))(arrays)
        return max(_sizes(jaxpr.jaxpr))

    pairs = HEADS * 196 * 196
    assert largest(retention.full_retention) >= pairs
    assert largest(chunked(28)) <= pairs // 7


def _sizes(jaxpr) -> list[int]:
    """Elements of every array that a graph makes, inner graphs included."""
    sizes = [0]
    for eqn in jaxpr.eqns:
        sizes += [int(np.prod(v.aval.shape)) for v in eqn.outvars]
        for value in eqn.params.values():
            for item in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(item, "jaxpr", item)
                sizes += _sizes(inner) if hasattr(inner, "eqns") else []
    return sizes


def test_shapes_that_do_not_fit_are_refused():
    q, k, v = plane_arrays()
    with pytest.raises(ValueError, match=r"q and k \[N,H,W,heads,d\].*found q \(2, 4, 5, 2, 8\)"):
        retention.full_retention(q, k[:, :2], v, DECAYS)
    with pytest.raises(ValueError, match="one log decay for each of 2 heads; found 3"):
        retention.decomposed_retention(q, k, v, (*DECAYS, -0.1))
    with pytest.raises(ValueError, match="chunk must be at least 1; found 0"):
        retention.chunked_retention(q, k, v, DECAYS, chunk=0)


# ---- the kernels for a GPU, interpreted on the CPU -----------------------------------------------


def kernel_arrays(height: int, width: int, n: int = 1, dtype=jnp.float32) -> list[jax.Array]:
    """q, k, v with heads of widths that the kernels take, and weights of a sum of the result."""
    rng = np.random.default_rng(height * width)
    shape = (n, height, width, HEADS)
    widths = ((16, 1.0), (16, 0.25), (32, 1.0), (32, 1.0))
    return [jnp.asarray(rng.standard_normal((*shape, d)) * scale, dtype) for d, scale in widths]


# A plane of 135 pixels needs a last tile that is not full, and two kernels in the backward pass.
KERNEL_CASES = {
    "plane": (retention.full_retention, plain_full, 9, 15),
    "small plane": (retention.full_retention, plain_full, 3, 5),
    "lines": (retention.decomposed_retention, plain_decomposed, 3, 37),
}


@pytest.mark.parametrize("name", KERNEL_CASES)
def test_kernels_give_values_and_derivatives_of_the_plain_form(name: str, monkeypatch):
    form, reference, height, width = KERNEL_CASES[name]
    *arrays, weights = kernel_arrays(height, width)
    wanted = reference(*arrays, DECAYS), *gradients(reference, arrays, weights)
    monkeypatch.setattr(retention, "_has_kernel", lambda *widths: True)
    found = form(*arrays, DECAYS), *gradients(form, arrays, weights)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=slack(1e-5) * float(jnp.abs(b).max()))


def test_kernels_under_vmap_over_folds(monkeypatch):
    *arrays, weights = kernel_arrays(3, 5, n=2)
    wanted = gradients(retention.decomposed_retention, arrays, weights)
    monkeypatch.setattr(retention, "_has_kernel", lambda *widths: True)
    folds = [a.reshape(2, 1, *a.shape[1:]) for a in (*arrays, weights)]

    def one(*arrays):
        return gradients(retention.decomposed_retention, list(arrays[:3]), arrays[3])

    for a, b in zip(jax.vmap(one)(*folds), wanted, strict=True):
        np.testing.assert_allclose(a.reshape(b.shape), b, atol=slack(1e-5))


def test_kernels_keep_the_type_and_stay_finite(monkeypatch):
    monkeypatch.setattr(retention, "_has_kernel", lambda *widths: True)
    *arrays, weights = kernel_arrays(3, 5, dtype=jnp.bfloat16)
    found = retention.full_retention(*arrays, DECAYS)
    assert found.dtype == jnp.bfloat16
    wanted = plain_full(*(a.astype(jnp.float32) for a in arrays), DECAYS)
    np.testing.assert_allclose(found.astype(jnp.float32), wanted, atol=0.05)
    q, k, v = (a.astype(jnp.float32) for a in arrays)
    for a in gradients(retention.full_retention, [100 * q, 100 * k, v], weights):
        assert np.isfinite(a).all()


def test_kernels_keep_no_array_of_all_pairs(monkeypatch):
    *arrays, _ = kernel_arrays(14, 14)
    monkeypatch.setattr(retention, "_has_kernel", lambda *widths: True)
    jaxpr = jax.make_jaxpr(lambda a: gradients(retention.full_retention, a, 1.0))(arrays)
    assert max(_sizes(jaxpr.jaxpr)) == arrays[2].size


@pytest.mark.parametrize(
    ("platform", "kind", "width", "wanted"),
    [
        ("cuda", "NVIDIA H200", 64, True),
        ("cuda", "NVIDIA H200", 256, False),
        ("cuda", "NVIDIA H200", 24, False),
        ("rocm", "AMD Instinct MI300X", 64, False),
        ("cpu", "cpu", 64, False),
    ],
)
def test_kernels_are_for_some_devices_and_widths(
    platform: str, kind: str, width: int, wanted: bool, monkeypatch
):
    device = types.SimpleNamespace(platform=platform, device_kind=kind)
    monkeypatch.setattr(retention.target, "current", lambda: target.Target((device,)))
    assert retention._has_kernel(width, 64) is wanted
