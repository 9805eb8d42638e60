"""AC4AU beside its network: what training starts from and knows of a fold, what is kept of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mexjax.data.dataset import Dataset
from mexjax.errors import ConfigError
from mexjax.models.ac4au.options import resolve
from mexjax.models.weights import from_torch
from mexjax.nn.mobilefacenet import MobileFaceNet
from mexjax.protocol.splits import Fold

TRAINING_ONLY = ("subject_prototypes",)
ON_REQUEST = ("f_dc", "f_ac", "gates")


def fold_arrays(
    dataset: Dataset, folds: Sequence[Fold], model_config: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """What the losses need to know of a fold's clips.

    Subjects are numbered over all datasets, since the same number in two of them is another person.

    Returns:
      unit_share f32[F,A], share of clips with each unit (`model.alpha` says of which clips);
      is_training_subject bool[F,S], unless `gamma` is 0.
    """
    config = resolve(model_config)
    subjects = np.arange(dataset.subjects.max() + 1)
    shares, is_training = [], []
    for fold in folds:
        rows = fold.train if config["alpha"] == "train" else np.arange(len(dataset.labels))
        counts = dataset.labels[rows].sum(axis=0)
        # A unit that no clip shows, or every clip, keeps a weight.
        shares.append(np.clip(counts, 0.5, len(rows) - 0.5) / len(rows))
        is_training.append(np.isin(subjects, dataset.subjects[fold.train]))
    found = {"unit_share": np.stack(shares).astype(np.float32)}
    return found | ({"is_training_subject": np.stack(is_training)} if config["gamma"] > 0 else {})


def start(model_config: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that training starts from instead of a draw: those of the backbone, if any.

    Raises:
      ConfigError: pre-training is asked for and no file is named, or it has other sizes.
      DataError: weights that cannot be read.
    """
    return _start(model_config, "params")


def start_statistics(model_config: Mapping[str, Any]) -> dict[str, Any]:
    """The same of batch statistics."""
    return _start(model_config, "batch_stats")


def _start(model_config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    config = resolve(model_config)
    if not config["is_pretrained"]:
        return {}
    if not config["pretrained"]:
        raise ConfigError(
            "This preset of ac4au starts from MobileFaceNet weights: add"
            " --config.model.pretrained=FILE (InsightFace_Pytorch or InsightFace's mbf), or train"
            " from scratch with configs/ac4au.py:scratch."
        )
    module, variables = _load(config["pretrained"], config["bn_eps"])
    for key, found in (("width", module.width), ("emb_dim", module.emb_dim)):
        if config[key] != found:
            raise ConfigError(
                f"The weights in {config['pretrained']} are of model.{key}={found}, and the"
                f" configuration says {config[key]}."
            )
    return {"backbone": variables[kind]}


@functools.lru_cache(maxsize=1)
def _load(path: str, eps: float) -> tuple[MobileFaceNet, dict[str, Any]]:
    """The weights of a file; the last one stays in memory."""
    return from_torch("mobilefacenet", path, eps=eps)


def rate_factor(path: tuple[str, ...], model_config: Mapping[str, Any]) -> float:
    """Learning rate of a parameter over train.learning_rate."""
    return resolve(model_config)["backbone_rate"] if path[0] == "backbone" else 1.0


def features(
    config: ConfigDict, dataset: Dataset, where: np.ndarray, extras: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What features.npz holds: `ON_REQUEST` of each held-out clip, and its name; or nothing.

    Args:
      config: the whole configuration.
      dataset: the clips.
      where: i[N], the row of each held-out clip.
      extras: what `predictions` gave of them, [N, ...].
    """
    del config
    return extras and {"clip": np.array(dataset.clip_ids)[where], **extras}
