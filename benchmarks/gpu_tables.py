"""Tables of programs that were compiled for a GPU, from files of `gpu_programs.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_programs import CARDS, Case
from results_files import Result, newest

# The rows of the README.
SHORT = ("fdp_tiny", "fdp_official", "tsfmicro_official", "ac4au_scratch")


def _files(results: Sequence[Result]) -> list[Result]:
    files = [result for result in results if result.kind == "gpu_programs"]
    return newest(files, key=lambda result: result.record["gpu"])


def _bounds(row: dict[str, Any]) -> str:
    return f"{row['roofline_ms']:.3g} | {row['graph_ms']:.3g} | {row['launch_ms']:.3g}"


def short_table(results: Sequence[Result], document: Path) -> str:
    """A row a network: kernels, bytes and bounds of one step of one fold on an H200."""
    lines = [
        "| bounds, one step of one fold on an H200 | kernels | GB moved | ms, float32 | bfloat16 |",
        "|---|---|---|---|---|",
    ]
    for result in _files(results):
        if result.record["gpu"] != "h200":
            continue
        programs = result.record["programs"]
        for card in SHORT:
            row = programs[Case(card).name]
            half = programs.get(Case(card, dtype="bfloat16").name)
            second = f"{half['graph_ms']:.3g}" if half else ""
            lines.append(
                f"| {card.replace('_', ' ')}, batch {row['batch']} | {row['kernels']} |"
                f" {row['gbytes']:.3g} | {row['graph_ms']:.3g} | {second} |"
            )
    return "\n".join(lines)


def gpu_tables(results: Sequence[Result], document: Path) -> str:
    """All programs of the newest file of each GPU."""
    parts = []
    for result in _files(results):
        lines = [
            f"### {result.record['gpu'].upper()}",
            "",
            "| program | kernels | host launches | products | convolutions | GFLOP | GB |"
            " roofline, ms | 2 µs a kernel | 5 µs | temporary GB | compilation, CPU s |",
            "|" + "---|" * 12,
        ]
        order = {card: place for place, card in enumerate(CARDS)}
        cases = sorted(
            result.record["programs"].items(),
            key=lambda item: (order.get(item[0].rpartition("_1x")[0], 99), item[0]),
        )
        for name, row in cases:
            convolutions = sum(row["convolutions"].values())
            lines.append(
                f"| {name} | {row['kernels']} | {row['host_launches']} | {row['products']} |"
                f" {convolutions} | {row['gflop']:.4g} | {row['gbytes']:.3g} | {_bounds(row)} |"
                f" {row['temporary_gb']:.3g} | {row['compile_cpu_s']:.0f} |"
            )
        parts.append("\n".join([*lines, "", result.made_by(document)]))
    return "\n\n".join(parts)
