"""FDP against figures of the released PyTorch code, with weights made by a written rule."""

from __future__ import annotations

import functools
import json
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from device_helpers import slack
from fdp_helpers import assert_close_to_max, jit, make_loss_and_grads, rule_variables, state_of
from papers import loss_of, network_of, options_of

from mexjax.models.fdp import network as fdp
from mexjax.models.fdp import weights as interop
from mexjax.nn.mode import Mode
from mexjax.nn.next_vit import GlobalAggregator
from mexjax.ops.conv import use_lowering

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "fdp.json").read_text())
# The released network without stochastic depth, which the figures were computed without.
OFFICIAL = {"preset": "official", "drop_path_rate": 0.0}
# Followed by batch norm through linear operations only: their true gradient is zero, and what
# float32 finds is rounding noise.
NOISE = {
    *(f"frame_rep.features.{i}.mlp.conv2.bias" for i in (2, 6, 16, 19)),
    *(
        name
        for name in GOLDEN["train"]["gradient_norms"]
        if name.startswith("dyimg_net.conv") and name.endswith("bias") and "conv11d" not in name
    ),
}


def golden_clips(seed_offset: int = 0) -> np.ndarray:
    """f32[2,8,64,64]: two clips of noise."""
    rng = np.random.Generator(np.random.PCG64(GOLDEN["seed"] + seed_offset))
    return rng.random((2, 8, 64, 64), dtype=np.float32)


def golden_batch() -> dict[str, jax.Array]:
    rng = np.random.Generator(np.random.PCG64(GOLDEN["seed"] + 1))
    batch = {
        "clip": golden_clips()[..., None],
        "label": np.array([1, 3]),
        "dynamic_image": rng.random((2, 64, 64), dtype=np.float32),
        "weight": np.ones(2, np.float32),
        "is_frozen": np.array(False),
    }
    return jax.tree.map(jnp.asarray, batch)


def assert_samples(found: jax.Array, golden: dict, bar: float) -> None:
    """`found` in PyTorch's layout against every stride-th value of its flattening."""
    values = golden["values"]
    found = np.asarray(found).ravel()[:: golden["stride"]][: len(values)]
    assert_close_to_max(found, values, bar, golden["max"])


def jit_direct(function):
    """Compiled without fast convolutions, whose rounding is larger: networks are compared here."""
    compiled = jit(function)

    def call(*args):
        with use_lowering("im2col"):
            return compiled(*args)

    return call


@pytest.fixture(scope="module")
def official():
    module = network_of("fdp", OFFICIAL, 5)
    return module, rule_variables(interop.variable_shapes(module))


@pytest.fixture(scope="module")
def official_step(official):
    """Losses and gradients of the released network; batch norm freezes by `is_frozen`."""
    return jit_direct(make_loss_and_grads(official[0], OFFICIAL))


@pytest.fixture(scope="module")
def official_outputs(official):
    """What the released network gives, and the same weights in the volume the paper describes.

    The second has a rank scorer. One program, in which the frame network is shared.
    """
    module, variables = official
    time_last = {**OFFICIAL, "volume_layout": "time_last", "use_rank_scorer": True}
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(b"rank_scorer.u")))
    scorer = rng.standard_normal(4096).astype(np.float32) / np.float32(64)
    other = network_of("fdp", time_last, 5)
    with_scorer = {**variables, "params": {**variables["params"], "rank_scorer": scorer}}

    @jit_direct
    def run(variables, with_scorer, batch):
        return tuple(
            m.apply(v, batch, train=False) for m, v in ((module, variables), (other, with_scorer))
        )

    return run(variables, with_scorer, golden_batch())


@pytest.mark.slow
def test_evaluation_equals_the_released_network(official_outputs):
    outputs, _ = official_outputs
    golden = GOLDEN["eval"]
    assert_close_to_max(outputs["logits"], golden["logits"], 1e-5)
    assert_samples(outputs["frame_features"], golden["frame_features"], 1e-5)
    volume = outputs["dynamic_representation"]
    assert_samples(volume.transpose(0, 3, 1, 2), golden["dynamic_representation"], 1e-5)
    found = [volume.mean(), volume.std(), jnp.abs(volume).max()]
    assert_close_to_max(found, golden["dynamic_representation_mean_std_max"], 1e-5)
    image = outputs["dynamic_image"]
    assert_samples(image, golden["dynamic_image"], 1e-5)
    found = [image.mean(), image.std()]
    np.testing.assert_allclose(found, golden["dynamic_image_mean_std"], atol=slack(1e-5))


# One program keeps none of the moments, which are as large as the network.
@functools.partial(jit, donate_argnums=1)
def adam_step(params: dict, grads: dict) -> dict:
    """One update as the released code makes it: Adam, 1e-4, L2 of 1e-3 in the gradient."""
    transform = optax.chain(
        optax.add_decayed_weights(1e-3), optax.scale_by_adam(), optax.scale(-1e-4)
    )
    updates, _ = transform.update(grads, transform.init(params), params)
    return optax.apply_updates(params, updates)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "second_bar"),
    # Rounding noise in the excluded biases moves the second step of the first kind.
    [("train", 2e-2), ("evalbn", 5e-4)],
)
def test_training_equals_the_released_network(official, official_step, mode, second_bar):
    _, variables = official
    golden, batch = GOLDEN[mode], golden_batch()
    # From its second epoch on the released loop trains with batch norm in evaluation mode.
    batch["is_frozen"] = jnp.array(mode == "evalbn")
    (total, (_, logs, stats)), grads = official_step(variables, batch)
    losses = [logs["ce"], logs["mse"], total]
    np.testing.assert_allclose(losses, golden["ce_mse_total"], rtol=slack(1e-5))

    found, wanted = state_of(params=grads), golden["gradient_norms"]
    assert set(found) == set(wanted)
    errors = {
        name: abs(np.linalg.norm(found[name].astype(np.float64)) / wanted[name] - 1)
        for name in set(found) - NOISE
    }
    assert len(errors) == 247
    # Scaling the input by 1 + 1e-7 already moves single norms of the training mode by 1.4%: the
    # gradient is what batch norm leaves of a cancellation, and ReLU and maxima switch.
    worst = max(errors, key=errors.get)
    assert errors[worst] < (0.04 if mode == "train" else 0.01), (worst, errors[worst])
    assert np.quantile(list(errors.values()), 0.9) < 0.01

    running = state_of(batch_stats=stats)
    for name, values in golden.get("running", {}).items():
        assert_close_to_max(running[name][: len(values)], values, 1e-5)
    if mode == "evalbn":
        jax.tree.map(np.testing.assert_array_equal, stats, variables["batch_stats"])

    del found
    params = adam_step(variables["params"], grads)
    (total, (_, logs, _)), _ = official_step({**variables, "params": params}, batch)
    losses = [logs["ce"], logs["mse"], total]
    np.testing.assert_allclose(losses, golden["adam_second_ce_mse_total"], rtol=slack(second_bar))


@pytest.mark.slow
def test_rank_scores_and_time_last_volume(official_outputs):
    _, outputs = official_outputs
    assert_close_to_max(outputs["rank_scores"], GOLDEN["rank"]["scores"], 1e-5)
    _, logs = loss_of("fdp", outputs, golden_batch(), {"preset": "paper"})
    assert float(logs["rank"].mean()) == pytest.approx(GOLDEN["rank"]["loss"], rel=slack(1e-5))
    assert_close_to_max(outputs["logits"], GOLDEN["time_last"]["logits"], 1e-5)
    image = outputs["dynamic_image"]
    found, wanted = [image.mean(), image.std()], GOLDEN["time_last"]["dynamic_image_mean_std"]
    np.testing.assert_allclose(found, wanted, atol=slack(1e-5))


def assert_summary(found: jax.Array, golden: dict, bar: float) -> None:
    found = np.asarray(found, np.float64)
    mean, std = golden["mean_std"]
    assert abs(found.mean() - mean) < slack(bar) * std
    assert abs(found.std() - std) < slack(bar) * std
    assert_close_to_max(found.ravel()[:16], golden["first"], bar, np.abs(found).max())


def run_both_modes(module, variables: dict, x: jax.Array) -> dict[str, jax.Array]:
    evaluate = jit_direct(lambda v, x: module.apply(v, x, Mode()))
    train = jit_direct(
        lambda v, x: module.apply(v, x, Mode(is_train=True), mutable=["batch_stats"])[0]
    )
    return {"eval": evaluate(variables, x), "train": train(variables, x)}


@pytest.mark.parametrize(
    ("name", "channels", "features", "stride", "reduction", "size"),
    [("A", 96, 128, 1, 8, 16), ("B", 192, 256, 2, 4, 16), ("C", 768, 1024, 1, 1, 2)],
)
def test_global_aggregator_equals_the_released_class(
    name, channels, features, stride, reduction, size
):
    module = GlobalAggregator(features, stride, reduction=reduction, local_conv="dense")
    rng = np.random.Generator(np.random.PCG64(GOLDEN["seed"] + 2))
    x = rng.standard_normal((2, channels, size, size)).astype(np.float32)
    x = jnp.asarray(x.transpose(0, 2, 3, 1))
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, Mode()))
    variables = rule_variables(shapes, lambda n: f"gfa{name}.{n}")
    for mode, y in run_both_modes(module, variables, x).items():
        assert_summary(y.transpose(0, 3, 1, 2), GOLDEN["global_aggregator"][name][mode], 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "num_global"), [("paperbb", 1), ("paperbb_noG", 0)])
def test_frame_network_of_the_paper(name: str, num_global: int):
    config = {"preset": "paper", "num_global": (num_global,) * 4, "drop_path_rate": 0.0}
    module = fdp.FrameNetwork(options_of("fdp", config))
    x = jnp.asarray(golden_clips().reshape(16, 64, 64, 1))
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, Mode()))
    shapes = {collection: {"frame_network": tree} for collection, tree in shapes.items()}
    variables = rule_variables(shapes, lambda n: n.replace("frame_rep", name, 1))
    variables = {collection: tree["frame_network"] for collection, tree in variables.items()}
    for mode, y in run_both_modes(module, variables, x).items():
        assert_summary(y, GOLDEN["backbone"][name][mode], 1e-5)
