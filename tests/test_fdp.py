"""FDP against figures of the released PyTorch code, and what every preset must keep."""

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
from mexjax.errors import ConfigError
from mexjax.interop import common
from mexjax.interop import fdp as interop
from mexjax.models import fdp, get_model, list_models
from mexjax.nn.mode import Mode
from mexjax.nn.next_vit import GlobalAggregator
from rule_weights import rule_array, rule_state

GOLDEN = json.loads((Path(__file__).parent / "golden" / "fdp.json").read_text())
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
SMALL = {
    "preset": "tiny",
    "stem_patch_px": 1,
    "stem_channels": (8,),
    "stem_strides": (2,),
    "num_local": (1,),
    "num_global": (1,),
    "local_channels": (16,),
    "global_channels": (32,),
    "stage_strides": (2,),
    "spatial_reduction": (2,),
    "head_dim": 8,
    "map_size_px": 8,
    "mer_width": 8,
    "encoder_channels": (4,),
    "decoder_channels": (4,),
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
    np.testing.assert_allclose(np.ravel(found), wanted.ravel(), rtol=0, atol=bar * largest)


def assert_samples(found: jax.Array, golden: dict, bar: float) -> None:
    """`found` in PyTorch's layout against every stride-th value of its flattening."""
    values = golden["values"]
    found = np.asarray(found).ravel()[:: golden["stride"]][: len(values)]
    assert_close_to_max(found, values, bar, golden["max"])


def make_loss_and_grads(module: fdp.FDP, config: dict):
    def mean_loss(params, batch_stats, batch, rngs):
        outputs, updated = module.apply(
            {"params": params, "batch_stats": batch_stats},
            batch,
            train=True,
            mutable=["batch_stats"],
            rngs=rngs,
        )
        per_clip, logs = fdp.loss(outputs, batch, config)
        weight = batch["weight"]
        mean = lambda values: (weight * values).sum() / weight.sum()  # noqa: E731
        logs = {name: mean(values) for name, values in logs.items()}
        return mean(per_clip), (outputs, logs, updated["batch_stats"])

    grads = jax.value_and_grad(mean_loss, has_aux=True)
    return jax.jit(lambda variables, batch, rngs: grads(*variables.values(), batch, rngs))


@pytest.fixture(scope="module")
def official():
    module = fdp.make(OFFICIAL, num_classes=5)
    variables = rule_variables(interop.variable_shapes(module))
    order = {"params": variables["params"], "batch_stats": variables["batch_stats"]}
    return module, order


@pytest.fixture(scope="module")
def official_step(official):
    """Losses and gradients of the released network; batch norm freezes by `is_frozen`."""
    step = make_loss_and_grads(official[0], OFFICIAL)
    return lambda variables, batch: step(variables, batch, {})


@functools.cache
def num_params(**config) -> dict[str, int]:
    shapes = interop.variable_shapes(fdp.make(config, num_classes=5))["params"]
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
        ({"local_conv": "dense"}, 39_747_904 - 1_659_..__class__(0)) if False else
        ({"num_local": NONE}, 13_908_544),  # Table 9, w/o L
        ({"num_global": NONE}, 14_819_648),  # w/o G
        ({"num_local": NONE, "num_global": NONE}, 4_975_360),  # w/o L&G
    ],
)
def test_parameter_counts_of_the_ablations(changes: dict, wanted: int):
    assert num_params(**changes)["frame_network"] == wanted
