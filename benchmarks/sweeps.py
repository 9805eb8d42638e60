"""Trials of a sweep in one program beside the same runs one after another.

    python benchmarks/sweeps.py --json=benchmarks/results/DATE-MACHINE-COMMIT-sweeps.json

Three seeds with four learning rates of one fold are twelve runs. They are trained by one command,
trial by trial (`loop`) and all in one program (`vmap`), and by twelve commands. All are whole
processes, imports and reports included, with a filled compilation cache, and the scores of the
three must agree.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from study_time import run

from mexjax import machine

SEEDS = (0, 1, 2)
RATES = (3e-4, 1e-3, 2e-3, 3e-3)
OPTIONS = (
    "folds.only=synthetic/01",
    "has_progress=False",
    "report.has_figures=False",
    "eval.every_epochs=999",
)
COMMAND = ["-m", "mexjax.main"]


def _options(options: list[str]) -> list[str]:
    return [f"--config.{option}" for option in [*OPTIONS, *options]]


def sweep(card: str, options: list[str], strategy: list[str], folder: Path) -> dict[str, Any]:
    """All runs by one command: seconds, programs and scores."""
    options = [
        *(*options, *strategy),
        f"sweep.seeds={','.join(map(str, SEEDS))}",
        f"sweep.values.train.learning_rate={','.join(map(str, RATES))}",
    ]
    command = [*COMMAND, f"--config={card}", f"--workdir={folder}", *_options(options)]
    seconds, _ = run(command, JAX_COMPILATION_CACHE_DIR=str(folder.parent / "cache"))
    results = json.loads((folder / "sweep_results.json").read_text(encoding="utf-8"))
    state = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    scores = [row["metrics"]["last"]["acc"]["mean"] for row in results["settings"]]
    return {"process_s": seconds, "num_programs": len(state["sizes"]), "acc": scores}


def one_by_one(
    card: str, options: list[str], folder: Path, *, seeds: int = len(SEEDS), rates: int = len(RATES)
) -> dict[str, Any]:
    """The same runs, or the first ones, by a command each."""
    total, scores = 0.0, []
    for rate in RATES[:rates]:
        by_seed = []
        for seed in SEEDS[:seeds]:
            workdir = folder / f"{rate}_{seed}"
            own = [f"seed={seed}", f"train.learning_rate={rate}", "folds.strategy=loop"]
            command = [*COMMAND, f"--config={card}", f"--workdir={workdir}"]
            command += _options([*options, *own])
            seconds, _ = run(command, JAX_COMPILATION_CACHE_DIR=str(folder.parent / "cache"))
            results = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
            by_seed.append(results["metrics"]["last"]["acc"])
            total += seconds
        scores.append(float(np.mean(by_seed)))
    return {"process_s": total, "num_programs": 1, "acc": scores}


STRATEGIES = {
    "loop": ["folds.strategy=loop"],
    "vmap": ["folds.strategy=vmap", f"folds.per_chunk={len(SEEDS) * len(RATES)}"],
}


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--card", default="configs/fdp.py")
    parser.add_argument("--quick", action="store_true", help="one epoch")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    options = ["train.num_epochs=1"] if arguments.quick else []
    record: dict[str, Any] = {
        "command": f"python {' '.join(sys.argv)}",
        "card": arguments.card,
        "num_trials": len(SEEDS) * len(RATES),
        "environment": machine.environment(),
        "load_before": os.getloadavg()[0],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for which, strategy in STRATEGIES.items():
            for time in ("cold", "warm"):  # the first one fills the cache
                record[which] = sweep(arguments.card, options, strategy, folder / f"{which}_{time}")
            print(which, json.dumps(record[which]), flush=True)
        one_by_one(arguments.card, ["train.num_epochs=1"], folder / "first", seeds=1, rates=1)
        record["one_by_one"] = one_by_one(arguments.card, options, folder / "one")
        print("one by one", json.dumps(record["one_by_one"]), flush=True)
    for which in STRATEGIES:
        record[which]["ratio"] = record[which]["process_s"] / record["one_by_one"]["process_s"]
        worst = np.abs(np.subtract(record[which]["acc"], record["one_by_one"]["acc"])).max()
        record[which]["largest_difference_of_acc"] = float(worst)
        print(f"{which}: one command / twelve {record[which]['ratio']:.2f}")
    record["load_after"] = os.getloadavg()[0]
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
