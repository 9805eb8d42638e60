"""A whole leave-one-subject-out study beside the same study in sequential PyTorch.

    python benchmarks/study_time.py --json=benchmarks/results/DATE-MACHINE-COMMIT-study_time.json

mexjax is timed as whole processes, imports and report included, under each strategy that
`--strategies` names, with an empty compilation cache (cold) and again with the filled one (warm);
`shard` on a CPU splits it into as many devices as it has cores. PyTorch is timed from after its
imports to the last prediction, in the faster of its two memory layouts. Both evaluate once, at the
end. Scores are printed beside the times: both sides must have learnt the same.

Seconds of a busy machine say little. Processor seconds of both sides are recorded too; they compare
well on one core, where no thread waits for another:

    taskset -c 0 python benchmarks/study_time.py --strategies loop --set train.num_epochs=8
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mexjax import machine

HERE = Path(__file__).resolve().parent


def run(command: list[str], **environment: str) -> tuple[float, float, str]:
    """Seconds, processor seconds and standard output of a process."""
    root = HERE.parent
    paths = os.pathsep.join([str(root), str(HERE)])
    start, cpu_start = time.perf_counter(), _processor_seconds()
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=root,
        env=dict(os.environ, PYTHONPATH=paths, **environment),
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-500:]}{done.stderr[-2000:]}")
    return time.perf_counter() - start, _processor_seconds() - cpu_start, done.stdout


def _processor_seconds() -> float:
    """Processor seconds of all processes that ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


# Options of a strategy. A CPU gains from one fold a program; `vmap` is timed with two.
STRATEGIES = {
    "loop": ["folds.strategy=loop"],
    "vmap": ["folds.strategy=vmap", "folds.per_chunk=2"],
    "shard": ["folds.strategy=shard", "folds.per_chunk=1"],
}


def run_mexjax(card: str, options: list[str], folder: Path, cache: Path) -> dict[str, Any]:
    """Runs the command with its report, without figures, and with one evaluation."""
    command = ["-m", "mexjax.main", f"--config={card}", f"--workdir={folder}", "--overwrite"]
    options = [*options, "has_progress=False", "report.has_figures=False", "eval.every_epochs=999"]
    command += [f"--config.{option}" for option in options]
    environment = {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    if "folds.strategy=shard" in options:
        environment["JAX_NUM_CPU_DEVICES"] = str(len(os.sched_getaffinity(0)))
    seconds, processor_s, _ = run(command, **environment)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return {
        "process_s": seconds,
        "process_cpu_s": processor_s,
        "uf1": results["metrics"]["last"]["uf1"],
        "timing": results["timing"],
    }


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--card", default="configs/fdp.py")
    parser.add_argument("--quick", action="store_true", help="two folds, two epochs")
    parser.add_argument("--strategies", nargs="*", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--set", nargs="*", default=[], help="more overrides, key=value")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    options = arguments.set
    if arguments.quick:
        options += ["folds.only=synthetic/01,synthetic/02", "train.num_epochs=2"]
    record: dict[str, Any] = {
        "command": f"python {' '.join(sys.argv)}",
        "card": arguments.card,
        "options": options,
        "environment": machine.environment(),
        "num_threads": machine.num_cores(),
        "load_before": os.getloadavg()[0],
    }
    record["mexjax"], record["torch"] = {}, {}
    for strategy in arguments.strategies:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            record["mexjax"][strategy] = {
                which: run_mexjax(
                    arguments.card,
                    options + STRATEGIES[strategy],
                    folder / which,
                    folder / "cache",
                )
                for which in ("cold", "warm")
            }
        print(strategy, json.dumps(record["mexjax"][strategy]), flush=True)
    for layout in ("contiguous", "channels_last"):
        command = ["-m", "torch_peer.loso", f"--card={arguments.card}", f"--layout={layout}"]
        command += ["--set", *options] if options else []
        *_, output = run(command, JAX_PLATFORMS="cpu")
        record["torch"][layout] = json.loads(output.splitlines()[-1])
        print("torch", json.dumps(record["torch"][layout]), flush=True)
    best, least = (
        min(run[key] for run in record["torch"].values()) for key in ("total_s", "total_cpu_s")
    )
    for strategy, runs in record["mexjax"].items():
        for which, times in runs.items():
            times["ratio"] = times["process_s"] / best
            times["cpu_ratio"] = times["process_cpu_s"] / least
            print(
                f"{strategy}, {which}: mexjax / PyTorch {times['ratio']:.2f} in time,"
                f" {times['cpu_ratio']:.2f} in processor time"
            )
    record["load_after"] = os.getloadavg()[0]
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
