"""FDP: parameter counts, outputs, losses, padding, folds, and what every variant must keep."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fdp_helpers import assert_close_to_max, jit, make_loss_and_grads, rule_variables
from papers import acting, loss_of, network_of, options_of, targets_of

from mexjax.errors import ConfigError
from mexjax.models import get_model, list_models
from mexjax.models.fdp import network as fdp
from mexjax.models.fdp import weights as interop
from mexjax.nn.mode import Mode

SMALL = {
    "preset": "paper",
    "stem_channels": (8,),
    "stem_strides": (2,),
    "num_local": (1,),
    "num_global": (1,),
    "local_channels": (16,),
    "global_channels": (32,),
    "stage_strides": (2,),
    "spatial_reduction": (2,),
    "channel_divisor": 8,
    "frame_head": "flatten",
    "map_size_px": 8,
    "mer_width": 8,
    "encoder_channels": (4,),
    "decoder_channels": (4,),
}


@functools.cache
def num_params(**config) -> dict[str, int]:
    shapes = interop.variable_shapes(network_of("fdp", config, 5))["params"]
    parts = {k: sum(a.size for a in jax.tree.leaves(v)) for k, v in shapes.items()}
    return parts | {"total": sum(parts.values())}


@pytest.mark.parametrize(
    ("preset", "part", "wanted"),
    [
        ("official", "total", 85_304_206),
        ("official", "frame_network", 54_952_448),
        ("official", "dynamic_image_network", 29_446_465),
        ("paper", "total", 30_552_014),
        ("paper", "frame_network", 25_105_984),
        ("paper", "dynamic_image_network", 4_536_641),
        ("paper_14m", "frame_network", 14_819_648),
    ],
)
def test_parameter_counts(preset: str, part: str, wanted: int):
    assert num_params(preset=preset)[part] == wanted


NONE = (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        # Table 10 counts backbones with the 4096 head and without aggregators of the global kind.
        ({"backbone": "resnet18"}, 13_271_488),
        ({"backbone": "vit_base"}, 88_389_376),
        ({"backbone": "vit_base", "vit_patch_px": 4}, 88_389_376),
        ({"num_global": NONE, "local_conv": "dense"}, 27_140_288),
        ({"num_global": NONE, "local_conv": "dense_projected"}, 28_712_768),
        ({"local_conv": "dense"}, 38_087_424),
        ({"local_conv": "dense_projected"}, 39_747_904),
        # The released depths, had the released loop reached the global aggregators.
        ({"preset": "official", "num_global": (1, 1, 1, 1)}, 65_899_584),
        ({"num_local": NONE}, 13_908_544),  # Table 9, w/o L
        ({"num_global": NONE}, 14_819_648),  # w/o G
        ({"num_local": NONE, "num_global": NONE}, 4_975_360),  # w/o L&G
    ],
)
def test_parameter_counts_of_the_ablations(changes: dict, wanted: int):
    assert num_params(**changes)["frame_network"] == wanted


def small_variables(module: fdp.FDP, seed: str = "") -> dict:
    shapes = interop.variable_shapes(module, image_size_px=16, num_frames=4)
    return rule_variables(shapes, lambda name: seed + name)


@pytest.fixture(scope="module")
def small():
    """A network with every part, its variables, its training step and a batch of three."""
    config = {**SMALL, "drop_path_rate": 0.0}
    module = network_of("fdp", config, 3)
    rng = np.random.default_rng(0)
    frames = jnp.asarray(rng.random((3, 4, 16, 16, 1), dtype=np.float32))
    batch = {
        "clip": frames,
        "label": jnp.array([0, 2, 1]),
        "weight": jnp.ones(3),
        **targets_of("fdp", frames, config),
    }
    variables = small_variables(module)
    return module, variables, jit(make_loss_and_grads(module, config)), batch


def test_outputs_and_their_shapes(small):
    module, variables, _, batch = small
    outputs = jit(lambda v, b: module.apply(v, b, train=False))(variables, batch)
    assert {name: array.shape for name, array in outputs.items()} == {
        "logits": (3, 3),
        "frame_features": (3, 4, 64),
        "dynamic_representation": (3, 8, 8, 8),
        "dynamic_image": (3, 8, 8),
        "rank_scores": (3, 4),
    }
    assert set(get_model("fdp").predictions(outputs)) == {"logits", "dynamic_image"}
    assert 0 < outputs["dynamic_image"].min() < outputs["dynamic_image"].max() < 1


def test_a_padded_clip_changes_nothing(small):
    _, variables, step, batch = small
    (wanted_loss, (wanted, _, wanted_stats)), wanted_grads = step(variables, batch)
    padded = jax.tree.map(lambda a: jnp.concatenate([a, 7 * a[:2] + 1]), batch)
    padded |= {"label": jnp.array([0, 2, 1, 0, 0]), "weight": jnp.array([1.0, 1, 1, 0, 0])}
    (loss, (outputs, _, stats)), grads = step(variables, padded)
    assert float(loss) == pytest.approx(float(wanted_loss), rel=1e-5)
    for name, array in wanted.items():
        assert_close_to_max(outputs[name][:3], array, 1e-5)
    jax.tree.map(lambda a, b: assert_close_to_max(a, b, 1e-5), stats, wanted_stats)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5), grads, wanted_grads
    )


def test_a_batch_of_padding_leaves_no_trace(small):
    _, variables, step, batch = small
    _, (outputs, _, stats) = step(variables, batch | {"weight": jnp.zeros(3)})[0]
    jax.tree.map(np.testing.assert_array_equal, stats, variables["batch_stats"])
    assert all(np.isfinite(array).all() for array in outputs.values())


def test_vmap_over_folds_equals_separate_calls(small):
    module, _, step, batch = small
    folds = [small_variables(module, seed) for seed in "ab"]
    batches = [batch, batch | {"clip": batch["clip"][::-1], "weight": jnp.array([1.0, 0, 1])}]

    def stack(trees):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    config = {**SMALL, "drop_path_rate": 0.0}
    together = jit(jax.vmap(make_loss_and_grads(module, config)))(stack(folds), stack(batches))
    alone = stack([step(v, b) for v, b in zip(folds, batches, strict=True)])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5), together, alone
    )


def test_per_frame_batch_norm_equals_calls_frame_by_frame():
    config = options_of("fdp", {**SMALL, "drop_path_rate": 0.0, "per_frame_batch_norm": True})
    network = fdp.FrameNetwork(config)
    clips = jnp.asarray(np.random.default_rng(1).random((3, 4, 16, 16, 1), dtype=np.float32))
    frames = clips.reshape(12, 16, 16, 1)
    variables = jit(lambda: network.init(jax.random.key(0), frames, Mode()))()
    run = jit(lambda v, x, mode: network.apply(v, x, mode, mutable=["batch_stats"]))
    y, updated = run(variables, frames, Mode(is_train=True).per_frame(4))
    stats = variables["batch_stats"]
    for t in range(4):
        step = {"params": variables["params"], "batch_stats": stats}
        one, new = run(step, clips[:, t], Mode(is_train=True))
        stats = new["batch_stats"]
        assert_close_to_max(y.reshape(3, 4, -1)[:, t], one, 1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        updated["batch_stats"],
        stats,
    )


def test_stochastic_depth_is_drawn_per_frame_and_off_when_frozen():
    config = {**SMALL, "drop_path_rate": 0.5}
    module = network_of("fdp", config, 3)
    still = jnp.ones((2, 4, 16, 16, 1)) * jnp.linspace(0, 1, 16)[:, None]
    batch = {"clip": still, "is_frozen": jnp.array(False)}
    variables = small_variables(module)
    run = jit(
        lambda b, key: module.apply(
            variables, b, train=True, mutable=["batch_stats"], rngs={"drop_path": key}
        )[0]["frame_features"]
    )
    noisy = run(batch, jax.random.key(0))
    assert (noisy.std(axis=1) > 1e-6).any()  # equal frames of one clip are treated differently
    frozen = batch | {"is_frozen": jnp.array(True)}
    found = run(frozen, jax.random.key(0))
    np.testing.assert_array_equal(found, run(frozen, jax.random.key(1)))
    wanted = jit(lambda: module.apply(variables, batch, train=False))()["frame_features"]
    assert_close_to_max(found, wanted, 1e-5)


def test_volume_layouts():
    features = jnp.arange(2 * 8 * 4096.0).reshape(2, 8, 4096)

    def volume(layout: str) -> jax.Array:
        return network_of("fdp", {"volume_layout": layout}, 5)._volume(features)

    b, h, w, d = 1, 19, 37, 5
    # The released reshape: row block h // 8 is the frame, the depth neighbouring features of it.
    wanted = features[b, h // 8, (h % 8) * 512 + w * 8 + d]
    assert volume("raw_reshape")[b, h, w, d] == wanted
    assert volume("time_last")[b, h, w, d] == features[b, d, h * 64 + w]


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"dynamic_image_network": "none"}, "dynamic_image"),
        ({"use_rank_scorer": False}, "rank_scores"),
        ({"use_mer_head": False}, None),
        ({"backbone": "resnet18"}, None),
        ({"backbone": "vit_base", "vit_patch_px": 8}, None),
        ({"frame_head": "gap", "dtype": "bfloat16"}, None),
        ({"num_local": (0,), "num_global": (0,)}, None),
    ],
)
def test_variants_build_and_lose_what_they_should(changes: dict, missing: str | None):
    config = acting("fdp", {**SMALL, **changes})
    module = network_of("fdp", config, 3)
    frames = jax.ShapeDtypeStruct((2, 4, 16, 16, 1), jnp.float32)

    def run(frames):
        batch = {
            "clip": frames,
            "label": jnp.zeros(2, jnp.int32),
            **targets_of("fdp", frames, config),
        }
        outputs, _ = module.init_with_output(
            {"params": jax.random.key(0), "drop_path": jax.random.key(1)}, batch, train=True
        )
        return outputs, *loss_of("fdp", outputs, batch, config)

    outputs, per_clip, logs = jax.eval_shape(run, frames)
    assert missing not in outputs
    assert per_clip.shape == (2,)
    assert outputs["logits"].dtype == per_clip.dtype == jnp.float32
    assert ("ce" in logs) == module.options.use_mer_head
    assert ("mse" in logs) == ("dynamic_image" in outputs)


def test_losses_by_hand():
    outputs = {
        "logits": jnp.array([[0.0, 0.0], [10.0, 0.0]]),
        "dynamic_image": jnp.full((2, 2, 2), 0.5),
        "rank_scores": jnp.array([[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]]),
    }
    batch = {"label": jnp.array([0, 0]), "dynamic_image": jnp.array([0.5, 0.7])[:, None, None]}
    batch["dynamic_image"] = jnp.broadcast_to(batch["dynamic_image"], (2, 2, 2))
    total, logs = loss_of("fdp", outputs, batch, {"preset": "paper"})
    np.testing.assert_allclose(logs["ce"], [np.log(2), np.log1p(np.exp(-10))], atol=1e-6)
    np.testing.assert_allclose(logs["mse"], [0, 0.04], atol=1e-7)
    np.testing.assert_allclose(logs["rank"], [0, 2], atol=1e-7)
    np.testing.assert_allclose(total, logs["ce"] + 100 * logs["mse"] + 0.1 * logs["rank"])
    _, logs = loss_of("fdp", outputs, batch, {"preset": "paper", "rank_slope": 2.0})
    np.testing.assert_allclose(logs["rank"], [3, 5], atol=1e-7)


def test_targets_shrink_to_the_map_and_mix_colours():
    frames = jnp.asarray(np.random.default_rng(0).random((2, 4, 16, 16, 3), dtype=np.float32))
    small = targets_of("fdp", frames, SMALL)["dynamic_image"]
    assert small.shape == (2, 8, 8)
    gray = (frames @ jnp.array([0.299, 0.587, 0.114]))[..., None]
    np.testing.assert_allclose(targets_of("fdp", gray, SMALL)["dynamic_image"], small, atol=1e-5)
    odd = targets_of("fdp", gray, {**SMALL, "map_size_px": 12})["dynamic_image"]
    assert odd.shape == (2, 12, 12)
    without = acting("fdp", {**SMALL, "dynamic_image_network": "none"})
    assert targets_of("fdp", gray, without) == {}


def test_configurations_that_cannot_be():
    with pytest.raises(ConfigError, match=r"preset of fdp 'papr'. Did you mean 'paper'\?"):
        network_of("fdp", {"preset": "papr"}, 5)
    with pytest.raises(ConfigError, match=r"'lambda_dic'. Did you mean 'lambda_d'\?"):
        network_of("fdp", {"lambda_dic": 1.0}, 5)
    with pytest.raises(ConfigError, match=r"model.volume_layout 'last'.*raw_reshape, time_last"):
        network_of("fdp", {"volume_layout": "last"}, 5)
    with pytest.raises(ConfigError, match="one value a stage"):
        network_of("fdp", {"num_local": (1, 1)}, 5)
    with pytest.raises(ConfigError, match=r"clips \[B,T,H,W,C\]; found \(2, 64, 64, 1\)"):
        network_of("fdp", {}, 5).init(
            jax.random.key(0), {"clip": jnp.ones((2, 64, 64, 1))}, train=False
        )


def test_models_are_looked_up_by_name():
    assert "fdp" in list_models()
    assert get_model("fdp").name == "fdp" and get_model("fdp") is get_model("fdp")
    with pytest.raises(ConfigError, match=r"Unknown model 'fpd'. Did you mean 'fdp'\?"):
        get_model("fpd")
