"""Metrics against worked examples and scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from mexjax.errors import DataError
from mexjax.protocol import metrics


def test_worked_example():
    """Three classes by hand: rows true, columns predicted."""
    confusion = np.array([[5, 1, 0], [2, 2, 0], [1, 0, 1]])
    values = metrics.scores(confusion)
    # F1: 2*5/(6+8), 2*2/(4+3), 2*1/(2+1); recall 5/6, 2/4, 1/2; precision 5/8, 2/3, 1/1.
    assert values["acc"] == values["war"] == pytest.approx(8 / 12)
    assert values["uf1"] == pytest.approx((10 / 14 + 4 / 7 + 2 / 3) / 3)
    assert values["uar"] == pytest.approx((5 / 6 + 1 / 2 + 1 / 2) / 3)
    assert values["weighted_f1"] == pytest.approx((6 * 10 / 14 + 4 * 4 / 7 + 2 * 2 / 3) / 12)
    assert values["macro_precision"] == pytest.approx((5 / 8 + 2 / 3 + 1) / 3)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 5, 80)
    prediction = np.where(rng.random(80) < 0.6, label, rng.integers(0, 5, 80))
    confusion = metrics.confusion_matrix(label, prediction, 5)
    np.testing.assert_array_equal(confusion, sk.confusion_matrix(label, prediction))
    values = metrics.scores(confusion)
    expected = {
        "acc": sk.accuracy_score(label, prediction),
        "war": sk.recall_score(label, prediction, average="weighted"),
        "uf1": sk.f1_score(label, prediction, average="macro"),
        "uar": sk.balanced_accuracy_score(label, prediction),
        "weighted_f1": sk.f1_score(label, prediction, average="weighted"),
        "macro_precision": sk.precision_score(label, prediction, average="macro"),
    }
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, abs=1e-12), name
    parts = metrics.class_scores(confusion)
    expected_parts = sk.precision_recall_fscore_support(label, prediction)
    for name, value in zip(("precision", "recall", "f1", "num_true"), expected_parts, strict=True):
        np.testing.assert_allclose(parts[name], value, atol=1e-12)


def test_absent_classes():
    """Class 2 is in neither truth nor predictions, class 3 is predicted but never true."""
    label, prediction = np.array([0, 0, 1, 1, 1]), np.array([0, 3, 1, 1, 0])
    values = metrics.scores(metrics.confusion_matrix(label, prediction, 4))
    assert values["uf1"] == pytest.approx((0.5 + 0.8 + 0) / 3)  # class 3 counts as 0
    assert values["uar"] == pytest.approx((1 / 2 + 2 / 3) / 2)  # class 3 has no recall
    assert values["macro_precision"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns about the class without truth
        assert values["uf1"] == pytest.approx(sk.f1_score(label, prediction, average="macro"))
        assert values["uar"] == pytest.approx(sk.balanced_accuracy_score(label, prediction))
    parts = metrics.class_scores(metrics.confusion_matrix(label, prediction, 4))
    assert np.isnan(parts["f1"][2]) and np.isnan(parts["recall"][3]) and parts["f1"][3] == 0


def test_never_predicted_class_counts_with_precision_zero():
    confusion = np.array([[4, 0], [2, 0]])
    assert metrics.scores(confusion)["macro_precision"] == pytest.approx(4 / 6 / 2)


def test_empty_matrix_is_nan():
    assert all(np.isnan(value) for value in metrics.scores(np.zeros((3, 3))).values())


def test_many_matrices_at_once():
    rng = np.random.default_rng(0)
    stacked = rng.integers(0, 6, (4, 3, 5, 5))
    together = metrics.scores(stacked)
    for index in np.ndindex(4, 3):
        for name, value in metrics.scores(stacked[index]).items():
            assert together[name][index] == pytest.approx(value)


def test_grouped_confusion_sums_to_the_pooled_one():
    rng = np.random.default_rng(1)
    label, prediction, group = (rng.integers(0, 4, 60) for _ in range(3))
    grouped = metrics.grouped_confusion(label, prediction, group, 4, 4)
    np.testing.assert_array_equal(grouped.sum(0), metrics.confusion_matrix(label, prediction, 4))
    np.testing.assert_array_equal(
        grouped[2], metrics.confusion_matrix(label[group == 2], prediction[group == 2], 4)
    )


def test_subject_means():
    """Two subjects with accuracies 1/1 and 1/3: the mean is not the pooled 2/4."""
    confusions = np.array([[[1, 0], [0, 0]], [[0, 1], [1, 1]], [[0, 0], [0, 0]]])
    means = metrics.subject_means(confusions)
    assert means["acc"] == pytest.approx((1 + 1 / 3) / 2)
    assert means["uf1"] == pytest.approx((1 + (0 + 0.5) / 2) / 2)
    assert metrics.scores(confusions.sum(0))["acc"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("label", "prediction", "text"),
    [
        ([0, 1], [0], "one label, one prediction"),
        ([0, 5], [0, 1], "label must be in 0..2"),
        ([0, 1], [0, -1], "prediction must be in 0..2"),
        ([0.0, 1.0], [0, 1], "must be an integer"),
    ],
)
def test_wrong_input(label, prediction, text):
    with pytest.raises(DataError, match=text):
        metrics.confusion_matrix(np.array(label), np.array(prediction), 3)


def test_not_a_confusion_matrix():
    with pytest.raises(DataError, match="found \\(2, 3\\)"):
        metrics.scores(np.zeros((2, 3)))


def test_action_units_of_the_constant_predictor():
    """Always "present" scores 2a/(1+a) per unit; the published baseline has mean 17.77 %."""
    positives = np.array([304, 280, 708, 134, 60, 252, 117, 75, 176, 277, 52, 86])
    target = np.arange(2031)[:, None] < positives
    counts = metrics.binary_counts(target, np.ones_like(target))
    share = positives / 2031
    np.testing.assert_allclose(metrics.binary_f1(counts), 2 * share / (1 + share))
    expected = [26.04, 24.23, 51.70, 12.38, 5.74, 22.08, 10.89, 7.12, 15.95, 24.00, 4.99, 8.12]
    np.testing.assert_allclose(100 * metrics.binary_f1(counts), expected, atol=0.006)
    assert 100 * metrics.mean_binary_f1(counts) == pytest.approx(17.77, abs=0.005)


def test_action_units_pool_over_folds():
    rng = np.random.default_rng(2)
    target, predicted = rng.random((50, 4)) < 0.2, rng.random((50, 4)) < 0.3
    parts = [metrics.binary_counts(target[s], predicted[s]) for s in (slice(20), slice(20, 50))]
    expected = [sk.f1_score(target[:, a], predicted[:, a]) for a in range(4)]
    np.testing.assert_allclose(metrics.binary_f1(sum(parts)), expected)


def test_action_unit_without_positives_counts_as_zero():
    counts = metrics.binary_counts(np.zeros((3, 1), bool), np.zeros((3, 1), bool))
    assert metrics.mean_binary_f1(counts) == 0


def test_action_units_want_a_threshold():
    with pytest.raises(DataError, match="Apply the threshold"):
        metrics.binary_counts(np.zeros((2, 1)), np.array([[0.4], [-2.0]]))
    with pytest.raises(DataError, match="one shape"):
        metrics.binary_counts(np.zeros((2, 1)), np.zeros((2, 2)))
