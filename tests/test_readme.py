"""The README says what the committed results say, and shows pictures that exist."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys

from small import ROOT


def test_results_tables_come_from_the_committed_files():
    script = ROOT / "benchmarks" / "readme.py"
    done = subprocess.run([sys.executable, str(script), "--check"], check=False)
    assert done.returncode == 0, "run python benchmarks/readme.py"


def test_every_local_link_of_the_documents_exists():
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_tables_of_a_study_name_rows_that_were_not_run(tmp_path):
    spec = importlib.util.spec_from_file_location("readme", ROOT / "benchmarks" / "readme.py")
    readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme)
    done = {"row": "full", "f1": {"mean": 0.5, "sd": None, "n": 1}, "f1_always": 0.25}
    done |= {"paper": 0.4, "note": "", "probe": {"f_dc": 0.9, "f_ac": 0.2, "chance": 0.125}}
    left = {"row": "plain", "f1": None, "f1_always": None, "probe": None, "paper": 0.2}
    machine = {"processor": "P", "cpu_count": 2, "python": "3", "jax": "1"}
    record = {"command": "make it", "environment": machine, "seeds": [0]}
    record["tables"] = {"ablation": [done, left | {"note": "not run: why"}]}
    path = tmp_path / "x.json"
    path.write_text(json.dumps(record))
    text = readme.ablation_tables(path)
    assert "| full | **0.500** | 0.250 | 0.400 | 0.900 | 0.200 |" in text
    assert "| plain: not run: why |" in text and "0.125" in text and "`make it`" in text
