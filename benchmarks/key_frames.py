"""Scores with annotated, re-selected and true key frames, on clips whose annotation misses.

    python benchmarks/key_frames.py --json=benchmarks/results/DATE-MACHINE-COMMIT-keyframes.json

The preset `keyframes` of the embedded dataset has a short, sharp apex and annotations that miss the
key frames by 15% of the rise. For several draws of it the card is trained with the annotated, the
re-selected and the true key frames; beside the scores stand the mean errors of each choice in
milliseconds. `--quick` does one draw of few clips for two epochs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import mexjax
from mexjax import machine
from mexjax.cpu.heap import run_in_calling_thread
from mexjax.data import keyframes, synthetic
from mexjax.data.synthetic.dataset import chosen_frames

# Settings of data.key_frames, by name. The lambda that fits an error of 15% is about 0.2.
NEAR = {"lambda_rise": 0.2, "lambda_fall": 0.2}
CHOICES: dict[str, dict[str, Any]] = {
    "annotated": {"choice": "annotated"},
    "paper": {"choice": "reselected", "splits": "all"},
    "same_light": {
        "choice": "reselected",
        "splits": "all",
        "window": "eq2",
        "difference": "same_light",
        **NEAR,
    },
    "same_light_train": {
        "choice": "reselected",
        "splits": "train",
        "window": "eq2",
        "difference": "same_light",
        **NEAR,
    },
    "apex": {
        "choice": "reselected",
        "splits": "all",
        "window": "apex",
        "difference": "same_light",
        **NEAR,
    },
    "true": {"choice": "true", "splits": "all"},
}


def overrides(seed: int, choice: dict[str, Any]) -> dict[str, Any]:
    """Overrides of the card for one draw and one choice."""
    keys = {f"data.key_frames.{key}": value for key, value in choice.items()}
    drawn = {
        f"data.synthetic.{key}": value for key, value in synthetic.PRESETS["keyframes"].items()
    }
    return {"seed": seed, "data.synthetic.seed": seed, **drawn, **keys}


def errors_ms(seed: int, choice: dict[str, Any], **settings: Any) -> list[float]:
    """Mean distances of onset, apex and offset from the true ones, in milliseconds.

    Args:
      seed: number of the draw.
      choice: settings of data.key_frames.
      settings: fields of the embedded dataset that differ from the preset's.
    """
    plan = synthetic.make_plan(synthetic.preset("keyframes", seed=seed, **settings))
    names = ("window", "lambda_rise", "lambda_fall", "difference")
    rule = keyframes.Rule(**{key: choice[key] for key in names if key in choice})
    true = [chosen_frames(plan, clip.index, "true") for clip in plan.clips]
    frames = [chosen_frames(plan, clip.index, choice["choice"], rule) for clip in plan.clips]
    missed = np.abs(np.subtract(frames, true)).mean(axis=0)
    return (missed * 1000 / plan.config.fps).tolist()


def main() -> None:
    """Runs the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--card", default="configs/tsfmicro.py")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--choices", nargs="*", default=list(CHOICES), choices=CHOICES)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    run_in_calling_thread()
    machine.use_compilation_cache()
    quick: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    if arguments.quick:
        arguments.seeds = arguments.seeds[:1]
        settings = {"num_clips": 40}
        quick = {"train.num_epochs": 2, "folds.only": ("synthetic/01",)}
        quick |= {f"data.synthetic.{key}": value for key, value in settings.items()}
    record: dict[str, Any] = {
        "command": f"python {' '.join(sys.argv)}",
        "card": arguments.card,
        "environment": machine.environment(),
        "errors_ms": {},
        "runs": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.choices:
            errors = [errors_ms(seed, CHOICES[name], **settings) for seed in arguments.seeds]
            record["errors_ms"][name] = np.mean(errors, axis=0).tolist()
            for seed in arguments.seeds:
                config = mexjax.load_config(
                    arguments.card,
                    {"report.has_figures": False} | overrides(seed, CHOICES[name]) | quick,
                )
                results = mexjax.run(config, Path(folder) / f"{name}{seed}").results
                last = results["metrics"]["last"]
                run = {"choice": name, "seed": seed, "uf1": last["uf1"], "acc": last["acc"]}
                record["runs"].append({**run, "total_s": results["timing"]["total_s"]})
                print(f"{name}, seed {seed}: UF1 {last['uf1']:.3f}", flush=True)
                # The file is written after every run, so an interrupted measurement keeps its runs.
                if arguments.json:
                    text = json.dumps(record, indent=2) + "\n"
                    arguments.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
