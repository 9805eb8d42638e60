"""Intervals and tests: exact small cases, agreement with direct resampling, determinism."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mexjax.errors import DataError
from mexjax.protocol import metrics
from mexjax.report import stats


def runs(num_subjects=8, clips=12, right=(0.8, 0.6), seed=0):
    """Per-subject matrices and correctness of two made-up runs over the same clips."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, num_subjects * clips)
    subject = np.repeat(np.arange(num_subjects), clips)
    out = []
    for share in right:
        wrong = (label + rng.integers(1, 3, label.size)) % 3
        prediction = np.where(rng.random(label.size) < share, label, wrong)
        confusions = metrics.grouped_confusion(label, prediction, subject, num_subjects, 3)
        out.append((confusions, prediction == label))
    return out


def test_bootstrap_resamples_subjects():
    (confusions, _), _ = runs()
    found = stats.bootstrap_intervals(confusions, metrics=("acc", "uf1"), seed=3)
    rng = np.random.default_rng(9)
    draws = confusions[rng.integers(0, 8, (4000, 8))].sum(1)
    for name, interval in found.items():
        expected = np.quantile(metrics.scores(draws)[name], [0.025, 0.975])
        np.testing.assert_allclose(interval, expected, atol=0.02)
        assert interval[0] < metrics.scores(confusions.sum(0))[name] < interval[1]


def test_bootstrap_is_wider_when_clips_of_a_subject_agree():
    """All clips of a subject right or all wrong: only the number of subjects counts."""
    clustered = np.array([[[10, 0], [0, 0]]] * 4 + [[[0, 10], [0, 0]]] * 4)
    spread = np.array([[[5, 5], [0, 0]]] * 8)
    (low, high) = stats.bootstrap_intervals(clustered, metrics=("acc",))["acc"]
    assert high - low > 0.5
    assert stats.bootstrap_intervals(spread, metrics=("acc",))["acc"] == (0.5, 0.5)


def test_same_seed_same_numbers():
    (a, _), (b, _) = runs()
    assert stats.bootstrap_intervals(a) == stats.bootstrap_intervals(a)
    assert stats.bootstrap_intervals(a, seed=1) != stats.bootstrap_intervals(a, seed=2)
    assert stats.paired_comparison(a, b) == stats.paired_comparison(a, b)


def test_one_subject_has_no_interval():
    (confusions, _), (other, _) = runs(num_subjects=1)
    assert np.isnan(stats.bootstrap_intervals(confusions)["acc"]).all()
    found = stats.paired_comparison(confusions, other)["acc"]
    assert np.isnan(found["ci95"]).all() and np.isnan(found["p_permutation"])


def test_permutation_test_is_exact_for_few_subjects():
    (a, _), (b, _) = runs(num_subjects=7)
    found = stats.paired_comparison(a, b, metrics=("uf1",))["uf1"]
    observed = metrics.scores(a.sum(0))["uf1"] - metrics.scores(b.sum(0))["uf1"]
    assert found["difference"] == pytest.approx(observed)
    hits = 0
    for exchanged in itertools.product((False, True), repeat=7):
        swap = np.array(exchanged)[:, None, None]
        one, two = np.where(swap, b, a).sum(0), np.where(swap, a, b).sum(0)
        difference = metrics.scores(one)["uf1"] - metrics.scores(two)["uf1"]
        hits += abs(difference) >= abs(observed) - 1e-12
    assert found["p_permutation"] == pytest.approx(hits / 2**7)


def test_comparison_of_equal_and_of_different_runs():
    (a, _), (b, _) = runs(num_subjects=20, right=(0.9, 0.4))
    same = stats.paired_comparison(a, a)["uf1"]
    assert same["difference"] == 0 and same["ci95"] == (0, 0)
    assert same["p_permutation"] == pytest.approx(1)
    found = stats.paired_comparison(a, b)["uf1"]
    assert 0 < found["p_permutation"] < 0.01 and found["ci95"][0] > 0
    back = stats.paired_comparison(b, a)["uf1"]
    assert back["difference"] == pytest.approx(-found["difference"])


def test_comparison_wants_the_same_clips():
    (a, _), _ = runs()
    (b, _), _ = runs(seed=5)
    with pytest.raises(DataError, match="other true counts"):
        stats.paired_comparison(a, b)
    with pytest.raises(DataError, match="same classes"):
        stats.paired_comparison(a, a[:4])
    with pytest.raises(DataError, match="one confusion matrix a subject"):
        stats.bootstrap_intervals(a[0])


def test_mcnemar_by_hand():
    """8 clips only a gets right, 2 only b: two-sided binomial p = 2 (1 + 10 + 45) / 2^10."""
    a = np.array([True] * 8 + [False] * 2 + [True] * 5)
    b = np.array([False] * 8 + [True] * 2 + [True] * 5)
    found = stats.mcnemar(a, b)
    assert (found["only_a"], found["only_b"]) == (8, 2)
    assert found["p"] == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert stats.mcnemar(a, a)["p"] == 1
    with pytest.raises(DataError, match="same clips"):
        stats.mcnemar(a, b[:3])


def test_over_seeds():
    found = stats.over_seeds([{"acc": 0.5}, {"acc": 0.7}, {"acc": 0.6}])["acc"]
    assert found["mean"] == pytest.approx(0.6) and found["sd"] == pytest.approx(0.1)
    assert found["n"] == 3
    assert np.isnan(stats.over_seeds([{"acc": 0.5}])["acc"]["sd"])
    with pytest.raises(DataError, match="at least one run"):
        stats.over_seeds([])
