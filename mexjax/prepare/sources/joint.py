"""Subjects of several releases of one name, such as two folders of your own clips."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mexjax.errors import listed
from mexjax.prepare.sources.drafts import bare
from mexjax.prepare.sources.losses import Risk
from mexjax.protocol.lookalikes import lines_of_people, lookalikes
from mexjax.protocol.names import fold

_MAX_NAMES = 8


def unite_releases(tables: Sequence[pd.DataFrame]) -> tuple[list[pd.DataFrame], list[Risk]]:
    """Give a subject one spelling in all releases of its dataset, as within each of them.

    Otherwise one person, typed in two ways, could be on both sides of a split.

    Args:
      tables: one for each release, with the columns dataset and subject.

    Returns:
      the tables, and lines about subjects that are in several of them, or nearly so.
    """
    first: dict[str, str] = {}
    places: dict[str, set[int]] = {}
    out = []
    for number, table in enumerate(tables):
        names = [first.setdefault(fold(name), name) for name in table["subject"]]
        for name in names:
            places.setdefault(name, set()).add(number)
        out.append(table.assign(subject=names) if len(table) else table)
    shared = [name for name, numbers in places.items() if len(numbers) > 1]
    lines = []
    if shared:
        lines.append(
            f"{len(shared)} subjects are in several releases and are taken for one person each:"
            f" {listed(shared, _MAX_NAMES)}. If they are different people, name them differently"
            " and prepare again."
        )
    groups: dict[str, list[str]] = {}
    for name in places:
        dataset, _, subject = name.partition("/")
        groups.setdefault(f"{dataset}/{bare(fold(subject))}", []).append(name)

    def is_told(names: Sequence[str]) -> bool:  # by the reader of the one release that has them all
        return bool(set.intersection(*(places[name] for name in names)))

    lines += [
        f"Subjects {', '.join(names)} of several releases differ only by leading zeros, blanks or"
        f" signs and are taken for {len(names)} people; if they are one, spell them alike, or"
        " splits by subject train and test on the same person."
        for names in groups.values()
        if len(names) > 1 and not is_told(names)
    ]
    alike = [names for names in lookalikes(places) if not is_told(names)]
    lines += lines_of_people(name for names in alike for name in names)
    return out, list(map(Risk, lines))
