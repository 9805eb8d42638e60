"""Backbones beside GAMDSS's own: parity with transformers, VMamba by hand, steps and folds."""

from __future__ import annotations

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from backbone_helpers import (
    MAPS,
    MODULES,
    PUBLISHED,
    SIZES,
    images,
    rule_variables,
    their_map,
    their_names,
    their_small_model,
    to_torch,
    variable_shapes,
)
from device_helpers import slack
from flax.traverse_util import flatten_dict
from papers import acting, network_of
from small import ROOT
from st_helpers import assert_close_trees, jit, make_step

import mexjax
from mexjax.errors import ConfigError
from mexjax.models import get_model
from mexjax.models.gamdss.backbones import BACKBONES
from mexjax.nn.mode import Mode
from mexjax.nn.resnet import ResNet
from mexjax.nn.swin import SwinBlock, relative_places, shift_mask
from mexjax.nn.vmamba import SS2D, VMamba
from mexjax.train.flops import forward_flops

GOLDEN = json.loads((ROOT / "tests" / "golden" / "backbones.json").read_text(encoding="utf-8"))


def count(tree) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


@pytest.fixture(scope="module", params=sorted(MODULES))
def run(request):
    """Name, map in evaluation, and map, loss, gradients and statistics of a training pass."""
    name = request.param
    module, variables, x = MODULES[name], rule_variables(request.param), images(request.param)

    @jit
    def both(variables, x):
        def loss(params):
            y, updated = module.apply(
                {**variables, "params": params}, x, Mode(is_train=True), mutable=["batch_stats"]
            )
            return jnp.sin(y).sum(), (y, updated)

        (value, (y, updated)), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        return module.apply(variables, x, Mode()), y, value, grads, updated

    still, y, value, grads, updated = both(variables, x)
    return {"name": name, "eval": still, "train": y, "loss": float(value)} | {
        "gradients": state_of(name, {"params": grads}),
        "running": state_of(name, updated),
    }


def state_of(name: str, variables: dict) -> dict[str, np.ndarray]:
    """Arrays under the names and in the layout of transformers."""
    state = {}
    for path, array in flatten_dict(variables).items():
        parts = to_torch(path[-1], np.asarray(array))
        state |= dict(zip(their_names(name, path), parts, strict=True))
    return state


def assert_map(found: jax.Array, golden: dict) -> None:
    found = np.asarray(found, np.float64).transpose(0, 3, 1, 2)
    assert list(found.shape) == golden["shape"]
    mean, std = golden["mean_std"]
    assert abs(found.mean() - mean) < slack(1e-5) * std
    assert abs(found.std() - std) < slack(1e-5) * std
    every = found.ravel()[:: max(1, found.size // 24)][:24]
    np.testing.assert_allclose(every, golden["every"], rtol=0, atol=slack(2e-5) * std)


def test_equals_the_figures_of_transformers(run):
    golden = GOLDEN["models"][run["name"]]
    assert_map(run["eval"], golden["eval"])
    # Where no statistics are taken of a batch, training is evaluation.
    assert_map(run["train"], golden.get("train", golden["eval"]))
    scale = float(np.abs(np.sin(run["train"])).sum())
    assert run["loss"] == pytest.approx(golden["loss"], abs=slack(1e-5) * scale)
    names = sorted(run["gradients"])
    assert len(names) == len(golden["gradient_norms"])
    largest = max(golden["gradient_norms"])
    for name, norm in zip(names, golden["gradient_norms"], strict=True):
        # Keys' biases have no gradient: a softmax cancels them.
        found = np.linalg.norm(run["gradients"][name].astype(np.float64))
        assert found == pytest.approx(norm, rel=slack(1e-3), abs=slack(1e-5) * largest), name
    for name, first in golden.get("running", {}).items():
        np.testing.assert_allclose(
            run["running"][name][: len(first)], first, rtol=slack(1e-4), atol=slack(1e-6)
        )


def test_equals_transformers_itself(run):
    torch = pytest.importorskip("torch", reason="the torch extra is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    name = run["name"]
    model, x = their_small_model(name), images(name)
    for mode, found in (("eval", run["eval"]), ("train", run["train"])):
        wanted = their_map(model.train(mode == "train"), x, MAPS[name])
        close = wanted.detach().numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(found, close, rtol=slack(1e-4), atol=slack(2e-5) * close.std())
    torch.sin(wanted).sum().backward()
    grads = {k: p.grad.numpy() for k, p in model.named_parameters() if p.grad is not None}
    assert set(grads) == set(run["gradients"])
    largest = max(np.abs(grad).max() for grad in grads.values())
    for key, grad in grads.items():
        np.testing.assert_allclose(
            run["gradients"][key], grad, rtol=slack(1e-3), atol=slack(2e-5) * largest, err_msg=key
        )


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_sizes_have_the_parameters_of_transformers(name: str):
    shapes = variable_shapes(PUBLISHED[name], (224, 224))
    assert count(shapes["params"]) == GOLDEN["models"][name]["num_params"]


def test_vmamba_has_the_published_size():
    """30 M with its classifier of 1000 classes (Table 1 of the VMamba paper)."""
    total = count(variable_shapes(VMamba(), (224, 224))["params"]) + 769_000
    assert 30.0e6 < total < 30.5e6


# Parameters of the released classes without those that are never read: class token, head and mask
# layer of the transformer. ConvNeXt's is with a table of 49 places, as its 7x7 map needs.
UNUSED = {512: 3_590, 768: 5_382}
TOTALS = {
    "resnet_shallow": 11_312_459 - UNUSED[512],
    "convnext_tiny": 42_047_339 - UNUSED[768],
}
# Operations of both phases in those classes, two for a multiplication and an addition.
GIGA_FLOPS = {"resnet_shallow": 17.9, "convnext_tiny": 20.6}


@pytest.mark.parametrize("name", BACKBONES)
def test_published_sizes_in_gamdss(name: str):
    module = network_of("gamdss", {"preset": "official", "backbone": name}, 5)
    batch = {frame: jnp.zeros((1, 224, 224, 3)) for frame in ("onset", "apex", "offset")}
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), batch, train=False))
    params = shapes["params"]
    side = 14 if name == "resnet_shallow" else 7
    width = BACKBONES[name].published["channels"][-1]
    assert params["place"]["vit"]["position"].shape == (1, side * side, width)
    assert params["head"]["classifier"]["kernel"].shape == (width, 5)
    if name in TOTALS:
        assert count(params) == TOTALS[name]
        flops = forward_flops(lambda v, b: module.apply(v, b, train=False), shapes, batch)
        assert flops / 1e9 == pytest.approx(GIGA_FLOPS[name], abs=0.1)


@functools.cache
def small_step(name: str, phases: str = "full"):
    """The small network, the compiled step and the shapes of its variables."""
    keys = {"preset": "tiny", "backbone": name, "phases": phases, "inference": "rise"}
    module = network_of("gamdss", acting("gamdss", keys), 3)
    batch = small_batch(0)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), batch, train=False))
    return module, jit(make_step(module, get_model("gamdss"))), {"batch_stats": {}, **shapes}


def small_batch(seed: int, num_clips: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    frames = ("onset", "apex", "offset")
    batch = {f: rng.standard_normal((num_clips, 32, 32, 1)).astype(np.float32) for f in frames}
    weight = np.array([1.0] * (num_clips - 1) + [0.0], np.float32)  # the last is padding
    return {**batch, "label": np.arange(num_clips) % 3, "weight": weight}


def draw(shapes, seed: int):
    """Variables with every part at work, whatever the initial values would be."""
    rng = np.random.default_rng(seed)

    def one(path, shape):
        values = rng.standard_normal(shape.shape).astype(np.float32)
        leaf = path[-1].key
        if leaf in ("scale", "var"):
            return 1 + 0.1 * np.abs(values)
        return 0.2 * values

    return jax.tree_util.tree_map_with_path(one, shapes)


@pytest.mark.parametrize(
    "name",
    [
        name if name == "resnet_shallow" else pytest.param(name, marks=pytest.mark.slow)
        for name in BACKBONES
    ],
)
def test_a_step_of_every_backbone_alone_and_over_folds(name: str):
    module, alone, shapes = small_step(name)
    batches = [small_batch(seed) for seed in (0, 1)]
    variables = [draw(shapes, seed) for seed in (0, 1)]
    (loss, (outputs, logs, _)), grads = alone(variables[0], batches[0])

    assert outputs["logits_rise"].shape == outputs["logits_fall"].shape == (4, 3)
    np.testing.assert_array_equal(outputs["logits"], outputs["logits_rise"])
    assert float(loss) == pytest.approx(float(logs["ce_rise"] + logs["ce_fall"]), rel=slack(1e-6))
    flat, _ = jax.tree_util.tree_flatten_with_path(grads)
    for path, grad in flat:
        assert np.isfinite(grad).all() and np.any(grad), jax.tree_util.keystr(path)
    norm = float(optax.tree.norm(grads))
    params = jax.tree.map(lambda p, g: p - 0.01 / norm * g, variables[0]["params"], grads)
    (later, _), _ = alone({**variables[0], "params": params}, batches[0])
    # To first order the loss falls by 0.01 times the norm of the gradient.
    assert float(loss - later) == pytest.approx(0.01 * norm, rel=0.3)

    stacked = [jax.tree.map(lambda *x: np.stack(x), *pair) for pair in (variables, batches)]
    over_folds = jit(jax.vmap(make_step(module, get_model("gamdss"))))
    (losses, (_, _, updated)), both = over_folds(*stacked)
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(both))
    for fold in (0, 1):
        (loss, (_, _, wanted)), grads = alone(variables[fold], batches[fold])
        assert float(losses[fold]) == pytest.approx(float(loss), rel=slack(1e-5))
        for many, one, atol in ((both, grads, 1e-4 * largest), (updated, wanted, 1e-5)):
            fold_of_many = jax.tree.map(lambda x, fold=fold: x[fold], many)
            assert_close_trees(fold_of_many, one, rtol=1e-3, atol=atol)


def test_phases_keep_their_own_batch_statistics():
    """One pass over rise and fall is two passes: logits, and running statistics in their order."""
    _, step, shapes = small_step("resnet_shallow")
    variables, batch = draw(shapes, 0), small_batch(0)
    (_, (both, _, updated)), _ = step(variables, batch)
    for phase in ("rise", "fall"):
        _, single, _ = small_step("resnet_shallow", phases=phase)
        (_, (outputs, _, new)), _ = single(variables, batch)
        np.testing.assert_allclose(both[f"logits_{phase}"], outputs["logits"], atol=slack(2e-5))
        variables = {**variables, "batch_stats": new["batch_stats"]}
    assert_close_trees(updated["batch_stats"], variables["batch_stats"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [*sorted(MODULES), "vmamba"])
def test_maps_in_bfloat16_are_those_in_float32(name: str):
    module = MODULES.get(name, VMamba(channels=(8, 16), depths=(1, 1), state=2))
    x = images(name) if name in SIZES else images("swin")
    variables = jit(lambda: module.init(jax.random.key(0), x, Mode()))()
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    wanted = jit(lambda v: module.apply(v, x, Mode()))(variables)
    found = jit(lambda v: module.clone(dtype=jnp.bfloat16).apply(v, x, Mode()))(variables)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), wanted, atol=0.1 * float(wanted.std()))


def test_ss2d_by_hand():
    """In float64, position by position along four lists of pixels."""
    height, width, state, rank = 3, 4, 3, 2
    module = SS2D(ratio=2.0, state=state, rank=rank, chunk=5)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, height, width, 4))
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros(x.shape)))["params"]
    params = jax.tree.map(lambda s: 0.5 * rng.standard_normal(s.shape), shapes)
    found = module.apply({"params": params}, jnp.asarray(x, jnp.float32))

    def silu(x):
        return x / (1 + np.exp(-x))

    inner = x[0] @ params["in_proj"]["kernel"]
    padded = np.pad(inner, ((1, 1), (1, 1), (0, 0)))
    kernel = params["conv"]["kernel"][:, :, 0]
    taps = [
        padded[i : i + height, j : j + width] * kernel[i, j] for i in range(3) for j in range(3)
    ]
    inner = silu(sum(taps))
    rows = [(i, j) for i in range(height) for j in range(width)]
    columns = [(i, j) for j in range(width) for i in range(height)]
    y = np.zeros_like(inner)
    for k, order in enumerate((rows, columns, rows[::-1], columns[::-1])):
        h = np.zeros((inner.shape[-1], state))
        for pixel in order:
            u = inner[pixel]
            made = u @ params["into_kernel"][k]
            delta = made[:rank] @ params["step_kernel"][k] + params["step_bias"][k]
            delta = np.log1p(np.exp(delta))[:, None]
            b, c = made[rank : rank + state], made[rank + state :]
            h = np.exp(-delta * np.exp(params["log_rate"][k])) * h + delta * b * u[:, None]
            y[pixel] += h @ c + params["skip"][k] * u
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
    y = y * params["norm"]["scale"] + params["norm"]["bias"]
    np.testing.assert_allclose(found[0], y @ params["out_proj"]["kernel"], atol=slack(1e-5))


def test_offsets_and_shifts_of_windows():
    places = relative_places(3)
    for i, j in np.ndindex(9, 9):
        (y, x), (v, u) = divmod(i, 3), divmod(j, 3)
        assert places[i, j] == (y - v + 2) * 5 + (x - u + 2)
    # A row of six pixels in windows of three, shifted by one: the last came around the edge.
    mask = shift_mask((3, 6), 3, 1)
    row = mask[1, :3, :3]  # the top row of the second window: pixels 4, 5 and then 0
    np.testing.assert_array_equal(row < 0, [[0, 0, 1], [0, 0, 1], [1, 1, 0]])


def test_a_map_smaller_than_a_window_is_one_window():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4, 4, 8)), jnp.float32)
    large, exact = (SwinBlock(2, window, is_shifted=True) for window in (7, 4))
    variables = large.init(jax.random.key(0), x, Mode())
    table = variables["params"]["attention"]["position_bias"].reshape(13, 13, 2)
    middle = table[3:10, 3:10].reshape(49, 2)
    attention = {**variables["params"]["attention"], "position_bias": middle}
    same = {"params": {**variables["params"], "attention": attention}}
    np.testing.assert_allclose(
        large.apply(variables, x, Mode()), exact.apply(same, x, Mode()), atol=slack(1e-6)
    )


def test_the_resnet_of_fdp_ends_in_features():
    module = ResNet(num_features=7, channels=(4, 8), blocks=(1, 1))
    x = jnp.zeros((2, 16, 16, 1))
    shapes = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), x, Mode()))
    assert shapes[0].shape == (2, 7)


def test_other_backbones_are_named():
    with pytest.raises(ConfigError, match="vmamba_tiny"):
        network_of("gamdss", {"backbone": "vmamba"}, 3)
    with pytest.raises(ConfigError, match="rmt"):
        mexjax.from_torch("gamdss", {"a.weight": np.zeros(2)}, config={"backbone": "swin_tiny"})
