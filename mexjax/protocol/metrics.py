"""The numbers of the field, all computed from one pooled confusion matrix.

Predictions of all held-out clips are pooled first and scored once: averaging F1 over folds is
wrong under leave-one-subject-out, where most subjects lack some of the classes.

**A class absent from truth and predictions** (it happens in a partial run, inside one subject and
in a bootstrap sample) has no defined F1, precision or recall (0/0). It is left out of every mean,
as scikit-learn's `f1_score(average="macro")` does; counting it as 0 would punish a subject for
not showing an emotion, counting it as 1 would reward it. A class that is predicted but never true
has F1 = 0 and counts in UF1 and macro precision; it has no recall, so it is not in UAR (as in
`balanced_accuracy_score`). A class that is true but never predicted counts with precision 0.

Multi-label action units are scored from (tp, fp, fn) pooled over all clips, one binary F1 of the
positive class per unit, then the plain mean (CD6ME: Varanka et al., IEEE TAFFC 2024).
"""

from __future__ import annotations

import numpy as np

from mexjax.errors import DataError

# Every results file uses these keys; the values are what the field calls the metrics.
NAMES = {
    "acc": "accuracy",
    "uf1": "UF1 (macro F1)",
    "uar": "UAR (macro recall)",
    "war": "WAR (= accuracy)",
    "weighted_f1": "weighted F1",
    "macro_precision": "macro precision",
}
UNIT_NAMES = {
    "f1": "mean F1 of the action units",
    "acc": "mean accuracy of the action units",
}


def confusion_matrix(label: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts of (true, predicted) pairs.

    Args:
      label: i[N] true classes in 0..K-1.
      prediction: i[N] predicted classes in 0..K-1.
      num_classes: K.

    Returns:
      i64[K, K], rows true, columns predicted.

    Raises:
      DataError: lengths differ, or a class is outside 0..K-1.
    """
    return grouped_confusion(label, prediction, np.zeros(len(label), np.int64), 1, num_classes)[0]


def grouped_confusion(
    label: np.ndarray,
    prediction: np.ndarray,
    group: np.ndarray,
    num_groups: int,
    num_classes: int,
) -> np.ndarray:
    """One confusion matrix per group (subject, dataset): i64[G, K, K]; their sum is the pooled one.

    Args:
      label: i[N] true classes.
      prediction: i[N] predicted classes.
      group: i[N] number of the group of each clip, in 0..G-1.
      num_groups: G.
      num_classes: K.
    """
    label, prediction, group = (np.asarray(a) for a in (label, prediction, group))
    if not label.shape == prediction.shape == group.shape or label.ndim != 1:
        raise DataError(
            "Expected one label, one prediction and one group per clip; found arrays of shape "
            f"{label.shape}, {prediction.shape} and {group.shape}."
        )
    for what, values, limit in (
        ("label", label, num_classes),
        ("prediction", prediction, num_classes),
        ("group", group, num_groups),
    ):
        if values.size and not np.issubdtype(values.dtype, np.integer):
            raise DataError(f"Every {what} must be an integer, found dtype {values.dtype}.")
        if values.size and (values.min() < 0 or values.max() >= limit):
            raise DataError(
                f"Every {what} must be in 0..{limit - 1}, found {values.min()}..{values.max()}."
            )
    out = np.zeros((num_groups, num_classes, num_classes), np.int64)
    np.add.at(out, (group, label, prediction), 1)
    return out


def scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """All summary metrics of one or many confusion matrices.

    Args:
      confusion: [..., K, K] counts (integers, or means of counts), rows true.

    Returns:
      `{"acc", "uf1", "uar", "war", "weighted_f1", "macro_precision"}`, each f64[...] in [0, 1];
      nan where the matrix is empty. `war`, the recall weighted by class frequency, is the
      accuracy by definition; papers of the field print both names. `macro_precision` is what the
      released code of TSFmicro and GAMDSS prints as "UAR": it divides by the number of clips
      *predicted* as the class.
    """
    parts = class_scores(confusion)
    true, predicted = parts["num_true"], parts["num_predicted"]
    is_present = (true + predicted) > 0
    total = true.sum(-1)
    accuracy = _divide(parts["num_correct"].sum(-1), total)
    return {
        "acc": accuracy,
        "uf1": _mean_where(parts["f1"], is_present),
        "uar": _mean_where(parts["recall"], true > 0),
        "war": accuracy,
        "weighted_f1": _divide(np.where(true > 0, parts["f1"] * true, 0.0).sum(-1), total),
        # A class that was never predicted has no precision of its own; it counts as 0.
        "macro_precision": _mean_where(
            np.where(predicted > 0, parts["precision"], 0.0), is_present
        ),
    }


def class_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Per-class precision, recall and F1 = 2 tp / (2 tp + fp + fn).

    Args:
      confusion: [..., K, K] counts, rows true.

    Returns:
      `{"num_true", "num_predicted", "num_correct", "precision", "recall", "f1"}`, each f64[..., K];
      a ratio 0/0 is nan.
    """
    confusion = np.asarray(confusion, np.float64)
    if confusion.ndim < 2 or confusion.shape[-1] != confusion.shape[-2]:
        raise DataError(f"Expected confusion matrices [..., K, K], found {confusion.shape}.")
    correct = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, predicted = confusion.sum(-1), confusion.sum(-2)
    return {
        "num_true": true,
        "num_predicted": predicted,
        "num_correct": correct,
        "precision": _divide(correct, predicted),
        "recall": _divide(correct, true),
        "f1": _divide(2 * correct, true + predicted),
    }


def subject_means(confusions: np.ndarray) -> dict[str, float]:
    """Plain mean over subjects of the metrics computed inside each subject.

    Not comparable with the pooled numbers: a subject with two clips weighs as much as one with
    thirty, and macro F1 inside a subject runs over that subject's classes only. It is reported
    because some papers publish it.

    Args:
      confusions: [G, K, K], one matrix a subject; empty ones are left out.
    """
    values = scores(confusions)
    return {
        name: float(_mean_where(value, ~np.isnan(value))) if len(value) else float("nan")
        for name, value in values.items()
    }


def binary_counts(target: np.ndarray, is_predicted: np.ndarray) -> np.ndarray:
    """Counts per action unit, to be summed over folds before `binary_f1`.

    Args:
      target: bool or 0/1 [N, A].
      is_predicted: bool [N, A]; threshold logits at 0 or probabilities at 0.5 yourself (a
        threshold hidden in the metric silently turns probabilities into "always present").

    Returns:
      i64[A, 3]: true positives, false positives, false negatives.
    """
    target, is_predicted = np.asarray(target), np.asarray(is_predicted)
    if target.shape != is_predicted.shape or target.ndim != 2:
        raise DataError(
            f"Expected target and prediction of one shape [N, A]; found {target.shape} and "
            f"{is_predicted.shape}."
        )
    for what, values in (("target", target), ("prediction", is_predicted)):
        if not np.isin(values, (0, 1)).all():
            raise DataError(
                f"Every {what} must be 0 or 1; found other values (logits or probabilities?)."
                " Apply the threshold first."
            )
    target, is_predicted = target.astype(bool), is_predicted.astype(bool)
    counts = (target & is_predicted, ~target & is_predicted, target & ~is_predicted)
    return np.stack([c.sum(0) for c in counts], axis=-1).astype(np.int64)


def binary_f1(counts: np.ndarray) -> np.ndarray:
    """Binary F1 of the positive class per action unit: f64[..., A] from counts [..., A, 3].

    A unit without positives and without predicted positives scores 0, as in the CD6ME benchmark
    (its CASME fold has no AU5), so means over units of a single dataset stay below 1.
    """
    counts = np.asarray(counts, np.float64)
    tp, fp, fn = counts[..., 0], counts[..., 1], counts[..., 2]
    return np.nan_to_num(_divide(2 * tp, 2 * tp + fp + fn), nan=0.0)


def mean_binary_f1(counts: np.ndarray) -> float:
    """Plain mean of `binary_f1` over the action units: the headline number of CD6ME."""
    return float(binary_f1(counts).mean())


def unit_confusions(
    target: np.ndarray, prediction: np.ndarray, group: np.ndarray, num_groups: int
) -> np.ndarray:
    """One 2 x 2 confusion matrix for each group (subject, dataset) and action unit.

    Args:
      target: 0/1 [N, A].
      prediction: 0/1 [N, A], thresholded.
      group: i[N] number of the group of each clip, in 0..G-1.
      num_groups: G.

    Returns:
      i64[G, A, 2, 2], rows true, columns predicted; the sum over groups is the pooled one.
    """
    binary_counts(target, prediction)  # refuses wrong shapes and values
    target, prediction = np.asarray(target, np.int64), np.asarray(prediction, np.int64)
    out = np.zeros((num_groups, target.shape[1], 2, 2), np.int64)
    units = np.arange(target.shape[1])
    np.add.at(out, (np.asarray(group)[:, None], units, target, prediction), 1)
    return out


def unit_scores(confusions: np.ndarray) -> dict[str, np.ndarray]:
    """`{"f1", "acc"}` f64[...]: plain means over the units of [..., A, 2, 2] counts."""
    details = unit_details(confusions)
    return {"f1": details["f1"].mean(-1), "acc": details["acc"].mean(-1)}


def unit_details(confusions: np.ndarray) -> dict[str, np.ndarray]:
    """Details of each action unit, f64[..., A] from counts [..., A, 2, 2].

    Returns:
      `num_true`, `precision` and `recall` (nan where 0/0), `f1` (as `binary_f1`), `acc`, and
      `f1_always`: the F1 of saying "present" of every clip, 2 share / (1 + share).
    """
    c = np.asarray(confusions, np.float64)
    tp, fp, fn = c[..., 1, 1], c[..., 0, 1], c[..., 1, 0]
    total = c.sum((-2, -1))
    none = np.zeros_like(tp)
    return {
        "num_true": tp + fn,
        "precision": _divide(tp, tp + fp),
        "recall": _divide(tp, tp + fn),
        "f1": binary_f1(np.stack([tp, fp, fn], axis=-1)),
        "acc": _divide(tp + c[..., 0, 0], total),
        "f1_always": binary_f1(np.stack([tp + fn, total - tp - fn, none], axis=-1)),
    }


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    out = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


def _mean_where(values: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Mean over the last axis of the kept values; nan where none is kept."""
    return _divide(np.where(keep, values, 0.0).sum(-1), keep.sum(-1))
