"""Scores of the predictions of each task, shared by reports, intervals and comparisons.

`emotion` has one class a clip: the largest logit counts, scored from one confusion matrix. `au`
has action units, each present or not: a logit above 0 says present (probability above one half),
scored from one 2 x 2 matrix a unit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from mexjax.errors import DataError, unknown_name
from mexjax.protocol import metrics


class Scoring(NamedTuple):
    """The names and functions that score the predictions of a task.

    Attributes:
      summary: metrics that are given for each fold and subject, and with an interval.
      chosen_by: the metric by which the best of several evaluations is chosen.
      names: metric -> its name in the field, in the order of the table.
      predict: logits f[..., K] to classes i64[...] or units i64[..., A]; -1 where a logit is not
        finite.
      tables: (label, prediction, group i[N], G, K) to confusion matrices i64[G, ..., k, k].
      scores: matrices [..., k, k] to metrics f64[...].
    """

    summary: tuple[str, ...]
    chosen_by: str
    names: Mapping[str, str]
    predict: Callable[[np.ndarray], np.ndarray]
    tables: Callable[[np.ndarray, np.ndarray, np.ndarray, int, int], np.ndarray]
    scores: Callable[[np.ndarray], dict[str, np.ndarray]]


def predict_class(logits: np.ndarray) -> np.ndarray:
    """Return the class with the largest logit, i64[...]; -1 where a logit is not finite."""
    is_finite = np.isfinite(logits).all(axis=-1)
    return np.where(is_finite, np.where(np.isfinite(logits), logits, 0.0).argmax(axis=-1), -1)


def predict_units(logits: np.ndarray) -> np.ndarray:
    """Return 1 for a present unit and 0 for others, i64[..., A]; -1 where a logit is not finite."""
    return np.where(np.isfinite(logits), logits > 0, -1).astype(np.int64)


def _unit_tables(
    label: np.ndarray, prediction: np.ndarray, group: np.ndarray, num_groups: int, num_units: int
) -> np.ndarray:
    del num_units
    return metrics.unit_confusions(label, prediction, group, num_groups)


SCORINGS: dict[str, Scoring] = {
    "emotion": Scoring(
        summary=("acc", "uf1", "uar"),
        chosen_by="acc",
        names=metrics.NAMES,
        predict=predict_class,
        tables=metrics.grouped_confusion,
        scores=metrics.scores,
    ),
    "au": Scoring(
        summary=("f1", "acc"),
        chosen_by="f1",
        names=metrics.UNIT_NAMES,
        predict=predict_units,
        tables=_unit_tables,
        scores=metrics.unit_scores,
    ),
}
TASKS = tuple(SCORINGS)


def scoring_of(task: str) -> Scoring:
    """The scoring of a task.

    Raises:
      DataError: no such task; the message lists them.
    """
    if task not in SCORINGS:
        raise DataError(unknown_name("task", task, TASKS))
    return SCORINGS[task]


def pooled_scores(
    task: str, label: np.ndarray, prediction: np.ndarray, num_classes: int
) -> dict[str, np.ndarray]:
    """The summary metrics of all clips together.

    Args:
      task: a key of `SCORINGS`.
      label: i[N] classes, or 0/1 [N, A].
      prediction: the same of `Scoring.predict`.
      num_classes: K, or A.

    Returns:
      metric -> f64[], those of `Scoring.summary`.
    """
    scoring = scoring_of(task)
    group = np.zeros(len(label), np.int64)
    values = scoring.scores(scoring.tables(label, prediction, group, 1, num_classes)[0])
    return {name: values[name] for name in scoring.summary}


def evaluation_scores(task: str, label: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Score every evaluation by the metric that compares evaluations.

    Args:
      task: a key of `SCORINGS`.
      label: i[N] classes, or 0/1 [N, A].
      logits: f[N, E, K].

    Returns:
      f64[E]; -1 for an evaluation with a logit that is not finite.
    """
    scoring = scoring_of(task)
    is_usable = np.isfinite(logits).all(axis=(0, 2))
    prediction = scoring.predict(logits[:, is_usable])  # (N, E', ...)
    clips, evaluations = prediction.shape[:2]
    values = scoring.scores(
        scoring.tables(
            np.repeat(label, evaluations, axis=0),
            prediction.reshape(clips * evaluations, *prediction.shape[2:]),
            np.tile(np.arange(evaluations), clips),
            evaluations,
            logits.shape[-1],
        )
    )
    out = np.full(logits.shape[1], -1.0)
    out[is_usable] = values[scoring.chosen_by]
    return out
