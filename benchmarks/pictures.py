"""Draw a results file: bars of step times, scaling over folds, roofline of the convolutions.

    python benchmarks/pictures.py benchmarks/results/DATE-MACHINE-COMMIT-step.json --out=DIR

Takes what `step_time.py`, `ops.py`, `loso.py` or `all.py` wrote and draws what is in it.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

OURS, THEIRS = "#2a6f97", "#c9c9c9"


def step_bars(record: dict[str, Any]) -> Figure:
    """Seconds of a training step and of inference, both sides."""
    rows = [row for row in record["cases"] if row["peer_s"]]
    figure, axes = plt.subplots(1, 2, figsize=(11, 1 + 0.6 * len(rows)), sharey=True)
    for ax, what in zip(axes, ("training step", "inference"), strict=True):
        found = [row if what == "training step" else row["inference"] for row in rows]
        places = range(len(rows))
        ax.barh([p + 0.2 for p in places], [f["mexjax_s"] for f in found], 0.4, color=OURS)
        ax.barh([p - 0.2 for p in places], [f["peer_s"] for f in found], 0.4, color=THEIRS)
        for place, f in zip(places, found, strict=True):
            longest = max(f["mexjax_s"], f["peer_s"])
            ax.text(longest, place, f"  x {f['ratio']:.2f}", va="center")
        ax.set(yticks=list(places), xlabel="seconds", title=what, xscale="log")
        ax.set_yticklabels([row["name"] for row in rows])
    axes[0].legend(["mexjax", "PyTorch"], loc="best")
    return figure


def fold_curves(record: dict[str, Any]) -> Figure:
    """Time of F folds in one program over F programs of one, both sides."""
    figure, ax = plt.subplots(figsize=(6, 4))
    for row in record["folds"]:
        for key, style, label in (
            ("time_ratio", "o-", "mexjax"),
            ("peer_time_ratio", "s--", "torch.func.vmap"),
        ):
            points = {1: 1.0} | {int(n): ratio for n, ratio in row[key].items()}
            if len(points) > 1:
                ax.plot(list(points), list(points.values()), style, label=f"{row['name']}, {label}")
    ax.axhline(1.0, color="black", linewidth=0.5)
    ax.set(xlabel="folds in one program", ylabel="time / that of single folds")
    ax.legend()
    return figure


def roofline(record: dict[str, Any]) -> Figure:
    """Rate of each layer's forward pass against its operations per byte, as chosen and PyTorch."""
    figure, ax = plt.subplots(figsize=(7, 5))
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    for rows in record["networks"].values():
        for row in rows:
            layer, gflop = row["layer"], row["gflop"]
            g = layer["geometry"]
            out = [
                (g["size"][a] + sum(g["padding"][a]) - g["kernel"][a]) // g["stride"][a] + 1
                for a in (0, 1)
            ]
            weights = math.prod(g["kernel"]) * layer["channels"] * layer["out"] // g["groups"]
            maps = math.prod(g["size"]) * layer["channels"] + math.prod(out) * layer["out"]
            intensity = 1e9 * gflop / (4 * (layer["batch"] * maps + weights))
            name = row["chosen"]["forward"]
            if name in row["lowerings"]:
                ours.append((intensity, 1e3 * gflop / row["lowerings"][name]["forward"]))
            if row["torch"]:
                theirs.append((intensity, 1e3 * gflop / row["torch"]["forward"]))
    for points, color, label in ((ours, OURS, "mexjax, chosen"), (theirs, THEIRS, "PyTorch")):
        if points:
            ax.scatter(*zip(*points, strict=True), color=color, label=label, edgecolor="black")
    ax.set(
        xscale="log", yscale="log", xlabel="operations per byte (float32, read and written once)"
    )
    ax.set_ylabel("GFLOP/s, forward pass")
    ax.legend()
    return figure


def study_bars(record: dict[str, Any]) -> Figure:
    """Seconds of a whole study, by strategy and state of the compilation cache."""
    names, seconds, colors = [], [], []
    for strategy, runs in record["mexjax"].items():
        for which, run in runs.items():
            names.append(f"mexjax {strategy}, {which}")
            seconds.append(run["process_s"])
            colors.append(OURS)
    for layout, run in record["torch"].items():
        names.append(f"PyTorch, {layout}")
        seconds.append(run["total_s"])
        colors.append(THEIRS)
    figure, ax = plt.subplots(figsize=(8, 0.5 + 0.4 * len(names)))
    ax.barh(names[::-1], seconds[::-1], color=colors[::-1])
    ax.set(xlabel="seconds", title="the whole study")
    return figure


# Name of the picture, the key that a record must have, and who draws it.
PICTURES = (
    ("steps", "cases", step_bars),
    ("folds", "folds", fold_curves),
    ("roofline", "networks", roofline),
    ("study", "torch", study_bars),
)


def draw(record: dict[str, Any], out: Path, stem: str) -> list[Path]:
    """Every picture that a record has the figures for."""
    written = []
    for name, key, function in PICTURES:
        if not record.get(key) or (name == "study" and "mexjax" not in record):
            continue
        figure = function(record)
        figure.tight_layout()
        path = out / f"{stem}-{name}.png"
        figure.savefig(path, dpi=120)
        plt.close(figure)
        written.append(path)
    return written


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("."))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for path in arguments.results:
        record = json.loads(path.read_text(encoding="utf-8"))
        parts = [record, *(part for part in record.values() if isinstance(part, dict))]
        written = [file for part in parts for file in draw(part, arguments.out, path.stem)]
        if not written:
            raise SystemExit(f"{path}: expected what step_time, ops, loso or all wrote.")
        for file in written:
            print(file)


if __name__ == "__main__":
    main()
