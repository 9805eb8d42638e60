"""The picture of action units in a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mexjax.report.agg import Figure
from mexjax.report.figures import BLUE, INK, ORANGE, new_figure, percent_axis, set_title


def units_figure(last: Mapping[str, Any], oracle: Mapping[str, Any], title: str) -> Figure:
    """F1 of each action unit, the score of saying "present" of every clip, and the oracle.

    Args:
      last: the entry `metrics.last` of results.json of task `au`.
      oracle: the entry `metrics.oracle`.
      title: one line.
    """
    names = list(last["per_unit"])
    at = np.arange(len(names))
    figure, (axes,) = new_figure(min(max(6.4, 0.62 * len(names) + 1.5), 16), 4.0)
    entries = [last["per_unit"][name] for name in names]
    f1, always = ([entry[key] for entry in entries] for key in ("f1", "f1_always"))
    axes.bar(at, f1, width=0.68, color=BLUE, label="last evaluation", zorder=2)
    axes.bar(
        at,
        always,
        width=0.68,
        facecolor="none",
        edgecolor=INK,
        linestyle=":",
        label="always present",
        zorder=3,
    )
    axes.plot(
        at,
        [oracle["per_unit"][name]["f1"] for name in names],
        linestyle="none",
        marker="D",
        markersize=5.5,
        markerfacecolor="none",
        markeredgecolor=ORANGE,
        markeredgewidth=1.4,
        label="oracle (best epoch on the test fold)",
        zorder=4,
    )
    ticks = [f"{name}\nn={entry['n']}" for name, entry in zip(names, entries, strict=True)]
    axes.set_xticks(at, ticks, fontsize=8.5)
    axes.set_xlim(-0.6, len(names) - 0.4)
    percent_axis(axes, "F1, pooled over held-out clips")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        *(handles[1:] + handles[:1], labels[1:] + labels[:1]),  # bars first
        loc="lower right",
        bbox_to_anchor=(1, 1.0),
        ncols=3,
        frameon=False,
        fontsize=8.5,
    )
    set_title(axes, title, pad=26)
    return figure
