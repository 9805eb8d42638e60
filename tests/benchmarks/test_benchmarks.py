"""The parts of the benchmarks that decide something; their times are nobody's test."""

from __future__ import annotations

import importlib.util
import json
import sys

import matplotlib.text
import numpy as np
import pytest
from small import BLOCKS, ROOT, small_config

from mexjax.ops.conv import choice as conv_choice
from mexjax.train.programs import trace_step
from mexjax.train.study import make_study

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(autouse=True)
def _neighbours(monkeypatch):
    """A script finds its neighbours."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


SCRIPTS = (
    "all", "convolutions", "cpu_tricks", "frozen", "gpu", "gpu_parts", "key_frame_views",
    "key_frames", "pictures",
    "pipeline", "preparation", "scores", "step_process", "step_time", "study_time", "sweeps",
    "tables",
)  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_benchmark_explains_itself(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as stopped:
        load(name).main()
    assert stopped.value.code == 0
    assert "--" in capsys.readouterr().out


def test_every_lowering_can_be_chosen_by_measurement():
    assert set(load("convolutions").PREFERENCE) == set(conv_choice.LOWERINGS)


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


def test_the_picture_of_a_run_shows_clips_and_what_was_predicted(monkeypatch, tmp_path, capsys):
    run = tmp_path / "fdp_tiny"
    run.mkdir()
    results = {"metrics": {"last": {"confusion": [[1, 1], [0, 2]]}}, "classes": ["joy", "fear"]}
    results |= {"num_clips": 4, "num_subjects": 2}
    (run / "results.json").write_text(json.dumps(results), encoding="utf-8")
    (run / "predictions.csv").write_text("clip,prediction\na/1,fear\na/2,joy\n", encoding="utf-8")
    images = np.random.default_rng(0).random((2, 8, 8))
    frames = np.repeat((255 * images[:, None]).astype(np.uint8), 3, axis=1)
    titles = np.array(["joy, a/1", "fear, a/2"])
    np.savez(run / "sheet.npz", frames=frames, target=images, title=titles)
    pictures = load("pictures")
    figure = pictures.run_picture(run)
    texts = [text.get_text() for text in figure.findobj(match=matplotlib.text.Text)]
    assert {
        "joy; predicted: fear",
        "fear; predicted: joy",
        "4 held-out clips of 2 subjects",
    } <= set(texts)
    monkeypatch.setattr(sys, "argv", ["pictures.py", str(run), f"--out={tmp_path}"])
    pictures.main()
    assert capsys.readouterr().out.strip() == str(tmp_path / "fdp_tiny.png")
    assert (tmp_path / "fdp_tiny.png").stat().st_size > 1000


def test_layers_of_a_training_step_are_recorded():
    study = make_study(small_config(folds__only=("synthetic/02",), **BLOCKS))
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
    convolutions = load("convolutions")
    monkeypatch.setattr(conv_choice, "TABLE", tmp_path / "table.json")
    monkeypatch.setattr(convolutions.conv_choice, "TABLE", tmp_path / "table.json")
    machine = dict.fromkeys(("processor", "cpu_count", "devices", "jax", "jaxlib"), "x")
    times = {"forward": 2.0, "input_gradient": 2.0, "weight_gradient": 2.0}
    first, second = convolutions._layer(8, 16, 32), convolutions._layer(8, 8, 64)
    for layer, fast in ((first, "im2col"), (second, "shifted"), (first, "shifted")):
        lowerings = {"native": times, fast: dict.fromkeys(times, 1.0)}
        row = {"layer": conv_choice.layer_to_json(layer), "lowerings": lowerings}
        convolutions.tune(row, machine)
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert len(rows) == 2
    assert conv_choice.choose("forward", first) == "shifted"
    assert conv_choice.choose("weight_gradient", second) == "shifted"
    conv_choice.forget_table()


def test_a_small_gain_is_not_worth_another_lowering():
    convolutions = load("convolutions")
    slow = {"forward": 1.0, "input_gradient": 1.0, "weight_gradient": 1.0}
    times = {"native": slow, "im2col": {**dict.fromkeys(slow, 0.96), "forward": 0.5}}
    chosen = convolutions.fastest(times)
    assert chosen == {"forward": "im2col", "input_gradient": "native", "weight_gradient": "native"}
