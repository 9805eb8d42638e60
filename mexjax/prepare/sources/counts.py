"""Published numbers of clips, subjects, emotions and action units, and a comparison with them."""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections import Counter
from typing import Any

import pandas as pd


@functools.cache
def published() -> dict[str, Any]:
    """Return the contents of `published.json`: "action_units" (the 12 of CD6ME) and "datasets".

    Each dataset has `clips` (counts of its releases, the one that the other numbers belong to
    first) and, where known, `subjects`, `emotions` (they may belong to a release of fewer clips)
    and `aus` (clips per unit, in the order of "action_units", doubtful units counted as present as
    CD6ME does).
    """
    file = importlib.resources.files("mexjax.prepare.sources") / "published.json"
    return json.loads(file.read_text(encoding="utf-8"))


def check_counts(table: pd.DataFrame) -> list[str]:
    """List the differences between a table and the published counts, one line each.

    Args:
      table: columns dataset, subject, emotion, aus and aus_unsure; several datasets may be joined.

    Returns:
      lines; empty where everything agrees or nothing is published.
    """
    lines = []
    numbers = published()
    for name, part in table.groupby("dataset", sort=False):
        dataset = str(name)
        expected = numbers["datasets"].get(dataset)
        if expected is None:
            continue
        if len(part) not in expected["clips"]:
            either = " or ".join(map(str, expected["clips"]))
            lines.append(f"{dataset}: {len(part)} clips, published {either}.")
        if len(part) != expected["clips"][0]:
            continue  # the other numbers belong to that release
        if "subjects" in expected and part["subject"].nunique() != expected["subjects"]:
            lines.append(
                f"{dataset}: {part['subject'].nunique()} subjects, published"
                f" {expected['subjects']}."
            )
        known = expected.get("emotions", {})
        if sum(known.values()) == len(part):
            lines += _differences(dataset, "clips of {}", Counter(part["emotion"]), known)
        if "aus" in expected:
            # CD6ME counted doubtful units as present.
            coded = (set(a) | set(b) for a, b in zip(part["aus"], part["aus_unsure"], strict=True))
            units = [str(au) for au in numbers["action_units"]]
            clips = Counter(au for aus in coded for au in aus)
            target = dict(zip(units, expected["aus"], strict=True))
            actual = {au: clips[au] for au in units}
            lines += _differences(dataset, "clips with AU{}", actual, target)
    return lines


def _differences(
    dataset: str, what: str, actual: dict[str, int], expected: dict[str, int]
) -> list[str]:
    return [
        f"{dataset}: {actual.get(name, 0)} {what.format(name or 'no emotion')}, published"
        f" {expected.get(name, 0)}."
        for name in dict.fromkeys([*expected, *actual])
        if actual.get(name, 0) != expected.get(name, 0)
    ]
