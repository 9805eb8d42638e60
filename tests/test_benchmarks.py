"""The parts of the benchmarks that decide something; their times are nobody's test."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest
from small import ROOT, small_config

from mexjax.ops import conv_choice
from mexjax.study import make_study, trace_step

BENCHMARKS = ROOT / "benchmarks"


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["all", "demo", "loso", "ops", "pipeline", "side", "step_time"])
def test_every_benchmark_explains_itself(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as stopped:
        load(name).main()
    assert stopped.value.code == 0
    assert "--" in capsys.readouterr().out


def test_a_missing_package_leaves_its_benchmark_out(monkeypatch, tmp_path, capsys):
    module = load("all")
    monkeypatch.setattr(module, "NEEDS", {"pipeline": ("jax", "no_such_package")})
    target = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["all.py", "--only", "pipeline", f"--json={target}"])
    assert module.main() == 0
    assert "left out, not installed: no_such_package" in capsys.readouterr().out


def test_layers_of_a_training_step_are_recorded():
    study = make_study(small_config(folds__only=("synthetic/02",)))
    data = {"clips": study.dataset.clips, "labels": study.dataset.labels}
    with conv_choice.record_layers() as seen:
        trace_step(study, data)
    kinds = {layer.group_kind for layer in seen}
    assert kinds >= {"dense", "grouped"}
    # The stem sees 8 clips of 8 frames, 16x16 after space to depth.
    assert any(
        layer.batch == 64 and layer.geometry.size == (16, 16) and layer.channels == 4
        for layer in seen
    )
    with conv_choice.record_layers() as nothing:
        pass
    assert not nothing


def test_tuning_replaces_the_row_of_its_layer_and_keeps_the_others(monkeypatch, tmp_path):
    ops = load("ops")
    monkeypatch.setattr(conv_choice, "TABLE", tmp_path / "table.json")
    monkeypatch.setattr(ops.conv_choice, "TABLE", tmp_path / "table.json")
    machine = dict.fromkeys(("processor", "cpu_count", "devices", "jax", "jaxlib"), "x")
    times = {"forward": 2.0, "input_gradient": 2.0, "weight_gradient": 2.0}
    first, second = ops._layer(8, 16, 32), ops._layer(8, 8, 64)
    for layer, fast in ((first, "im2col"), (second, "shifted"), (first, "shifted")):
        lowerings = {"native": times, fast: dict.fromkeys(times, 1.0)}
        row = {"layer": conv_choice.layer_to_json(layer), "lowerings": lowerings}
        ops.tune(row, machine)
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert len(rows) == 2
    assert conv_choice.choose("forward", first) == "shifted"
    assert conv_choice.choose("weight_gradient", second) == "shifted"
    conv_choice.forget_table()


def test_a_small_gain_is_not_worth_another_lowering():
    ops = load("ops")
    slow = {"forward": 1.0, "input_gradient": 1.0, "weight_gradient": 1.0}
    chosen = ops.fastest({"native": slow, "im2col": {**dict.fromkeys(slow, 0.96), "forward": 0.5}})
    assert chosen == {"forward": "im2col", "input_gradient": "native", "weight_gradient": "native"}
