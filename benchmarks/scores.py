"""Scores of a recipe card on the embedded dataset, beside those of its controls.

    python benchmarks/scores.py --json=benchmarks/results/DATE-MACHINE-COMMIT-fdp.json
    python benchmarks/scores.py --card=configs/gamdss.py --json=FILE
    python benchmarks/scores.py --quick

The card runs for several seeds, and for one seed with the labels shuffled, with still clips and
with raw frames. The file has the scores and times of each run, and the machine. `--quick` trains
one seed and one control for two epochs, and two folds of leave-one-subject-out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import mexjax
from mexjax import machine
from mexjax.cpu.heap import run_in_calling_thread

CONTROLS: dict[str, dict[str, Any]] = {
    "static": {"data.control": "static"},
    # A still clip without its mean is empty; with raw frames it still shows the face.
    "static_raw": {"data.control": "static", "data.center": "none"},
    "shuffled_labels": {"data.control": "shuffled_labels"},
    "raw_frames": {"data.center": "none"},
}


def measure(card: str, name: str, overrides: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Runs one study and gives the figures that a reader compares."""
    config = mexjax.load_config(card, {"report.has_figures": False} | overrides)
    results = mexjax.run(config, folder / name).results
    metrics = results["metrics"]
    is_au = results["task"] == "au"
    keys = ("acc", "f1") if is_au else ("acc", "uf1", "uar", "weighted_f1")
    main = "f1" if is_au else "uf1"
    record = {
        "name": name,
        "overrides": overrides,
        "seed": results["seed"],
        "task": results["task"],
        **{which: {key: metrics[which][key] for key in keys} for which in ("last", "oracle")},
        f"{main}_ci95": metrics["last"]["ci95"][main],
        "timing": results["timing"],
    }
    if is_au:
        record["f1_always"] = metrics["last"]["f1_always"]
    if "zero_shot" in results:
        zero_shot = results["zero_shot"]
        scores = {key: zero_shot[key] for key in ("uf1", "uar", "weighted_f1", "acc", "num_clips")}
        record["zero_shot"] = scores | {"num_classes": len(zero_shot["classes"])}
    return record


def shorten(arguments: argparse.Namespace) -> dict[str, Any]:
    """Cuts the seeds and controls of the command line; returns overrides of a short training."""
    arguments.seeds, arguments.controls = arguments.seeds[:1], arguments.controls[:1]
    quick: dict[str, Any] = {"train.num_epochs": 2}
    if mexjax.load_config(arguments.card).protocol.name == "loso":
        quick["folds.only"] = ("synthetic/01", "synthetic/02")
    return quick


def main() -> None:
    """Runs the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--card", default="configs/fdp.py")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--controls", nargs="*", default=sorted(CONTROLS), choices=CONTROLS)
    parser.add_argument("--quick", action="store_true", help="two epochs, one seed, one control")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    quick = shorten(arguments) if arguments.quick else {}
    run_in_calling_thread()
    machine.use_compilation_cache()
    jobs = [(f"seed{seed}", {"seed": seed}) for seed in arguments.seeds]
    jobs += [(name, CONTROLS[name]) for name in arguments.controls]
    record = {
        "command": f"python {' '.join(sys.argv)}",
        "card": arguments.card,
        "protocol": mexjax.load_config(arguments.card).protocol.name,
        "environment": machine.environment(),
        "runs": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, overrides in jobs:
            run = measure(arguments.card, name, overrides | quick, Path(folder))
            record["runs"].append(run)
            key = "f1" if run["task"] == "au" else "uf1"
            print(f"{name}: {key} {run['last'][key]:.3f}, {run['timing']['total_s']:.0f} s")
            # The file is written after every run, so an interrupted measurement keeps its runs.
            if arguments.json:
                text = json.dumps(record, indent=2) + "\n"
                arguments.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
