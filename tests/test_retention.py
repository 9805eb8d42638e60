"""Retention: every form gives the numbers of its definition, in value and gradient."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mexjax.ops import retention, retention_linear

DECAY = np.log([0.75, 0.9375]).astype(np.float32)
HEADS, D, DV = 2, 4, 3


def draw(*lead: int) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal((*lead, HEADS, d)), jnp.float32) for d in (D, D, DV)]


def masked_by_hand(q, k, v, distance, *, is_softmax: bool) -> np.ndarray:
    """f64[N,P,heads,dv] over all pairs of P places, place by place."""
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    out = np.zeros((*q.shape[:3], DV))
    for n, h, i in itertools.product(range(q.shape[0]), range(HEADS), range(q.shape[1])):
        scores = k[n, :, h] @ q[n, i, h]
        if is_softmax:
            weights = np.exp(scores + DECAY[h] * distance[i])
            weights /= weights.sum()
        else:
            weights = scores * np.exp(DECAY[h] * distance[i])
        out[n, i, h] = weights @ v[n, :, h]
    return out


def manhattan(height: int, width: int) -> np.ndarray:
    y, x = np.divmod(np.arange(height * width), width)
    return np.abs(y[:, None] - y) + np.abs(x[:, None] - x)


@pytest.mark.parametrize("form", ["full", "chunked", "chunked, uneven"])
def test_softmax_retention_of_a_map(form: str):
    q, k, v = draw(2, 3, 5)
    flat = [a.reshape(2, 15, HEADS, -1) for a in (q, k, v)]
    expected = masked_by_hand(*flat, manhattan(3, 5), is_softmax=True).reshape(2, 3, 5, HEADS, DV)
    if form == "full":
        found = retention.full_retention(q, k, v, DECAY)
    else:
        found = retention.chunked_retention(q, k, v, DECAY, chunk=5 if form == "chunked" else 4)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_decomposed_retention_goes_along_rows_first():
    q, k, v = draw(1, 3, 4)
    rows = np.stack(
        [
            masked_by_hand(
                *(a[:, y] for a in (q, k, v)),
                np.abs(np.subtract.outer(np.arange(4), np.arange(4))),
                is_softmax=True,
            )
            for y in range(3)
        ],
        1,
    )
    columns = np.stack(
        [
            masked_by_hand(
                *(np.asarray(a)[:, :, x] for a in (q, k, rows)),
                np.abs(np.subtract.outer(np.arange(3), np.arange(3))),
                is_softmax=True,
            )
            for x in range(4)
        ],
        2,
    )
    np.testing.assert_allclose(retention.decomposed_retention(q, k, v, DECAY), columns, atol=1e-6)


def test_chunked_gradients_are_those_of_the_full_form():
    q, k, v = draw(1, 3, 5)

    def energy(function, **options):
        return lambda *arrays: jnp.sum(jnp.sin(function(*arrays, DECAY, **options)))

    full = jax.grad(energy(retention.full_retention), (0, 1, 2))(q, k, v)
    chunked = jax.jit(jax.grad(energy(retention.chunked_retention, chunk=4), (0, 1, 2)))(q, k, v)
    for a, b in zip(full, chunked, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_causal_forms_are_equal():
    q, k, v = draw(2, 11)
    order = np.subtract.outer(np.arange(11), np.arange(11)).astype(float)
    distance = np.where(order >= 0, order, np.inf)  # later positions weigh nothing
    with np.errstate(invalid="ignore"):
        expected = masked_by_hand(q, k, v, distance, is_softmax=False)
    parallel = retention_linear.causal_parallel(q, k, v, DECAY)
    np.testing.assert_allclose(parallel, expected, atol=1e-5)
    recurrent, last = retention_linear.causal_recurrent(q, k, v, DECAY)
    np.testing.assert_allclose(recurrent, expected, atol=1e-5)
    for chunk in (1, 4, 11, 64):  # 4: the last chunk has 3 positions
        chunkwise, state = retention_linear.causal_chunkwise(q, k, v, DECAY, chunk=chunk)
        np.testing.assert_allclose(chunkwise, expected, atol=1e-5)
        np.testing.assert_allclose(state, last, atol=1e-5)


def test_the_state_carries_a_sequence_on():
    q, k, v = draw(1, 9)
    whole, _ = retention_linear.causal_recurrent(q, k, v, DECAY)
    _, state = retention_linear.causal_chunkwise(*(a[:, :5] for a in (q, k, v)), DECAY, chunk=2)
    rest, _ = retention_linear.causal_recurrent(*(a[:, 5:] for a in (q, k, v)), DECAY, state)
    np.testing.assert_allclose(rest, whole[:, 5:], atol=1e-5)


def test_linear_time_in_both_directions():
    q, k, v = draw(2, 7)
    distance = np.abs(np.subtract.outer(np.arange(7), np.arange(7)))
    expected = masked_by_hand(q, k, v, distance, is_softmax=False)
    found = retention_linear.bidirectional(q, k, v, DECAY, chunk=3)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_separable_form_has_the_mask_of_the_map():
    q, k, v = draw(1, 3, 4)
    flat = [a.reshape(1, 12, HEADS, -1) for a in (q, k, v)]
    expected = masked_by_hand(*flat, manhattan(3, 4), is_softmax=False).reshape(1, 3, 4, HEADS, DV)
    found = retention_linear.bidirectional_2d(q, k, v, DECAY)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_vmap_over_folds_is_fold_by_fold():
    folds = [draw(1, 2, 3), [2 * a for a in draw(1, 2, 3)]]
    stacked = [jnp.stack(parts) for parts in zip(*folds, strict=True)]
    both = jax.vmap(lambda q, k, v: retention.chunked_retention(q, k, v, DECAY, chunk=4))(*stacked)
    for fold, found in zip(folds, both, strict=True):
        np.testing.assert_allclose(retention.full_retention(*fold, DECAY), found, atol=1e-6)


def test_shapes_that_do_not_belong_together_are_refused():
    q, k, v = draw(1, 2, 3)
    with pytest.raises(ValueError, match="Retention: expected q and k"):
        retention.full_retention(q, k[:, :1], v, DECAY)
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        retention.chunked_retention(q, k, v, DECAY, chunk=0)
