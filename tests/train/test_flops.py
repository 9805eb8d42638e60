"""Operation counts against hand-worked layers and against XLA's own count."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from device_helpers import needs_cpu
from papers import network_of

from mexjax.ops import conv
from mexjax.train import cost, flops


def test_products_and_convolutions_by_hand():
    a, b = jnp.zeros((3, 5)), jnp.zeros((5, 7))
    assert flops.forward_flops(jnp.matmul, a, b) == 2 * 3 * 5 * 7
    x, w = jnp.zeros((2, 8, 8, 4)), jnp.zeros((3, 3, 2, 6))
    found = flops.forward_flops(lambda x, w: conv.conv2d(x, w, stride=2, groups=2), x, w)
    assert found == 2 * (2 * 4 * 4 * 6) * (3 * 3 * 2)


def test_a_scan_counts_every_turn():
    def turns(a: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda c, _: (c @ c, None), a, None, length=4)[0]

    assert flops.forward_flops(turns, jnp.zeros((3, 3))) == 4 * 2 * 27


def test_a_product_in_a_while_loop_is_refused():
    def endless(a: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda c: c.sum() < 1, lambda c: c @ c, a)

    with pytest.raises(ValueError, match="while loop"):
        flops.forward_flops(endless, jnp.zeros((3, 3)))


@pytest.mark.parametrize("preset", ["tiny", "paper_14m", "official"])
def test_counts_agree_with_xla(preset: str):
    """XLA also counts elementwise work, and leaves out taps that fall on the padding."""
    module = network_of("fdp", {"preset": preset}, 5)
    clip = jax.ShapeDtypeStruct((1, 8, 64, 64, 1), jnp.float32)
    shapes = jax.eval_shape(
        lambda c: module.init(jax.random.key(0), {"clip": c}, train=False), clip
    )

    def forward(variables, clip):
        return module.apply(variables, {"clip": clip}, train=False)

    counted = flops.forward_flops(forward, shapes, clip)
    with conv.use_lowering("native"):
        lowered = jax.jit(forward).lower(shapes, clip)
    by_xla = lowered.cost_analysis()["flops"]
    assert 0.8 * by_xla < counted < 1.2 * by_xla, (counted, by_xla)


def test_utilisation_of_a_known_rate():
    found = cost.utilisation(10, num_clips=100.0, seconds=2.0, dtype="float32", num_devices=2)
    assert found["model_flops_per_s"] == 100 * 30 / 2
    assert found["mfu"] == pytest.approx(1500 / (2 * found["peak_flops_per_s"]))
    assert cost.utilisation(10, 0.0, 0.0, "float32", 1)["mfu"] == 0.0


@needs_cpu()
def test_the_peak_of_a_processor_is_measured():
    peak = flops.device_peak("float32")
    assert "measured" in peak.source and peak.flops_per_s > 1e9
