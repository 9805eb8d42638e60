"""Training step and inference beside PyTorch: time, memory, and several folds in one program.

    python benchmarks/step_time.py --json=benchmarks/results/DATE-MACHINE-COMMIT-step.json
    python benchmarks/step_time.py --model=tsfmicro --preset=official --batch=4 --json=FILE
    python benchmarks/step_time.py --quick

A step is all the work between two batches: gather, augmentation, targets, forward, backward,
update. Both sides run in processes of their own with as many threads, one after the other, in as
many rounds as `--rounds` says. mexjax reads its programs from the cache on disk, which a process
before has filled and timed (`compile_s`), as every run after the first does. PyTorch runs in both
memory layouts and, with `--compile`, also through `torch.compile`; the fastest counts. Ratios are
mexjax / PyTorch: below one, mexjax is faster or smaller.

The peer is the project's own network in PyTorch, which a test holds equal in outputs, losses and
gradients. `--peer-path=DIR` times the network of a checkout of the released code instead, inside
the same step: without its prints, its copies to the host and its data loader.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from mexjax import machine

HERE = Path(__file__).resolve().parent
HAS_TORCH = importlib.util.find_spec("torch") is not None
# The released code freezes its norms after the first epoch; both sides are timed before that.
SETTINGS = {
    ("fdp", "official"): "model.freeze_bn_after_epoch_1=False data.split_scale=none",
    # The embedded faces are as large as the paper's; few suffice, since a step has the same batch.
    ("ac4au", "scratch"): "data.name=synthetic_sets data.collection.scale=0.05",
    # Times do not depend on the values of the weights.
    ("micro_au_clip", "paper"): "model.weights=random data.synthetic.num_clips=48",
}


class Case(NamedTuple):
    """A case to time; batch 0 is the card's."""

    model: str
    preset: str
    batch: int

    @property
    def card(self) -> str:
        """The recipe card."""
        return f"configs/{self.model}.py{':' + self.preset if self.preset else ''}"

    @property
    def name(self) -> str:
        """The name of the case in tables."""
        batch = f", batch {self.batch}" if self.batch else ""
        return f"{self.model.upper()} {self.preset or 'tiny'}{batch}"


CASES = (
    Case("fdp", "official", 36),
    Case("fdp", "official", 8),
    Case("fdp", "paper", 36),
    Case("fdp", "paper_14m", 36),
    Case("fdp", "", 0),
    Case("ac4au", "scratch", 32),
    Case("ac4au", "", 0),
    Case("micro_au_clip", "paper", 8),
    Case("micro_au_clip", "", 0),
    Case("tsfmicro", "official", 4),
    Case("tsfmicro", "official", 16),
    Case("gamdss", "official", 4),
    Case("gamdss", "official", 16),
)
# The number of folds in a program; AC4AU leaves out one of six datasets.
FOLD_CASES = {Case("fdp", "paper_14m", 8): 4, Case("fdp", "", 0): 4, Case("ac4au", "", 0): 6}


def side(
    name: str,
    case: Case,
    steps: int,
    cache: str = "",
    settings: str = "",
    **options: Any,
) -> dict[str, Any]:
    """Runs `step_process.py` in a process and reads its line.

    Args:
      name: `jax` or `torch`.
      case: the card and its batch.
      steps: timed steps; 0 compiles only.
      cache: folder of compiled programs.
      settings: more overrides of the card, `key=value` with blanks between.
      options: other options of `step_process.py`.

    Raises:
      SystemExit: the process failed; its last words are in the message.
    """
    command = [sys.executable, str(HERE / "step_process.py"), name, f"--card={case.card}"]
    command += [f"--batch={case.batch}", f"--steps={steps}"]
    command += [f"--{key}={value}" for key, value in options.items()]
    settings = f"{SETTINGS.get((case.model, case.preset), '')} {settings}".split()
    if settings:
        command += ["--set", *settings]
    root = str(HERE.parent)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([root, str(HERE)]))
    if cache:
        environment |= {"JAX_COMPILATION_CACHE_DIR": cache}
    if name == "torch":
        environment["JAX_PLATFORMS"] = (
            "cpu"  # it reads the data with mexjax, which must leave the GPU alone
        )
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def median_of(rounds: list[dict[str, Any]], key: str = "median_s") -> float:
    """Median over rounds of one of their figures."""
    return statistics.median(r[key] for r in rounds)


def measure(
    case: Case, rounds: int, steps: int, variants: dict[str, dict[str, Any]], cache: str
) -> dict[str, Any]:
    """Both sides of one case, in turn.

    Args:
      case: the card and its batch.
      rounds: number of runs of each side.
      steps: timed steps of a run.
      variants: options of `step_process.py torch` by name; {} times mexjax alone.
      cache: folder of compiled programs.

    Returns:
      `mexjax_s`, `peer_s`, `ratio` (of the fastest variant), the same of `inference`,
      `memory_ratio`, and every run under `mexjax` and `peers`.
    """
    compiling = side("jax", case, 0, cache)
    ours: list[dict[str, Any]] = []
    peers: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
    for _ in range(rounds):
        ours.append(side("jax", case, steps, cache))
        for name, runs in peers.items():
            runs.append(side("torch", case, steps, **variants[name]))
    row = {
        "name": case.name,
        **case._asdict(),
        "card": case.card,
        "mexjax_s": median_of(ours),
        "compile_s": compiling["compile_s"],
        "inference": {"mexjax_s": median_of(ours, "inference_s")},
        "mexjax": ours,
        "peers": peers,
    }
    if not peers:
        return row | {"peer_s": None, "ratio": None}
    best = min(peers, key=lambda name: median_of(peers[name]))
    quick = min(peers, key=lambda name: median_of(peers[name], "inference_s"))
    row["peer"], row["peer_s"] = best, median_of(peers[best])
    row["ratio"] = row["mexjax_s"] / row["peer_s"]
    row["memory_ratio"] = median_of(ours, "peak_bytes") / median_of(peers[best], "peak_bytes")
    inference = row["inference"]
    inference["peer"], inference["peer_s"] = quick, median_of(peers[quick], "inference_s")
    inference["ratio"] = inference["mexjax_s"] / inference["peer_s"]
    return row


def measure_folds(
    case: Case, counts: list[int], rounds: int, steps: int, cache: str, *, has_peer: bool
) -> dict[str, Any]:
    """Times one program of F folds against F programs of one, and their compilation.

    With a peer, `torch.func.vmap` over F networks is also timed against F steps of one.
    """
    by_count: dict[int, list[dict[str, Any]]] = {1: [], **{count: [] for count in counts}}
    peers: dict[int, list[dict[str, Any]]] = {count: [] for count in by_count} if has_peer else {}
    compile_s = {
        count: side("jax", case, 0, f"{cache}/folds", folds=count)["compile_s"]
        for count in by_count
    }
    for _ in range(rounds):
        for count, runs in by_count.items():
            runs.append(side("jax", case, steps, f"{cache}/folds", folds=count))
        for count, runs in peers.items():
            runs.append(side("torch", case, steps, folds=count))

    def per_fold(runs: dict[int, list[dict[str, Any]]]) -> dict[int, float]:
        return {n: median_of(runs[n]) / (n * median_of(runs[1])) for n in counts if runs}

    return {
        "name": case.name,
        **case._asdict(),
        "card": case.card,
        "folds": by_count,
        "peer_folds": peers,
        "time_ratio": per_fold(by_count),
        "peer_time_ratio": per_fold(peers),
        "compile_s": compile_s,
        "compile_ratio": {n: compile_s[n] / compile_s[1] for n in counts},
    }


def show(record: dict[str, Any]) -> None:
    """Prints both tables."""
    console = Console(width=120)
    table = Table("case", "what", "mexjax s", "PyTorch s", "ratio", "memory ratio")
    for row in record["cases"]:
        for what, times in (("training step", row), ("inference", row["inference"])):
            cells = ["not run", "", ""]
            if times.get("peer_s"):
                memory = f"{row['memory_ratio']:.2f}" if times is row else ""
                cells = [f"{times['peer_s']:.3f} ({times['peer']})", f"{times['ratio']:.2f}"]
                cells += [memory]
            table.add_row(row["name"], what, f"{times['mexjax_s']:.3f}", *cells)
    console.print(table)
    if not record["folds"]:
        return
    folds = Table("case", "folds", "time / single folds", "compile / one", "torch.func.vmap")
    for row in record["folds"]:
        for count, ratio in row["time_ratio"].items():
            by_torch = row["peer_time_ratio"].get(count)
            folds.add_row(
                row["name"],
                str(count),
                f"{ratio:.2f}",
                f"{row['compile_ratio'][count]:.2f}",
                f"{by_torch:.2f}" if by_torch else "not run",
            )
    console.print(folds)


def peer_variants(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The ways PyTorch is run; prints the parts that are not run, with the reason."""
    if arguments.peer == "none":
        return {}
    if not HAS_TORCH:
        print("PyTorch is not installed: its training step, inference and folds are not run.")
        return {}
    variants: dict[str, dict[str, Any]] = {
        "contiguous": {"layout": "contiguous"},
        "channels last": {"layout": "channels_last"},
    }
    if arguments.compile:
        variants["channels last, compiled"] = {"layout": "channels_last", "compiled": "yes"}
    if arguments.peer_path:
        variants = {
            name: options | {"peer-path": arguments.peer_path} for name, options in variants.items()
        }
    return variants


def chosen_cases(arguments: argparse.Namespace) -> tuple[list[Case], dict[Case, list[int]]]:
    """Cases to time, and the numbers of folds of those that are timed with several."""
    if arguments.model:
        case = Case(arguments.model, arguments.preset, arguments.batch)
        return [case], {case: arguments.folds} if arguments.folds else {}
    if arguments.preset or arguments.batch:
        raise SystemExit("--preset and --batch belong to a --model: add --model=fdp.")
    words = ["tiny"] if arguments.quick else arguments.only

    def is_meant(case: Case) -> bool:
        return any(word in case.name for word in words)

    folds = {case: [count] for case, count in FOLD_CASES.items() if is_meant(case)}
    if arguments.folds is not None:
        folds = {case: arguments.folds for case in folds if arguments.folds}
    cases = [case for case in CASES if is_meant(case)]
    if not cases and not folds:
        names = ", ".join(case.name for case in CASES)
        raise SystemExit(f"No case has one of {words} in its name. Cases are: {names}.")
    return cases, folds


def main() -> None:
    """Runs the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="", help="one case: a recipe card, such as fdp")
    parser.add_argument("--preset", default="", help="of --model; none: the card's default")
    parser.add_argument("--batch", type=int, default=0, help="of --model; 0: the card's")
    parser.add_argument("--peer", default="torch", choices=("torch", "none"))
    parser.add_argument("--peer-path", default="", help="a checkout of the released code")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile")
    parser.add_argument("--quick", action="store_true", help="the tiny network, one round")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="cases whose name contains one of these"
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--folds", type=int, nargs="*", default=None, help="default: 4; AC4AU: 6")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--append", action="store_true", help="keep the other cases of --json")
    arguments = parser.parse_args()
    rounds = 1 if arguments.quick else arguments.rounds
    variants = peer_variants(arguments)
    cases, fold_cases = chosen_cases(arguments)
    record: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "environment": machine.environment(),
        "num_threads": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "cases": [],
        "folds": [],
    }

    if arguments.append and arguments.json and arguments.json.exists():
        before = json.loads(arguments.json.read_text(encoding="utf-8"))
        if before["environment"] != record["environment"]:
            raise SystemExit(
                f"{arguments.json} was measured on {before['environment']}; this is"
                f" {record['environment']}. Times of both in one file cannot be told apart: choose"
                " another --json."
            )
        for key, new in (("cases", cases), ("folds", fold_cases)):
            names = [case.name for case in new]
            record[key] = [row for row in before[key] if row["name"] not in names]

    def keep() -> None:
        if arguments.json:
            arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as cache:
        for case in cases:
            row = measure(case, rounds, arguments.steps, variants, cache)
            record["cases"].append(row)
            print(case.name, "done", flush=True)
            keep()
        for case, counts in fold_cases.items():
            # The side with torch.func.vmap is FDP's alone.
            has_peer = bool(variants) and case.model == "fdp"
            row = measure_folds(case, counts, rounds, arguments.steps, cache, has_peer=has_peer)
            record["folds"].append(row)
            keep()
    if arguments.model:  # the figures of the one case are at the top
        row = record["cases"][-1]
        record |= {key: row[key] for key in ("model", "preset", "batch", "card")}
        record |= {key: row[key] for key in ("mexjax_s", "peer_s", "ratio")}
    record["load_after"] = os.getloadavg()[0]
    keep()
    show(record)


if __name__ == "__main__":
    main()
