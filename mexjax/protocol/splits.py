"""Folds made from the sample table: they say who is trained on and who is held out.

`PROTOCOLS` documents each protocol. Every fold keeps all clips of a person on one side, so two
clips cut from the same video (CAS(ME)3 has several expressions in one video, whose frame ranges
may overlap) can never share frames across the split. `check_folds` verifies it, for folds made
here and for folds read from a file.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import pandas as pd

from mexjax.errors import ConfigError, unknown_name
from mexjax.protocol.action_units import is_coded, label_aus, numbers_of
from mexjax.protocol.classes import DROPPED, OWN_DATASETS
from mexjax.protocol.fold_list import (
    Fold,
    ProtocolError,
    check_folds,
    clip_ids,
    folds_to_json,
)
from mexjax.protocol.labelling import Classes, label_emotions
from mexjax.protocol.scoring import TASKS

__all__ = [
    "PROTOCOLS",
    "Fold",
    "ProtocolConfig",
    "ProtocolError",
    "check_folds",
    "clip_ids",
    "folds_to_json",
    "label_table",
    "make_folds",
]


class ProtocolConfig(Protocol):
    """The fields of `config.protocol` that this module reads."""

    name: str
    task: str
    classes: Classes
    class_map: str
    units: str
    is_unsure_present: bool
    num_splits: int
    num_validation_subjects: int


# A split before inner validation has a name, rows of the training side and of the test side.
Split = tuple[str, np.ndarray, np.ndarray]


def label_table(
    table: pd.DataFrame, protocol: ProtocolConfig
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels and names of the classes, or of the action units, under this protocol.

    The composite protocol uses the class map and clip list of MEGC 2019.

    Returns:
      For the task `emotion`: i32[N], -1 for a clip in no class and so in no fold, and K class
      names. For the task `au`: 0/1 i32[N, A], -1 in the rows of clips whose units were not coded,
      and A names; a clip that shows none of the units is used as well.

    Raises:
      ConfigError: an unknown task, or classes that cannot be understood.
      DataError: emotions or units that cannot be read.
    """
    if protocol.task not in TASKS:
        raise ConfigError(unknown_name("protocol.task", protocol.task, TASKS))
    if protocol.task == "au":
        units = numbers_of(protocol.units)
        labels = label_aus(table, units, unsure_is_present=protocol.is_unsure_present)
        coded = is_coded(table, unsure_is_present=protocol.is_unsure_present)
        labels = np.where(coded[:, None], labels, DROPPED)
        return labels.astype(np.int32), tuple(f"AU{unit}" for unit in units)
    variant = "megc" if protocol.name == "composite" else "standard"
    class_map = getattr(protocol, "class_map", "")  # older configurations have none
    return label_emotions(table, protocol.classes, class_map=class_map, variant=variant)


def make_folds(
    table: pd.DataFrame,
    labels: np.ndarray | None,
    protocol: ProtocolConfig,
    *,
    seed: int = 0,
) -> list[Fold]:
    """Make the folds of a protocol, in a fixed order (by name of the held-out subjects or dataset).

    Args:
      table: sample table, one row a clip; columns dataset, subject, clip.
      labels: i[N] class numbers, -1 for clips that belong to no class and enter no fold; None for
        multi-label tasks (every clip is used and the one-class guard is off).
      protocol: `config.protocol`.
      seed: used where subjects are drawn (kfold_by_subject, inner validation). The inner
        subjects of a fold depend on the seed and the fold's name alone, so a fold that is run by
        itself is the same as in the whole study.

    Raises:
      ProtocolError: unknown protocol; labels that are not class numbers; a subject on two sides;
        a clip held out twice; an empty side; a training fold with one class only.
    """
    if protocol.name not in PROTOCOLS:
        raise ProtocolError(unknown_name("protocol", protocol.name, PROTOCOLS))
    _check_table(table)
    if labels is None:
        rows = np.arange(len(table))
    else:
        labels = _as_class_numbers(labels, table)
        rows = np.flatnonzero(labels != DROPPED)
    if not rows.size:
        raise ProtocolError(
            f"None of the {len(table)} clips has a class, so there is nothing to train on."
            " Check protocol.classes and the 'emotion' column."
        )
    subjects = table["subject"].to_numpy(str)
    folds = []
    for name, train, test in PROTOCOLS[protocol.name](table, rows, protocol, seed):
        validation = _inner_validation(subjects, train, name, protocol, seed)
        folds.append(Fold(name, np.setdiff1d(train, validation), validation, np.sort(test)))
    check_folds(folds, table, labels)
    return folds


def leave_one_subject_out(
    table: pd.DataFrame, rows: np.ndarray, protocol: ProtocolConfig, seed: int
) -> list[Split]:
    """Make one fold a subject: train on all others, test on this one (LOSO)."""
    return _leave_one_out(table["subject"].to_numpy(str), rows, "subjects")


def leave_one_dataset_out(
    table: pd.DataFrame, rows: np.ndarray, protocol: ProtocolConfig, seed: int
) -> list[Split]:
    """Make one fold a dataset: train on all others, test on this one (CD6ME)."""
    return _leave_one_out(table["dataset"].to_numpy(str), rows, "datasets")


def kfold_by_subject(
    table: pd.DataFrame, rows: np.ndarray, protocol: ProtocolConfig, seed: int
) -> list[Split]:
    """Make `num_splits` folds of whole subjects, assigned at random with the seed."""
    of_row = table["subject"].to_numpy(str)[rows]
    subjects = _sorted(of_row)
    if len(subjects) < 2:
        raise ProtocolError(
            "The protocol kfold_by_subject needs at least two subjects with usable clips, found"
            f" {subjects}.{_one_subject(subjects)}"
        )
    if not 2 <= protocol.num_splits <= len(subjects):
        raise ProtocolError(
            f"protocol.num_splits={protocol.num_splits} cannot be made of {len(subjects)}"
            f" subjects; choose a number from 2 to {len(subjects)}."
        )
    order = np.random.default_rng(seed).permutation(len(subjects))
    width = len(str(protocol.num_splits))
    splits = []
    for number, part in enumerate(np.array_split(order, protocol.num_splits), start=1):
        is_test = np.isin(of_row, [subjects[i] for i in part])
        splits.append((f"split_{number:0{width}d}", rows[~is_test], rows[is_test]))
    return splits


def composite(
    table: pd.DataFrame, rows: np.ndarray, protocol: ProtocolConfig, seed: int
) -> list[Split]:
    """Join datasets in three classes; make one fold a subject of any of them (MEGC 2019)."""
    datasets = _sorted(table["dataset"].to_numpy(str)[rows])
    if len(datasets) < 2 or protocol.classes != 3:
        raise ProtocolError(
            "The composite protocol joins two or more datasets with protocol.classes=3; found"
            f" {', '.join(datasets)} with {protocol.classes} classes. Use protocol.name=loso for"
            " one dataset or other classes."
        )
    return leave_one_subject_out(table, rows, protocol, seed)


def cross_dataset(
    table: pd.DataFrame, rows: np.ndarray, protocol: ProtocolConfig, seed: int
) -> list[Split]:
    """Train on dataset A and test on dataset B, then the reverse."""
    of_row = table["dataset"].to_numpy(str)[rows]
    datasets = _sorted(of_row)
    if len(datasets) != 2:
        raise ProtocolError(
            f"The cross_dataset protocol needs exactly two datasets, found {len(datasets)}:"
            f" {', '.join(datasets)}. With more, use leave_one_dataset_out."
        )
    one, two = datasets
    in_one, in_two = rows[of_row == one], rows[of_row == two]
    return [(f"{one}_to_{two}", in_one, in_two), (f"{two}_to_{one}", in_two, in_one)]


PROTOCOLS: dict[str, Callable[[pd.DataFrame, np.ndarray, ProtocolConfig, int], list[Split]]] = {
    "loso": leave_one_subject_out,
    "leave_one_dataset_out": leave_one_dataset_out,
    "kfold_by_subject": kfold_by_subject,
    "composite": composite,
    "cross_dataset": cross_dataset,
}


def _leave_one_out(groups: np.ndarray, rows: np.ndarray, what: str) -> list[Split]:
    of_row = groups[rows]
    names = _sorted(of_row)
    if len(names) < 2:
        raise ProtocolError(
            f"Leaving one out needs at least two {what} with usable clips, found {names}."
            f"{_one_subject(names) if what == 'subjects' else ''}"
        )
    return [(name, rows[of_row != name], rows[of_row == name]) for name in names]


def _one_subject(names: Sequence[str]) -> str:
    """Advice for own clips that seem to be of one person."""
    if not names or names[0].partition("/")[0] not in OWN_DATASETS:
        return ""
    return (
        " All clips count as one person's. Say who is who when they are prepared: by folders, as"
        " --layout=subject/emotion/clip, or by a table with the columns clip and subject."
    )


def _inner_validation(
    subjects: np.ndarray, train: np.ndarray, name: str, protocol: ProtocolConfig, seed: int
) -> np.ndarray:
    """Return the rows of the training side that belong to inner subjects drawn at random."""
    count = protocol.num_validation_subjects
    if count == 0:
        return np.zeros(0, np.int64)
    names = _sorted(subjects[train])
    if not 0 < count < len(names):
        raise ProtocolError(
            f"protocol.num_validation_subjects={count} is not possible in fold {name!r}, which"
            f" trains on {len(names)} subjects; choose a number from 0 to {len(names) - 1}."
        )
    # Unlike hash(), crc32 gives the same number in every process.
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    inner = [names[i] for i in rng.choice(len(names), count, replace=False)]
    return train[np.isin(subjects[train], inner)]


def _sorted(names: np.ndarray) -> list[str]:
    """Return the different names in natural order: "s2" before "s10"."""
    # Splitting on digit runs alternates text and number, so keys always compare.
    return sorted(
        set(names.tolist()),
        key=lambda name: (
            [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))],
            name,  # "s02" and "s2" are two names
        ),
    )


def _check_table(table: pd.DataFrame) -> None:
    missing = [c for c in ("dataset", "subject", "clip") if c not in table.columns]
    if missing:
        raise ProtocolError(
            f"The sample table lacks the columns {', '.join(missing)}; it has"
            f" {', '.join(map(str, table.columns))}."
        )
    if table[["dataset", "subject", "clip"]].isna().to_numpy().any():
        raise ProtocolError("The sample table has rows without dataset, subject or clip.")
    num_datasets = table.groupby("subject")["dataset"].nunique()
    shared = np.flatnonzero(num_datasets.to_numpy() > 1)
    if shared.size:
        raise ProtocolError(
            f"Subject {num_datasets.index[shared[0]]!r} occurs in several datasets. Write subjects"
            " as <dataset>/<subject>: the same number in two datasets is not the same person."
        )
    values, counts = np.unique(clip_ids(table), return_counts=True)
    if (counts > 1).any():
        raise ProtocolError(f"The sample table has the clip {str(values[counts > 1][0])!r} twice.")


def _as_class_numbers(labels: np.ndarray, table: pd.DataFrame) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (len(table),):
        raise ProtocolError(
            f"Expected one label a clip, an array of {len(table)}; found shape {labels.shape}."
        )
    clips = clip_ids(table).tolist()
    if np.issubdtype(labels.dtype, np.floating) and np.isnan(labels).any():
        row = int(np.flatnonzero(np.isnan(labels))[0])
        raise ProtocolError(f"The label of clip {clips[row]!r} is missing (NaN).")
    if not np.issubdtype(labels.dtype, np.integer) or (labels < DROPPED).any():
        raise ProtocolError(
            "Labels must be class numbers 0..K-1, or -1 for a clip that belongs to no class;"
            f" found dtype {labels.dtype}. mexjax.protocol.classes.label_clips makes them."
        )
    return labels
