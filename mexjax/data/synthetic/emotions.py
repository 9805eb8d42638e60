"""Action units that each emotion shows, and how well the units alone predict the emotion."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

AUS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17)
"""The 12 action units common to the public micro-expression sets (FACS numbers)."""

AuSet = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class EmotionTable:
    """Classes, their priors, and for each class the sets of action units it shows.

    Attributes:
      names: K class names.
      priors: K probabilities.
      sets: for each class, pairs of (AU numbers, probability).
    """

    names: tuple[str, ...]
    priors: tuple[float, ...]
    sets: tuple[tuple[tuple[AuSet, float], ...], ...]


def _parse(row: str) -> tuple[tuple[AuSet, float], ...]:
    """`"12 .42, 6+12 .44"` as pairs of AU numbers and probability."""
    pairs = [entry.split() for entry in row.split(",")]
    return tuple((tuple(int(a) for a in aus.split("+")), float(p)) for aus, p in pairs)


_ROWS = {
    "happiness": "12 .42, 6+12 .44, 7+12 .10, 12+14 .04",
    "surprise": "1+2 .50, 1+2+5 .30, 2 .10, 2+5 .10",
    "disgust": "9 .34, 4+9 .22, 10 .22, 9+10 .16, 4+7 .06",
    "repression": "15 .36, 17 .22, 15+17 .34, 14+17 .08",
    "others": "4 .60, 14 .26, 4+14 .10, 4+7 .04",
    "anger": "4+7 .35, 4+5 .20, 4 .20, 7 .10, 4+10 .15",
    "contempt": "14 .55, 12+14 .25, 10+14 .20",
    "fear": "1+4 .30, 1+2+4 .30, 4+5 .20, 5 .10, 1+2+4+5 .10",
    "sadness": "1+4 .30, 15 .25, 15+17 .15, 1 .15, 4+15 .15",
    "positive": "12 .45, 6+12 .45, 7+12 .10",
    "negative": "4 .40, 4+7 .20, 9 .10, 4+9 .10, 7 .10, 15 .10",
    "positive+surprise": "1+2+12 .60, 2+12 .40",
    "negative+surprise": "1+2+4 .70, 1+2+7 .30",
    "positive+repression": "12+15 .50, 12+17 .50",
    "negative+repression": "4+15 .50, 4+17 .50",
    "repression+surprise": "1+2+17 1.0",
}
# Two classes share these sets, as in CASME II: the best possible rule loses little by it, a network
# that saw each rare set a few times loses much.
_AMBIGUOUS = {
    "disgust": "9 .24, 4+9 .17, 10 .15, 9+10 .12, 4+7 .10, 7+10 .09, 4+7+9 .08, 4 .05",
    "others": "4 .44, 14 .20, 1+4 .10, 7 .10, 4+7 .08, 4+14 .08",
}


def _table(priors: Mapping[str, float], rows: Mapping[str, str] | None = None) -> EmotionTable:
    rows = {**_ROWS, **(rows or {})}
    total = sum(priors.values())
    return EmotionTable(
        tuple(priors),
        tuple(p / total for p in priors.values()),
        tuple(_parse(rows[name]) for name in priors),
    )


def _three() -> EmotionTable:
    """Disgust and repression are one negative class; others are left out (MEGC 2019)."""
    base = TABLES["default"]
    prior = dict(zip(base.names, base.priors, strict=True))
    sets = dict(zip(base.names, base.sets, strict=True))
    negative = prior["disgust"] + prior["repression"]
    merged = tuple(
        (aus, p * prior[name] / negative)
        for name in ("disgust", "repression")
        for aus, p in sets[name]
    )
    total = negative + prior["happiness"] + prior["surprise"]
    return EmotionTable(
        ("negative", "positive", "surprise"),
        (negative / total, prior["happiness"] / total, prior["surprise"] / total),
        (merged, sets["happiness"], sets["surprise"]),
    )


_FIVE = {"happiness": 0.20, "surprise": 0.18, "disgust": 0.22, "repression": 0.18, "others": 0.22}
_CASME2 = {"happiness": 32, "surprise": 25, "disgust": 63, "repression": 27, "others": 99}
_SAMM = {"happiness": 26, "surprise": 15, "anger": 57, "contempt": 12, "others": 26}
_CASME = {
    "happiness": 9,
    "surprise": 20,
    "disgust": 44,
    "repression": 38,
    "others": 69,
    "contempt": 1,
    "fear": 2,
    "sadness": 6,
}
_FOURD = {
    "positive": 34,
    "negative": 127,
    "surprise": 30,
    "repression": 6,
    "others": 31,
    "positive+surprise": 13,
    "negative+surprise": 8,
    "positive+repression": 8,
    "negative+repression": 7,
    "repression+surprise": 3,
}
_MMEW = {
    "happiness": 36,
    "surprise": 89,
    "disgust": 72,
    "fear": 16,
    "anger": 8,
    "sadness": 13,
    "others": 66,
}
_CASME3 = {
    "happiness": 55,
    "surprise": 187,
    "disgust": 250,
    "fear": 86,
    "anger": 64,
    "sadness": 57,
    "others": 161,
}

TABLES: dict[str, EmotionTable] = {
    "default": _table(_FIVE),
    "ambiguous": _table(_FIVE, _AMBIGUOUS),
    "casme2_5": _table(_CASME2),
    "casme2_7": _table({**_CASME2, "fear": 2, "sadness": 8}),
    "casme": _table(_CASME),
    "fourd": _table(_FOURD),
    "mmew": _table(_MMEW),
    "samm5": _table(_SAMM),
    "samm8": _table({**_SAMM, "disgust": 9, "fear": 8, "sadness": 6}),
    "casme3_7": _table(_CASME3),
}
TABLES["three"] = _three()


def bayes(table: EmotionTable, priors: Sequence[float] | None = None) -> tuple[float, float]:
    """Accuracy and UF1 of the best rule that sees nothing but the set of action units.

    Args:
      table: classes and their sets.
      priors: K weights, normalised here; the table's own when None.

    Returns:
      (accuracy, macro-averaged F1 of that rule's expected confusion matrix). Ties go to the
      earlier class.
    """
    weights = np.asarray(table.priors if priors is None else priors, float)
    weights = weights / weights.sum()
    joint: dict[AuSet, np.ndarray] = {}
    for k, sets in enumerate(table.sets):
        for aus, p in sets:
            joint.setdefault(aus, np.zeros(len(weights)))[k] += weights[k] * p
    confusion = np.zeros((len(weights), len(weights)))
    for column in joint.values():
        confusion[:, column.argmax()] += column
    hit = confusion.diagonal()
    f1 = 2 * hit / np.maximum(confusion.sum(0) + confusion.sum(1), 1e-12)
    return float(hit.sum()), float(f1.mean())
