"""Tables of programs that were compiled for a GPU, from files of `gpu_programs.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_programs import CARDS, Case
from results_files import Result, newest

from mexjax.config import load_config

# The rows of the README.
SHORT = ("fdp_tiny", "fdp_official", "tsfmicro_official", "ac4au_scratch")

# The study of the plan: folds and clips of CASME II under leave-one-subject-out.
FOLDS, CLIPS = 26, 255
PLANNED = ("fdp_official", "tsfmicro_official", "gamdss_official", "ac4au_scratch",
           "micro_au_clip_paper")  # fmt: skip


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


def num_updates(card: str) -> int:
    """Updates of a fold of the planned study: those of the card, with its batch."""
    train = load_config(*_card(card)).train
    if train.num_steps:
        return int(train.num_steps)
    clips = CLIPS - CLIPS // FOLDS  # one subject of mean size is held out
    return int(train.num_epochs) * math.ceil(clips / train.batch_size)


def _card(name: str) -> tuple[str, list[str]]:
    card, *overrides = CARDS[name]
    return card, overrides


def best_plan(
    programs: dict[str, dict[str, Any]], card: str, dtype: str, devices: int
) -> tuple[float, float, int] | None:
    """Two bounds of all updates in seconds and the folds in a group, for the best group.

    The first bound has 2 microseconds a kernel, the second one bytes and operations alone.

    Args:
      programs: rows of a results file, by the name of the case.
      card: a name in `CARDS`.
      dtype: type that the network computes in.
      devices: devices that share the folds.

    Returns:
      None if no group of this card was compiled.
    """
    plans = []
    for folds in (1, 4, 8):
        row = programs.get(Case(card, folds=folds, dtype=dtype).name)
        if row:
            updates = math.ceil(FOLDS / (folds * devices)) * num_updates(card)
            launched, roofline = row["graph_ms"] / 1000, row["roofline_ms"] / 1000
            plans.append((updates * launched, updates * roofline, folds))
    return min(plans, default=None)


def plan_table(results: Sequence[Result], document: Path) -> str:
    """The bound of a whole study of CASME II on one and on eight devices."""
    parts = []
    for result in _files(results):
        if result.record["gpu"] != "h200":
            continue
        programs = result.record["programs"]
        lines = [
            "| seconds, folds in a group | updates a fold | 1 GPU, float32 | 1 GPU, bfloat16 |"
            " 8 GPUs, float32 | 8 GPUs, bfloat16 |",
            "|---|---|---|---|---|---|",
        ]
        for card in PLANNED:
            cells = []
            for devices in (1, 8):
                for dtype in ("float32", "bfloat16"):
                    plan = best_plan(programs, card, dtype, devices)
                    cells.append(f"{plan[1]:.3g} to {plan[0]:.3g} s, {plan[2]}" if plan else "")
            lines.append(
                f"| {card.replace('_', ' ')} | {num_updates(card)} | {' | '.join(cells)} |"
            )
        parts.append("\n".join([*lines, "", result.made_by(document)]))
    return "\n\n".join(parts)
