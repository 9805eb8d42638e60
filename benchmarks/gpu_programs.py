"""The programs of all cards, compiled for a GPU that need not be there, and their bounds.

    python benchmarks/gpu_programs.py --json=benchmarks/results/DATE-MACHINE-COMMIT-gpu.json
    python benchmarks/gpu_programs.py --only fdp_tiny tsfmicro_tiny --gpu=a100
    python benchmarks/gpu_programs.py --quick

It needs the extra `gpu-programs` (two packages, no driver). Nothing runs on a GPU: kernels, bytes
and operations are counted in the compiled programs, and milliseconds are bounds (see
`mexjax.gpu.bounds`). Without a device XLA cannot try algorithms, so the workspaces of cuDNN are
not in the memory, and matrix products go to cuBLASLt. A case that is in the file already is not
compiled again. The interpreter is a new one for each case.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mexjax import machine
from mexjax.files import atomic

# The cards with their smallest preset and their published ones. `ac4au:scratch` is the network of
# `ac4au:paper` without its weights file.
CARDS = {
    "fdp_tiny": ("fdp:tiny",),
    "fdp_paper": ("fdp:paper",),
    "fdp_official": ("fdp:official",),
    "tsfmicro_tiny": ("tsfmicro:tiny",),
    "tsfmicro_official": ("tsfmicro:official",),
    "gamdss_tiny": ("gamdss:tiny",),
    "gamdss_official": ("gamdss:official",),
    "gamdss_vmamba": ("gamdss:official", "model.backbone=vmamba_tiny"),
    "ac4au_tiny": ("ac4au:tiny",),
    "ac4au_scratch": ("ac4au:scratch", "data.name=synthetic_sets", "data.collection.scale=0.05"),
    "micro_au_clip_tiny": ("micro_au_clip:tiny",),
    "micro_au_clip_paper": ("micro_au_clip:paper", "model.weights=random"),
}
QUICK = ("micro_au_clip_tiny",)


@dataclasses.dataclass(frozen=True)
class Case:
    """A program of the table.

    Attributes:
      card: a name in `CARDS`.
      folds: folds in a group on one device.
      devices: number of devices.
      dtype: type that the network computes in.
      graphs: see `mexjax.gpu.compiling.GRAPHS`.
    """

    card: str
    folds: int = 1
    devices: int = 1
    dtype: str = "float32"
    graphs: str = "default"

    @property
    def name(self) -> str:
        """The key of the case in the results file."""
        dtype = "" if self.dtype == "float32" else f"_{self.dtype}"
        graphs = "" if self.graphs == "default" else f"_{self.graphs}"
        return f"{self.card}_{self.folds}x{self.devices}{dtype}{graphs}"


def cases_of(card: str) -> list[Case]:
    """The cases of a card: groups of 1, 4 and 8 folds, eight devices, bfloat16, CUDA graphs."""
    return [
        Case(card),
        Case(card, dtype="bfloat16"),
        Case(card, folds=4),
        Case(card, folds=8),
        Case(card, devices=8),
        Case(card, graphs="epoch"),
    ]


def compile_case(case: Case, gpu_name: str) -> dict[str, Any]:
    """Figures of the training program of a case, and processor seconds of the other two."""
    from mexjax.config import load_config
    from mexjax.gpu import targets
    from mexjax.gpu.compiling import compile_for, graph_options
    from mexjax.train.absent import lower_for

    gpu = targets.GPUS[gpu_name]
    card, *overrides = CARDS[case.card]
    precision = "bfloat16" if case.dtype == "bfloat16" else "tf32"
    config = load_config(card, [*overrides, f"precision={precision}", "has_progress=False"])
    lowered = lower_for(config, targets.absent(gpu, case.devices), case.folds)
    options = graph_options(case.graphs)
    train = compile_for(lowered.train, gpu, num_steps=lowered.num_steps, options=options)
    figures = train.as_json() | {
        "batch": int(config.train.batch_size),
        "params": lowered.num_params,
        "epoch_steps": lowered.num_steps,
    }
    if case == Case(case.card):
        figures["init_compile_cpu_s"] = round(compile_for(lowered.init, gpu).compile_cpu_s, 1)
        evaluate = compile_for(lowered.evaluate, gpu)
        figures["evaluate_compile_cpu_s"] = round(evaluate.compile_cpu_s, 1)
        figures["evaluate_roofline_ms"] = round(evaluate.bounds.roofline_ms, 4)
    return figures


def in_new_process(case: Case, gpu: str) -> dict[str, Any]:
    """`compile_case` in an interpreter of its own, or a message under `error`."""
    command = [sys.executable, __file__, "--case", json.dumps(dataclasses.asdict(case)), "--gpu"]
    # Flags of the caller would change the programs.
    flags = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2", "XLA_FLAGS": ""}
    environment = os.environ | flags
    done = subprocess.run(
        [*command, gpu], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1][:300]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(gpu: str, programs: dict[str, dict[str, Any]]) -> Table:
    """The programs as a table for the terminal."""
    out = Table(title=f"One training step on {gpu}: counts and bounds, nothing was run")
    for name in ("program", "kernels", "launches", "GFLOP", "GB", "roofline ms", "2 us", "5 us",
                 "temporary GB", "compile CPU s"):  # fmt: skip
        out.add_column(name, justify="left" if name == "program" else "right")
    for name, row in programs.items():
        if "error" in row:
            out.add_row(name, row["error"][:60])
            continue
        out.add_row(
            name,
            str(row["kernels"]),
            str(row["host_launches"]),
            f"{row['gflop']:.1f}",
            f"{row['gbytes']:.2f}",
            *(f"{row[key]:.2f}" for key in ("roofline_ms", "graph_ms", "launch_ms")),
            f"{row['temporary_gb']:.2f}",
            f"{row['compile_cpu_s']:.0f}",
        )
    return out


def main() -> int:
    """Compiles the cases of the command line; the status is 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--gpu", default="h200", help="h200, h100, a100 or l4")
    parser.add_argument("--only", nargs="*", default=[], help="names of cards or of cases")
    parser.add_argument("--quick", action="store_true", help="one small case")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--case", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(compile_case(Case(**json.loads(arguments.case)), arguments.gpu)))
        return 0
    cases = [case for card in CARDS for case in cases_of(card)]
    only = set(arguments.only)
    if arguments.quick:
        cases = [Case(card) for card in QUICK]
    elif only:
        cases = [case for case in cases if {case.card, case.name} & only]
    record: dict[str, Any] = {"programs": {}}
    if arguments.json and arguments.json.exists():
        record = json.loads(arguments.json.read_text(encoding="utf-8"))
    for case in cases:
        if "error" in record["programs"].get(case.name, {"error": ""}):
            figures = in_new_process(case, arguments.gpu)
            record["programs"][case.name] = figures
            print(case.name, json.dumps(figures)[:200], flush=True)
        record |= {
            "benchmark": "gpu_programs",
            "command": f"python {' '.join(sys.argv)}",
            "gpu": arguments.gpu,
            "environment": machine.environment(),
        }
        if arguments.json:
            with atomic(arguments.json) as file:
                json.dump(record, file, indent=1)
    Console().print(table(arguments.gpu, record["programs"]))
    return int(any("error" in record["programs"][case.name] for case in cases))


if __name__ == "__main__":
    sys.exit(main())
