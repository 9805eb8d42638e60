"""The README says what the committed results say, and shows pictures that exist."""

from __future__ import annotations

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
