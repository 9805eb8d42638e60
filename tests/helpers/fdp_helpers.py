"""What the tests of FDP share: compiling, weights by the rule, one training step."""

from __future__ import annotations

import functools

import jax
import numpy as np
from device_helpers import slack
from papers import loss_of
from rule_weights import rule_array

from mexjax.interop import common
from mexjax.models.fdp import network as fdp
from mexjax.models.fdp import weights as interop

# These programs run once or twice: compiling them well takes longer than running them.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def rule_variables(shapes: dict, rename=lambda name: name) -> dict:
    """Variables whose arrays follow the rule of the weights under their (renamed) names."""
    entries = interop.make_entries(shapes)
    names = {n: s for e in entries for n, s in zip(e.names, e.shapes, strict=True)}
    state = {name: rule_array(rename(name), shape) for name, shape in names.items()}
    return common.to_variables(entries, state, "the rule")


def state_of(**collections: dict) -> common.State:
    return common.to_state(interop.make_entries(collections), collections)


def assert_close_to_max(found, wanted, bar: float, largest: float | None = None) -> None:
    wanted = np.asarray(wanted)
    largest = np.abs(wanted).max() if largest is None else largest
    np.testing.assert_allclose(np.ravel(found), wanted.ravel(), rtol=0, atol=slack(bar) * largest)


def make_loss_and_grads(module: fdp.FDP, config: dict):
    def mean_loss(params, batch_stats, batch):
        outputs, updated = module.apply(
            {"params": params, "batch_stats": batch_stats},
            batch,
            train=True,
            mutable=["batch_stats"],
        )
        per_clip, logs = loss_of("fdp", outputs, batch, config)
        weight = batch["weight"]

        def mean(values):
            return (weight * values).sum() / weight.sum()

        logs = {name: mean(values) for name, values in logs.items()}
        return mean(per_clip), (outputs, logs, updated["batch_stats"])

    grads = jax.value_and_grad(mean_loss, has_aux=True)
    return lambda v, batch: grads(v["params"], v["batch_stats"], batch)
