"""TSFmicro and GAMDSS against the released networks, with weights made by the written rule."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rule_weights import rule_array
from small import ROOT

import mexjax
from mexjax.errors import ConfigError
from mexjax.interop import gamdss as gamdss_weights
from mexjax.interop import st_unit
from mexjax.interop import tsfmicro as tsfmicro_weights
from mexjax.models import gamdss, get_model, tsfmicro

GOLDEN = json.loads((ROOT / "tests" / "golden" / "key_frames.json").read_text(encoding="utf-8"))
STILL = {"preset": "official", "drop_path_rate": 0.0}


def state_by_rule(name: str) -> dict[str, np.ndarray]:
    """The tensors that the released class of a fusion, or GAMDSS, reads."""
    if name == "gamdss":
        shapes = st_unit.variable_shapes(gamdss.make(STILL, num_classes=5))
        entries = gamdss_weights.make_entries(shapes)
    else:
        shapes = st_unit.variable_shapes(tsfmicro.make({**STILL, "fusion": name}, num_classes=5))
        entries = tsfmicro_weights.make_entries(shapes, name)
    return {
        tensor: rule_array(tensor, shape)
        for entry in entries
        for tensor, shape in zip(entry.names, entry.shapes, strict=True)
    }


def images() -> dict[str, jax.Array]:
    """Noise, of onset, apex and offset."""
    found = {}
    for i, name in enumerate(("onset", "apex", "offset")):
        rng = np.random.Generator(np.random.PCG64(123 + i))
        image = rng.random((2, 3, 224, 224)).astype(np.float32)
        found[name] = jnp.asarray(image.transpose(0, 2, 3, 1))
    return found


def load(name: str):
    still = {"drop_path_rate": 0.0}
    if name == "gamdss":
        return mexjax.from_torch("gamdss", state_by_rule(name), config=still)
    return mexjax.from_torch("tsfmicro", state_by_rule(name), fusion=name, config=still)


@pytest.mark.parametrize("name", ["late", "early", "t_to_s", "s_to_t", "s_only"])
def test_logits_of_every_fusion(name: str):
    module, variables = load(name)
    run = jax.jit(lambda variables, batch: module.apply(variables, batch, train=False))
    found = run(variables, images())
    np.testing.assert_allclose(found["logits"], GOLDEN[name]["logits"], atol=1e-4)


def test_rise_and_fall_share_the_unit():
    module, variables = load("gamdss")
    run = jax.jit(lambda variables, batch: module.apply(variables, batch, train=False))
    found = run(variables, images())
    for phase in ("logits_rise", "logits_fall"):
        np.testing.assert_allclose(found[phase], GOLDEN["gamdss"][phase], atol=1e-4)
    np.testing.assert_array_equal(found["logits"], found["logits_rise"])
    # The unit is that of late fusion: the rise is its prediction.
    np.testing.assert_allclose(found["logits_rise"], GOLDEN["late"]["logits"], atol=1e-4)


@pytest.mark.parametrize("name", ["late", "gamdss"])
def test_training_loss(name: str):
    module, variables = load(name)
    paper = gamdss if name == "gamdss" else tsfmicro

    def loss(variables, batch):
        outputs, _ = module.apply(variables, batch, train=True, mutable=["batch_stats"])
        return paper.loss(outputs, batch, module.config)[0].mean()

    batch = images() | {"label": jnp.array([1, 3])}
    assert float(jax.jit(loss)(variables, batch)) == pytest.approx(GOLDEN[name]["loss"], abs=1e-4)


def test_parameter_count_of_late_fusion():
    shapes = st_unit.variable_shapes(tsfmicro.make({**STILL, "fusion": "late"}, num_classes=5))
    count = sum(np.prod(x.shape) for x in jax.tree.leaves(shapes["params"]))
    assert count == 12_789_413  # of the 12,793,003 of the released class, which leaves some unused


def test_weights_go_back_to_the_names_they_came_under():
    state = state_by_rule("late")
    _, variables = mexjax.from_torch("tsfmicro", state)
    back = mexjax.to_torch("tsfmicro", variables)
    assert set(state) <= set(back)
    for name, value in state.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)


@pytest.mark.parametrize("name", ["tsfmicro", "gamdss"])
def test_tiny_learns(name: str):
    """Six updates on one batch: every part is reached by the gradient, and the loss falls."""
    paper = get_model(name)
    module = paper.make({"preset": "tiny"}, num_classes=3)
    rng = np.random.default_rng(0)
    clip = jnp.asarray(rng.standard_normal((6, 3, 64, 64, 1)), jnp.float32)
    batch = {**paper.inputs(clip, module.config), "label": jnp.arange(6) % 3}
    keys = dict(
        zip(("params", "drop_path", "dropout"), jax.random.split(jax.random.key(0), 3), strict=True)
    )
    variables = jax.jit(lambda: module.init(keys, batch, train=False))()

    @jax.jit
    def step(params, stats, key):
        def loss(params):
            outputs, updated = module.apply(
                {"params": params, "batch_stats": stats},
                batch,
                train=True,
                mutable=["batch_stats"],
                rngs={"drop_path": key, "dropout": key},
            )
            return paper.loss(outputs, batch, module.config)[0].mean(), updated["batch_stats"]

        (value, stats_), grads = jax.value_and_grad(loss, has_aux=True)(params)
        params = jax.tree.map(lambda p, g: p - 0.05 * g, params, grads)
        return params, stats_, value, grads

    params, stats, losses = variables["params"], variables["batch_stats"], []
    for i in range(6):
        params, stats, value, grads = step(params, stats, jax.random.key(i))
        losses.append(float(value))
    assert (np.diff(losses) < 0).all()
    flat, _ = jax.tree_util.tree_flatten_with_path(grads)
    silent = [jax.tree_util.keystr(path) for path, grad in flat if not np.asarray(grad).any()]
    assert not silent


def test_missing_frames_and_unknown_fusions_are_named():
    module = tsfmicro.make({"preset": "tiny"}, num_classes=3)
    with pytest.raises(ConfigError, match="onset and apex"):
        module.init(jax.random.key(0), {"onset": jnp.zeros((1, 64, 64, 1))}, train=False)
    with pytest.raises(ConfigError, match="late"):
        tsfmicro.make({"preset": "tiny", "fusion": "lat"}, num_classes=3)
