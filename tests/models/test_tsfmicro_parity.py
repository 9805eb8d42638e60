"""TSFmicro against figures of the released PyTorch code, with weights made by a written rule."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from device_helpers import slack
from papers import acting, network_of
from st_helpers import (
    GOLDEN,
    NOISE,
    adamw_step,
    assert_gradient_norms,
    assert_summary,
    captured_points,
    golden_batch,
    golden_images,
    jit,
    make_step,
    names_digest,
    variables_of,
)

from mexjax.interop import common
from mexjax.models import get_model
from mexjax.models.spatio_temporal import weights as st_unit
from mexjax.models.tsfmicro import weights as interop

MODES = ("late", "early", "t_to_s", "s_to_t", "s_only")


def released(fusion: str):
    """The released network without stochastic depth, and its weights by the rule."""
    config = acting("tsfmicro", {"preset": "official", "fusion": fusion, "drop_path_rate": 0.0})
    module = network_of("tsfmicro", config, 5)
    shapes = st_unit.variable_shapes(module)
    return module, variables_of(interop.make_entries(shapes, fusion))


def test_images_are_those_of_the_figures():
    for images, (*first, mean) in zip(
        golden_images().values(), GOLDEN["images_first_and_mean"], strict=True
    ):
        np.testing.assert_allclose(images[0, 0, : len(first), 0], first, rtol=1e-6)
        assert images.mean(dtype=np.float64) == pytest.approx(mean, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", MODES)
def test_equals_the_released_network(fusion: str):
    golden = GOLDEN["models"][fusion]
    module, variables = released(fusion)
    # One program: a traced flag chooses between running and batch statistics.
    step = jit(make_step(module, get_model("tsfmicro"), is_captured=True))

    (_, (outputs, _, updated)), _ = step(variables, golden_batch(is_frozen=True))
    np.testing.assert_allclose(
        outputs["logits"], golden["eval"]["logits"], rtol=0, atol=slack(1e-4)
    )
    points = captured_points(updated["intermediates"])
    for name, summary in golden["points"].items():
        assert_summary(points[name], summary)

    golden = golden["train"]
    (loss, (outputs, logs, updated)), grads = step(variables, golden_batch(is_frozen=False))
    assert float(loss) == pytest.approx(golden["loss"], abs=slack(1e-4))
    assert float(logs["ce"]) == float(loss)
    np.testing.assert_allclose(
        outputs["logits"], golden["logits"]["logits"], rtol=0, atol=slack(1e-4)
    )
    entries = interop.make_entries({"params": grads}, fusion)
    found = common.to_state(entries, {"params": grads})
    assert_gradient_norms(found, golden["gradient_norms"], NOISE)
    for name, first in golden["gradients"].items():
        np.testing.assert_allclose(
            found[name].ravel()[: len(first)], first, rtol=0, atol=slack(2e-4) * np.abs(first).max()
        )
    stats = {"batch_stats": updated["batch_stats"]}
    running = common.to_state(interop.make_entries(stats, fusion), stats)
    for name, first in golden["running"].items():
        np.testing.assert_allclose(
            running[name][: len(first)], first, rtol=slack(1e-4), atol=slack(1e-5)
        )

    del points, updated, found
    params = adamw_step(variables["params"], grads)
    (loss, _), _ = step({**variables, "params": params}, golden_batch(is_frozen=False))
    assert float(loss) == pytest.approx(golden["loss_after_adamw_step"], abs=slack(1e-3))


def test_evaluation_with_both_ways_of_shrinking():
    """The evaluation program itself, from a state dict with everything the release has in it."""
    golden = GOLDEN["models"]["late"]
    _, variables = released("late")
    state = interop.to_torch(variables, fusion="late")
    plain, loaded = interop.from_torch(state, fusion="late")
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    smooth, _ = interop.from_torch(state, config={"resize": "bilinear_antialias"})

    @jit
    def run(variables, batch):
        # The backbone, which does not see the shrunk frame, is computed once.
        return [m.apply(variables, batch, train=False)["logits"] for m in (plain, smooth)]

    batch = jax.tree.map(jnp.asarray, golden_images())
    found = run(variables, batch)
    np.testing.assert_allclose(found[0], golden["eval"]["logits"], rtol=0, atol=slack(1e-4))
    np.testing.assert_allclose(found[1], golden["eval_antialias"], rtol=0, atol=slack(1e-4))


@pytest.mark.parametrize("fusion", MODES)
def test_weights_have_the_released_names_and_shapes(fusion: str):
    golden = GOLDEN["models"][fusion]
    _, variables = released(fusion)
    assert names_digest(interop.to_torch(variables, fusion=fusion)) == golden["state"]
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == golden["num_used"]
