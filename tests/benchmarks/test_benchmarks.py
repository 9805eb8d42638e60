"""The parts of the benchmarks that decide something; their times are nobody's test."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest
from small import ROOT, small_config

from mexjax.ops.conv import choice as conv_choice
from mexjax.train.study import make_study, trace_step

BENCHMARKS = ROOT / "benchmarks"


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPTS = (
    "all", "cpu_tricks", "demo", "frozen", "key_frames", "loso", "ops", "pictures", "pipeline",
    "prepare", "reselection", "side", "step_time",
)  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_benchmark_explains_itself(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # where a script finds its neighbours
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


def test_one_case_puts_its_figures_at_the_top(monkeypatch, tmp_path, capsys):
    step_time = load("step_time")
    runs = {"jax": 1.0, "torch": 2.0}

    def side(name, case, steps, cache="", **options):
        found = {"median_s": runs[name], "inference_s": 0.1, "peak_bytes": 10, "compile_s": 3.0}
        slower = 1.0 if options.get("layout") == "contiguous" else 0.0
        return found | {"median_s": runs[name] + slower}

    monkeypatch.setattr(step_time, "side", side)
    monkeypatch.setattr(step_time, "HAS_TORCH", True)
    target = tmp_path / "out.json"
    words = ["--model=fdp", "--preset=official", "--batch=8", "--peer=torch", f"--json={target}"]
    monkeypatch.setattr(sys, "argv", ["step_time.py", *words])
    step_time.main()
    record = json.loads(target.read_text())
    assert (record["mexjax_s"], record["peer_s"], record["ratio"]) == (1.0, 2.0, 0.5)
    assert (record["card"], record["batch"]) == ("configs/fdp.py:official", 8)
    assert record["cases"][0]["peer"] == "channels last"
    # Without PyTorch it is said that the peer was not run.
    monkeypatch.setattr(step_time, "HAS_TORCH", False)
    step_time.main()
    assert "PyTorch is not installed" in capsys.readouterr().out
    assert json.loads(target.read_text())["peer_s"] is None


def test_pictures_of_a_results_file(tmp_path):
    pictures = load("pictures")
    row = {"name": "x", "mexjax_s": 1.0, "peer_s": 2.0, "ratio": 0.5}
    record = {
        "cases": [row | {"inference": row}],
        "folds": [{"name": "x", "time_ratio": {"4": 1.1}, "peer_time_ratio": {}}],
    }
    written = pictures.draw(record, tmp_path, "stem")
    assert [path.name for path in written] == ["stem-steps.png", "stem-folds.png"]
    assert all(path.stat().st_size > 1000 for path in written)


def test_layers_of_a_training_step_are_recorded():
    study = make_study(small_config(folds__only=("synthetic/02",)))
    data = study.dataset.on_host()
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


def test_tables_of_a_study_name_rows_that_were_not_run(tmp_path):
    done = {"row": "full", "f1": {"mean": 0.5, "sd": None, "n": 1}, "f1_always": 0.25}
    done |= {"paper": 0.4, "note": "", "probe": {"f_dc": 0.9, "f_ac": 0.2, "chance": 0.125}}
    left = {"row": "plain", "f1": None, "f1_always": None, "probe": None, "paper": 0.2}
    machine = {"processor": "P", "cpu_count": 2, "python": "3", "jax": "1"}
    record = {"command": "make it", "environment": machine, "seeds": [0]}
    record["tables"] = {"ablation": [done, left | {"note": "not run: why"}]}
    path = tmp_path / "x.json"
    path.write_text(json.dumps(record))
    text = load("readme").ablation_tables(path)
    assert "| full | **0.500** | 0.250 | 0.400 | 0.900 | 0.200 |" in text
    assert "| plain: not run: why |" in text and "0.125" in text and "`make it`" in text


def test_of_older_step_files_only_what_is_not_measured_again(tmp_path, monkeypatch):
    readme = load("readme")
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    monkeypatch.setattr(readme, "RESULTS", tmp_path)

    def write(name, names, processor="A", folds=()):
        timed = {"mexjax_s": 1.0, "peer_s": 2.0, "ratio": 0.5, "peer": "contiguous"}
        cases = [{"name": n, **timed, "memory_ratio": 1.0, "inference": timed} for n in names]
        by_count = {"time_ratio": {"4": 1.1}, "peer_time_ratio": {}, "compile_ratio": {"4": 1.5}}
        environment = {"processor": processor, "cpu_count": 2, "python": "3", "jax": "0"}
        record = {
            "command": "python it.py",
            "environment": environment | {"git": name},
            "num_threads": 2,
            "cases": cases,
            "folds": [{"name": n, **by_count} for n in folds],
        }
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(record), encoding="utf-8")
        return path

    files = [
        write("2020-01-01-x-step", ["one", "two"], processor="B"),
        write("2020-01-02-x-step", ["one", "two"], folds=["one"]),
        write("2020-01-02b-x-step", ["two"]),
    ]
    found = readme.step_tables(files)
    newer, older, other = found.split("Steps beside")[1:]
    assert "| two, training" in newer and "| one, training" not in newer
    assert "| one, training" in older and "| two, training" not in older
    # On another processor they are measured once only.
    assert "| one, training" in other and "| two, training" in other
    assert "- one, 4 folds in one program: 1.10" in found
