"""Checkpoints as people have them: wrappers, prefixes, extras, odd types, and other files."""

from __future__ import annotations

import argparse
import json
import logging
import os
import pickle
import subprocess
import zipfile
from pathlib import Path, PosixPath

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from papers import network_of
from rule_weights import rule_state

from mexjax import models as api
from mexjax.errors import DataError
from mexjax.interop import common, magnet
from mexjax.interop import mobilefacenet as face
from mexjax.models.spatio_temporal import weights as unit
from mexjax.models.tsfmicro import weights as tsfmicro
from mexjax.nn.magnet import MagNet
from mexjax.nn.mobilefacenet import MobileFaceNet

STATE = rule_state({"a.weight": (3, 2), "a.bias": (3,)})
EXTRAS = {
    "epoch": 3,
    "lr": 0.1,
    "arch": "resnet",
    "best": np.float64(0.5),
    "none": None,
    "history": [0.1, 0.2],
    "tags": np.array("x"),
    "hyper_parameters": {"mean": np.ones(3)},
    "callbacks": {"ModelCheckpoint": {"best_score": np.ones(())}},
    "optimizer_states": [{"state": {0: {"exp_avg": np.ones(3)}}}],
    "optimizer": {"state": {0: {"exp_avg": np.ones(3)}}, "param_groups": []},
}


@pytest.fixture(scope="module")
def face_state() -> common.State:
    entries = face.make_entries(face.variable_shapes(MobileFaceNet(16)), "insightface_pytorch")
    return rule_state({n: s for e in entries for n, s in zip(e.names, e.shapes, strict=True)})


def equal(state, expected=STATE) -> bool:
    return set(state) == set(expected) and all(
        np.array_equal(state[name], expected[name]) for name in expected
    )


def message(function, *arguments) -> str:
    """The one line of the error that a call ends in."""
    with pytest.raises(DataError) as error:
        function(*arguments)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    assert "weights_only" not in text
    assert "safe_globals" not in text
    return text


@pytest.mark.parametrize(
    "wrapped",
    [
        STATE | EXTRAS,
        {"state_dict": STATE} | EXTRAS,
        {"model_state_dict": STATE | EXTRAS, "step": 3},
        {"net": {f"module._orig_mod.{n}": a for n, a in STATE.items()}},
        {"n_averaged": 4, **{f"_orig_mod.module.{n}": a for n, a in STATE.items()}},
        {"model": {"name": "fdp", "width": 3}, "ema": STATE},
        {"model": {"a": {"weight": STATE["a.weight"], "bias": STATE["a.bias"]}}},
        {"state_dict": STATE, "mean": np.ones(3), "std": np.ones(3)},
        {n: jnp.asarray(a) for n, a in STATE.items()},
    ],
)
def test_wrappers_and_extras_are_found_and_left_out(wrapped):
    assert equal(common.read_state(wrapped))


def test_a_scalar_weight_stays():
    state = STATE | {"clip.logit_scale": np.float32(4.6), "best": np.float32(0.5)}
    assert equal(common.read_state(state), STATE | {"clip.logit_scale": np.float32(4.6)})


def test_of_two_state_dicts_the_other_is_named(caplog):
    averaged = {name: array + 1 for name, array in STATE.items()}
    with caplog.at_level(logging.WARNING):
        assert equal(common.read_state({"ema": averaged, "model": STATE}))
    assert "'ema'; those of 'model' are read" in caplog.text


@pytest.mark.parametrize("prefix", ["", "backbone.", "encoder.", "model.net.", "G.model."])
def test_a_prefix_before_the_names_of_a_network_is_dropped(prefix, face_state, caplog):
    outer, _, rest = prefix.rpartition("G.")
    state = {rest + name: array for name, array in face_state.items()}
    if prefix:
        state["head.weight"] = np.ones((5, 16), np.float32)
    with caplog.at_level(logging.WARNING):
        module, variables = api.from_torch("mobilefacenet", {"G" if outer else "model": state})
    assert module.emb_dim == 16
    back = api.to_torch("mobilefacenet", variables)
    assert equal({name: back[name] for name in face_state}, face_state)
    assert ("head.weight" in caplog.text) == bool(prefix)


@pytest.mark.parametrize("layout", ["zhengpeng", "postech"])
def test_a_prefix_before_a_network_with_an_encoder(layout: str):
    entries = magnet.make_entries(magnet.variable_shapes(MagNet(layout)), layout)
    state = rule_state({n: s for e in entries for n, s in zip(e.names, e.shapes, strict=True)})
    for prefix in ("", "model.", "encoder.", "module.encoder."):
        module, variables = api.from_torch("magnet", {prefix + n: a for n, a in state.items()})
        assert module.layout == layout
        back = api.to_torch("magnet", variables, layout=layout)
        assert equal({name: back[name] for name in state}, state)


@pytest.mark.parametrize("fusion", ["late", "early", "s_only"])
def test_a_prefix_before_each_way_of_fusion(fusion: str):
    module = network_of("tsfmicro", {"preset": "official", "fusion": fusion}, 4)
    entries = tsfmicro.make_entries(unit.variable_shapes(module), fusion)
    shapes = {n: s for e in entries for n, s in zip(e.names, e.shapes, strict=True)}
    state = {f"net.{name}": np.zeros(shape, np.float32) for name, shape in shapes.items()}
    loaded, _ = api.from_torch("tsfmicro", {"state_dict": state}, fusion=fusion)
    assert loaded.num_classes == 4


def test_averaged_weights_beside_the_plain_ones(face_state):
    both = {f"net.{name}": array for name, array in face_state.items()}
    both |= {f"ema.net.{name}": array + 1 for name, array in face_state.items()}
    _, variables = api.from_torch("mobilefacenet", both)
    assert np.array_equal(
        api.to_torch("mobilefacenet", variables)["bn.bias"], face_state["bn.bias"]
    )
    twice = {f"{side}.{n}": a for side in ("student", "tutor") for n, a in face_state.items()}
    text = message(api.from_torch, "mobilefacenet", twice)
    assert "2 networks" in text
    assert "student., tutor." in text


@pytest.mark.parametrize("name", ["fdp", "gamdss", "tsfmicro", "clip", "magnet", "mobilefacenet"])
def test_weights_of_another_network_are_named_in_one_line(name):
    others = {f"layer{i}.weight": np.ones((3, 3), np.float32) for i in range(283)}
    text = message(api.from_torch, name, others)
    assert "layer0.weight" in text
    assert "layer9.weight" not in text


def test_the_first_shape_of_another_variant_is_named(face_state):
    wide = dict(face_state)
    for stem in ("conv_23", "conv_34"):
        wide[f"{stem}.conv.conv.weight"] = np.repeat(wide[f"{stem}.conv.conv.weight"], 2, axis=0)
    text = message(api.from_torch, "mobilefacenet", wide)
    assert (
        "2 of wrong shape: conv_23.conv.conv.weight (expected (128, 64, 1, 1), found (256" in text
    )
    assert "and 1 more" in text
    assert "conv_34" not in text


def test_whole_numbers_are_no_weights(face_state):
    coded = face_state | {"linear.weight": np.ones_like(face_state["linear.weight"], np.int8)}
    text = message(api.from_torch, "mobilefacenet", coded)
    assert "linear.weight of type int8: quantised" in text


def test_numbers_that_are_not_finite_are_no_weights(face_state):
    weight = face_state["linear.weight"].copy()
    weight[0, 0] = np.nan
    text = message(api.from_torch, "mobilefacenet", face_state | {"linear.weight": weight})
    assert "1 of the" in text
    assert "the first linear.weight" in text


def test_types_that_numpy_lacks(tmp_path: Path):
    half = {name: array.astype(ml_dtypes.bfloat16) for name, array in STATE.items()}
    rounded = {name: array.astype(np.float32) for name, array in half.items()}
    np.savez(tmp_path / "w.npz", **half)
    safetensors.numpy.save_file(half, tmp_path / "w.safetensors")
    for source in (half, tmp_path / "w.npz", tmp_path / "w.safetensors"):
        assert equal(common.read_state(source), rounded)
    tiny = {name: array.astype(ml_dtypes.float8_e5m2) for name, array in STATE.items()}
    safetensors.numpy.save_file(tiny, tmp_path / "w.safetensors")
    for source in (tiny, tmp_path / "w.safetensors"):
        assert equal(common.read_state(source), {n: a.astype(np.float32) for n, a in tiny.items()})
    assert "a.weight of these weights has the type complex64" in message(
        common.read_state, {"a.weight": np.ones(3, np.complex64)}
    )
    header = {"a": {"dtype": "F8_E8M0", "shape": [2], "data_offsets": [0, 2]}}
    raw = json.dumps(header).encode().ljust(64)
    (tmp_path / "w.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + b"12")
    assert "a in" in (text := message(common.read_state, tmp_path / "w.safetensors"))
    assert "F8_E8M0" in text


@pytest.mark.filterwarnings("ignore")  # PyTorch warns of the types that are tried
@pytest.mark.parametrize("is_legacy", [False, True])
def test_tensors_of_rare_types(tmp_path: Path, is_legacy: bool):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    tensors = {name: torch.from_numpy(array) for name, array in STATE.items()}

    def read(change):
        content = {name: change(tensor) for name, tensor in tensors.items()}
        torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not is_legacy)
        return common.read_state(tmp_path / "w.pth")

    rounded = {name: tensor.bfloat16().float().numpy() for name, tensor in tensors.items()}
    assert equal(read(lambda t: t.bfloat16()), rounded)
    assert equal(read(lambda t: t.to_sparse()))
    steps = read(lambda t: torch.quantize_per_tensor(t, 0.125, 0, torch.qint8))
    assert all(np.array_equal(steps[n], np.round(STATE[n] * 8) / 8) for n in STATE)
    assert "device meta" in message(read, lambda t: t.to("meta"))
    if not is_legacy:
        tiny = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in tensors.items()}
        assert equal(
            read(lambda t: t.to(torch.float8_e4m3fn)),
            {n: t.float().numpy() for n, t in tiny.items()},
        )
        assert "complex32" in message(read, lambda t: t.to(torch.complex32))


@pytest.mark.parametrize("is_legacy", [False, True])
def test_settings_beside_tensors_are_read_past(tmp_path: Path, is_legacy: bool):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    content = EXTRAS | {
        "state_dict": {name: torch.from_numpy(array) for name, array in STATE.items()},
        "args": argparse.Namespace(lr=0.1),
        "out": PosixPath("runs/1"),
    }
    path = tmp_path / "last.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=not is_legacy)
    assert equal(common.read_state(path))
    torch.save(STATE, path, _use_new_zipfile_serialization=not is_legacy)
    assert equal(common.read_state(path))


class Command:
    """A pickle that would write a file if anybody opened it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("is_legacy", [False, True])
def test_hostile_pickles_stay_refused(tmp_path: Path, is_legacy: bool, protocol: int):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    trace = tmp_path / "trace"
    tensors = {name: torch.from_numpy(array) for name, array in STATE.items()}
    for command in (
        Command(os.system, f"touch {trace}"),
        Command(eval, f"open({str(trace)!r}, 'w')"),
        Command(subprocess.Popen, ["touch", str(trace)]),
        Command(Path.touch, trace),
        Command(getattr, trace, "touch"),
    ):
        path = tmp_path / "w.pth"
        torch.save(
            {"state_dict": tensors, "args": command},
            path,
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=not is_legacy,
        )
        text = message(common.read_state, path)
        assert "which is not opened because a pickle can run code" in text or "protocol 4" in text
    path.write_bytes(pickle.dumps({"a": Command(os.system, f"touch {trace}")}))
    message(common.read_state, path)
    assert not trace.exists()


def test_a_whole_model_is_named(tmp_path: Path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.save(torch.nn.Linear(2, 3), tmp_path / "w.pt")
    text = message(common.read_state, tmp_path / "w.pt")
    assert "a whole model (torch.nn.modules.linear.Linear)" in text
    assert "state_dict()" in message(common.read_state, torch.nn.Linear(2, 3))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (bytes(100), "full of zeros"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        (b'{"error": "not found"}', "JSON text"),
        (b"PK\x03\x04" + bytes(200), "damaged or cut short"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x93NUMPY\x01\x00", "a single array"),
        (b"\x80\x02}q\x00.", "more than tensors, or is damaged"),
        (b"\x80\x02", "more than tensors, or is damaged"),
        (b"nonsense", "is no file of weights"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".ckpt"])
def test_other_files_called_weights(tmp_path: Path, content: bytes, says: str, suffix: str):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    assert says in message(common.read_state, path)


def test_damaged_and_misnamed_files(tmp_path: Path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    tensors = {name: torch.from_numpy(array) for name, array in STATE.items()}
    torch.save(tensors, tmp_path / "new.pt")
    torch.save(tensors, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    np.savez(tmp_path / "w.npz", **STATE)
    safetensors.numpy.save_file(STATE, tmp_path / "w.safetensors")
    for source in ("new.pt", "old.pt", "w.npz", "w.safetensors"):
        whole = (tmp_path / source).read_bytes()
        other = tmp_path / "other.model"
        other.write_bytes(whole)
        assert equal(common.read_state(other))  # the content tells the kind
        for length in range(1, len(whole), max(len(whole) // 12, 1)):
            (tmp_path / source).write_bytes(whole[:length])
            message(common.read_state, tmp_path / source)


def test_archives_and_folders_of_other_files(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("weights/w.safetensors", b"1")
    text = message(common.read_state, tmp_path / "w.zip")
    assert "archive of other files (weights/w.safetensors)" in text
    safetensors.numpy.save_file(STATE, tmp_path / "model.safetensors")
    assert "model.safetensors" in message(common.read_state, tmp_path)


def test_a_path_that_cannot_be(tmp_path: Path):
    assert "File name too long" in message(common.read_state, tmp_path / ("w" * 5000))


def test_weights_in_parts(tmp_path: Path):
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for name, key in zip(names, STATE, strict=True):
        safetensors.numpy.save_file({key: STATE[key]}, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict(zip(STATE, names, strict=True))}))
    for source in (index, *(tmp_path / name for name in names)):
        assert equal(common.read_state(source))
    (tmp_path / names[1]).unlink()
    for source in (index, tmp_path / names[0]):
        assert f"1 are missing: {names[1]}" in message(common.read_state, source)
    for text in ("{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": "../w.npz"}}'):
        index.write_text(text)
        message(common.read_state, index)
