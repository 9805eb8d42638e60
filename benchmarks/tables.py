"""Writes the tables of the documents from the newest committed results files.

    python benchmarks/tables.py          # rewrites the text between the markers
    python benchmarks/tables.py --check  # exits 1 if a document and the files differ

A document shows a table between `<!-- table: NAME -->` and `<!-- end -->`. Each table has the
newest measurement of each case and processor; older files are in the history of the repository.
"""

from __future__ import annotations

import argparse
import functools
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import face_tables
import gpu_tables
import score_tables
import speed_tables
from results_files import ROOT, Result, read_results

MARKERS = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
WIDTH = 100

TABLES: dict[str, Callable[[Sequence[Result], Path], str]] = {
    "systems": score_tables.systems_table,
    "results": score_tables.results_table,
    "speed": speed_tables.speed_table,
    **{card: functools.partial(score_tables.card_tables, card) for card in score_tables.SYSTEMS},
    "ac4au_tables": score_tables.ablation_tables,
    "key_frames": score_tables.key_frames_tables,
    "steps": speed_tables.step_tables,
    "folds": speed_tables.fold_tables,
    "study_time": speed_tables.study_tables,
    "sweeps": speed_tables.sweep_tables,
    "frozen": speed_tables.frozen_tables,
    "preparation": speed_tables.preparation_tables,
    "gpu_bounds": gpu_tables.short_table,
    "gpu_programs": gpu_tables.gpu_tables,
    "gpu_plan": gpu_tables.plan_table,
    "face_boxes": face_tables.face_box_tables,
    "key_frame_views": speed_tables.view_tables,
    "pipeline": speed_tables.pipeline_tables,
}


def wrapped(text: str) -> str:
    """The text with every line outside of tables broken at `WIDTH` columns."""
    lines = []
    for line in text.splitlines():
        indent = "  " if line.startswith("- ") else ""
        is_prose = line and not line.startswith(("|", "#"))
        lines += (
            textwrap.wrap(
                line,
                WIDTH,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
            if is_prose
            else [line]
        )
    return "\n".join(lines)


def render(text: str, document: Path, results: Sequence[Result]) -> str:
    """A document with the tables that its markers name.

    Raises:
      SystemExit: a marker names no table.
    """

    def replace(match: re.Match[str]) -> str:
        head, name, tail = match.groups()
        if name not in TABLES:
            names = ", ".join(TABLES)
            raise SystemExit(f"{document}: there is no table {name!r}. Known: {names}.")
        return f"{head}{wrapped(TABLES[name](results, document))}\n\n{tail}"

    return MARKERS.sub(replace, text)


def documents() -> list[Path]:
    """README and every page of `docs/`."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main() -> int:
    """Rewrites or checks the documents; the status of a check is 1 if one is stale."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; tell by the status")
    arguments = parser.parse_args()
    results = read_results()
    status = 0
    for document in documents():
        text = document.read_text(encoding="utf-8")
        new_text = render(text, document, results)
        if new_text == text:
            continue
        name = document.relative_to(ROOT)
        if arguments.check:
            print(f"{name} is stale: run python benchmarks/tables.py")
            status = 1
        else:
            document.write_text(new_text, encoding="utf-8")
            print(f"{name} written")
    return status


if __name__ == "__main__":
    sys.exit(main())
