"""What the tests of TSFmicro and GAMDSS share: weights by the rule, images, steps, comparisons."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from pathlib import Path
from types import ModuleType

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from device_helpers import slack
from rule_weights import rule_array

from mexjax.interop import common

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "retention.json").read_text())
FRAMES = ("onset", "apex", "offset")

# A batch norm or a softmax that follows cancels them: their true gradient is zero.
NOISE = {
    "main_branch.proj.bias",
    "proj.bias",
    "vit_pos.norm.bias",
    "main_branch.layers.3.blocks.0.ffn.fc2.bias",
    "main_branch.layers.3.blocks.0.ffn.dwconv.conv.bias",
    *(f"main_branch.layers.{i}.downsample.reduction.bias" for i in range(3)),
    *(
        f"{stem}.proj.{i}.bias"
        for stem in ("main_branch.patch_embed", "ConvStem_T", "ConvStem_S")
        for i in (0, 3, 6, 9)
    ),
}

# These programs run a few times: compiling them well takes longer than running them.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# A network of every kind of part, for images of 32 pixels.
SMALL = {
    "preset": "paper",
    "stem_channels": (4, 8),
    "stem_strides": (2, 1),
    "channels": (8, 16, 16),
    "depths": (1, 1, 1),
    "num_heads": (2, 2, 1),
    "decay_start": (2.0, 2.0, 2.0),
    "decay_span": (4.0, 4.0, 6.0),
    "is_decomposed": (True, False, False),
    "ffn_ratio": (2, 2, 2),
    "layer_scale": (0.0, 0.5, 0.0),
    "drop_path_rate": 0.0,
    "map_size_px": 4,
    "vit_depth": 1,
    "vit_heads": 2,
    "vit_mlp_ratio": 2,
    "head_width": 12,
}


def variables_of(entries: list[common.Entry], seed: str = "") -> dict:
    """Variables whose arrays follow the rule of the weights under their names, after `seed`."""
    names = {n: s for e in entries for n, s in zip(e.names, e.shapes, strict=True)}
    state = {name: rule_array(seed + name, shape) for name, shape in names.items()}
    return common.to_variables(entries, state, "the rule")


@functools.cache
def golden_images() -> dict[str, np.ndarray]:
    """Two images of noise for each frame, f32[2,224,224,3]."""
    images = {}
    for i, name in enumerate(FRAMES):
        rng = np.random.Generator(np.random.PCG64(GOLDEN["seed"] + i))
        channels_first = rng.random((2, 3, 224, 224)).astype(np.float32)
        images[name] = np.ascontiguousarray(channels_first.transpose(0, 2, 3, 1))
    return images


def golden_batch(is_frozen: bool) -> dict[str, jax.Array]:
    batch = {**golden_images(), "label": np.array([1, 3]), "is_frozen": np.array(is_frozen)}
    return jax.tree.map(jnp.asarray, batch)


def small_batch(num_clips: int = 3, seed: int = 0) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    batch = {f: rng.random((num_clips, 32, 32, 1), dtype=np.float32) for f in FRAMES}
    batch |= {"label": np.arange(num_clips) % 3, "weight": np.ones(num_clips, np.float32)}
    return jax.tree.map(jnp.asarray, batch)


def make_step(module: nn.Module, paper: ModuleType, *, is_captured: bool = False):
    """(variables, batch) -> ((loss, (outputs, logs, updated variables)), gradients)."""
    collections = ["batch_stats", "intermediates"] if is_captured else ["batch_stats"]

    def mean_loss(params, batch_stats, batch):
        outputs, updated = module.apply(
            {"params": params, "batch_stats": batch_stats},
            batch,
            train=True,
            mutable=collections,
            # Only the points that are compared: all outputs of all modules take gigabytes.
            capture_intermediates=_is_point if is_captured else False,
        )
        per_clip, logs = paper.loss(outputs, batch, module.options)
        weight = batch.get("weight", jnp.ones_like(per_clip))

        def mean(values):
            return (weight * values).sum() / weight.sum()

        logs = {name: mean(values) for name, values in logs.items()}
        return mean(per_clip), (outputs, logs, updated)

    grads = jax.value_and_grad(mean_loss, has_aux=True)
    return lambda v, batch: grads(v["params"], v["batch_stats"], batch)


# One program keeps none of the moments, which are as large as the network.
@functools.partial(jit, donate_argnums=1)
def adamw_step(params: dict, grads: dict) -> dict:
    """One update as the released scripts make it: every parameter decays."""
    transform = optax.adamw(8e-4, weight_decay=0.6)
    updates, _ = transform.update(grads, transform.init(params), params)
    return optax.apply_updates(params, updates)


# Where the released code's points are in the network here.
_POINTS = (
    (r"stages/stage_(\d)/block_(\d)/retention", r"stage\1_block\2_retention"),
    (r"stages/stage_(\d)/block_(\d)", r"stage\1_block\2"),
    (r"stages/stage_(\d)", r"stage\1"),
    (r"place/vit/embed", "spatial_patch"),
    (r"place/vit/block_(\d)", r"spatial_block\1"),
    (r"place", "spatial"),
    (r"head/fc", "fc1024"),
    (r"head/norm", "fc_bn"),
    (r"up_0", "transposed_conv1"),
    (r"up_1", "transposed_conv2"),
    (r"up_2", "transposed_conv3"),
    (r"onset_stem", "ConvStem_T"),
    (r"stem", "stem"),
)


def _is_point(module: nn.Module, method: str) -> bool:
    name = "/".join(module.path)
    return method == "__call__" and any(re.fullmatch(pattern, name) for pattern, _ in _POINTS)


def captured_points(intermediates: dict) -> dict[str, np.ndarray]:
    """The outputs of the modules that have a name in the released code, in float64."""
    points = {}
    for path, (value, *_) in flax.traverse_util.flatten_dict(intermediates).items():
        name = "/".join(path[:-1])
        for pattern, new in _POINTS:
            if re.fullmatch(pattern, name):
                points[re.sub(pattern, new, name)] = np.asarray(value)
    return points


def assert_summary(found: np.ndarray, golden: dict) -> None:
    """Mean, standard deviation and first values, all within 1e-4 standard deviations."""
    if golden["channels_first"]:
        found = found.transpose(0, 3, 1, 2)
    found = found.astype(np.float64)
    mean, std = golden["mean_std"]
    first = golden["first"]
    assert abs(found.mean() - mean) < slack(1e-4) * std
    assert abs(found.std() - std) < slack(1e-4) * std
    np.testing.assert_allclose(found.ravel()[: len(first)], first, rtol=0, atol=slack(1e-4) * std)


def assert_gradient_norms(state: common.State, wanted: list[float], noise: set[str]) -> None:
    """Norms of all tensors within 1%, by the sorted names; `noise` and norms below 1e-3 aside."""
    names = sorted(state)
    assert len(names) == len(wanted)
    norms = {n: float(np.linalg.norm(state[n].astype(np.float64))) for n in names}
    errors = {
        name: abs(norms[name] / norm - 1)
        for name, norm in zip(names, wanted, strict=True)
        if norm > 1e-3 and name not in noise
    }
    assert len(errors) > 0.8 * len(names)
    worst = max(errors, key=errors.get)
    assert errors[worst] < 0.01, (worst, errors[worst])


def names_digest(state: dict[str, np.ndarray]) -> dict[str, int | str]:
    """How many tensors a state dict has, and a digest of their names and shapes."""
    lines = sorted(f"{name} {'x'.join(map(str, a.shape)) or 'scalar'}" for name, a in state.items())
    return {"entries": len(lines), "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest()}


def assert_close_trees(found, wanted, rtol: float = 1e-3, atol: float = 2e-5) -> None:
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=slack(rtol), atol=slack(atol)),
        found,
        wanted,
    )
