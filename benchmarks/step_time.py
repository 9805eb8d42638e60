"""Training steps beside PyTorch: time, memory, and what several folds in one program cost.

    python benchmarks/step_time.py --json=benchmarks/results/DATE-MACHINE-COMMIT-step.json
    python benchmarks/step_time.py --quick

A step is all there is between two batches: gather, augmentation, targets, forward, backward,
update. Both sides run in processes of their own with as many threads, one after the other, in as
many rounds as `--rounds` says; PyTorch in both memory layouts, of which the faster counts. Ratios
are mexjax / PyTorch: below one, mexjax is faster or smaller.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mexjax import runtime

HERE = Path(__file__).resolve().parent
HAS_TORCH = importlib.util.find_spec("torch") is not None
# The released code freezes its norms after the first epoch; both sides are timed before that.
OFFICIAL = "model.freeze_bn_after_epoch_1=False data.split_scale=none"
CASES = (
    ("FDP official, batch 36", "configs/fdp.py:official", 36),
    ("FDP official, batch 8", "configs/fdp.py:official", 8),
    ("FDP paper, batch 36", "configs/fdp.py:paper", 36),
    ("FDP paper_14m, batch 36", "configs/fdp.py:paper_14m", 36),
    ("FDP tiny", "configs/fdp.py", 0),
)
FOLD_CASES = (
    ("FDP paper_14m, batch 8", "configs/fdp.py:paper_14m", 8),
    ("FDP tiny", "configs/fdp.py", 0),
)


def side(name: str, card: str, batch: int, steps: int, **options: Any) -> dict[str, Any]:
    """Run `side.py` in a process and read its line."""
    command = [sys.executable, str(HERE / "side.py"), name, f"--card={card}", f"--batch={batch}"]
    command += [f"--steps={steps}", *(f"--{key}={value}" for key, value in options.items())]
    if card.endswith(":official"):
        command += ["--set", *OFFICIAL.split()]
    root = str(HERE.parent)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([root, str(HERE)]))
    if name == "torch":
        environment["JAX_PLATFORMS"] = "cpu"  # it reads the data with mexjax: not on its GPU
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def median_of(rounds: list[dict[str, Any]], key: str = "median_s") -> float:
    """Median over rounds of one of their figures."""
    return statistics.median(r[key] for r in rounds)


def measure(case: tuple[str, str, int], rounds: int, steps: int) -> dict[str, Any]:
    """Both sides of one case, in turn."""
    name, card, batch = case
    ours: list[dict[str, Any]] = []
    layouts = ("contiguous", "channels_last") if HAS_TORCH else ()
    theirs: dict[str, list[dict[str, Any]]] = {layout: [] for layout in layouts}
    for _ in range(rounds):
        ours.append(side("jax", card, batch, steps))
        for layout, found in theirs.items():
            found.append(side("torch", card, batch, steps, layout=layout))
    row = {"name": name, "card": card, "batch": batch, "mexjax": ours, "torch": theirs}
    if not theirs:
        return row
    best = min(theirs, key=lambda layout: median_of(theirs[layout]))
    memory = [median_of(r, "peak_bytes") for r in (ours, theirs[best])]
    return row | {
        "torch_layout": best,
        "time_ratio": median_of(ours) / median_of(theirs[best]),
        "memory_ratio": memory[0] / memory[1],
    }


def measure_folds(
    case: tuple[str, str, int], counts: list[int], rounds: int, steps: int
) -> dict[str, Any]:
    """One program of F folds against F programs of one, in time and in compilation."""
    name, card, batch = case
    by_count: dict[int, list[dict[str, Any]]] = {1: [], **{count: [] for count in counts}}
    for _ in range(rounds):
        for count, found in by_count.items():
            found.append(side("jax", card, batch, steps, folds=count))
    single = by_count[1]
    return {
        "name": name,
        "card": card,
        "batch": batch,
        "folds": by_count,
        "time_ratio": {
            count: median_of(by_count[count]) / (count * median_of(single)) for count in counts
        },
        "compile_ratio": {
            count: median_of(by_count[count], "compile_s") / median_of(single, "compile_s")
            for count in counts
        },
    }


def show(record: dict[str, Any]) -> None:
    """Print both tables."""
    console = Console(width=120)
    table = Table("case", "mexjax s", "PyTorch s", "ratio", "memory ratio", title="training step")
    for row in record["cases"]:
        ours = f"{median_of(row['mexjax']):.3f}"
        if not row["torch"]:
            table.add_row(row["name"], ours, "not installed", "", "")
            continue
        theirs = median_of(row["torch"][row["torch_layout"]])
        table.add_row(
            row["name"],
            ours,
            f"{theirs:.3f} ({row['torch_layout']})",
            f"[bold]{row['time_ratio']:.2f}[/bold]",
            f"{row['memory_ratio']:.2f}",
        )
    console.print(table)
    folds = Table("case", "folds", "time / single folds", "compile / one", title="folds")
    for row in record["folds"]:
        for count, ratio in row["time_ratio"].items():
            folds.add_row(
                row["name"], str(count), f"{ratio:.2f}", f"{row['compile_ratio'][count]:.2f}"
            )
    console.print(folds)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="the tiny network, one round")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--folds", type=int, nargs="*", default=[4])
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    rounds = 1 if arguments.quick else arguments.rounds
    only = "tiny" if arguments.quick else arguments.only
    record: dict[str, Any] = {
        "command": f"python {' '.join(sys.argv)}",
        "environment": runtime.environment(),
        "num_threads": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "cases": [],
        "folds": [],
    }

    def keep() -> None:
        if arguments.json:
            arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    for case in (c for c in CASES if only in c[0]):
        record["cases"].append(measure(case, rounds, arguments.steps))
        print(case[0], "done", flush=True)
        keep()
    for case in (c for c in FOLD_CASES if only in c[0]):
        record["folds"].append(measure_folds(case, arguments.folds, rounds, arguments.steps))
        keep()
    record["load_after"] = os.getloadavg()[0]
    keep()
    show(record)


if __name__ == "__main__":
    main()
