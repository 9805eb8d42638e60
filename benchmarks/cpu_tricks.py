"""The gain of each CPU trick of `docs/performance.md`: time and memory with it and without it.

    python benchmarks/cpu_tricks.py --json=benchmarks/results/DATE-MACHINE-COMMIT-tricks.json
    python benchmarks/cpu_tricks.py --quick

Both sides of a comparison are compiled in one process and timed in turn. The least processor time
of a side counts, which other processes disturb least; the shortest wall time is recorded beside it.
On a busy machine give it one core, `taskset -c 0 python ...`: where threads wait for each other, a
loop of small blocks suffers most. Settings of the heap belong to a process, so they are timed in
processes of their own, in turn. Memory is XLA's temporary memory of the program.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cpu_trick_cases import UNORDERED, gradient, operation_cases, replaced
from rich.console import Console
from rich.table import Table

from mexjax import load_config, machine
from mexjax.cpu import heap
from mexjax.ops.conv import LOWERINGS, choice
from mexjax.ops.conv.geometry import OPERATIONS, Geometry, Layer
from mexjax.train import cost, plan
from mexjax.train.programs import compile_programs, device_data
from mexjax.train.study import make_study

PARTS = ("operations", "convolutions", "heaps", "steps")
HEAPS = ("untouched", "calling thread", "kept, large pages", "hole")
Times = dict[str, list[tuple[float, float]]]


def compare(calls: dict[str, Callable[[], Any]], rounds: int) -> Times:
    """Seconds of processor and of the wall of each call; the calls take turns.

    A first call of each does not count.
    """
    seconds: Times = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            start, used = time.perf_counter(), time.process_time()
            jax.block_until_ready(call())
            if number:
                used = time.process_time() - used
                seconds[name].append((used, time.perf_counter() - start))
    return seconds


def row(trick: str, case: str, seconds: Times, temp_bytes: dict[str, int]) -> dict[str, Any]:
    """One comparison of the results file; the sides are named `with` and `without`."""
    entry: dict[str, Any] = {"trick": trick, "case": case}
    for side in ("with", "without"):
        entry[f"{side}_cpu_s"], entry[f"{side}_s"] = map(min, zip(*seconds[side], strict=True))
        entry[f"{side}_temp_bytes"] = temp_bytes[side]
    return entry | {
        "cpu_ratio": entry["without_cpu_s"] / entry["with_cpu_s"],
        "time_ratio": entry["without_s"] / entry["with_s"],
    }


# ---- single operations ---------------------------------------------------------------------------


def operations(rounds: int, scale: int) -> list[dict[str, Any]]:
    """The rows of `operation_cases`."""
    rows = []
    for trick, case, first, second, contexts, shapes in operation_cases(scale):
        rng = np.random.default_rng(0)
        arrays = [jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes]
        compiled = {}
        for name, function, context in zip(
            ("with", "without"), (first, second), contexts, strict=True
        ):
            jax.clear_caches()
            with context():
                compiled[name] = jax.jit(gradient(function)).lower(*arrays).compile()
        calls = {name: lambda f=f, a=arrays: f(*a) for name, f in compiled.items()}
        temp_bytes = {name: cost.temporary_bytes(f) for name, f in compiled.items()}
        rows.append(row(trick, case, compare(calls, rounds), temp_bytes))
        show_row(rows[-1])
    return rows


# ---- convolutions --------------------------------------------------------------------------------

# No row of the table has these: rules choose them.
BY_RULE = {
    "patchify": Layer(
        Geometry((224, 224), (4, 4), (4, 4), ((0, 0), (0, 0))), 16, 3, 96, "float32", "cpu"
    ),
    "merge64": Layer(
        Geometry((28, 28), (3, 3), (1, 1), ((1, 1), (1, 1)), 24), 16, 120, 120, "float32", "cpu"
    ),
}


def convolutions(rounds: int, most_gflop: float) -> list[dict[str, Any]]:
    """Each lowering beside XLA's convolution, on the largest operation that it is chosen for."""
    table = json.loads(choice.TABLE.read_text(encoding="utf-8"))["rows"]
    rows = []
    for name in LOWERINGS:
        if name == "native":
            continue
        layers = [(choice.layer_from_json(r["layer"]), op) for r in table for op in OPERATIONS
                  if r[op] == name]  # fmt: skip
        layers = [pair for pair in layers if pair[0].flops <= most_gflop * 1e9]
        if name in BY_RULE:
            layers = [(BY_RULE[name], op) for op in OPERATIONS]
        if not layers:
            continue
        layer, operation = max(layers, key=lambda pair: pair[0].flops)
        g = layer.geometry
        shapes = {
            "x": (layer.batch, *g.size, layer.channels),
            "w": (*g.kernel, layer.channels // g.groups, layer.out),
            "dy": (layer.batch, *g.out_size, layer.out),
        }
        keys = {"forward": "x w", "input_gradient": "dy w", "weight_gradient": "x dy"}
        rng = np.random.default_rng(0)
        pair = [
            jnp.asarray(rng.standard_normal(shapes[k], np.float32)) for k in keys[operation].split()
        ]
        compiled = {}
        for side, lowering in (("with", name), ("without", "native")):
            run = functools.partial(choice.compute, operation, g=g, name=lowering)
            compiled[side] = jax.jit(run).lower(*pair).compile()
        calls = {side: lambda f=f, p=pair: f(*p) for side, f in compiled.items()}
        temp_bytes = {side: cost.temporary_bytes(f) for side, f in compiled.items()}
        groups = f", {g.groups} groups" if g.groups > 1 else ""
        case = (
            f"{operation.replace('_', ' ')} of {layer.batch} x {g.size[0]}x{g.size[1]} x"
            f" {layer.channels} to {layer.out}, {g.kernel[0]}x{g.kernel[1]}, stride {g.stride[0]}"
            f"{groups}"
        )
        seconds = compare(calls, rounds)
        rows.append(row(f"convolution: {name}", case, seconds, temp_bytes))
        show_row(rows[-1])
    return rows


# ---- whole steps ---------------------------------------------------------------------------------


class Step:
    """A training step of one fold, compiled as a run compiles it."""

    def __init__(self, card: str, overrides: dict[str, Any]) -> None:
        jax.clear_caches()
        config = load_config(card, {"has_progress": False, "folds.per_chunk": 1} | overrides)
        study = make_study(config)
        self.compiled = compile_programs(study, device_data(study), per_device=1)
        folds = plan.pad_folds(plan.take_folds(study.plan, slice(0, 1)), 1)
        self.arguments = jax.device_put((folds, device_data(study)))

    def start(self) -> None:
        """Allocates the state."""
        self.carry = jax.block_until_ready(self.compiled.init(*self.arguments))

    def __call__(self) -> Any:
        """One step."""
        self.carry = self.compiled.train(self.carry, *self.arguments)
        return self.carry


def steps(card: str, rounds: int) -> list[dict[str, Any]]:
    """Tricks that only a whole step shows."""
    sides = {"with": Step(card, {})}
    with replaced(UNORDERED):
        sides["order of the program"] = Step(card, {})
    sides["fused update"] = Step(card, {"train.is_update_fused": False})
    with choice.use_lowering("native"):
        sides["all convolution lowerings"] = Step(card, {})
    rows = []
    for trick in list(sides)[1:]:
        pair = {"with": sides["with"], "without": sides[trick]}
        for step in pair.values():
            step.start()
        temp_bytes = {
            side: cost.temporary_bytes(step.compiled.train) for side, step in pair.items()
        }
        rows.append(row(trick, f"training step of {card}", compare(pair, rounds), temp_bytes))
        show_row(rows[-1])
    return rows


def heap_side(card: str, name: str, rounds: int) -> dict[str, float]:
    """Times a training step, in its own process, with the settings of the heap up to `name`."""
    level = HEAPS.index(name)
    if level >= 1:
        heap.run_in_calling_thread()
    machine.use_compilation_cache()
    with heap.heap_for_training(level >= 2) as training:
        step = Step(card, {})
        kept_heap = training.keep_freed_memory()
        before = cost.peak_bytes()
        step.start()
        if level >= 3:
            kept_heap.reserve_hole(cost.temporary_bytes(step.compiled.train))
        cpu_s, wall_s = map(min, zip(*compare({"step": step}, rounds)["step"], strict=True))
    return {
        "step_cpu_s": cpu_s,
        "step_s": wall_s,
        "peak_bytes": cost.peak_bytes(),
        "peak_bytes_before": before,
    }


def heaps(card: str, rounds: int, turns: int) -> list[dict[str, Any]]:
    """Times every setting of the heap in processes of its own, in turn."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in HEAPS}
    for _ in range(turns):
        for name in HEAPS:
            command = [sys.executable, __file__, f"--heap={name}", f"--cards={card}",
                       f"--rounds={rounds}"]  # fmt: skip
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            runs[name].append(json.loads(text.splitlines()[-1]))
    rows = []
    for name, values in runs.items():
        step_s = min(value["step_cpu_s"] for value in values)
        peak = max(value["peak_bytes"] for value in values)
        rows.append({"heap": name, "card": card, "step_cpu_s": step_s, "peak_bytes": peak,
                     "runs": values})  # fmt: skip
        print(
            f"{card}, heap {name}: {1e3 * step_s:.0f} ms, peak {peak / 2**30:.2f} GiB", flush=True
        )
    return rows


def show_row(entry: dict[str, Any]) -> None:
    """Prints a row as one line as soon as it is measured."""
    print(
        f"{entry['trick']} ({entry['case']}): {1e3 * entry['without_cpu_s']:.1f} ms without,"
        f" {1e3 * entry['with_cpu_s']:.1f} with, x{entry['cpu_ratio']:.2f};"
        f" {entry['without_temp_bytes'] / 2**20:.0f} MiB without,"
        f" {entry['with_temp_bytes'] / 2**20:.0f} with",
        flush=True,
    )


def main() -> None:
    """Runs the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="small arrays, one card, no heaps")
    parser.add_argument("--cards", nargs="*", default=["configs/fdp.py", "configs/tsfmicro.py"])
    parser.add_argument(
        "--parts", nargs="*", default=["operations", "convolutions", "heaps", "steps"]
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--turns", type=int, default=2, help="processes of each heap setting")
    parser.add_argument("--heap", choices=HEAPS, default=None, help="one side, as one JSON line")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.heap:
        print(json.dumps(heap_side(arguments.cards[0], arguments.heap, arguments.rounds)))
        return
    rounds = 1 if arguments.quick else arguments.rounds
    record: dict[str, Any] = {
        "command": f"python {' '.join(sys.argv)}",
        "environment": machine.environment(),
        "cores": machine.num_cores(),
        "load_before": os.getloadavg()[0],
        "rows": [],
        "heaps": [],
    }
    heap.run_in_calling_thread()
    machine.use_compilation_cache()
    with heap.heap_for_training() as training:
        training.keep_freed_memory()
        for part in arguments.parts:
            if part == "operations":
                record["rows"] += operations(rounds, 8 if arguments.quick else 1)
            elif part == "convolutions":
                record["rows"] += convolutions(rounds, 0.5 if arguments.quick else 8.0)
            elif not arguments.quick:
                for card in arguments.cards:
                    if part == "steps":
                        record["rows"] += steps(card, rounds)
                    else:
                        record["heaps"] += heaps(card, rounds, arguments.turns)
            record["load_after"] = os.getloadavg()[0]
            if arguments.json:  # an interrupted measurement keeps its parts
                arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    table = Table("trick", "processor time without / with", "memory without / with")
    for entry in record["rows"]:
        memory = entry["with_temp_bytes"] and entry["without_temp_bytes"] / entry["with_temp_bytes"]
        table.add_row(entry["trick"], f"{entry['cpu_ratio']:.2f}", f"{memory:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
