"""GAMDSS against figures of the released PyTorch code, with weights made by a written rule."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from device_helpers import slack
from papers import network_of
from st_helpers import (
    GOLDEN,
    NOISE,
    adamw_step,
    assert_gradient_norms,
    assert_summary,
    captured_points,
    golden_batch,
    jit,
    make_step,
    names_digest,
    variables_of,
)

from mexjax.interop import common
from mexjax.models import get_model
from mexjax.models.gamdss import weights as interop
from mexjax.models.spatio_temporal import weights as st_unit

FIGURES = GOLDEN["models"]["gamdss"]
PHASES = ("logits_rise", "logits_fall")


def assert_logits(outputs: dict, wanted: dict) -> None:
    for phase in PHASES:
        np.testing.assert_allclose(outputs[phase], wanted[phase], rtol=0, atol=slack(1e-4))
    np.testing.assert_array_equal(outputs["logits"], outputs["logits_rise"])


@pytest.mark.slow
def test_equals_the_released_network():
    module = network_of("gamdss", {"preset": "official", "drop_path_rate": 0.0}, 5)
    variables = variables_of(interop.make_entries(st_unit.variable_shapes(module)))
    # One program: a traced flag chooses between running and batch statistics.
    step = jit(make_step(module, get_model("gamdss"), is_captured=True))

    (_, (outputs, _, updated)), _ = step(variables, golden_batch(is_frozen=True))
    assert_logits(outputs, FIGURES["eval"])
    # The unit is that of late fusion: the rise is its prediction.
    late = GOLDEN["models"]["late"]
    np.testing.assert_allclose(
        outputs["logits_rise"], late["eval"]["logits"], rtol=0, atol=slack(1e-4)
    )
    points = captured_points(updated["intermediates"])
    for name, summary in late["points"].items():
        assert_summary(points[name][::2], summary)  # rows are clip by clip, rise before fall
    for name, summary in FIGURES["points"].items():
        assert_summary(points[name][1::2], summary)
    del points, updated

    golden = FIGURES["train"]
    (loss, (outputs, logs, updated)), grads = step(variables, golden_batch(is_frozen=False))
    assert float(loss) == pytest.approx(golden["loss"], abs=slack(1e-4))
    for phase in ("ce_rise", "ce_fall"):
        assert float(logs[phase]) == pytest.approx(golden[phase], abs=slack(1e-4))
    assert_logits(outputs, golden["logits"])
    found = common.to_state(interop.make_entries({"params": grads}), {"params": grads})
    assert_gradient_norms(found, golden["gradient_norms"], NOISE)
    for name, first in golden["gradients"].items():
        np.testing.assert_allclose(
            found[name].ravel()[: len(first)], first, rtol=0, atol=slack(2e-4) * np.abs(first).max()
        )
    # Running statistics were updated twice, by the rise and then by the fall.
    stats = {"batch_stats": updated["batch_stats"]}
    running = common.to_state(interop.make_entries(stats), stats)
    for name, first in golden["running"].items():
        np.testing.assert_allclose(
            running[name][: len(first)], first, rtol=slack(1e-4), atol=slack(1e-5)
        )

    del updated, found
    params = adamw_step(variables["params"], grads)
    (loss, _), _ = step({**variables, "params": params}, golden_batch(is_frozen=False))
    assert float(loss) == pytest.approx(golden["loss_after_adamw_step"], abs=slack(1e-3))


def test_weights_have_the_released_names_and_shapes():
    module = network_of("gamdss", {"preset": "official"}, 5)
    shapes = st_unit.variable_shapes(module)
    variables = variables_of(interop.make_entries(shapes))
    state = interop.to_torch(variables)
    assert names_digest(state) == FIGURES["state"]
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == FIGURES["num_used"]
