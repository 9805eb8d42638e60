"""The CD6ME counts and metric: a predictor that says "present" always has a known score."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mexjax.prepare.sources.counts import check_counts, published
from mexjax.protocol import metrics, splits

# In the benchmark's order; leave one of them out (Varanka et al., IEEE TAFFC 2024).
DATASETS = ("casme", "casme2", "samm", "fourd", "mmew", "casme3a")
UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17)
SIZES = (189, 256, 159, 267, 300, 860)
SUMS = (217, 363, 168, 401, 444, 928)
# The "Constant" row of the benchmark, in percent: F1 per unit, their mean, mean per dataset.
ALWAYS = (26.04, 24.23, 51.70, 12.38, 5.74, 22.08, 10.89, 7.12, 15.95, 24.00, 4.99, 8.12)
ALWAYS_MEAN = 17.77
PER_DATASET = (16.1, 19.4, 15.3, 20.2, 20.7, 15.1)


@pytest.fixture(scope="module")
def labels():
    """0/1 [2031, 12] and the dataset of each row: the published counts, placed at random."""
    rng = np.random.default_rng(0)
    known = published()
    assert tuple(known["action_units"]) == UNITS
    parts, names = [], []
    for name, size, total in zip(DATASETS, SIZES, SUMS, strict=True):
        entry = known["datasets"][name]
        assert entry["clips"][0] == size and sum(entry["aus"]) == total
        part = np.zeros((size, len(UNITS)), np.int64)
        for column, count in enumerate(entry["aus"]):
            part[rng.permutation(size)[:count], column] = 1
        parts.append(part)
        names += [name] * size
    return np.concatenate(parts), np.array(names)


def test_always_present_scores_as_in_the_benchmark(labels):
    target, names = labels
    assert target.shape == (2031, 12) and target.sum() == 2521
    assert target.sum(0).tolist() == [304, 280, 708, 134, 60, 252, 117, 75, 176, 277, 52, 86]
    always = np.ones_like(target, bool)
    # Pooled over the six held-out datasets, as the benchmark does, before any F1.
    counts = sum(metrics.binary_counts(target[names == n], always[names == n]) for n in DATASETS)
    f1 = metrics.binary_f1(counts)
    rate = target.mean(0)
    np.testing.assert_allclose(f1, 2 * rate / (1 + rate), rtol=1e-12)
    np.testing.assert_allclose(100 * f1, ALWAYS, atol=0.005)
    assert 100 * metrics.mean_binary_f1(counts) == pytest.approx(ALWAYS_MEAN, abs=0.005)


def test_the_mean_over_datasets_is_another_number(labels):
    target, names = labels
    means = []
    for name in DATASETS:
        part = target[names == name]
        means.append(100 * metrics.mean_binary_f1(metrics.binary_counts(part, np.ones_like(part))))
    np.testing.assert_allclose(means, PER_DATASET, atol=0.05)


def test_never_present_scores_zero(labels):
    target, _ = labels
    counts = metrics.binary_counts(target, np.zeros_like(target))
    assert metrics.mean_binary_f1(counts) == 0


@pytest.fixture(scope="module")
def table(labels):
    """A table of clips with the published counts of units."""
    target, names = labels
    aus = [[str(UNITS[k]) for k in np.flatnonzero(row)] for row in target]
    return pd.DataFrame(
        {
            "dataset": names,
            "subject": [f"{name}/{i % 7}" for i, name in enumerate(names)],
            "clip": [f"clip{i}" for i in range(len(names))],
            "emotion": "others",
            "aus": aus,
            "aus_unsure": [[] for _ in aus],
        }
    )


def test_folds_are_the_six_datasets(table):
    class Config:
        name = "leave_one_dataset_out"
        classes = 3
        num_splits = 5
        num_validation_subjects = 0

    folds = splits.make_folds(table, None, Config())
    sizes = {fold.name: (len(fold.test), len(fold.train)) for fold in folds}
    assert sizes == {n: (k, 2031 - k) for n, k in zip(DATASETS, SIZES, strict=True)}


def test_counts_of_the_table_are_checked(table):
    assert not [line for line in check_counts(table) if "AU" in line or "clips, p" in line]
    part = table[table["dataset"] == "fourd"].copy()
    assert check_counts(part) == []
    # A doubtful unit counts as present, as it did in the benchmark.
    row = next(i for i in part.index if "4" in part["aus"][i])
    part.at[row, "aus"] = [au for au in part["aus"][row] if au != "4"]
    assert check_counts(part) == ["fourd: 101 clips with AU4, published 102."]
    part.at[row, "aus_unsure"] = ["4"]
    assert check_counts(part) == []
    assert check_counts(part.iloc[1:]) == ["fourd: 266 clips, published 267."]
    lines = check_counts(table[table["dataset"] == "casme"])
    assert lines == ["casme: 7 subjects, published 19."]
    lines = check_counts(table[table["dataset"] == "mmew"])
    assert "mmew: 300 clips of others, published 66." in lines
    assert "mmew: 0 clips of anger, published 8." in lines
    own = part.assign(dataset="csv")
    assert check_counts(own) == []
