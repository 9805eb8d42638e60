"""The pictures of a report: confusion matrix, subjects, learning curves, dynamic images.

They are plain `Figure` objects without pyplot, so nothing is shared between calls or threads.
Colours are distinguishable with the common colour vision deficiencies; numbers that were selected
on the test subjects ("oracle") are always hollow or dashed.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mexjax.files import atomic
from mexjax.report.agg import Axes, Figure, FigureCanvasAgg, MaxNLocator, Text, matplotlib
from mexjax.report.tables import short_names

BLUE, ORANGE, INK, MUTED, PALE = "#2868a8", "#c8621b", "#22262b", "#6b7280", "#e5e7eb"
MAX_BARS = 36  # bars in one row of the figure of subjects
CLASS_METRICS = {"acc": "accuracy", "uf1": "UF1"}


def save_figure(figure: Figure, path: Path, *, dpi: int = 150) -> None:
    """Write a PNG that appears whole and, for the same figure, with the same bytes.

    Texts are drawn as they are: a `$` in a name begins no formula.
    """
    FigureCanvasAgg(figure)
    for artist in figure.findobj(Text):
        artist.set_parse_math(False)
    with (
        atomic(path, "wb") as file,
        warnings.catch_warnings(),
        matplotlib.rc_context({"text.parse_math": False}),
    ):
        # Letters that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # The file holds neither a date nor a version.
        figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})


def legend_label(name: str) -> str:
    """A name as the label of an artist; matplotlib leaves out those that begin with `_`."""
    return f" {name}" if name.startswith("_") else name


def confusion_figure(confusion: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Confusion matrix: colour and percent by row (true class), counts in the cells.

    Args:
      confusion: i[K, K], rows true.
      classes: K names.
      title: one line.
    """
    confusion = np.asarray(confusion)
    num_classes = len(classes)
    total = confusion.sum(axis=1, keepdims=True)
    share = np.divide(confusion, total, out=np.zeros(confusion.shape), where=total > 0)
    size = 2.6 + 0.78 * num_classes
    figure, (axes,) = new_figure(size + 0.7, size)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i in range(num_classes):
        for j in range(num_classes):
            colour = "white" if share[i, j] > 0.55 else INK
            axes.text(
                j,
                i - 0.1,
                str(confusion[i, j]),
                ha="center",
                va="center",
                color=colour,
                fontsize=12,
                fontweight="bold" if i == j else "normal",
            )
            if total[i, 0]:
                percent = f"{100 * share[i, j]:.0f}%"
                axes.text(j, i + 0.22, percent, ha="center", va="center", color=colour, fontsize=8)
    rows = [f"{name}\n(n={n})" for name, n in zip(classes, total[:, 0], strict=True)]
    axes.set_xticks(range(num_classes), classes, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(num_classes), rows)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.tick_params(length=0)
    # White lines separate the cells.
    axes.set_xticks(np.arange(num_classes - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(num_classes - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.set_ticks([0, 0.5, 1], labels=["0%", "50%", "100%"])
    bar.outline.set_visible(False)
    bar.set_label("share of the true class", color=MUTED)
    set_title(axes, title)
    return figure


def subjects_figure(subjects: Sequence[Mapping[str, Any]], pooled: float, title: str) -> Figure:
    """Accuracy of each subject with its number of clips, and the oracle beside it.

    Args:
      subjects: the entries `subjects` of results.json.
      pooled: pooled accuracy at the last evaluation, drawn as a line.
      title: one line.
    """
    names = short_names([entry["name"] for entry in subjects])
    # Long lists go on several rows, so that every bar and name stays readable.
    rows = -(-len(subjects) // MAX_BARS)
    length = -(-len(subjects) // rows)
    width = min(max(6.4, 0.42 * length + 1.5), 16)
    figure, all_axes = new_figure(width, 1.0 + 3.0 * rows, rows=rows)
    for row, axes in enumerate(all_axes):
        part = slice(row * length, (row + 1) * length)
        _subject_bars(axes, subjects[part], names[part], pooled, length)
    all_axes[-1].set_xlabel("held-out subject (number of its clips in the bar)")
    handles, labels = all_axes[0].get_legend_handles_labels()
    all_axes[0].legend(
        handles[::-1],  # bars first
        labels[::-1],
        loc="lower right",
        bbox_to_anchor=(1, 1.0),
        ncols=2,
        frameon=False,
        fontsize=8.5,
    )
    set_title(all_axes[0], title, pad=26)
    return figure


def _subject_bars(
    axes: Axes,
    subjects: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    pooled: float,
    length: int,
) -> None:
    """One row of `subjects_figure`, with room for `length` bars."""
    last = [entry["last"]["acc"] for entry in subjects]
    at = np.arange(len(subjects))
    axes.bar(at, last, width=0.68, color=BLUE, label="last evaluation", zorder=2)
    axes.plot(
        at,
        [entry["oracle"]["acc"] for entry in subjects],
        linestyle="none",
        marker="D",
        markersize=5.5,
        markerfacecolor="none",
        markeredgecolor=ORANGE,
        markeredgewidth=1.4,
        label="oracle (best epoch on the test subject)",
        zorder=3,
    )
    axes.axhline(pooled, color=INK, linewidth=1, linestyle=":", zorder=1)
    axes.annotate(
        f"pooled {100 * pooled:.1f}%",
        (1, pooled),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=INK,
    )
    for x, entry in zip(at, subjects, strict=True):
        is_low = (
            max(last[x], entry["oracle"]["acc"]) <= 0.06
        )  # the diamond takes the place of the count
        axes.annotate(
            f"{entry['n']}",
            (x, 0),
            xytext=(0, 10 if is_low else 3),
            textcoords="offset points",
            ha="center",
            color="white" if last[x] > 0.06 else INK,
            fontsize=7.5,
            zorder=4,
        )
    is_long = length > 20 or max(map(len, names)) > 6
    axes.set_xticks(at, names, rotation=90 if is_long else 0, fontsize=9)
    axes.set_xlim(-0.6, length - 0.4)
    percent_axis(axes, "accuracy")


def curves_figure(
    loss: np.ndarray,
    held_out: Mapping[str, Any],
    oracle: Mapping[str, float],
    title: str,
    shown: Mapping[str, str] = CLASS_METRICS,
) -> Figure:
    """Training loss by epoch, and held-out metrics at every evaluation if there are several.

    Args:
      loss: f[F, epochs] mean training loss of every fold; nan where a fold has no such epoch.
      held_out: `{"epoch": [...]}` and a list for each metric, pooled over folds; None for an
        evaluation without a value.
      oracle: each metric with the best epoch of each fold chosen on its test clips.
      title: one line.
      shown: names of two metrics by their key.
    """
    at = np.asarray(held_out["epoch"])
    columns = 2 if len(at) > 1 else 1  # one evaluation is no curve
    figure, all_axes = new_figure(5.2 * columns, 4.0, columns=columns)
    left = all_axes[0]
    loss = np.asarray(loss, float)
    keep = np.isfinite(loss).any(axis=0)
    epochs = np.arange(1, loss.shape[1] + 1)[keep]
    if keep.any():
        low, high = np.nanpercentile(loss[:, keep], [10, 90], axis=0)
        mean = np.nanmean(loss[:, keep], axis=0)
        marker = "o" if len(epochs) == 1 else None
        if len(loss) > 1:
            left.fill_between(
                epochs, low, high, color=BLUE, alpha=0.18, linewidth=0, label="10 to 90 % of folds"
            )
        left.plot(epochs, mean, color=BLUE, linewidth=1.8, marker=marker, label="mean over folds")
        left.legend(
            frameon=False, fontsize=8.5, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0)
        )
        left.set_xlim(0, 1.02 * epochs[-1])
    left.set_xlabel("epoch")
    left.set_ylabel("training loss")
    left.grid(axis="y", color=PALE, linewidth=0.8)
    left.set_axisbelow(True)

    for axes in all_axes[1:]:
        _evaluation_curves(axes, held_out, oracle, shown)
    for axes in all_axes:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    set_title(left, title, pad=26)
    return figure


def _evaluation_curves(
    axes: Axes,
    held_out: Mapping[str, Any],
    oracle: Mapping[str, float],
    shown: Mapping[str, str],
) -> None:
    """The right panel of `curves_figure`."""
    at = np.asarray(held_out["epoch"])
    for (name, label), colour in zip(shown.items(), (BLUE, ORANGE), strict=True):
        values = np.array([np.nan if v is None else v for v in held_out[name]], float)
        marker = "o" if len(at) <= 30 else None
        axes.plot(at, values, color=colour, linewidth=1.6, marker=marker, markersize=3.5)
        axes.plot(
            at[-1:], values[-1:], color=colour, linestyle="none", marker="o", label=f"{label}, last"
        )
        axes.axhline(
            oracle[name],
            color=colour,
            linewidth=1.2,
            linestyle=(0, (5, 4)),
            label=f"{label}, oracle",
        )
    axes.set_xlabel("epoch of the evaluation")
    axes.set_xlim(0, 1.02 * at[-1])
    percent_axis(axes, "held-out, pooled over folds")
    axes.legend(frameon=False, fontsize=8.5, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes.annotate(
        "oracle: best epoch of each fold on its test subject; not comparable",
        (0.99, 0.02),
        xycoords="axes fraction",
        ha="right",
        fontsize=8,
        color=MUTED,
    )


def sheet_figure(
    frames: np.ndarray,
    target: np.ndarray,
    constructed: np.ndarray,
    titles: Sequence[str],
) -> Figure:
    """Rows of held-out clips: the frames, the dynamic image, and the one the model constructs.

    Args:
      frames: u8[M, T, H, W].
      target: f[M, h, w] in [0, 1], of any size; shown as large as a frame.
      constructed: f[M, h, w] in [0, 1].
      titles: M texts, written above the rows.
    """
    rows, num_frames, height, width = frames.shape
    gap, wide_gap, top = max(width // 24, 1), max(width // 5, 2), max(height // 4, 4)
    lefts = [t * (width + gap) for t in range(num_frames)]
    lefts.append(lefts[-1] + width + wide_gap)
    lefts.append(lefts[-1] + width + gap)
    pair = (target, constructed)
    canvas = np.full((rows * (height + top), lefts[-1] + width), np.nan)
    for row in range(rows):
        images = [_resized(np.clip(image[row], 0, 1), height, width) for image in pair]
        tiles = [*(frames[row] / 255.0), *images]
        y = row * (height + top) + top
        for x, tile in zip(lefts, tiles, strict=True):
            canvas[y : y + height, x : x + width] = tile
    inches = 0.98 / width  # side of one pixel
    head = 0.4 / inches  # pixels for two lines of column heads
    size = (canvas.shape[1] * inches + 0.1, (canvas.shape[0] + head) * inches + 0.1)
    figure, (axes,) = new_figure(*size)
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    for row, text in enumerate(titles):
        axes.text(0, row * (height + top) + top * 0.8, text, fontsize=8.5, color=INK, va="bottom")
    heads = [f"frame {t + 1}" for t in range(num_frames)]
    heads += ["dynamic image\ntrue", "dynamic image\nconstructed"]
    for x, text in zip(lefts, heads, strict=True):
        middle = x + width / 2
        axes.text(middle, -top * 0.1, text, ha="center", va="bottom", fontsize=8.5, color=MUTED)
    axes.set_ylim(canvas.shape[0] - 0.5, -head)
    axes.set_axis_off()
    return figure


def new_figure(
    width: float, height: float, *, rows: int = 1, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """An empty figure of `width` x `height` inches in the style of the others, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    all_axes = [figure.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]
    for axes in all_axes:
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(MUTED)
        axes.tick_params(colors=INK, labelsize=9)
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
    return figure, all_axes


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest-neighbour resize: shows the values as they are."""
    rows = np.arange(height) * image.shape[0] // height
    columns = np.arange(width) * image.shape[1] // width
    return image[np.ix_(rows, columns)]


def set_title(axes: Axes, text: str, *, pad: float = 8) -> None:
    """A title above the left edge."""
    axes.set_title(text, loc="left", fontsize=11, color=INK, pad=pad)


def percent_axis(axes: Axes, label: str) -> None:
    """Make the vertical axis one of shares from 0 to 1."""
    axes.set_ylim(0, 1.02)
    axes.set_yticks(np.linspace(0, 1, 6), [f"{p}%" for p in range(0, 101, 20)])
    axes.set_ylabel(label)
    axes.grid(axis="y", color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
