"""MobileFaceNet against the public PyTorch network, with weights made by the written rule."""

from __future__ import annotations

import json
import math
import zlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from device_helpers import slack
from rule_weights import rule_array
from small import ROOT

import mexjax
from mexjax.errors import ConfigError, DataError
from mexjax.interop import mobilefacenet as interop
from mexjax.nn.mobilefacenet import STAGES, MobileFaceNet, unit_length
from mexjax.nn.mode import Mode

GOLDEN = json.loads((ROOT / "tests" / "golden" / "mobilefacenet.json").read_text(encoding="utf-8"))


def state_by_rule() -> dict[str, np.ndarray]:
    shapes = interop.variable_shapes(MobileFaceNet())
    entries = interop.make_entries(shapes, "insightface_pytorch")
    state = {}
    for entry in entries:
        for name, shape in zip(entry.names, entry.shapes, strict=True):
            state[name] = rule_array(name, shape)
            if name.endswith("prelu.weight"):
                state[name] = np.full(shape, 0.25, np.float32)
            elif name.endswith("bn.weight"):
                # This rule draws norms and their statistics in double precision.
                rng = np.random.Generator(np.random.PCG64(_seed(name)))
                state[name] = (1 + 0.1 * rng.standard_normal(shape)).astype(np.float32)
            elif name.endswith("running_mean"):
                rng = np.random.Generator(np.random.PCG64(_seed(name)))
                state[name] = (0.05 * rng.standard_normal(shape)).astype(np.float32)
    return state


def _seed(name: str) -> int:
    return zlib.crc32(name.encode())


@pytest.fixture(scope="module")
def loaded():
    return mexjax.from_torch("mobilefacenet", state_by_rule())


@pytest.fixture(scope="module")
def outputs(loaded):
    module, variables = loaded
    rng = np.random.Generator(np.random.PCG64(123))
    images = rng.random((2, 3, 112, 112), np.float32) * 2 - 1
    assert images.astype(np.float64).sum() == pytest.approx(GOLDEN["input_sum"], abs=1e-4)
    images = jnp.asarray(images.transpose(0, 2, 3, 1))
    run = jax.jit(lambda v, x: module.apply(v, x, train=False, mutable=["intermediates"]))
    found, sown = run(variables, images)
    return found, {name: values[0] for name, values in sown["intermediates"].items()}


def test_weights_are_those_of_the_rule():
    total = sum(a.astype(np.float64).sum() for a in state_by_rule().values())
    assert total == pytest.approx(GOLDEN["weights_checksum"], abs=1e-4)


@pytest.mark.parametrize("stage", [*STAGES, "conv_6_sep", "conv_6_dw", "linear"])
def test_every_stage(stage: str, outputs):
    found = np.asarray(outputs[1][f"after_{stage}"], np.float64)
    golden = GOLDEN["stages"][stage]
    np.testing.assert_allclose(
        found.ravel()[: len(golden["first"])], golden["first"], atol=slack(2e-5)
    )
    assert found.mean() == pytest.approx(golden["mean"], abs=slack(1e-6))
    assert found.std() == pytest.approx(golden["std"], abs=slack(1e-6))
    if "channel_mean" in golden:
        np.testing.assert_allclose(
            found.mean(axis=(0, 1, 2)), golden["channel_mean"], rtol=0, atol=slack(1e-5)
        )


def test_the_embedding(outputs):
    found, _ = outputs
    np.testing.assert_allclose(found["embedding"], GOLDEN["embedding"], atol=slack(1e-5))
    np.testing.assert_allclose(found["embedding_l2"], GOLDEN["embedding_l2"], atol=slack(1e-6))


def test_parameters():
    def count(**fields):
        shapes = interop.variable_shapes(MobileFaceNet(**fields))
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))

    assert count() == 1_200_512
    assert count(emb_dim=128) == 1_003_136


def test_the_wide_layout_goes_there_and_back():
    shapes = interop.variable_shapes(MobileFaceNet(width=2))
    entries = interop.make_entries(shapes, "arcface_torch")
    expected = {n: s for e in entries for n, s in zip(e.names, e.shapes, strict=True)}
    # As InsightFace's arcface_torch names and sizes them.
    for name, shape in {
        "layers.0.layers.0.weight": (128, 3, 3, 3),
        "layers.1.layers.0.weight": (128, 2, 3, 3),  # 64 groups of two channels
        "layers.2.layers.0.layers.0.weight": (128, 128, 1, 1),
        "layers.3.layers.3.layers.1.layers.0.weight": (128, 1, 3, 3),
        "layers.3.layers.3.layers.1.layers.2.weight": (128,),
        "layers.5.layers.5.layers.2.layers.1.running_var": (256,),
        "layers.6.layers.1.layers.1.bias": (512,),
        "layers.7.layers.0.layers.2.layers.0.weight": (256, 256, 1, 1),
        "conv_sep.layers.0.weight": (512, 256, 1, 1),
        "features.layers.0.layers.0.weight": (512, 1, 7, 7),
        "features.layers.0.layers.1.running_mean": (512,),
        "features.layers.2.weight": (512, 512),
        "features.layers.3.weight": (512,),
    }.items():
        assert expected[name] == shape, name
    state = {name: rule_array(name, shape) for name, shape in expected.items()}
    module, variables = mexjax.from_torch("mobilefacenet", state)
    assert (module.width, module.emb_dim) == (2, 512)
    back = mexjax.to_torch("mobilefacenet", variables, layout="arcface_torch")
    for name, value in state.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)
    with pytest.raises(ConfigError, match="layout"):
        mexjax.to_torch("mobilefacenet", variables, layout="onnx")


def test_missing_weights_are_all_named():
    state = state_by_rule()
    del state["conv_4.model.3.conv_dw.conv.weight"], state["bn.bias"]
    with pytest.raises(DataError, match=r"2 missing: bn\.bias, conv_4\.model\.3\.conv_dw"):
        mexjax.from_torch("mobilefacenet", state)


def test_a_stage_may_be_followed_by_something_else():
    module = MobileFaceNet()
    faces = jnp.asarray(np.random.default_rng(0).random((1, 32, 32, 3)), jnp.float32)
    variables = module.init(jax.random.key(0), faces)
    plain = module.apply(variables, faces)["embedding"]

    def shift(x, mode):
        assert x.shape == (1, 2, 2, 128) and not mode.is_train
        return x + 1

    moved = module.apply(variables, faces, inserted={"conv_5": shift})["embedding"]
    assert np.abs(np.asarray(moved - plain)).max() > 1e-3
    with pytest.raises(ConfigError, match="conv_5"):
        module.apply(variables, faces, inserted={"conv5": shift})
    with pytest.raises(ConfigError, match="16 px"):
        module.apply(variables, faces[:, :8])


def test_padded_faces_enter_no_statistic():
    module = MobileFaceNet()
    rng = np.random.default_rng(0)
    faces = jnp.asarray(rng.standard_normal((4, 32, 32, 3)), jnp.float32)
    variables = module.init(jax.random.key(0), faces)

    @jax.jit
    def run(faces, weight):
        mode = Mode(is_train=True, weight=weight)
        found, updated = module.apply(variables, faces, mode, mutable=["batch_stats"])
        return found["embedding"][:3], updated

    weight = jnp.array([1.0, 1.0, 1.0, 0.0])
    one = run(faces, weight)
    two = run(faces.at[3].set(100.0), weight)
    chex.assert_trees_all_close(one, two, rtol=slack(1e-5), atol=slack(1e-5))


def test_unit_length_of_nothing_has_a_gradient():
    slope = jax.grad(lambda x: unit_length(x).sum())(jnp.zeros(4))
    chex.assert_tree_all_finite(slope)
    np.testing.assert_allclose(jnp.linalg.norm(unit_length(jnp.arange(4.0))), 1, rtol=slack(1e-6))
