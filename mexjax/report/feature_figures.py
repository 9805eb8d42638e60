"""Pictures of what a model that compares action units with texts has learnt.

Micro-AU CLIP, Fig. 5 to 7: where each unit looks, how its features compare with its two sentences,
and how features of clips lie to each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mexjax.report.agg import Figure, Line2D
from mexjax.report.figures import INK, MUTED, ORANGE, new_figure, set_title

# People with the common colour vision deficiencies can tell these apart (Okabe and Ito 2008, and
# two more).
_COLOURS = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000"),
    *("#7f7f7f", "#8c564b", "#6a3d9a", "#b15928"),
)


def attention_figure(
    faces: np.ndarray,
    tokens: np.ndarray,
    attention: np.ndarray,
    labels: np.ndarray,
    units: Sequence[str],
    titles: Sequence[str],
    grid: int,
    title: str,
) -> Figure:
    """Weights of the patches of each unit, over faces (Fig. 5).

    Args:
      faces: u8[M,H,W,C].
      tokens: i[M,A,J], patches of each unit's landmarks, -1 for none.
      attention: f[M,A,J], their weights.
      labels: 0/1 [M,A]; units that a clip shows have a coloured frame.
      units: A names.
      titles: M texts.
      grid: patches a side.
      title: one line; what the coloured frames mean is added.
    """
    rows, columns = tokens.shape[:2]
    figure, all_axes = new_figure(
        1.25 * columns + 0.6, 1.3 * rows + 0.7, rows=rows, columns=columns
    )
    images = []
    for i, axes in enumerate(all_axes):
        row, unit = divmod(i, columns)
        weights = np.zeros(grid * grid)
        is_there = tokens[row, unit] >= 0
        np.add.at(weights, tokens[row, unit][is_there], attention[row, unit][is_there])
        gray = faces[row].mean(axis=-1)
        height, width = gray.shape
        axes.imshow(gray, cmap="gray", vmin=0, vmax=255)
        image = axes.imshow(
            np.ma.masked_less_equal(weights.reshape(grid, grid), 0),
            cmap="plasma",
            vmin=0,
            vmax=1,
            alpha=0.55,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation="nearest",
        )
        images.append(image)
        is_shown = labels[row, unit] > 0
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(True)
            spine.set_color(ORANGE if is_shown else MUTED)
            spine.set_linewidth(2.4 if is_shown else 0.6)
        if row == 0:
            axes.set_title(units[unit], fontsize=9, color=INK)
        if unit == 0:
            axes.set_ylabel(titles[row], fontsize=7.5, color=INK)
    bar = figure.colorbar(images[-1], ax=all_axes, fraction=0.02, pad=0.01)
    bar.set_label("weight of the patch", color=MUTED)
    bar.outline.set_visible(False)
    text = f"{title}\norange frame: the clip shows the unit"
    figure.suptitle(text, fontsize=11, color=INK, x=0.01, ha="left")
    return figure


def similarity_figure(
    cosines: np.ndarray, labels: np.ndarray, units: Sequence[str], title: str
) -> Figure:
    """Held-out clips against the sentence that is right for each of them, unit by unit (Fig. 6).

    Clips that do not show the unit come first. A unit that was learnt has two red squares on the
    diagonal and blue ones beside them.

    Args:
      cosines: f[N,A,2], similarity of a clip with the negative and the positive sentence.
      labels: 0/1 [N,A].
      units: A names.
      title: one line.
    """
    count = len(units)
    columns = min(4, count)
    rows = -(-count // columns)
    figure, all_axes = new_figure(2.3 * columns + 0.9, 2.5 * rows + 0.5, rows=rows, columns=columns)
    images = []
    for unit, axes in enumerate(all_axes):
        if unit >= count:
            axes.set_axis_off()
            continue
        order = np.argsort(labels[:, unit], kind="stable")
        ordered = labels[order, unit].astype(int)
        matrix = cosines[order][:, unit][:, ordered]
        image = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        images.append(image)
        edge = len(ordered) - ordered.sum() - 0.5
        axes.axhline(edge, color=INK, linewidth=0.8)
        axes.axvline(edge, color=INK, linewidth=0.8)
        if unit % columns == 0:
            axes.set_ylabel("clips: absent, present", fontsize=8)
        if unit + columns >= count:
            axes.set_xlabel("sentences of these clips", fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(f"{units[unit]}, n={ordered.sum()}", fontsize=9, color=INK)
    bar = figure.colorbar(images[-1], ax=all_axes, fraction=0.025, pad=0.02)
    bar.set_label("cosine", color=MUTED)
    bar.outline.set_visible(False)
    figure.suptitle(title, fontsize=11, color=INK, x=0.01, ha="left")
    return figure


def feature_map_figure(
    features: np.ndarray, labels: np.ndarray, units: Sequence[str], title: str
) -> Figure:
    """Features of held-out clips, one point a clip and unit, by t-SNE (Fig. 7).

    The features must be those of one model, because each fold's model has a space of its own.

    Args:
      features: f[N,A,d].
      labels: 0/1 [N,A]; clips that show the unit are filled.
      units: A names.
      title: one line.
    """
    from sklearn.manifold import TSNE

    points = features.reshape(-1, features.shape[-1]).astype(np.float32)
    # Perplexity must be below the number of points.
    perplexity = min(30.0, max(2.0, (len(points) - 1) / 4))
    places = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(points)
    places = places.reshape(*labels.shape, 2)
    figure, (axes,) = new_figure(6.6, 5.2)
    for unit in range(len(units)):
        colour = _COLOURS[unit % len(_COLOURS)]
        for is_shown in (False, True):
            dots = places[labels[:, unit] == is_shown, unit]
            axes.scatter(
                *dots.T,
                s=26 if is_shown else 16,
                facecolors=colour if is_shown else "none",
                edgecolors=colour,
                linewidths=0.9,
                marker="o",
                alpha=1.0 if is_shown else 0.4,  # most clips do not show a unit
                zorder=3 if is_shown else 2,
            )
    handles = [
        Line2D([], [], linestyle="none", marker="o", color=_COLOURS[i % len(_COLOURS)], label=name)
        for i, name in enumerate(units)
    ]
    handles += [
        Line2D([], [], linestyle="none", marker="o", color=MUTED, label="present"),
        Line2D([], [], linestyle="none", marker="o", fillstyle="none", color=MUTED, label="absent"),
    ]
    axes.legend(
        handles=handles, frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5)
    )
    axes.set_xticks([])
    axes.set_yticks([])
    set_title(axes, title)
    return figure
