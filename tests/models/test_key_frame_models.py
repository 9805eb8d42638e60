"""TSFmicro and GAMDSS as models of a study: they learn, and say what they need."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from papers import network_of

from mexjax.errors import ConfigError
from mexjax.models import get_model


@pytest.mark.parametrize("name", ["tsfmicro", "gamdss"])
def test_tiny_learns(name: str):
    """Six updates on one batch: every part is reached by the gradient, and the loss falls."""
    paper = get_model(name)
    module = network_of(name, {"preset": "tiny"}, 3)
    rng = np.random.default_rng(0)
    clip = jnp.asarray(rng.standard_normal((6, 3, 64, 64, 1)), jnp.float32)
    batch = {**paper.inputs(clip, module.options), "label": jnp.arange(6) % 3}
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
            return paper.loss(outputs, batch, module.options)[0].mean(), updated["batch_stats"]

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
    module = network_of("tsfmicro", {"preset": "tiny"}, 3)
    with pytest.raises(ConfigError, match="onset and apex"):
        module.init(jax.random.key(0), {"onset": jnp.zeros((1, 64, 64, 1))}, train=False)
    with pytest.raises(ConfigError, match="late"):
        network_of("tsfmicro", {"preset": "tiny", "fusion": "lat"}, 3)


@pytest.mark.parametrize("name", ["tsfmicro", "gamdss"])
@pytest.mark.parametrize("side", [1, 14])  # a map of one pixel would be added to all positions
def test_maps_of_two_sizes_are_not_added(name: str, side: int):
    paper = get_model(name)
    module = network_of(name, {"preset": "tiny", "map_size_px": side}, 3)
    batch = paper.inputs(jnp.zeros((2, 3, 64, 64, 1)), module.options)
    with pytest.raises(ConfigError, match=r"is \(8, 8, 48\) .*Set model\.map_size_px=8,"):
        jax.eval_shape(lambda: module.init(jax.random.key(0), batch, train=False))
