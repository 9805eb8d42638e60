"""Weights from and to PyTorch: reading files, names, layouts, and what is said when they differ."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from papers import network_of
from rule_weights import rule_array, rule_state

from mexjax import models as api
from mexjax.errors import ConfigError, DataError
from mexjax.interop import common
from mexjax.models.fdp import weights as fdp

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "fdp.json").read_text())
# Small networks that between them have every kind of layer an FDP can have.
SMALL = {
    "paper": {
        "preset": "paper",
        "stem_patch_px": 4,
        "stem_channels": (8,),
        "stem_strides": (1,),
        "num_local": (1, 1),
        "num_global": (0, 1),
        "local_channels": (8, 16),
        "global_channels": (16, 32),
        "stage_strides": (2, 2),
        "spatial_reduction": (2, 1),
        "channel_divisor": 8,
        "frame_head": "flatten",
        "map_size_px": 8,
        "mer_width": 4,
        "encoder_channels": (4, 8),
        "decoder_channels": (4, 4),
    },
    "official": {
        "preset": "official",
        "num_local": (1, 1, 0, 0),
        "local_channels": (8, 8, 8, 8),
        "global_channels": (8, 8, 8, 8),
        "map_size_px": 32,
        "mer_width": 4,
    },
}


def small_state(kind: str) -> tuple[dict, dict]:
    config = SMALL[kind]
    module = network_of("fdp", config, 3)
    entries = fdp.make_entries(fdp.variable_shapes(module))
    shapes = {n: s for e in entries for n, s in zip(e.names, e.shapes, strict=True)}
    return rule_state(shapes), {k: v for k, v in config.items() if k != "preset"}


def load_small(kind: str, source, **changes):
    config = {**SMALL[kind], **changes}
    return api.from_torch("fdp", source, preset=config.pop("preset"), config=config)


def test_names_and_shapes_of_the_released_network():
    module = network_of("fdp", {"preset": "official"}, 5)
    entries = fdp.make_entries(fdp.variable_shapes(module))
    shapes = {n: s for e in entries for n, s in zip(e.names, e.shapes, strict=True)}
    counters = {n.replace("running_var", common.COUNTER): () for n in shapes if "running_var" in n}
    lines = sorted(
        f"{name} {'x'.join(map(str, shape)) or 'scalar'}"
        for name, shape in (shapes | counters).items()
    )
    assert len(lines) == GOLDEN["state"]["entries"] == 438
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == GOLDEN["state"]["sha256"]


@pytest.mark.parametrize("kind", SMALL)
def test_round_trip_is_exact(kind: str):
    state, _ = small_state(kind)
    module, variables = load_small(kind, state)
    assert module.num_classes == 3
    back = api.to_torch("fdp", variables)
    counters = {n for n in back if n.endswith(common.COUNTER)}
    assert set(back) - counters == set(state)
    assert len(counters) == sum(n.endswith("running_var") for n in state)
    for name, array in state.items():
        np.testing.assert_array_equal(back[name], array)


def test_layouts_that_are_not_a_plain_transpose():
    state, _ = small_state("paper")
    _, variables = load_small("paper", state)
    params = variables["params"]
    # The depth of the 3-D kernel is time: w2d[kh, kw, t, o] = w3d[o, 0, kh, kw, t].
    volume = params["volume_conv"]["kernel"]
    assert volume[2, 1, 5, 3] == state["mer.conv3d.weight"][3, 0, 2, 1, 5]
    # Row (h * 2 + w) * 8 + c here is column c * 4 + h * 2 + w there.
    dense = params["mer_fc1"]["kernel"]
    assert dense[(1 * 2 + 0) * 8 + 6, 2] == state["mer.fc1.weight"][2, 6 * 4 + 1 * 2 + 0]
    qkv = params["frame_network"]["features_2"]["attention"]["qkv_kernel"]
    c = qkv.shape[0]
    assert qkv[3, c + 1] == state["frame_rep.features.2.e_mhsa.k.weight"][1, 3]
    deconv = params["dynamic_image_network"]["decoder_0_deconv"]["kernel"]
    assert deconv[1, 0, 3, 2] == state["dyimg_net.decoder_0_deconv.weight"][3, 2, 1, 0]


def test_other_backbones_have_torchvision_and_timm_names():
    def names(**config):
        module = network_of("fdp", config, 5)
        entries = fdp.make_entries(fdp.variable_shapes(module))
        found = {n: s for e in entries for n, s in zip(e.names, e.shapes, strict=True)}
        assert len(found) == sum(len(e.names) for e in entries)
        return {n.removeprefix("frame_rep."): s for n, s in found.items() if "frame_rep" in n}

    resnet = names(backbone="resnet18")
    assert resnet["conv1.weight"] == (64, 1, 7, 7)
    assert resnet["layer2.0.downsample.0.weight"] == (128, 64, 1, 1)
    assert resnet["layer4.1.bn2.running_var"] == (512,)
    assert resnet["fc.weight"] == (4096, 512)
    vit = names(backbone="vit_base")
    assert vit["patch_embed.proj.weight"] == (768, 1, 16, 16)
    assert vit["blocks.11.attn.qkv.weight"] == (2304, 768)
    assert vit["blocks.0.mlp.fc1.bias"] == (3072,)
    assert {"cls_token", "pos_embed", "norm.weight", "head.weight"} <= set(vit)


def test_loaded_weights_run():
    state, _ = small_state("paper")
    module, variables = load_small("paper", state)
    clip = np.random.default_rng(0).random((2, 8, 64, 64, 1), dtype=np.float32)
    run = jax.jit(lambda variables, clip: module.apply(variables, {"clip": clip}, train=False))
    assert np.isfinite(run(variables, clip)["logits"]).all()


def test_misfits_are_listed_at_once():
    state, _ = small_state("paper")
    del state["mer.fc1.bias"], state["rank_scorer.weight"]
    state["extra.weight"] = np.zeros(3, np.float32)
    state["mer.conv3d.bias"] = np.zeros(9, np.float32)
    with pytest.raises(DataError) as error:
        load_small("paper", state)
    text = str(error.value)
    assert "2 missing: mer.fc1.bias, rank_scorer.weight" in text
    assert "1 surplus: extra.weight" in text
    assert "1 of wrong shape: mer.conv3d.bias (expected (8,), found (9,))" in text
    assert "preset 'paper'" in text


def test_unknown_model_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"'fpd'. Did you mean 'fdp'\?"):
        api.from_torch("fpd", {})


def test_files_of_every_kind(tmp_path: Path):
    state = rule_state({"a.weight": (3, 2), "a.bias": (3,)})
    np.savez(tmp_path / "w.npz", **state)
    safetensors.numpy.save_file(state, tmp_path / "w.safetensors")
    for name in ("w.npz", "w.safetensors"):
        found = common.read_state(tmp_path / name)
        assert set(found) == set(state)
        assert all(np.array_equal(found[n], state[n]) for n in state)


def test_wrappers_and_parallel_prefixes_are_removed():
    state = rule_state({"a.weight": (3, 2), "a.bias": (3,)})
    wrapped = {"epoch": 3, "state_dict": {f"module.{n}": a for n, a in state.items()}}
    assert set(common.read_state(wrapped)) == set(state)


def test_what_cannot_be_read_says_why(tmp_path: Path):
    with pytest.raises(DataError, match="No weights at"):
        common.read_state(tmp_path / "none.npz")
    (tmp_path / "w.onnx").write_bytes(b"1")
    with pytest.raises(DataError, match=r"expected \.safetensors, \.npz, .* found \.onnx"):
        common.read_state(tmp_path / "w.onnx")
    (tmp_path / "w.safetensors").write_bytes(b"1")
    with pytest.raises(DataError, match="not a safetensors file"):
        common.read_state(tmp_path / "w.safetensors")
    (tmp_path / "w.npz").write_bytes(b"1")
    with pytest.raises(DataError, match=r"not an \.npz of plain arrays"):
        common.read_state(tmp_path / "w.npz")
    # A pickle could run code when it is opened.
    np.savez(tmp_path / "pickled.npz", a=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"not an \.npz of plain arrays"):
        common.read_state(tmp_path / "pickled.npz")
    with pytest.raises(DataError, match=r"no arrays among these weights; found optimizer \(dict\)"):
        common.read_state({"optimizer": {"lr": 1}})


def test_torch_files(tmp_path: Path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    state = rule_state({"a.weight": (3, 2), "a.bias": (3,)})
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    torch.save({"state_dict": tensors}, tmp_path / "w.pt")
    found = common.read_state(tmp_path / "w.pt")
    assert all(np.array_equal(found[n], state[n]) for n in state)
    half = common.read_state({"a": tensors["a.weight"].bfloat16()})["a"]
    assert half.dtype == np.float32
    torch.save(Path("x"), tmp_path / "object.pt")
    with pytest.raises(DataError, match="more than tensors, or is damaged"):
        common.read_state(tmp_path / "object.pt")


def test_the_rule_of_the_weights():
    # The first values of four arrays: whoever changes the rule invalidates the golden figures.
    cases = {
        ("frame_rep.stem.0.conv.weight", (64, 1, 3, 3)): (0.1573848, 5.140591e-05, 0.428291),
        ("frame_rep.stem.0.norm.weight", (64,)): (0.9884329, 1.103059, 0.9078398),
        ("frame_rep.stem.0.norm.running_var", (64,)): (0.6013912, 1.480653, 1.4008454),
        ("frame_rep.proj_head.0.bias", (4096,)): (-0.03035124, 0.003977584, 0.009707155),
    }
    for (name, shape), wanted in cases.items():
        array = rule_array(name, shape)
        assert array.dtype == np.float32
        assert math.prod(shape) == array.size
        np.testing.assert_allclose(array.ravel()[:3], wanted, rtol=1e-5)
