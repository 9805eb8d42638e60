"""Tables of the documents: which measurements they take, and how they name them."""

from __future__ import annotations

import sys
from pathlib import Path

import gpu_tables
import pytest
import score_tables
import speed_tables
import tables
from results_files import Result, newest

ENVIRONMENT = {"cpu_count": 2, "python": "3", "jax": "0", "git": "abcdef1234"}


def result(name: str, command: str, processor: str = "A", **record) -> Result:
    """A file of results that lies nowhere."""
    environment = ENVIRONMENT | {"processor": processor}
    return Result(Path(name), {"command": command, "environment": environment, **record})


def steps(name: str, names=(), processor: str = "A", folds=(), seconds: float = 1.0) -> Result:
    """A file of `step_time.py` with training steps and folds of these names."""
    timed = {"mexjax_s": seconds, "peer_s": 2.0, "ratio": seconds / 2, "peer": "contiguous"}
    cases = [
        {
            **{"name": case, "model": case, "preset": "", "batch": 0, "memory_ratio": 1.0},
            **timed,
            "inference": timed,
        }
        for case in names
    ]
    by_count = {"time_ratio": {"4": 1.1}, "peer_time_ratio": {}, "compile_ratio": {"4": 1.5}}
    return result(
        name,
        f"python benchmarks/step_time.py --json={name}, then",
        processor,
        cases=cases,
        folds=[{"name": case, **by_count} for case in folds],
    )


def scores(name: str, card: str, uf1: float, processor: str = "A") -> Result:
    """A file of `scores.py` with one seed and still clips."""
    run = {
        "name": "seed0",
        "seed": 0,
        "last": {"uf1": uf1, "acc": uf1},
        "oracle": {"uf1": 0.99},
        "uf1_ci95": (0.1, 0.9),
        "timing": {"total_s": 120.0},
    }
    still = {**run, "name": "static", "last": {"uf1": 0.11, "acc": 0.11}}
    command = f"python benchmarks/demo.py --json={name}"
    return result(name, command, processor, card=f"configs/{card}.py", runs=[run, still])


def test_commands_are_those_of_today_without_their_file():
    old = result("x.json", "python benchmarks/demo.py --card configs/fdp.py --json=x.json")
    assert old.kind == "scores"
    assert old.command == "python benchmarks/scores.py --card configs/fdp.py"
    study = result("x.json", "python -m mexjax.study ac4au_tables --out=OUT")
    assert study.kind == "ac4au_tables"
    assert study.command == "python -m mexjax.studies ac4au_tables --out=OUT"
    with pytest.raises(SystemExit, match="names no benchmark"):
        _ = result("x.json", "make it").kind


def test_the_newest_file_of_each_processor_is_taken():
    files = [
        scores("2020-01-01.json", "fdp", 0.5),
        scores("2020-01-02.json", "fdp", 0.6, processor="B"),
        scores("2020-01-03.json", "fdp", 0.7),
    ]
    assert [file.path.name for file in newest(files)] == ["2020-01-03.json", "2020-01-02.json"]
    page = score_tables.card_tables("fdp", files, Path("docs/x.md"))
    assert "**0.700**" in page and "**0.600**" in page and "0.500" not in page
    row = score_tables.results_table(files, Path("README.md")).splitlines()[-1]
    assert "UF1 **0.700**" in row and "0.10 to 0.90" in row and "| 0.110 |" in row
    assert "| UF1 0.70 | 2 |" in score_tables.systems_table(files, Path("README.md"))


def test_the_newest_measurement_of_each_case_and_processor_is_taken():
    files = [
        steps("2020-01-01.json", ["one", "two"], processor="B"),
        steps("2020-01-02.json", ["one", "two"], folds=["one"]),
        steps("2020-01-02b.json", ["two"], seconds=1.5),
    ]
    page = speed_tables.step_tables(files, Path("docs/x.md"))
    first, second = page.split("### ")[1:]
    assert "| one, training | 1 s" in first and "| two, training | 1.5 s" in first
    assert "| two, training | 1 s" not in first
    # The other processor keeps its own measurements.
    assert "| one, training | 1 s" in second and "| two, training | 1 s" in second
    assert "| one | A | 4 | **1.10** |" in speed_tables.fold_tables(files, Path("docs/x.md"))
    page = speed_tables.speed_table(files, Path("README.md"))
    assert "| two | **0.75** (1.5 s) | 0.75 | 1.00 | **0.50** (1 s) | 0.50 | 1.00 |" in page


def test_the_front_page_has_the_largest_batch_of_each_network():
    small, large = steps("a.json", ["small"]), steps("b.json", ["large"])
    for file, batch in ((small, 4), (large, 16)):
        file.record["cases"][0] |= {"model": "fdp", "batch": batch}
    page = speed_tables.speed_table([large, small], Path("README.md"))
    assert "| large |" in page and "| small |" not in page


def test_tables_of_a_study_name_rows_that_were_not_run():
    run = {"row": "full", "f1": {"mean": 0.5, "sd": None, "n": 1}, "f1_always": 0.25}
    run |= {"paper": 0.4, "note": "", "probe": {"f_dc": 0.9, "f_ac": 0.2, "chance": 0.125}}
    left = {"row": "plain", "f1": None, "f1_always": None, "probe": None, "paper": 0.2}
    file = result(
        "x.json",
        "python -m mexjax.studies ac4au_tables",
        seeds=[0],
        tables={"ablation": [run, left | {"note": "not run: why"}]},
    )
    text = score_tables.ablation_tables([file], Path("docs/x.md"))
    assert "| full | **0.500** | 0.250 | 0.400 | 0.900 | 0.200 |" in text
    assert "| plain: not run: why |" in text and "0.125" in text


def test_markers_take_their_table_and_keep_the_text_around_them():
    files = [scores("2020-01-01.json", "fdp", 0.5)]
    text = "before\n<!-- table: fdp -->\nstale\n<!-- end -->\nafter\n"
    page = tables.render(text, Path("docs/x.md"), files)
    assert page.startswith("before\n<!-- table: fdp -->\n| run |")
    assert page.endswith("\n\n<!-- end -->\nafter\n") and "stale" not in page
    assert tables.render(page, Path("docs/x.md"), files) == page
    with pytest.raises(SystemExit, match="no table 'fdq'"):
        tables.render(text.replace("table: fdp", "table: fdq"), Path("docs/x.md"), files)


def test_a_stale_document_is_told_and_then_written(monkeypatch, tmp_path, capsys):
    document = tmp_path / "README.md"
    document.write_text("<!-- table: fdp -->\n<!-- end -->\n", encoding="utf-8")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "read_results", lambda: [scores("2020-01-01.json", "fdp", 0.5)])
    monkeypatch.setattr(sys, "argv", ["tables.py", "--check"])
    assert tables.main() == 1
    assert "README.md is stale" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["tables.py"])
    assert tables.main() == 0
    assert "**0.500**" in document.read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["tables.py", "--check"])
    assert tables.main() == 0


def test_a_plan_takes_the_group_that_ends_first():
    rows = {
        "fdp_official_1x1": {"graph_ms": 10.0, "roofline_ms": 8.0},
        "fdp_official_4x1": {"graph_ms": 24.0, "roofline_ms": 20.0},
        "fdp_official_1x1_bfloat16": {"graph_ms": 4.0, "roofline_ms": 3.0},
    }
    updates = gpu_tables.num_updates("fdp_official")
    assert updates == 501
    # 26 folds: 26 rounds of one, or 7 of four.
    plan = gpu_tables.best_plan(rows, "fdp_official", "float32", 1)
    assert plan == pytest.approx((7 * 501 * 0.024, 7 * 501 * 0.020, 4))
    # On 8 devices: 4 rounds of one fold a device need 40 ms, one of four 24.
    plan = gpu_tables.best_plan(rows, "fdp_official", "float32", 8)
    assert plan == pytest.approx((501 * 0.024, 501 * 0.020, 4))
    plan = gpu_tables.best_plan(rows, "fdp_official", "bfloat16", 8)
    assert plan == pytest.approx((4 * 501 * 0.004, 4 * 501 * 0.003, 1))
    assert gpu_tables.best_plan(rows, "gamdss_official", "float32", 1) is None
    # An epoch has a batch for every 32 of the 246 clips that are not held out.
    assert gpu_tables.num_updates("tsfmicro_official") == 174 * 8
