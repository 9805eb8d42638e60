"""Do the clips, subjects, emotions and action units agree with what was published?"""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections import Counter
from typing import Any

import pandas as pd


@functools.cache
def published() -> dict[str, Any]:
    """The contents of `published.json`: "action_units" (the 12 of CD6ME) and "datasets".

    Each dataset has `clips` (counts of its releases, the one that the other numbers belong to
    first) and, where known, `subjects`, `emotions` and `aus` (clips per unit, in the order of
    "action_units", doubtful units counted as present as CD6ME does).
    """
    file = importlib.resources.files(__package__) / "published.json"
    return json.loads(file.read_text(encoding="utf-8"))


def check_counts(table: pd.DataFrame) -> list[str]:
    """Differences between a table and the published counts, one line each.

    Args:
      table: columns dataset, subject, emotion, aus and aus_unsure; several datasets may be joined.

    Returns:
      lines; empty where everything agrees or nothing is published.
    """
    lines = []
    known = published()
    for dataset, part in table.groupby("dataset", sort=False):
        expected = known["datasets"].get(dataset)
        if expected is None:
            continue
        if len(part) not in expected["clips"]:
            numbers = " or ".join(map(str, expected["clips"]))
            lines.append(f"{dataset}: {len(part)} clips, published {numbers}.")
        if len(part) != expected["clips"][0]:
            continue  # the other numbers belong to that release
        if "subjects" in expected and part["subject"].nunique() != expected["subjects"]:
            lines.append(
                f"{dataset}: {part['subject'].nunique()} subjects, published"
                f" {expected['subjects']}."
            )
        if "emotions" in expected:
            found = Counter(part["emotion"])
            lines += _differences(dataset, "clips of {}", found, expected["emotions"])
        if "aus" in expected:
            # CD6ME counted doubtful units as present.
            coded = (set(a) | set(b) for a, b in zip(part["aus"], part["aus_unsure"], strict=True))
            units = [str(au) for au in known["action_units"]]
            found = Counter(au for aus in coded for au in aus)
            wanted = dict(zip(units, expected["aus"], strict=True))
            found = {au: found[au] for au in units}
            lines += _differences(dataset, "clips with AU{}", found, wanted)
    return lines


def _differences(
    dataset: str, what: str, found: dict[str, int], expected: dict[str, int]
) -> list[str]:
    return [
        f"{dataset}: {found.get(name, 0)} {what.format(name or 'no emotion')}, published"
        f" {expected.get(name, 0)}."
        for name in dict.fromkeys([*expected, *found])
        if found.get(name, 0) != expected.get(name, 0)
    ]
