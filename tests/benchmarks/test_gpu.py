"""The prepared GPU run: nothing measured is lost, and its parts are set up alike elsewhere."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import ROOT

from mexjax import target
from mexjax.gpu.compiling import graph_options
from mexjax.ops.conv import choice
from mexjax.ops.conv.geometry import OPERATIONS
from mexjax.target import Target

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """Imports a script of the benchmarks by its name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def script(module, name: str, text: str, limit_s: float = 60.0):
    return module.Part(name, ("-c", text), limit_s)


def test_lines_of_failed_and_ended_parts_are_kept(load, tmp_path):
    gpu = load("gpu")
    file = tmp_path / "run.json"
    run = gpu.Run(file, minutes=5, wheels=tmp_path)
    line = "print('for people'); print('{\"a\": 1}', flush=True);"
    run.run(script(gpu, "fails", line + "raise SystemExit('no memory')"), tmp_path)
    run.run(script(gpu, "hangs", line + "import time; time.sleep(60)", limit_s=1.5), tmp_path)
    run.run(script(gpu, "is done", line), tmp_path)
    parts = json.loads(file.read_text(encoding="utf-8"))["parts"]
    assert {name: part["status"] for name, part in parts.items()} == {
        "fails": "failed", "hangs": "cut off", "is done": "done",
    }  # fmt: skip
    assert all(part["results"] == [{"a": 1}] for part in parts.values())
    assert "no memory" in parts["fails"]["last_words"]
    assert parts["hangs"]["seconds"] < 30


def test_lines_are_in_the_file_while_a_part_runs(load, tmp_path):
    gpu = load("gpu")
    file = tmp_path / "run.json"
    text = (
        "import pathlib, time; print('{\"a\": 1}', flush=True)\n"
        "while True:\n"
        f"    text = pathlib.Path({str(file)!r}).read_text(encoding='utf-8')\n"
        "    if '\"a\": 1' in text: break\n"
        "    time.sleep(0.05)\n"
        "print('{\"b\": 2}')"
    )
    run = gpu.Run(file, minutes=5, wheels=tmp_path)
    run.run(script(gpu, "waits", text, limit_s=30), tmp_path)
    assert run.record["parts"]["waits"]["status"] == "done"
    assert run.record["parts"]["waits"]["results"] == [{"a": 1}, {"b": 2}]


def test_a_run_ends_within_its_minutes(load, tmp_path):
    gpu = load("gpu")
    run = gpu.Run(None, minutes=12 / 60, wheels=tmp_path)
    start = time.monotonic()
    run.run(script(gpu, "first", "import time; time.sleep(60)"), tmp_path)
    run.run(script(gpu, "second", "print('{}')"), tmp_path)
    assert time.monotonic() - start < 20
    assert [part["status"] for part in run.record["parts"].values()] == ["cut off", "not started"]


def test_processes_of_an_ended_part_are_ended_too(load, tmp_path):
    gpu = load("gpu")
    text = (
        "import subprocess, sys, time, json\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(json.dumps({'child': child.pid}), flush=True); time.sleep(60)"
    )
    run = gpu.Run(None, minutes=5, wheels=tmp_path)
    run.run(script(gpu, "parent", text, limit_s=3), tmp_path)
    child = run.record["parts"]["parent"]["results"][0]["child"]
    for _ in range(100):  # a killed process stays listed until its new parent has seen its end
        try:
            state = Path(f"/proc/{child}/stat").read_text(encoding="utf-8")
        except OSError:
            return
        if state.rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("The child still runs.")


def test_wheels_are_imported_as_they_are(load, tmp_path):
    gpu = load("gpu")
    for name in ("pure-1.0-py3-none-any.whl", "compiled-1.0-cp312-cp312-linux_x86_64.whl"):
        with zipfile.ZipFile(tmp_path / name, "w") as wheel:
            wheel.writestr(f"{name.split('-')[0]}_room/__init__.py", "VALUE = 3\n")
    assert [name.rpartition("/")[2] for name in gpu.wheel_paths(tmp_path)] == [
        "pure-1.0-py3-none-any.whl"
    ]
    run = gpu.Run(None, minutes=5, wheels=tmp_path)
    text = "import json, pure_room; print(json.dumps({'value': pure_room.VALUE}))"
    run.run(script(gpu, "wheel", text), tmp_path)
    assert run.record["parts"]["wheel"]["results"] == [{"value": 3}]


def test_parts_agree_with_the_table_of_programs(load):
    gpu, programs = load("gpu"), load("gpu_programs")
    assert {name: words[0] for name, words in gpu.CASES.items()} == {
        name: programs.CARDS[name][0] for name in gpu.CASES
    }
    cards = {name: set(words) for name, words in programs.CARDS.items()}
    assert all(cards[name] <= set(words) for name, words in gpu.CASES.items())
    (flags,) = (value for _, value in gpu.step("fdp_tiny", graphs="epoch").environment)
    for name, value in graph_options("epoch").items():
        assert f"--{name}={value}" in flags.split()
    for is_quick in (False, True):
        names = [part.name for part in gpu.parts_of(is_quick=is_quick)]
        assert len(names) == len(set(names))
        kinds = {"environment", "parity", "step", "study", "convolutions"}
        assert {name.split()[0] for name in names} == kinds
    known = {case.name for card in programs.CARDS for case in programs.cases_of(card)}
    steps = [p.name.split()[1] for p in gpu.parts_of(is_quick=False) if p.name.startswith("step")]
    assert set(steps) <= known


def test_step_times_stand_beside_bounds_and_the_fastest_peer(load):
    gpu = load("gpu")
    seconds = {
        "step x_1x1 mexjax": 0.004,
        "step x_1x1 torch channels_last": 0.008,
        "step x_1x1 torch contiguous": 0.010,
        "step y_1x1 mexjax graphs off": 0.002,
    }
    parts = {name: {"results": [{"median_s": value}]} for name, value in seconds.items()}
    parts |= {"step z_1x1 mexjax": {"results": []}}
    bounds = {"x_1x1": {"roofline_ms": 2.0, "graph_ms": 3.0, "launch_ms": 4.0}}
    first, second = gpu.summary(parts, bounds)
    assert (first["step_ms"], first["of_roofline"], first["of_torch"]) == (4.0, 2.0, 0.5)
    assert (second["side"], second["of_roofline"], second["of_torch"]) == (
        "mexjax graphs off", None, None,
    )  # fmt: skip


def test_the_loop_applies_a_function_to_dependent_arguments(load):
    device_time = load("device_time")
    x = jnp.asarray(np.random.default_rng(0).standard_normal((64, 64)), jnp.float32)
    loop = jax.jit(device_time.make_loop(lambda a, b: a @ b, 5))
    (a, b), output = loop((x, x), jnp.zeros((64, 64), jnp.float32))
    np.testing.assert_allclose(output, x @ x, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(a), np.asarray(x))
    np.testing.assert_array_equal(np.asarray(b), np.asarray(x))
    # The product stays in the loop although the arguments hardly change.
    text = loop.lower((x, x), output).as_text()
    assert "while" in text
    small_ms = device_time.device_ms(lambda a: a * 2.0, (jnp.ones((8, 8)),))
    large = jnp.ones((384, 384))
    large_ms = device_time.device_ms(lambda a: a @ a @ a @ a, (large,))
    assert large_ms > small_ms >= 0.0


def test_rows_of_one_kind_of_gpu_are_not_for_another(load, monkeypatch):
    convolutions = load("convolutions")

    def layer_for(kind: str):
        gpu = Target((SimpleNamespace(platform="gpu", device_kind=kind),))
        with target.use(gpu):
            return convolutions._layer(16, 16, 96)

    assert set(load("gpu_parts").GPU_LOWERINGS) <= set(choice.LOWERINGS)
    layer = layer_for("NVIDIA H200")
    rows = [{"layer": layer, **dict.fromkeys(OPERATIONS, "shifted")}]
    monkeypatch.setattr(choice, "_table", lambda: rows)
    automatic = choice.choose.__wrapped__  # without the memory of earlier choices
    assert automatic("forward", layer) == "shifted"
    assert automatic("forward", layer_for("NVIDIA L4")) == "native"
    fields = choice.layer_to_json(layer)
    assert fields["kind"] == "NVIDIA H200"
    assert choice.layer_from_json(json.loads(json.dumps(fields))) == layer
    assert "kind" not in choice.layer_to_json(convolutions._layer(16, 16, 96))


def test_the_table_takes_rows_of_a_gpu_run(load, monkeypatch, tmp_path):
    convolutions = load("convolutions")
    monkeypatch.setattr(choice, "TABLE", tmp_path / "table.json")
    gpu = Target((SimpleNamespace(platform="gpu", device_kind="NVIDIA H200"),))
    with target.use(gpu):
        layer = convolutions._layer(16, 16, 96)
    slow = dict.fromkeys(OPERATIONS, 2.0)
    lowerings = {"native": slow, "im2col": dict.fromkeys(OPERATIONS, 1.0)}
    line = {"layer": choice.layer_to_json(layer), "lowerings": lowerings}
    broken = {"layer": "16 x 16", "error": "no memory"}
    environment = dict.fromkeys(("processor", "cpu_count", "devices", "jax", "jaxlib"), "x")
    record = {
        "environment": environment,
        "parts": {"parity": {"results": [{}]}, "convolutions x": {"results": [line, broken]}},
    }
    file = tmp_path / "run.json"
    file.write_text(json.dumps(record), encoding="utf-8")
    try:
        assert convolutions.tune_from(file) == 1
        assert choice.choose("forward", layer) == "im2col"
    finally:
        choice.forget_table()


@pytest.mark.slow
@pytest.mark.slow
def test_training_needs_no_package_of_preparation():
    text = """
import sys
for name in ("grain", "array_record", "mediapipe", "matplotlib", "orbax"):
    sys.modules[name] = None
from mexjax import load_config
from mexjax.train.programs import device_data, trace_step
from mexjax.train.study import make_study
study = make_study(load_config("micro_au_clip:tiny", ["has_progress=False"]))
trace_step(study, device_data(study))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", text], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
