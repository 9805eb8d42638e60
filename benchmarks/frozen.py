"""Gain of computing a frozen first part once: training steps of Micro-AU CLIP on ViT-B/32.

    python benchmarks/frozen.py --json=benchmarks/results/DATE-MACHINE-COMMIT-frozen.json

Each way to make an update with a batch of 8 runs in a process of its own. The outputs of the nine
frozen blocks of both towers are computed once (`cached`) or in every step (`fresh`), or a PyTorch
program computes them in every step, without gradients (`peer`). Another update trains all blocks
(`unfrozen`), which shows the gain of freezing itself. Ratios are to `cached`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from step_time import HAS_TORCH, Case, side

from mexjax import machine

CASE = Case("micro_au_clip", "paper", 8)
WAYS = {
    "cached": ("jax", ""),
    "fresh": ("jax", "train.is_frozen_part_cached=False"),
    "unfrozen": ("jax", "model.trainable_from=0"),
    "peer": ("torch", ""),
}


def main() -> None:
    """Runs the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--folds", type=int, default=4, help="folds in one program; 0: not timed")
    parser.add_argument("--quick", action="store_true", help="two steps, no folds")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.steps, arguments.folds = 1, 2, 0
    ways = {name: way for name, way in WAYS.items() if way[0] == "jax" or HAS_TORCH}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    folds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(arguments.rounds):
            for name, (library, settings) in ways.items():
                programs = cache if library == "jax" else ""
                runs[name].append(side(library, CASE, arguments.steps, programs, settings))
            if arguments.folds:
                run = side("jax", CASE, arguments.steps, cache, folds=arguments.folds)
                folds.append(run)
    seconds = {n: statistics.median(r["median_s"] for r in rounds) for n, rounds in runs.items()}
    record: dict[str, Any] = {
        "command": f"python {' '.join(sys.argv)}",
        "environment": machine.environment(),
        "case": CASE.name,
        "seconds": seconds,
        "over_cached": {name: value / seconds["cached"] for name, value in seconds.items()},
        "runs": runs,
    }
    if folds:
        each = statistics.median(r["median_s"] for r in folds) / arguments.folds
        record["folds"] = {"count": arguments.folds, "runs": folds}
        record["folds"]["over_single"] = each / seconds["cached"]
    table = Table("step", "seconds", "over cached")
    for name, value in seconds.items():
        table.add_row(name, f"{value:.3f}", f"{record['over_cached'][name]:.2f}")
    if folds:
        ratio = record["folds"]["over_single"]
        table.add_row(f"a fold of {arguments.folds} in one program", "", f"{ratio:.2f}")
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
