"""The pictures of the study of key frames: deviations and errors over lambda, film strips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from mexjax.data.captions import caption
from mexjax.files import atomic
from mexjax.report.agg import Axes, Figure
from mexjax.report.figures import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    PALE,
    legend_label,
    new_figure,
    save_figure,
)
from mexjax.studies.annotated_clips import AnnotatedClip

GREEN = "#2f855a"
COLOURS = {"onset": BLUE, "apex": ORANGE, "offset": GREEN}
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STRIP_PX = 112
HEADS = ("onset", "apex", "offset", "apex - onset")
_NEW, _OLD = (220, 120, 40), (90, 100, 110)


def draw(summary: pd.DataFrame, folder: Path) -> list[Path]:
    """Write the curves and return their paths.

    Args:
      summary: table from `mexjax.studies.keyframes.summarise`.
      folder: folder to write to.
    """
    pictures = {
        "deviation_percent": deviation_figure(summary, "percent", "mean deviation, % of the clip"),
        "deviation_ms": mean_figure(summary),
    }
    if "error_apex_ms" in summary:
        pictures["error_ms"] = error_figure(summary.dropna(subset=["error_apex_ms"]))
    paths = []
    for name, figure in pictures.items():
        save_figure(figure, folder / f"{name}.png")
        paths.append(folder / f"{name}.png")
    return paths


def deviation_figure(summary: pd.DataFrame, unit: str, label: str) -> Figure:
    """Deviation of each key frame over lambda, one panel a dataset (as the paper's Fig. 7)."""
    datasets = list(dict.fromkeys(summary["dataset"]))
    figure, panels = new_figure(3.2 * len(datasets) + 0.8, 3.2, columns=len(datasets))
    for axes, dataset in zip(panels, datasets, strict=True):
        part = _rows_of(summary, dataset)
        for (key, colour), marker in zip(COLOURS.items(), MARKERS, strict=False):
            values = part[f"D_{key}_{unit}"]
            axes.plot(part["lambda"], values, color=colour, marker=marker, label=key)
        _finish(axes, str(dataset), label)
        axes.set_xticks(_places(part))
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def mean_figure(summary: pd.DataFrame) -> Figure:
    """Mean Dms over lambda, all datasets in one panel (as the paper's Fig. 8)."""
    figure, (axes,) = new_figure(4.6, 3.2)
    for (dataset, part), marker in zip(
        summary.groupby("dataset", sort=False), MARKERS * len(summary), strict=False
    ):
        label = legend_label(str(dataset))
        axes.plot(part["lambda"], part["D_mean_ms"], marker=marker, label=label)
    _finish(axes, "deviation from the annotation", "mean deviation of the three, ms")
    axes.set_xticks(_places(summary))
    axes.legend(frameon=False, fontsize=8)
    return figure


def error_figure(summary: pd.DataFrame) -> Figure:
    """Error against the truth over lambda; dashed lines show the error of the annotation."""
    figure, (axes,) = new_figure(4.6, 3.2)
    dataset = summary["dataset"].iloc[0]
    part = _rows_of(summary, dataset)
    for (key, colour), marker in zip(COLOURS.items(), MARKERS, strict=False):
        axes.plot(part["lambda"], part[f"error_{key}_ms"], color=colour, marker=marker, label=key)
        axes.axhline(part[f"annotated_error_{key}_ms"].iloc[0], color=colour, linestyle="--", lw=1)
    _finish(axes, f"{dataset}: error (dashed: annotated)", "mean error, ms")
    axes.set_xticks(_places(part))
    axes.legend(frameon=False, fontsize=8)
    return figure


def draw_strips(
    strips: Sequence[tuple[AnnotatedClip, tuple[int, int, int]]], share: float, folder: Path
) -> Path:
    """Write `strips.png`: annotated key frames above re-selected ones, clip by clip.

    Args:
      strips: clips that have six frames, annotated then new key frames, and the new places.
      share: lambda.
      folder: folder to write to.

    Returns:
      The path.
    """
    rows = []
    for clip, _ in strips:
        for title, part in (("annotated", slice(0, 3)), (f"lambda {share:g}", slice(3, 6))):
            images = [_enlarged(frame) for frame in clip.frames[part]]
            reference = images[0].astype(int)
            for image, number in zip(images, clip.numbers[part], strict=True):
                caption(image, f"{number}")
            change = np.clip(128 + 4 * (_enlarged(clip.frames[part][1]) - reference), 0, 255)
            edge = np.full((STRIP_PX, 6, 3), _OLD if part.start == 0 else _NEW, np.uint8)
            label = np.full((STRIP_PX, 150, 3), 24, np.uint8)
            caption(label, f"{clip.dataset} {clip.name}"[:22])
            caption(label[18:], title)
            rows.append(np.concatenate([label, edge, *images, change.astype(np.uint8)], axis=1))
    heads = (("clip", 156), *((text, STRIP_PX) for text in HEADS))
    cells = [np.full((20, width, 3), 24, np.uint8) for _, width in heads]
    for cell, (text, _) in zip(cells, heads, strict=True):
        caption(cell, text)
    head = np.concatenate(cells, axis=1)
    path = folder / "strips.png"
    png = cv2.imencode(".png", np.concatenate([head, *rows])[..., ::-1])[1]
    with atomic(path, "wb") as file:
        file.write(png.tobytes())
    return path


def _enlarged(frame: np.ndarray) -> np.ndarray:
    """u8[H, W, C] -> u8[112, 112, 3], pixels as they are."""
    image = np.repeat(frame, 3, axis=2) if frame.shape[2] == 1 else frame
    return cv2.resize(
        np.ascontiguousarray(image), (STRIP_PX, STRIP_PX), interpolation=cv2.INTER_NEAREST
    )


def _rows_of(summary: pd.DataFrame, dataset: str) -> pd.DataFrame:
    return summary.take(np.flatnonzero(summary["dataset"] == dataset))


def _places(summary: pd.DataFrame) -> list[float]:
    """Values of lambda that were computed, every second one where there are many."""
    values = sorted(set(summary["lambda"]))
    return values[:: 1 if len(values) <= 6 else 2]


def _finish(axes: Axes, title: str, label: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.set_xlabel("lambda", color=MUTED)
    axes.set_ylabel(label, color=MUTED)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
