"""The pictures of `python -m mexjax.studies au`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import pandas as pd

from mexjax.report.agg import Axes, Figure, PolyCollection, colormaps
from mexjax.report.figures import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    PALE,
    legend_label,
    new_figure,
    set_title,
)
from mexjax.report.tables import short_names
from mexjax.studies.au_statistics import cluster_order

MAX_COLOURS = 10  # so many frequent names of points have colours; the others are gray


def correlation_figure(by_name: Mapping[str, np.ndarray], units: Sequence[str]) -> Figure:
    """Correlations of units as heat maps, the first clustered and the others in its order.

    A unit that no clip shows has no correlation: its row and column are gray.

    Args:
      by_name: name of a set of clips -> f[A, A].
      units: A names.
    """
    columns = 2 if len(by_name) in (2, 4) else min(3, len(by_name))
    rows = -(-len(by_name) // columns)
    side = 1.1 + 0.34 * len(units)
    figure, all_axes = new_figure(columns * side, rows * side + 0.4, rows=rows, columns=columns)
    order = cluster_order(next(iter(by_name.values())))
    names = [units[int(i)] for i in order]
    for axes, (title, matrix) in zip(all_axes, by_name.items(), strict=False):
        values = matrix[np.ix_(order, order)]
        axes.set_facecolor(PALE)
        image = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7.5)
        axes.set_yticks(range(len(names)), names, fontsize=7.5)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        for i, j in np.argwhere(np.abs(np.nan_to_num(values)) >= 0.2):
            if i != j:
                text = f"{values[i, j]:.1f}".replace("0.", ".")
                colour = "white" if abs(values[i, j]) > 0.6 else INK
                axes.text(j, i, text, ha="center", va="center", fontsize=7.5, color=colour)
        set_title(axes, title)
    for axes in all_axes[len(by_name) :]:
        axes.set_axis_off()
    bar = figure.colorbar(image, ax=all_axes, fraction=0.025, pad=0.02)
    bar.set_label("Pearson correlation over clips (gray: unit absent)", color=MUTED)
    bar.outline.set_visible(False)
    return figure


def network_figure(
    correlation: np.ndarray, counts: np.ndarray, units: Sequence[str], *, least: float = 0.1
) -> Figure:
    """Units on a circle, as large as they are frequent, joined where they go (or do not) together.

    Args:
      correlation: f[A, A].
      counts: i[A], clips with each unit.
      units: A names.
      least: smallest absolute correlation that is drawn.
    """
    figure, (axes,) = new_figure(6.4, 6.0)
    order = cluster_order(correlation)
    angle = np.empty(len(units))
    angle[order] = np.pi / 2 - 2 * np.pi * np.arange(len(units)) / len(units)
    places = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for i, j in zip(*np.triu_indices(len(units), 1), strict=True):
        r = correlation[i, j]
        if np.isnan(r) or abs(r) < least:
            continue
        line = places[[i, j]].T
        axes.plot(*line, color=ORANGE if r > 0 else BLUE, linewidth=9 * abs(r), alpha=0.6, zorder=1)
    size = 180 + 1400 * counts / max(counts.max(), 1)
    axes.scatter(*places.T, s=size, color="white", edgecolor=INK, zorder=2)
    for name, count, (x, y) in zip(units, counts, places, strict=True):
        axes.text(x, y, name.removeprefix("AU"), ha="center", va="center", fontsize=10, zorder=3)
        axes.text(1.22 * x, 1.22 * y, f"{count}", ha="center", va="center", fontsize=8, color=MUTED)
    axes.set_xlim(-1.35, 1.35)
    axes.set_ylim(-1.35, 1.35)
    axes.set_aspect("equal")
    axes.set_axis_off()
    set_title(axes, f"orange: together, blue: not together (|r| from {least}); outside: clips")
    return figure


def lengths_figure(table: pd.DataFrame, *, num_frames: int = 8) -> Figure:
    """Distribution of the number of frames of the clips of each dataset, on a log axis.

    Args:
      table: columns dataset and n_frames.
      num_frames: frames that a model takes; shorter clips repeat their last frame.
    """
    names = list(dict.fromkeys(table["dataset"]))
    figure, (axes,) = new_figure(7.0, 1.2 + 0.55 * len(names))
    frames = [np.maximum(table.loc[table["dataset"] == n, "n_frames"].to_numpy(), 1) for n in names]
    logs = [np.log10(f) for f in frames]
    samples = [log if np.ptp(log) > 0 else log + np.linspace(-1e-3, 1e-3, len(log)) for log in logs]
    parts = axes.violinplot(
        samples, orientation="horizontal", widths=0.85, showextrema=False, showmedians=True
    )
    # The stub knows the parts as collections of anything.
    for body in cast(Sequence[PolyCollection], parts["bodies"]):
        body.set(facecolor=BLUE, alpha=0.5)
    parts["cmedians"].set(color=INK)
    low, high = min(map(np.min, logs)), max(map(np.max, logs))
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if low <= np.log10(t) <= high]
    axes.set_xticks(np.log10(ticks), [str(tick) for tick in ticks])
    axes.axvline(np.log10(num_frames), color=ORANGE, linestyle="--", linewidth=1.2)
    axes.set_yticks(range(1, len(names) + 1), names)
    axes.set_xlabel(f"frames from onset to offset (dashed: {num_frames})")
    axes.invert_yaxis()
    set_title(axes, "Length of clips")
    return figure


def scatter_figure(
    panels: Sequence[tuple[str, np.ndarray, Sequence[str]]],
) -> Figure:
    """t-SNE maps side by side, coloured by name; the most frequent names have colours.

    Args:
      panels: title, places f[N, 2] and names of the points.
    """
    figure, all_axes = new_figure(6.2 * len(panels), 5.4, columns=len(panels))
    for axes, (title, places, names) in zip(all_axes, panels, strict=True):
        _scatter(axes, places, np.asarray(names))
        set_title(axes, title)
    return figure


def _scatter(axes: Axes, places: np.ndarray, names: np.ndarray) -> None:
    kinds, counts = np.unique(names, return_counts=True)
    frequent = kinds[np.argsort(-counts, kind="stable")][:MAX_COLOURS]
    is_rare = ~np.isin(names, frequent)
    axes.scatter(*places[is_rare].T, s=9, color="#d1d5db", linewidths=0)
    colours = colormaps["tab10"](np.arange(MAX_COLOURS))
    labels = short_names(frequent.tolist())
    for name, label, colour in zip(frequent, map(legend_label, labels), colours, strict=False):
        axes.scatter(*places[names == name].T, s=16, color=colour, linewidths=0, label=label)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.legend(
        fontsize=6.5, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), markerscale=1.3
    )


def gates_figure(matrix: np.ndarray, load: np.ndarray, units: Sequence[str]) -> Figure:
    """Mean weight of each expert in each unit, and each expert's load.

    Args:
      matrix: f[A, E].
      load: f[E].
      units: A names.
    """
    figure, (axes,) = new_figure(2.4 + 0.42 * len(load), 1.9 + 0.36 * len(units))
    # White is the weight of an expert that is like all others.
    even = 1 / len(load)
    reach = max(float(np.abs(matrix - even).max()), 1e-6)
    image = axes.imshow(matrix, cmap="RdBu_r", vmin=even - reach, vmax=even + reach)
    heads = [f"{k + 1}\n{100 * share:.0f}%" for k, share in enumerate(load)]
    axes.set_xticks(range(len(load)), heads, fontsize=8)
    axes.set_yticks(range(len(units)), units, fontsize=8.5)
    axes.tick_params(length=0)
    axes.set_xlabel("expert, and its share of all weights")
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label("mean weight over held-out clips", color=MUTED)
    bar.outline.set_visible(False)
    set_title(axes, "Gates")
    return figure
