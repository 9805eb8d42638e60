"""Folds, the check that a list of them is safe to train and pool, and the form it is stored in."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mexjax.errors import MexjaxError, quoted

SCHEMA = 1  # version of the form of folds.json
SIDES = ("train", "validation", "test")


class ProtocolError(MexjaxError, ValueError):
    """Folds that cannot be made from this table, or that would leak or train on nothing."""


@dataclasses.dataclass(frozen=True, eq=False)
class Fold:
    """One training with its held-out clips; the arrays are row numbers of the table, ascending.

    Attributes:
      name: unique, for example the held-out subject "casme2/01".
      train: i64[n_train].
      validation: i64[n_validation], inner held-out subjects (may be empty); never trained on.
      test: i64[n_test].
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def check_folds(folds: Sequence[Fold], table: pd.DataFrame, labels: np.ndarray | None) -> None:
    """Raise ProtocolError unless the folds are safe to train and to pool.

    A test fold of one class is normal when a subject is left out, and allowed.
    """
    subjects = table["subject"].to_numpy(str)
    clips = clip_ids(table).tolist()
    held_out: dict[int, str] = {}
    if not folds:
        raise ProtocolError("Expected at least one fold, found none.")
    for fold in folds:
        sides = {side: getattr(fold, side) for side in SIDES}
        for side in ("train", "test"):
            if not sides[side].size:
                raise ProtocolError(
                    f"Fold {fold.name!r} has an empty {side} side. The protocol needs more"
                    " subjects (or datasets) with usable clips than it found."
                )
        rows = np.concatenate(list(sides.values()))
        values, counts = np.unique(rows, return_counts=True)
        if (counts > 1).any():
            raise ProtocolError(
                f"Fold {fold.name!r} contains a clip twice: {clips[values[counts > 1][0]]!r}."
            )
        for one, two in (("train", "test"), ("train", "validation"), ("validation", "test")):
            both = set(subjects[sides[one]].tolist()) & set(subjects[sides[two]].tolist())
            if both:
                raise ProtocolError(
                    f"Fold {fold.name!r} has subject {min(both)!r} in {one} and {two};"
                    " all clips of a person must be on one side."
                )
        for row in fold.test:
            if row in held_out:
                raise ProtocolError(
                    f"Clip {clips[row]!r} is held out twice, in folds {held_out[row]!r} and"
                    f" {fold.name!r}; it would count twice in the pooled metrics."
                )
            held_out[row] = fold.name
        if labels is not None and np.unique(labels[fold.train]).size < 2:
            raise ProtocolError(
                f"The training side of fold {fold.name!r} is a fold with one class only"
                f" ({fold.train.size} clips); nothing can be learned from it. Use fewer"
                " classes, more subjects, or fewer validation subjects."
            )


def clip_ids(table: pd.DataFrame) -> np.ndarray:
    """Make clip ids "<subject>/<clip>", for example "synthetic/01/01_003": U[N]."""
    return (table["subject"].astype(str) + "/" + table["clip"].astype(str)).to_numpy(str)


def folds_to_json(
    folds: Sequence[Fold], clips: Sequence[str], protocol: str, classes: Sequence[str]
) -> dict[str, Any]:
    """Make the content of folds.json; its clip ids can be read back on any copy of the data.

    Args:
      folds: from `make_folds`.
      clips: clip id of every row of the table (`clip_ids`).
      protocol: its name.
      classes: names of the K classes (or action units).
    """
    names = np.asarray(clips, str)
    return {
        "schema": SCHEMA,
        "protocol": protocol,
        "classes": list(classes),
        "folds": [
            {"name": fold.name} | {side: names[getattr(fold, side)].tolist() for side in SIDES}
            for fold in folds
        ],
    }


def checked_folds(content: Any, *, source: str = "folds.json") -> dict[str, Any]:
    """Return `content` if it has the form that `folds_to_json` gives.

    Raises:
      ProtocolError: another schema, or a missing or wrong entry.
    """
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        schema = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise ProtocolError(
            f"{source}: expected an object with schema {SCHEMA}, found {quoted(schema)}."
        )
    is_named = isinstance(content.get("protocol"), str) and _is_texts(content.get("classes"))
    folds = content.get("folds")
    if not is_named or not isinstance(folds, list) or not folds:
        raise ProtocolError(
            f"{source}: expected the entries protocol (text), classes (list of names) and folds"
            f" (a list that is not empty); found {', '.join(sorted(content))}."
        )
    for number, fold in enumerate(folds):
        if (
            not isinstance(fold, dict)
            or not isinstance(fold.get("name"), str)
            or not all(_is_texts(fold.get(side)) for side in SIDES)
        ):
            raise ProtocolError(
                f"{source}: fold number {number} must have a name and the lists of clip ids"
                f" {', '.join(SIDES)}."
            )
    names = [fold["name"] for fold in folds]
    if len(set(names)) < len(names):
        raise ProtocolError(f"{source}: fold names must differ, found {', '.join(names)}.")
    return content


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
