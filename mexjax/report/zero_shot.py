"""Emotions read off action units, by a model that never saw an emotion label."""

from __future__ import annotations

from typing import Any

import numpy as np

from mexjax.protocol import metrics
from mexjax.report import stats

NOTE = (
    "each clip has the emotion of the combination of action units whose sentences fit it best, by"
    " the model that did not see its subject; no emotion label was used in training"
)


def predict_emotion(features: dict[str, np.ndarray]) -> np.ndarray:
    """i[N]: number of the class in `emotion_classes` whose text scores best.

    A text of an emotion that the dataset has no class for is not considered.
    """
    names = features["emotion_classes"].tolist()
    of_text = np.array([names.index(n) if n in names else -1 for n in features["score_emotion"]])
    usable = np.flatnonzero(of_text >= 0)
    return of_text[usable][features["emotion_scores"][:, usable].argmax(axis=1)]


def zero_shot_results(
    features: dict[str, np.ndarray], subject: np.ndarray, texts: str
) -> dict[str, Any] | None:
    """The entry `zero_shot` of results.json; None without clips of known emotion.

    Args:
      features: arrays of `features.npz`.
      subject: U[N].
      texts: `combinations` or `sentence`.
    """
    label, names = features["emotion"], features["emotion_classes"].tolist()
    keep = label >= 0
    if not keep.any() or not set(names) & set(features["score_emotion"].tolist()):
        return None
    label, prediction = label[keep], predict_emotion(features)[keep]
    _, group = np.unique(subject[keep], return_inverse=True)
    by_subject = metrics.grouped_confusion(
        label, prediction, group, int(group.max()) + 1, len(names)
    )
    pooled = by_subject.sum(axis=0)
    keys = ("uf1", "uar", "weighted_f1", "acc")
    scores = metrics.scores(pooled)
    f1 = metrics.class_scores(pooled)["f1"]
    return {
        "note": NOTE,
        "texts": texts,
        "classes": names,
        "num_clips": int(keep.sum()),
        **{name: scores[name] for name in keys},
        "per_class_f1": dict(zip(names, f1, strict=True)),
        "confusion": pooled,
        "ci95": stats.bootstrap_intervals(by_subject, metrics=keys),
    }


def zero_shot_rows(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of a report, in percent."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    def interval(name: str) -> str:
        low, high = found["ci95"].get(name) or (None, None)
        return "-" if low is None or high is None else f"{percent(low)} to {percent(high)}"

    rows = [
        [metrics.NAMES[name], percent(found[name]), interval(name)]
        for name in ("uf1", "uar", "weighted_f1", "acc")
    ]
    rows += [[f"F1 of {name}", percent(f1), "-"] for name, f1 in found["per_class_f1"].items()]
    return ["emotions without emotion labels (%)", "last", "95% interval"], rows
