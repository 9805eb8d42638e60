"""Figures: they are drawn without warnings, with the right content, reproducibly."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from mexjax.report import figures


def texts(figure: Figure) -> str:
    """All text in the figure."""
    found = []
    for axes in figure.axes:
        found += [t.get_text() for t in axes.texts]
        found += [t.get_text() for t in (*axes.get_xticklabels(), *axes.get_yticklabels())]
        found += [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()]
        if axes.get_legend():
            found += [t.get_text() for t in axes.get_legend().get_texts()]
    return " | ".join(found)


def pixels(figure: Figure, tmp_path) -> np.ndarray:
    """Save and read back f32[H, W, 4]."""
    figures.save_figure(figure, tmp_path / "figure.png", dpi=60)
    return imread(tmp_path / "figure.png")


def subject_entries(count, dataset="synthetic"):
    return [
        {
            "name": f"{dataset}/{i:02d}",
            "n": 5 + i,
            "last": {"acc": (i % 5) / 5},
            "oracle": {"acc": (i % 5 + 1) / 5},
        }
        for i in range(count)
    ]


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_confusion(tmp_path, num_classes):
    confusion = np.arange(num_classes**2).reshape(num_classes, num_classes)
    confusion[-1] = 0  # a class without clips
    names = [f"class{k}" for k in range(num_classes)]
    figure = figures.confusion_figure(confusion, names, "a title")
    text = texts(figure)
    assert "a title" in text and "class0\n(n=" in text and "(n=0)" in text
    shown = [t.get_text() for t in figure.axes[0].texts]
    assert shown.count("0") == num_classes + 1 and "%" in text
    assert pixels(figure, tmp_path).std() > 0.05


@pytest.mark.parametrize("count", [1, 10, 94])
def test_subjects(tmp_path, count):
    figure = figures.subjects_figure(subject_entries(count), 0.55, "a title")
    assert len(figure.axes) == (3 if count == 94 else 1)
    labels = [t.get_text() for axes in figure.axes for t in axes.get_xticklabels()]
    assert labels == [f"{i:02d}" for i in range(count)]
    bars = [bar.get_height() for axes in figure.axes for bar in axes.patches]
    np.testing.assert_allclose(bars, [(i % 5) / 5 for i in range(count)])
    legend = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert legend[0] == "last evaluation" and "test subject" in legend[1]
    assert "pooled 55.0%" in texts(figure)
    height, width, _ = pixels(figure, tmp_path).shape
    assert height < 1200 and width < 1200


def test_subjects_of_several_datasets_keep_their_dataset():
    entries = subject_entries(2, "casme2") + subject_entries(2, "samm")
    assert "casme2/00" in texts(figures.subjects_figure(entries, 0.5, ""))


def test_curves(tmp_path):
    loss = np.random.default_rng(0).random((4, 6))
    loss[1, 4:] = np.nan  # a shorter fold
    held_out = {"epoch": [2, 4, 6], "acc": [0.4, None, 0.6], "uf1": [0.3, None, 0.5]}
    figure = figures.curves_figure(loss, held_out, {"acc": 0.8, "uf1": 0.7}, "a title")
    left, right = figure.axes
    mean = left.get_lines()[0].get_ydata()
    np.testing.assert_allclose(mean, np.nanmean(loss, axis=0))
    text = texts(figure)
    assert "mean over folds" in text and "accuracy, oracle" in text and "UF1, last" in text
    assert "best epoch of each fold on its test subject; not comparable" in text
    dashed = [line for line in right.get_lines() if line.get_label().endswith("oracle")]
    assert [line.get_ydata()[0] for line in dashed] == [0.8, 0.7]
    assert pixels(figure, tmp_path).std() > 0.05


@pytest.mark.parametrize("loss", [np.full((1, 3), np.nan), np.array([[0.5]]), np.zeros((2, 0))])
def test_curves_of_little(tmp_path, loss):
    held_out = {"epoch": [1], "acc": [0.4], "uf1": [0.3]}
    figure = figures.curves_figure(loss, held_out, {"acc": 0.4, "uf1": 0.3}, "")
    assert len(figure.axes) == 1  # one evaluation is no curve
    assert pixels(figure, tmp_path).ndim == 3


def test_sheet(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 3, 16, 16)).astype(np.uint8)
    target = rng.random((2, 8, 8))  # half the size of the frames
    constructed = rng.random((2, 16, 16)) * 2  # beyond 1: clipped
    figure = figures.sheet_figure(frames, target, constructed, ["one", "two"])
    text = texts(figure)
    for word in ("one", "two", "frame 1", "frame 3", "dynamic image\ntrue", "constructed"):
        assert word in text
    canvas = figure.axes[0].images[0].get_array().filled(np.nan)
    tiles = canvas[4:20]  # below the title of the first row
    np.testing.assert_allclose(tiles[:, :16], frames[0, 0] / 255)
    np.testing.assert_allclose(tiles[:, -16:], np.clip(constructed[0], 0, 1))
    np.testing.assert_allclose(tiles[:, -33:-17], target[0].repeat(2, 0).repeat(2, 1))
    assert np.nanmax(canvas) <= 1
    assert pixels(figure, tmp_path).ndim == 3


def test_same_figure_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        figure = figures.subjects_figure(subject_entries(5), 0.5, "a title")
        figures.save_figure(figure, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2
