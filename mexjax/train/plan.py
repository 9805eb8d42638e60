"""The order of samples of every fold, decided on the host before anything is compiled."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from mexjax.errors import ConfigError, unknown_name
from mexjax.machine import free_bytes
from mexjax.protocol.splits import Fold
from mexjax.train.step import FoldPlan

SPLIT_SCALES = ("none", "train", "per_split")


def plan_batches(
    folds: Sequence[Fold],
    fold_ids: Sequence[int],
    clips: np.ndarray,
    config: ConfigDict,
    train_clips: np.ndarray | None = None,
    seeds: Sequence[int] | None = None,
) -> FoldPlan:
    """Lays out batches for folds of unequal size so that one program can run them together.

    All folds are at the end of an epoch at the same step: an epoch has as many steps as its
    longest fold needs, and a shorter fold sits the surplus out. The last batch of an epoch is
    padded with samples of weight 0. The order depends on the seed, the fold's number in the
    protocol and the epoch alone, so a fold is trained alike alone and beside others.

    Args:
      folds: the folds to run; indices into the dataset.
      fold_ids: number of each in the whole protocol.
      clips: u8[N, T, H, W, C], for the statistics of `data.split_scale`.
      config: the whole configuration.
      train_clips: as `clips`, where training sees other frames of them.
      seeds: seed of each fold; None: that of the configuration.

    Returns:
      A `FoldPlan` of numpy arrays with a leading fold axis; S = epochs x steps per epoch.

    Raises:
      ConfigError: not exactly one of `train.num_epochs` and `train.num_steps` is given.
    """
    batch_size = config.train.batch_size
    if batch_size < 1:
        raise ConfigError(f"train.batch_size must be at least 1, found {batch_size}.")
    fold_steps = np.array([-(-len(fold.train) // batch_size) for fold in folds])
    epochs, totals = _lengths(config, fold_steps)
    steps = int(fold_steps.max())
    shape = (len(folds), epochs, steps, batch_size)
    _check_memory(shape)
    idx, weight = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    valid = np.zeros(shape[:3], bool)
    seeds = [config.seed] * len(folds) if seeds is None else seeds
    for f, (fold, fold_id, seed) in enumerate(zip(folds, fold_ids, seeds, strict=True)):
        count, size = fold_steps[f], len(fold.train)
        for epoch in range(epochs):
            order = np.random.default_rng([seed, fold_id, epoch]).permutation(fold.train)
            # Padding repeats the first samples; any row serves, for its weight is 0.
            padded = np.resize(order, count * batch_size)
            idx[f, epoch, :count] = padded.reshape(count, batch_size)
            weight[f, epoch, :count].reshape(-1)[:size] = 1.0
            valid[f, epoch, :count] = epoch * count + np.arange(count) < totals[f]
    total_steps = (len(folds), epochs * steps)
    return FoldPlan(
        fold_id=np.asarray(fold_ids, np.int32),
        seed=np.asarray(seeds, np.uint32),
        idx=idx.reshape(*total_steps, batch_size),
        weight=weight.reshape(*total_steps, batch_size),
        valid=valid.reshape(total_steps),
        total_steps=totals.astype(np.int32),
        epoch_steps=fold_steps.astype(np.int32),
        scale=_split_scale(folds, clips, train_clips, config.data.split_scale),
        eval_idx=_eval_batches([held_out(fold) for fold in folds], config.eval.batch_size),
    )


def held_out(fold: Fold) -> np.ndarray:
    """Rows evaluated for a fold: its test clips, then its inner validation clips."""
    return np.concatenate([fold.test, fold.validation]).astype(np.int32)


def steps_per_epoch(folds: Sequence[Fold], config: ConfigDict) -> int:
    """Steps of one epoch of the plan: those of the longest fold."""
    return max(-(-len(fold.train) // config.train.batch_size) for fold in folds)


def num_epochs(folds: Sequence[Fold], config: ConfigDict) -> int:
    """Epochs of the plan: those the shortest fold needs for `train.num_steps`."""
    steps = np.array([-(-len(fold.train) // config.train.batch_size) for fold in folds])
    return _lengths(config, steps)[0]


def pad_folds(plan: FoldPlan, size: int) -> FoldPlan:
    """Repeats the last fold, without valid steps, until there are `size`: one compiled shape."""
    missing = size - plan.fold_id.shape[0]
    if missing <= 0:
        return plan

    def pad(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])

    padded = jax.tree.map(pad, plan)
    padded.valid[-missing:] = False
    return padded


def take_folds(plan: FoldPlan, rows: slice | np.ndarray) -> FoldPlan:
    """The folds `rows` of a stacked plan."""
    return jax.tree.map(lambda array: array[rows], plan)


def _lengths(config: ConfigDict, fold_steps: np.ndarray) -> tuple[int, np.ndarray]:
    train = config.train
    if (train.num_epochs > 0) == (train.num_steps > 0):
        raise ConfigError(
            "Give one of train.num_epochs and train.num_steps, found"
            f" num_epochs={train.num_epochs} and num_steps={train.num_steps}; 0 means not given."
        )
    if train.num_epochs > 0:
        return train.num_epochs, train.num_epochs * fold_steps
    epochs = int(np.max(-(-train.num_steps // fold_steps)))
    return epochs, np.full(len(fold_steps), train.num_steps)


def _check_memory(shape: tuple[int, int, int, int]) -> None:
    """Refuse an order of samples, i32 and f32 of this shape, that memory does not hold."""
    needed, free = 8 * math.prod(shape), free_bytes()
    if needed > free:
        folds, epochs, steps, batch_size = shape
        raise ConfigError(
            f"The order of samples of {folds} folds, {epochs} epochs and {steps} batches of"
            f" {batch_size} clips needs {needed / 2**30:.1f} GiB of memory, and"
            f" {free / 2**30:.1f} GiB are free. Lower train.num_epochs, train.num_steps or"
            " train.batch_size."
        )


def _eval_batches(rows: Sequence[np.ndarray], batch_size: int) -> np.ndarray:
    longest = max(len(r) for r in rows)
    size = min(longest, batch_size)
    count = -(-longest // size)
    return np.stack([np.resize(r, count * size).reshape(count, size) for r in rows]).astype(
        np.int32
    )


def _split_scale(
    folds: Sequence[Fold], clips: np.ndarray, train_clips: np.ndarray | None, mode: str
) -> np.ndarray:
    """Mean of a split's pixels in [-1, 1], and the maximum after the mean is subtracted."""
    if mode not in SPLIT_SCALES:
        raise ConfigError(unknown_name("data.split_scale", mode, SPLIT_SCALES))
    if mode == "per_split" and any(len(fold.validation) for fold in folds):
        raise ConfigError(
            "data.split_scale=per_split knows a training and a test split, and"
            " protocol.num_validation_subjects makes a third. Set"
            " protocol.num_validation_subjects=0 or data.split_scale=none."
        )
    scale = np.tile(np.array([0.0, 1.0], np.float32), (len(folds), 2, 1))
    if mode == "none":
        return scale
    evaluated = _moments(clips)
    trained = evaluated if train_clips is None else _moments(train_clips)
    for f, fold in enumerate(folds):
        last = (fold.train, trained) if mode == "train" else (fold.test, evaluated)
        for split, (rows, (means, maxima)) in enumerate(((fold.train, trained), last)):
            mean = means[rows].mean()
            scale[f, split] = mean, maxima[rows].max() - mean
    return scale


def _moments(clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and maximum of the pixels of each clip in [-1, 1], f64[N] each."""
    axes = tuple(range(1, clips.ndim))
    means = clips.mean(axis=axes, dtype=np.float64) / 127.5 - 1.0
    return means, clips.max(axis=axes) / 127.5 - 1.0
