"""Batches of unequal folds: every sample once an epoch, padding without weight."""

from __future__ import annotations

import numpy as np
import pytest
from small import small_config

from mexjax.errors import ConfigError
from mexjax.protocol.splits import Fold
from mexjax.train import plan


def make_folds(sizes):
    total = max(sizes) + 5
    rows = np.arange(total)
    return [
        Fold(f"f{i}", rows[:n], np.array([], int), rows[n : n + 2 + i]) for i, n in enumerate(sizes)
    ]


def test_each_epoch_sees_each_sample_once():
    folds = make_folds([11, 23, 5])
    config = small_config(train__num_epochs=3, train__batch_size=4)
    layout = plan.plan_batches(folds, [0, 1, 2], np.zeros((30, 1, 1, 1, 1), np.uint8), config)
    steps = plan.steps_per_epoch(folds, config)
    assert steps == 6 and layout.idx.shape == (3, 18, 4)
    for f, fold in enumerate(folds):
        for epoch in range(3):
            part = slice(epoch * steps, (epoch + 1) * steps)
            seen = layout.idx[f, part][layout.weight[f, part] > 0]
            np.testing.assert_array_equal(np.sort(seen), fold.train)
            # Weight and validity agree: a step without samples is not a step.
            has_samples = layout.weight[f, part].sum(axis=1) > 0
            np.testing.assert_array_equal(has_samples, layout.valid[f, part])
    orders = [layout.idx[1, e * steps : (e + 1) * steps].ravel().tolist() for e in range(3)]
    assert orders[0] != orders[1] != orders[2]


def test_num_steps_gives_each_fold_that_many():
    folds = make_folds([11, 23, 5])
    config = small_config(train__num_epochs=0, train__num_steps=7, train__batch_size=4)
    layout = plan.plan_batches(folds, [0, 1, 2], np.zeros((30, 1, 1, 1, 1), np.uint8), config)
    np.testing.assert_array_equal(layout.valid.sum(axis=1), [7, 7, 7])
    np.testing.assert_array_equal(layout.total_steps, [7, 7, 7])
    np.testing.assert_array_equal(layout.epoch_steps, [3, 6, 2])


def test_a_fold_has_the_same_order_alone_and_beside_others():
    folds = make_folds([11, 23, 5])
    config = small_config(train__batch_size=4)
    clips = np.zeros((30, 1, 1, 1, 1), np.uint8)
    together = plan.plan_batches(folds, [0, 1, 2], clips, config)
    alone = plan.plan_batches(folds[2:], [2], clips, config)
    own = alone.idx.shape[1] // 2
    for epoch in range(2):
        longer = together.idx[2, epoch * 6 : epoch * 6 + own]
        np.testing.assert_array_equal(alone.idx[0, epoch * own : (epoch + 1) * own], longer)


def test_padding_folds_have_no_step():
    folds = make_folds([11, 5])
    config = small_config(train__batch_size=4)
    layout = plan.plan_batches(folds, [0, 1], np.zeros((30, 1, 1, 1, 1), np.uint8), config)
    padded = plan.pad_folds(layout, 4)
    assert padded.idx.shape[0] == 4
    assert not padded.valid[2:].any() and padded.valid[1].any()


def test_eval_batches_cover_the_held_out_clips():
    folds = make_folds([11, 23, 5])
    config = small_config(eval__batch_size=3)
    layout = plan.plan_batches(folds, [0, 1, 2], np.zeros((30, 1, 1, 1, 1), np.uint8), config)
    assert layout.eval_idx.shape == (3, 2, 3)
    for f, fold in enumerate(folds):
        held_out = layout.eval_idx[f].ravel()[: len(fold.test)]
        np.testing.assert_array_equal(held_out, fold.test)


@pytest.mark.parametrize(("mode", "expected"), [("train", (0, 0)), ("per_split", (0, 1))])
def test_split_scale_uses_the_split_it_says(mode, expected):
    clips = np.random.default_rng(0).integers(0, 255, (30, 2, 4, 4, 1)).astype(np.uint8)
    (fold,) = make_folds([11])
    config = small_config(data__split_scale=mode)
    layout = plan.plan_batches([fold], [0], clips, config)
    for split, source in enumerate(expected):
        values = clips[(fold.train, fold.test)[source]].astype(np.float64) / 127.5 - 1
        wanted = [values.mean(), (values - values.mean()).max()]
        np.testing.assert_allclose(layout.scale[0, split], wanted, rtol=1e-6)


def test_split_scale_of_the_held_out_split_is_that_of_its_own_frames():
    """Training may see other frames of a clip than evaluation does."""
    rng = np.random.default_rng(0)
    clips, train_clips = rng.integers(0, 255, (2, 30, 2, 4, 4, 1)).astype(np.uint8)
    (fold,) = make_folds([11])
    config = small_config(data__split_scale="per_split")
    layout = plan.plan_batches([fold], [0], clips, config, train_clips)
    for split, values in enumerate((train_clips[fold.train], clips[fold.test])):
        pixels = values.astype(np.float64) / 127.5 - 1
        moments = [pixels.mean(), (pixels - pixels.mean()).max()]
        np.testing.assert_allclose(layout.scale[0, split], moments, rtol=1e-6)


@pytest.mark.parametrize("given", [(0, 0), (3, 5)])
def test_length_must_be_given_once(given):
    config = small_config(train__num_epochs=given[0], train__num_steps=given[1])
    with pytest.raises(ConfigError, match=r"Give one of train\.num_epochs and"):
        plan.plan_batches(make_folds([5]), [0], np.zeros((30, 1, 1, 1, 1), np.uint8), config)
