"""The table of ways of finding a face, from files of `face_boxes.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from results_files import Result, newest

KINDS = ("wide", "tight", "real")


def face_box_tables(results: Sequence[Result], document: Path) -> str:
    """Boxes that are off and misses by way, for each processor."""
    parts = []
    for result in newest([each for each in results if each.kind == "face_boxes"]):
        ways = result.record["ways"]
        scenes = next(iter(ways.values()))
        heads = [f"{kind}: off, missed of {scenes[kind]['scenes']} (95 %)" for kind in KINDS]
        lines = [f"| way | {' | '.join(heads)} | s a frame |", "|---|---|---|---|---|"]
        for name, way in ways.items():
            cells = [
                f"{way[kind]['off']}, {way[kind]['missed']} ({way[kind]['gap_p95']:.2f})"
                for kind in KINDS
            ]
            lines.append(f"| {name} | {' | '.join(cells)} | {way['s_per_frame']:.2f} |")
        made_by = result.made_by(document)
        parts.append(
            "\n".join([*lines, "", f"{made_by} OpenCV {result.record['environment']['opencv']}."])
        )
    return "\n\n".join(parts)
