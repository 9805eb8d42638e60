"""Draws a results file (step times, scaling over folds, roofline of convolutions) or a run.

    python benchmarks/pictures.py benchmarks/results/DATE-MACHINE-COMMIT-step.json --out=DIR
    python benchmarks/pictures.py runs/fdp_tiny --out=docs/images

The files are those of `step_time.py`, `convolutions.py`, `study_time.py` or `all.py`. The picture
of a run with dynamic images shows held-out clips, and its confusion matrix beside them.
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
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

OURS, THEIRS = "#2a6f97", "#c9c9c9"


def step_bars(record: dict[str, Any]) -> Figure:
    """Seconds of a training step and of inference, both sides."""
    rows = [row for row in record["cases"] if row["peer_s"]]
    figure, axes = plt.subplots(1, 2, figsize=(11, 1 + 0.6 * len(rows)), sharey=True)
    for ax, what in zip(axes, ("training step", "inference"), strict=True):
        times = [row if what == "training step" else row["inference"] for row in rows]
        places = range(len(rows))
        ax.barh([p + 0.2 for p in places], [t["mexjax_s"] for t in times], 0.4, color=OURS)
        ax.barh([p - 0.2 for p in places], [t["peer_s"] for t in times], 0.4, color=THEIRS)
        for place, t in zip(places, times, strict=True):
            longest = max(t["mexjax_s"], t["peer_s"])
            ax.text(longest, place, f"  x {t['ratio']:.2f}", va="center")
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
    """Rate of each layer's forward pass over operations per byte, by our choice and in PyTorch."""
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


# Name of the picture, the key that a record must have, and the function that draws it.
PICTURES = (
    ("steps", "cases", step_bars),
    ("folds", "folds", fold_curves),
    ("roofline", "networks", roofline),
    ("study", "torch", study_bars),
)


def draw(record: dict[str, Any], out: Path, stem: str) -> list[Path]:
    """Draws every picture for which a record has figures."""
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


def run_picture(run: Path) -> Figure:
    """Held-out clips with their dynamic images, and the confusion matrix of all of them.

    Args:
      run: folder of a finished run of a model that makes dynamic images.
    """
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    predictions = pd.read_csv(run / "predictions.csv").set_index("clip")["prediction"]
    with np.load(run / "sheet.npz", allow_pickle=False) as sheet:
        frames, targets, titles = sheet["frames"][:4], sheet["target"][:4], sheet["title"][:4]
    num_frames = frames.shape[1]
    figure = plt.figure(figsize=(14, 5.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.75, 1))
    rows = left.subplots(len(frames), num_frames + 1)
    for axes, clip, target, title in zip(rows, frames, targets, titles, strict=True):
        label, name = str(title).split(", ")
        for ax, image in zip(axes, [*clip / 255, target], strict=True):
            ax.imshow(image, cmap="gray", vmin=0, vmax=1)
            ax.set_axis_off()
        text = f"{label}; predicted: {predictions[name]}"
        above = {"transform": axes[0].transAxes, "fontsize": 11, "in_layout": False}
        axes[0].text(0, 1.08, text, **above)  # its width does not count
        axes[-1].set_title("dynamic image", fontsize=9)
    confusion = np.array(results["metrics"]["last"]["confusion"])
    share = confusion / confusion.sum(axis=1, keepdims=True)
    ax = right.subplots()
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(confusion):
        color = "white" if share[row, column] > 0.55 else "black"
        ax.text(column, row, count, ha="center", va="center", color=color, fontsize=13)
    classes = results["classes"]
    ax.set_xticks(range(len(classes)), classes, rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(classes)), classes)
    ax.set(xlabel="predicted", ylabel="true")
    ax.set_title(f"{results['num_clips']} held-out clips of {results['num_subjects']} subjects")
    return figure


def main() -> None:
    """Draws the files of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("."))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for path in arguments.results:
        if path.is_dir():
            file = arguments.out / f"{path.name}.png"
            run_picture(path).savefig(file, dpi=90, metadata={"Software": None})
            print(file)
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        parts = [record, *(part for part in record.values() if isinstance(part, dict))]
        written = [file for part in parts for file in draw(part, arguments.out, path.stem)]
        if not written:
            raise SystemExit(
                f"{path}: it is no file of step_time, convolutions, study_time or all."
            )
        for file in written:
            print(file)


if __name__ == "__main__":
    main()
