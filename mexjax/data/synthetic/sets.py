"""The choice of each clip's set of action units, which can meet a real set's frequencies."""

from __future__ import annotations

import numpy as np

from mexjax.data.synthetic.config import SyntheticConfig
from mexjax.data.synthetic.emotions import AUS, TABLES, AuSet
from mexjax.data.synthetic.streams import stream
from mexjax.errors import ConfigError

_RARE = 0.02  # probability, before tilting, of a set that no row of the table names
_MAX_ROUNDS = 500


def assign_sets(config: SyntheticConfig, labels: np.ndarray) -> list[AuSet]:
    """The set of action units of each clip, drawn from its class.

    With `config.au_counts` the classes' probabilities are tilted so that each action unit
    appears in the asked number of clips.

    Args:
      config: settings.
      labels: i[N], class of each clip.

    Raises:
      ConfigError: frequencies that no choice of sets can reach.
    """
    if config.au_counts:
        return _assign_counted(config, labels)
    table = TABLES[config.emotion_table]
    sets: list[AuSet] = []
    empty = _without_units(config, len(labels))
    for index, label in enumerate(labels):
        choices, shares = zip(*table.sets[label], strict=True)
        cumulative = np.cumsum(shares) / np.sum(shares)
        draw = stream(config.seed, "clip", index, 1).random()
        aus = choices[int(np.searchsorted(cumulative, draw, side="right"))]
        sets.append(() if index in empty else aus)
    return sets


def _without_units(config: SyntheticConfig, num_clips: int) -> set[int]:
    order = stream(config.seed, "plan", 2).permutation(num_clips)
    return set(order[: config.num_without_au].tolist())


def _candidates(sets: tuple[tuple[AuSet, float], ...]) -> tuple[list[AuSet], np.ndarray]:
    """Sets that a class may show: the table's, each with one more unit, and single units."""
    weights = {tuple(sorted(aus)): p for aus, p in sets}
    for aus, p in sets:
        for au in AUS:
            wider = tuple(sorted({*aus, au}))
            weights.setdefault(wider, _RARE * p)
    for au in AUS:
        weights.setdefault((au,), _RARE / len(AUS))
    names = list(weights)
    return names, np.array([weights[aus] for aus in names])


def _assign_counted(config: SyntheticConfig, labels: np.ndarray) -> list[AuSet]:
    """Iterative proportional fitting of the tables' probabilities, then exact counting."""
    rng = stream(config.seed, "plan", 3)
    empty = _without_units(config, len(labels))
    rows = np.array([i for i in range(len(labels)) if i not in empty], int)
    target = np.array(config.au_counts, float)
    if target.max() > len(rows) or target.sum() < len(rows):
        raise ConfigError(
            f"au_counts {config.au_counts} cannot be met by {len(rows)} clips that each show at"
            " least one action unit. Change au_counts, class_counts or num_without_au."
        )
    table = TABLES[config.emotion_table]
    choices = [_candidates(sets) for sets in table.sets]
    members = [
        np.array([[au in aus for au in AUS] for aus in names], float) for names, _ in choices
    ]
    sizes = np.bincount(labels[rows], minlength=len(choices))

    tilt = np.zeros(len(AUS))
    for _ in range(_MAX_ROUNDS):
        shares = [_tilted(p, m, tilt) for (_, p), m in zip(choices, members, strict=True)]
        expected = sum(n * (q @ m) for n, q, m in zip(sizes, shares, members, strict=True))
        if np.abs(expected - target).max() < 0.05:
            break
        # A unit that must not occur gets a floor: its log odds would fall for ever.
        goal = np.clip(target, 1e-3, len(rows) - 1e-3)
        level = np.clip(expected, 1e-6, len(rows) - 1e-6)
        step = np.log(goal / (len(rows) - goal)) - np.log(level / (len(rows) - level))
        tilt += 0.7 * step

    counts = [_systematic(rng, q, int(n)) for q, n in zip(shares, sizes, strict=True)]
    _repair(counts, members, shares, target)
    sets: list[AuSet] = [()] * len(labels)
    for k, (names, _) in enumerate(choices):
        pool = [aus for aus, n in zip(names, counts[k], strict=True) for _ in range(n)]
        clips = rows[labels[rows] == k]
        for clip, j in zip(clips, rng.permutation(len(pool)), strict=True):
            sets[clip] = pool[j]
    return sets


def _tilted(p: np.ndarray, members: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    logits = np.log(p) + members @ tilt
    q = np.exp(logits - logits.max())
    return q / q.sum()


def _systematic(rng: np.random.Generator, shares: np.ndarray, total: int) -> np.ndarray:
    """i[M]: whole numbers that sum to `total`, each within one of its expectation."""
    edges = np.floor(np.cumsum(shares) * total + rng.random())
    edges[-1] = max(edges[-1], total)
    counts = np.diff(np.minimum(edges, total), prepend=0.0).astype(int)
    counts[counts.argmax()] += total - counts.sum()
    return counts


def _repair(
    counts: list[np.ndarray],
    members: list[np.ndarray],
    shares: list[np.ndarray],
    target: np.ndarray,
) -> None:
    """Exchange sets within classes, in place, until every unit is counted as asked."""
    for _ in range(200):
        error = sum(n @ m for n, m in zip(counts, members, strict=True)) - target
        if not error.any():
            return
        best = None
        for k, (n, m, q) in enumerate(zip(counts, members, shares, strict=True)):
            present = np.flatnonzero(n)
            if not len(present):
                continue
            change = m[None] - m[present, None]
            after = np.abs(error + change).sum(axis=2)
            # Among equal exchanges the likelier set wins.
            score = after - 1e-3 * q[None]
            i, j = np.unravel_index(score.argmin(), score.shape)
            if best is None or score[i, j] < best[0]:
                best = (score[i, j], k, present[i], j)
        if best is None or best[0] >= np.abs(error).sum() - 0.5:
            return
        _, k, old, new = best
        counts[k][old] -= 1
        counts[k][new] += 1
