"""Experts, gates and the losses of AC4AU: reference vectors, extremes, gradients."""

from __future__ import annotations

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from device_helpers import slack
from small import ROOT

from mexjax.errors import ConfigError
from mexjax.models.ac4au import losses
from mexjax.models.ac4au.experts import ExpertMixture, binary_outputs, gate_statistics
from mexjax.nn.mobilefacenet import unit_length
from mexjax.nn.mode import Mode

GOLDEN = json.loads((ROOT / "tests" / "golden" / "ac4au.json").read_text(encoding="utf-8"))
ALPHA = np.array(GOLDEN["alpha_global"], np.float32)


def mixture(expert_logits, gate_logits, **fields):
    """A mixture whose experts and gates give these numbers: linear, without inputs."""
    module = ExpertMixture(len(gate_logits), len(expert_logits), kind="linear", **fields)
    x = jnp.zeros((1, 2))
    variables = jax.tree.map(jnp.zeros_like, module.init(jax.random.key(0), x, Mode()))
    params = variables["params"]
    params["experts"]["out"]["bias"] = jnp.asarray(expert_logits, jnp.float32)
    params["gates"]["bias"] = jnp.asarray(gate_logits, jnp.float32).reshape(-1)
    return module.apply({"params": params}, x, Mode())


@pytest.mark.parametrize("mix", ["prob", "logit"])
def test_reference_mixture(mix: str):
    golden = {key: np.array(value) for key, value in GOLDEN["auser"].items()}
    found = mixture(golden["expert_logits"], golden["gate_logits"], mix=mix)
    np.testing.assert_allclose(found["gates"][0], golden["alpha"], atol=slack(1e-6))
    np.testing.assert_allclose(found["expert_logits"][0], golden["expert_logits"], atol=slack(1e-6))
    name = "mix_of_probs" if mix == "prob" else "sigmoid_of_mix_of_logits"
    np.testing.assert_allclose(np.exp(found["log_p"][0]), golden[name], atol=slack(1e-6))
    logits = golden["logit_of_mix_of_probs" if mix == "prob" else "mix_of_logits"]
    np.testing.assert_allclose(found["logits"][0], logits, atol=slack(2e-6))


@pytest.mark.parametrize("mix", ["prob", "logit"])
def test_probabilities_add_up_at_the_extremes(mix: str):
    for experts in ((80.0, -80.0, 0.0), (80.0, 80.0, 80.0), (-80.0, -80.0, -80.0)):
        gates = [[0.0, 0, 0], [50, -50, 0], [-3, 3, 1]]
        found = mixture(experts, gates, mix=mix)
        assert all(np.isfinite(value).all() for value in found.values())
        np.testing.assert_allclose(found["gates"].sum(axis=-1), 1, rtol=slack(1e-5))
        total = np.exp(found["log_p"]) + np.exp(found["log_not_p"])
        np.testing.assert_allclose(total, 1, rtol=slack(1e-5))
        for target in (np.zeros(3), np.ones(3)):
            terms = losses.focal_terms(found["log_p"], found["log_not_p"], target, ALPHA[:3])
            assert np.isfinite(terms).all()


def test_gradient_at_the_extremes():
    def loss(experts, gates):
        module = ExpertMixture(3, 3, kind="linear")
        x = jnp.ones((1, 1))
        params = {
            "experts": {"out": {"kernel": jnp.zeros((1, 3)), "bias": experts}},
            "gates": {"kernel": jnp.zeros((1, 9)), "bias": gates},
        }
        found = module.apply({"params": params}, x, Mode())
        target = jnp.array([1.0, 0.0, 1.0])
        terms = losses.focal_terms(found["log_p"], found["log_not_p"], target, ALPHA[:3])
        return terms.sum()

    slopes = jax.grad(loss, argnums=(0, 1))(jnp.array([80.0, -80, 0]), jnp.linspace(-60, 60, 9))
    assert all(np.isfinite(slope).all() for slope in slopes)


def test_at_the_start_every_unit_listens_to_all_experts():
    module = ExpertMixture(12)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((5, 32)), jnp.float32)
    variables = module.init(jax.random.key(0), x, Mode())
    found = module.apply(variables, x, Mode())
    np.testing.assert_allclose(found["gates"], 1 / 12, rtol=slack(1e-5))
    assert np.ptp(found["logits"], axis=1).max() < 1e-5, "so all units say the same"
    assert np.ptp(found["expert_logits"], axis=1).min() > 0.01, "and experts differ"
    ahead = ExpertMixture(12, diagonal_bias=4.0)
    gates = ahead.apply(ahead.init(jax.random.key(0), x, Mode()), x, Mode())["gates"]
    np.testing.assert_array_equal(gates[0].argmax(axis=-1), np.arange(12))


def test_sizes_of_the_paper():
    module = ExpertMixture(12)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 512)), Mode()))
    count = {
        name: sum(math.prod(a.shape) for a in jax.tree.leaves(part))
        for name, part in shapes["params"].items()
    }
    assert count == {"experts": 789_516, "gates": 73_872}


def test_top_k_listens_to_k_experts():
    rng = np.random.default_rng(1)
    experts, gates = rng.standard_normal(12), rng.standard_normal((4, 12))
    whole = mixture(experts, gates)
    for k in (1, 3):
        found = mixture(experts, gates, top_k=k)
        chosen = np.asarray(found["gates"][0] > 0)
        assert (chosen.sum(axis=1) == k).all()
        for unit in range(4):
            assert set(np.flatnonzero(chosen[unit])) == set(np.argsort(gates[unit])[-k:])
        kept = np.where(chosen, whole["gates"][0], 0)
        np.testing.assert_allclose(
            found["gates"][0], kept / kept.sum(axis=1, keepdims=True), rtol=slack(1e-5)
        )
    np.testing.assert_allclose(
        mixture(experts, gates, top_k=12)["logits"], whole["logits"], atol=slack(1e-6)
    )
    tied = mixture(experts, np.zeros((4, 12)), top_k=2)["gates"][0]
    assert (np.asarray(tied) > 0).sum() == 8, "of equal gates k are taken, not all"


def test_top_k_has_a_finite_gradient():
    module = ExpertMixture(4, 6, top_k=2, kind="linear")
    x = jnp.ones((3, 5))
    variables = module.init(jax.random.key(0), x, Mode())
    slopes = jax.grad(lambda v: module.apply(v, x, Mode())["log_p"].sum())(variables)
    assert all(np.isfinite(slope).all() for slope in jax.tree.leaves(slopes))


def test_without_gates_expert_k_is_unit_k():
    module = ExpertMixture(3, has_gates=False)
    x = jnp.ones((2, 5))
    found = module.apply(module.init(jax.random.key(0), x, Mode()), x, Mode())
    np.testing.assert_array_equal(found["logits"], found["expert_logits"])
    np.testing.assert_array_equal(found["gates"][1], np.eye(3))
    for fields, words in (
        ({"num_experts": 4, "has_gates": False}, "4 experts, 3 units"),
        ({"mix": "logits"}, "Did you mean 'logit'"),
        ({"kind": "conv"}, "kind of expert"),
        ({"top_k": 5}, "top_k=5 of 3"),
    ):
        with pytest.raises(ConfigError, match=words):
            ExpertMixture(3, **fields).init(jax.random.key(0), x, Mode())


def test_statistics_of_gates():
    gates = jnp.asarray([[[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.5, 0.5]]])
    found = gate_statistics(gates)
    np.testing.assert_allclose(found["matrix"], gates[0], atol=slack(1e-6))
    np.testing.assert_allclose(found["load"], [0.75, 0.25], atol=slack(1e-6))
    np.testing.assert_allclose(found["entropy"], [0, 1], atol=slack(1e-6))


@pytest.mark.parametrize("mode", losses.MARGIN_MODES)
def test_reference_margins(mode: str):
    golden = GOLDEN["arcface"]
    f, w = (jnp.asarray(golden[key], jnp.float32) for key in ("f", "W"))
    cosines = unit_length(f) @ unit_length(w).T
    np.testing.assert_allclose(cosines, golden["cos"], atol=slack(1e-6))
    label = jnp.asarray(golden["label"])
    logits = losses.angular_margin_logits(cosines, label, mode=mode)
    np.testing.assert_allclose(logits, golden[mode]["logits"], atol=slack(2e-5))
    found = losses.angular_margin_loss(cosines, label, mode=mode)
    np.testing.assert_allclose(found, golden[mode]["loss"], atol=slack(2e-5))
    # The sum of a vector over time and its mean have the same angles.
    scaled = unit_length(8 * f) @ unit_length(w).T
    np.testing.assert_allclose(scaled, cosines, atol=slack(1e-6))


@pytest.mark.parametrize("mode", losses.MARGIN_MODES)
def test_margin_gradient_is_finite_where_angles_end(mode: str):
    cosines = jnp.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.3], [0.0, 1.0, -1.0]])
    label = jnp.array([0, 0, 2])
    slope = jax.grad(lambda c: losses.angular_margin_loss(c, label, mode=mode).sum())(cosines)
    assert np.isfinite(slope).all()


def test_monotone_margin_falls_with_the_angle_and_literal_does_not():
    theta = np.linspace(0, np.pi, 400)
    cosines = jnp.asarray(np.cos(theta)[:, None], jnp.float32)
    label = jnp.zeros(400, jnp.int32)
    found = {
        mode: np.asarray(losses.angular_margin_logits(cosines, label, mode=mode))[:, 0]
        for mode in losses.MARGIN_MODES
    }
    assert (np.diff(found["monotone"]) < 1e-3).all()
    assert np.diff(found["literal"])[-20:].max() > 0
    near = theta < np.pi - 0.5
    np.testing.assert_array_equal(found["monotone"][near], found["literal"][near])
    is_far = theta > np.pi / 2
    np.testing.assert_allclose(found["easy"][is_far], 32 * np.cos(theta[is_far]), atol=slack(1e-4))


def test_padded_subjects_are_no_class():
    rng = np.random.default_rng(0)
    cosines = jnp.asarray(rng.uniform(-1, 1, (6, 5)), jnp.float32)
    label = jnp.array([0, 1, 2, 0, 1, 2])
    is_class = jnp.array([True, True, True, False, False])
    found = losses.angular_margin_loss(cosines, label, is_class)
    np.testing.assert_allclose(
        found, losses.angular_margin_loss(cosines[:, :3], label), rtol=slack(1e-5)
    )
    slope = jax.grad(lambda c: losses.angular_margin_loss(c, label, is_class).sum())(cosines)
    assert not np.asarray(slope[:, 3:]).any()
    with pytest.raises(ConfigError, match="monotone"):
        losses.angular_margin_loss(cosines, label, mode="monoton")


def test_reference_focal_loss():
    golden = {key: np.array(value, np.float32) for key, value in GOLDEN["focal"].items()}
    log_p, log_not_p = np.log(golden["p"]), np.log1p(-golden["p"])
    terms = losses.focal_terms(log_p, log_not_p, golden["y"], golden["alpha"])
    np.testing.assert_allclose(terms, golden["terms"], atol=slack(1e-6))
    assert float(terms.sum(axis=-1).mean()) == pytest.approx(float(golden["mean"]), abs=slack(1e-6))
    bce = losses.cross_entropy_terms(log_p, log_not_p, golden["y"]).sum(axis=-1)
    np.testing.assert_allclose(bce, GOLDEN["bce"]["per_sample_sum"], atol=slack(2e-6))


def test_losses_of_twelve_units_at_one_half():
    found = binary_outputs(jnp.zeros(12))
    target = np.zeros(12)
    target[:2] = 1
    focal = losses.focal_terms(found["log_p"], found["log_not_p"], target, ALPHA)
    assert float(focal.sum()) == pytest.approx(0.46201280, abs=slack(1e-6))
    bce = losses.cross_entropy_terms(found["log_p"], found["log_not_p"], target)
    assert float(bce.sum()) == pytest.approx(8.31776617, abs=slack(1e-5))
    # Without focus it is cross-entropy with weights 1 - alpha and alpha.
    plain = losses.focal_terms(found["log_p"], found["log_not_p"], target, ALPHA, focus=0.0)
    np.testing.assert_allclose(plain, bce * np.where(target, 1 - ALPHA, ALPHA), rtol=slack(1e-6))
