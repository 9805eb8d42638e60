"""The attentions, losses and scores of Micro-AU CLIP against reference numbers in float64."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from small import ROOT

from mexjax.models.micro_au_clip import attention as au_attention
from mexjax.models.micro_au_clip import losses as au_losses

_FILE = ROOT / "tests" / "golden" / "micro_au_clip.json"
GOLDEN = {
    part: {name: value if isinstance(value, str) else np.array(value) for name, value in v.items()}
    for part, v in json.loads(_FILE.read_text(encoding="utf-8")).items()
}


def check(found, wanted) -> None:
    np.testing.assert_allclose(np.asarray(found), wanted, atol=1e-6)


def cosines(part: str):
    g = GOLDEN[part]
    texts = np.stack([g["T_neg"], g["T_pos"]], axis=1)
    return au_losses.text_cosines(jnp.asarray(g["F_V"]), jnp.asarray(texts))


def test_patch_token_attention():
    g = {name: jnp.asarray(value) for name, value in GOLDEN["pta"].items()}
    scores = au_attention.stacked_mlp(
        g["K"], g["W1"], g["b1"], g["W2"][..., None], g["b2"][:, None]
    )[..., 0]
    mask = g["mask"] > 0
    weights, features = au_attention.patch_token_attention(g["K"], mask, scores)
    check(weights, g["weights"])
    check(features, g["F_tilde"])
    check(au_attention.pool_tokens(g["K"], mask, "mean"), g["F_mean"])
    check(au_attention.pool_tokens(g["K"], mask, "max"), g["F_max"])


def test_patches_seen_twice_count_twice():
    tokens = jnp.asarray(np.random.default_rng(0).standard_normal((1, 1, 3, 4)))
    doubled = jnp.concatenate([tokens, tokens[:, :, 2:]], axis=2)
    once, twice = (
        au_attention.patch_token_attention(x, jnp.ones(x.shape[:3], bool), jnp.zeros(x.shape[:3]))
        for x in (tokens, doubled)
    )
    check(once[0][0, 0], [1 / 3] * 3)
    check(twice[1][0, 0], (tokens[0, 0, 0] + tokens[0, 0, 1] + 2 * tokens[0, 0, 2]) / 4)


def test_global_dependency():
    g = {name: jnp.asarray(value) for name, value in GOLDEN["gda"].items()}
    attention = au_attention.relations(g["F_tilde"], g["WQ"], g["WK"])
    check(attention, g["A"])
    scores = au_attention.dependency_scores(attention, g["fc_w"], g["fc_b"], "incoming")
    share, state = au_attention.global_dependency(g["F_tilde"], scores, g["WV"])
    check(share, g["W_d"])
    check(state, g["F_G"])
    check(state[:, None] + g["F_tilde"], g["F_V"])
    scores = au_attention.dependency_scores(attention, g["fc_w"], g["fc_b"], "outgoing")
    check(
        au_attention.global_dependency(g["F_tilde"], scores, g["WV"])[0], g["W_d_outgoing_variant"]
    )


def test_flatten_holds_both_other_forms():
    """A linear layer of all N^2 entries can be either of the two that read rows or columns."""
    g = {name: jnp.asarray(value) for name, value in GOLDEN["gda"].items()}
    n = len(g["fc_w"])
    eye = np.eye(n)
    for mode, weight in (
        ("incoming", np.einsum("m,nk->mnk", g["fc_w"], eye)),
        ("outgoing", np.einsum("n,mk->mnk", g["fc_w"], eye)),
    ):
        flat = jnp.asarray(weight.reshape(n * n, n))
        check(
            au_attention.dependency_scores(g["A"], flat, g["fc_b"], "flatten"),
            au_attention.dependency_scores(g["A"], g["fc_w"], g["fc_b"], mode),
        )


def test_dependency_loss():
    g = {name: jnp.asarray(value) for name, value in GOLDEN["gd_loss"].items()}
    found = au_losses.dependency_loss(g["W_d"], g["Y"])
    check(found, g["per_sample"])
    check(found.mean(), g["mean"])
    normalised = au_losses.dependency_loss(g["W_d"], g["Y"], "normalised")
    check(normalised.mean(), g["normalised_target_mean"])


@settings(max_examples=40, deadline=None)
@given(arrays.arrays(np.int8, (1, 5), elements=st.integers(0, 1)), st.integers(0, 2**31))
def test_both_targets_of_the_dependency_loss_have_one_minimiser(labels, seed: int):
    """Labels over k, or equal shares without an active unit; the least values are as documented."""
    k, n = int(labels.sum()), labels.shape[1]
    best = labels / k if k else np.full(labels.shape, 1 / n)
    shares = np.random.default_rng(seed).dirichlet(np.ones(n), 30)
    many = np.repeat(labels, 30, axis=0)
    for target, least in (
        ("multi_hot", (k - 1) ** 2 / (k * n) if k else 1 / n**2),
        ("normalised", 0.0),
    ):
        floor = float(au_losses.dependency_loss(best, jnp.asarray(labels), target)[0])
        assert floor == pytest.approx(least, abs=1e-6)
        assert (au_losses.dependency_loss(shares, jnp.asarray(many), target) >= floor - 1e-6).all()


def test_contrast_in_every_form():
    g = GOLDEN["miaucl"]
    labels = jnp.asarray(g["Y"])
    m = au_losses.similarities(cosines("miaucl"), labels)
    check(m, g["M"])

    def total(how: str, **options) -> float:
        return float(au_losses.contrast_loss(m, labels, how=how, **options).mean())

    check(total("bce"), g["bce_total"])
    check(total("softmax_normalised"), g["symmetric_total"])
    check(total("softmax_normalised", has_columns=False), g["row_only_total"])
    check(total("softmax_normalised", scale=10.0), g["symmetric_total_scale10"])
    check(total("softmax_multihot", has_columns=False), g["raw_multihot_row_total"])
    check(total("diagonal"), g["diagonal_symmetric_total"])
    one = [(m[n : n + 1], labels[:, n : n + 1]) for n in range(3)]
    rows = [
        au_losses.contrast_loss(*parts, how="softmax_normalised", has_columns=False).mean()
        for parts in one
    ]
    check(rows, g["row_per_au"])
    both = [au_losses.contrast_loss(*parts, how="diagonal").mean() for parts in one]
    columns = 2 * np.array(both) - np.array(rows)
    check(columns, g["col_per_au"])


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.int8, (6, 2), elements=st.integers(0, 1)),
    arrays.arrays(np.float32, (6, 2, 2), elements=st.floats(-1, 1, width=32)),
    arrays.arrays(np.int8, 6, elements=st.integers(0, 1)),
    st.sampled_from([1.0, 10.0, 100.0]),
    st.booleans(),
)
def test_normalised_soft_targets_are_the_diagonal_loss(labels, values, weight, scale, has_columns):
    """Each unit has two texts only: for any cosines, labels, padding and temperature."""
    m = au_losses.similarities(jnp.asarray(values), jnp.asarray(labels))
    losses = [
        au_losses.contrast_loss(
            m,
            jnp.asarray(labels),
            jnp.asarray(weight, jnp.float32),
            how=how,
            scale=scale,
            has_columns=has_columns,
        )
        for how in ("softmax_normalised", "diagonal")
    ]
    means = [float((loss * weight).sum()) for loss in losses]
    assert means[0] == pytest.approx(means[1], rel=2e-5, abs=2e-4)


@pytest.mark.parametrize("how", au_losses.CONTRASTS)
def test_padding_is_in_no_loss_and_no_gradient(how: str):
    rng = np.random.default_rng(1)
    values = jnp.asarray(rng.uniform(-1, 1, (5, 3, 2)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 2, (5, 3)))
    weight = jnp.array([1.0, 1, 1, 0, 0])

    def mean(values, labels, weight):
        m = au_losses.similarities(values, labels)
        losses = au_losses.contrast_loss(m, labels, weight, how=how)
        return jnp.where(weight > 0, losses * weight, 0).sum() / weight.sum()

    padded, grads = jax.value_and_grad(mean)(values, labels, weight)
    alone, wanted = jax.value_and_grad(mean)(values[:3], labels[:3], weight[:3])
    assert float(padded) == pytest.approx(float(alone), rel=1e-6)
    np.testing.assert_allclose(grads[:3], wanted, atol=1e-6)
    assert not np.asarray(grads[3:]).any()


def test_multitask_and_total():
    g = GOLDEN["multitask_ce"]
    logits, labels = jnp.asarray(g["logits"]), jnp.asarray(g["Y"])
    losses = au_losses.multitask_loss(logits, labels)
    check(losses.mean(axis=0), g["per_au"])
    check(losses.sum(axis=1).mean(), g["total"])
    check(jax.nn.softmax(logits)[..., 1], g["prob_active"])
    t = GOLDEN["total"]
    parts = (g["total"], GOLDEN["miaucl"]["symmetric_total"], GOLDEN["gd_loss"]["mean"])
    check(parts[0] + t["alpha"] * parts[1] + t["beta"] * parts[2], t["loss"])


def test_zero_shot_scores():
    g = GOLDEN["zero_shot"]
    scores = au_losses.combination_scores(cosines("zero_shot"), jnp.asarray(g["combos"]))
    check(scores, g["scores"])
    np.testing.assert_array_equal(scores.argmax(axis=1), g["argmax"])


def test_unknown_forms_are_named():
    with pytest.raises(ValueError, match="incoming"):
        au_attention.dependency_scores(jnp.ones((1, 2, 2)), jnp.ones(2), jnp.ones(2), "inward")
    with pytest.raises(ValueError, match="attention, max, mean"):
        au_attention.pool_tokens(jnp.ones((1, 1, 1, 1)), jnp.ones((1, 1, 1), bool), "sum")
    with pytest.raises(ValueError, match="multi_hot"):
        au_losses.dependency_loss(jnp.ones((1, 2)), jnp.ones((1, 2)), "hot")
    with pytest.raises(ValueError, match="softmax_normalised"):
        au_losses.contrast_loss(jnp.ones((1, 1, 1)), jnp.ones((1, 1)), how="softmax")
