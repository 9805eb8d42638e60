"""Training of AC4AU: the weights it starts from, and the arrays that a fold gives its losses."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from mexjax.data.dataset import Dataset
from mexjax.errors import ConfigError
from mexjax.interop import network_from_torch
from mexjax.models.ac4au.options import Options
from mexjax.nn.mobilefacenet import MobileFaceNet
from mexjax.protocol.splits import Fold


def fold_arrays(dataset: Dataset, folds: Sequence[Fold], options: Options) -> dict[str, np.ndarray]:
    """Arrays that the losses need about the clips of each fold.

    Subjects are numbered over all datasets, since the same number in two of them is another person.

    Returns:
      unit_share f32[F,A], share of clips with each unit (`alpha` says which clips count);
      is_training_subject bool[F,S], unless `gamma` is 0.
    """
    subjects = np.arange(dataset.subjects.max() + 1)
    shares, is_training = [], []
    for fold in folds:
        rows = fold.train if options.alpha == "train" else np.arange(len(dataset.labels))
        counts = dataset.labels[rows].sum(axis=0)
        # A unit that no clip shows, or every clip, keeps a weight.
        shares.append(np.clip(counts, 0.5, len(rows) - 0.5) / len(rows))
        is_training.append(np.isin(subjects, dataset.subjects[fold.train]))
    arrays = {"unit_share": np.stack(shares).astype(np.float32)}
    return arrays | ({"is_training_subject": np.stack(is_training)} if options.gamma > 0 else {})


def start(options: Options, kind: str) -> dict[str, Any]:
    """Variables that training starts from instead of a draw: those of the backbone, if any.

    Args:
      options: options of the paper.
      kind: `params` or `batch_stats`.

    Raises:
      ConfigError: pre-training is asked for and no file is named, or it has other sizes.
      DataError: weights that cannot be read.
    """
    if not options.is_pretrained:
        return {}
    if not options.pretrained:
        raise ConfigError(
            "This preset of ac4au starts from MobileFaceNet weights: add"
            " --config.model.pretrained=FILE (InsightFace_Pytorch or InsightFace's mbf), or train"
            " from scratch with configs/ac4au.py:scratch."
        )
    module, variables = _load(options.pretrained, options.bn_eps)
    for key, size in (("width", module.width), ("emb_dim", module.emb_dim)):
        if getattr(options, key) != size:
            raise ConfigError(
                f"The weights in {options.pretrained} are of model.{key}={size}, and the"
                f" configuration says {getattr(options, key)}."
            )
    return {"backbone": variables[kind]}


@functools.lru_cache(maxsize=1)
def _load(path: str, eps: float) -> tuple[MobileFaceNet, dict[str, Any]]:
    """The weights of a file; those of the last file stay in memory."""
    module, variables = network_from_torch("mobilefacenet", path, eps=eps)
    assert isinstance(module, MobileFaceNet)
    return module, variables
