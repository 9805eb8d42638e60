"""Known errors of the released spreadsheets, each with the value it replaces.

`corrections.json` holds only what can be keyed by subject, video and annotated onset; a row
number means nothing in another release of a sheet. An onset that is itself corrected stands for
its corrected value too, because a newer sheet has that. A correction that does not find the value
it replaces is left out and said.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mexjax.prepare.sources.drafts import Draft
from mexjax.prepare.sources.sheets import as_text

_EMPTY = ("", "/", "-")


@functools.cache
def _load() -> dict[str, list[dict[str, Any]]]:
    file = importlib.resources.files("mexjax.prepare.sources") / "corrections.json"
    return json.loads(file.read_text(encoding="utf-8"))


def correct(dataset: str, drafts: Sequence[Draft], problems: list[str]) -> None:
    """Apply the corrections and remarks of a dataset, in place.

    Args:
      dataset: name, such as "casme3a".
      drafts: rows of the spreadsheet.
      problems: lines are added for every change, and for every correction that did not fit.
    """
    videos: set[tuple[str, str]] = set()
    rows: dict[tuple[str, str, str], Draft] = {}
    for draft in drafts:
        key = (draft.subject.casefold(), draft.video.casefold())
        videos.add(key)
        rows.setdefault((*key, as_text(draft.cells["onset"])), draft)
    entries = _load()
    moved = {
        (entry["subject"], entry["clip"], entry["onset"]): entry["new"]
        for entry in entries["corrections"]
        if entry["dataset"] == dataset and entry["column"] == "onset"
    }

    def find(entry: Mapping[str, Any]) -> Draft | None:
        name = (entry["subject"], entry["clip"], entry["onset"])
        key = (entry["subject"].casefold(), entry["clip"].casefold())
        onsets = dict.fromkeys((str(entry["onset"]), str(moved.get(name, entry["onset"]))))
        return next((rows[(*key, onset)] for onset in onsets if (*key, onset) in rows), None)

    for entry in entries["corrections"]:
        if entry["dataset"] != dataset:
            continue
        key = (entry["subject"].casefold(), entry["clip"].casefold())
        if key not in videos:
            continue  # the release is only a part of the dataset
        draft = find(entry)
        name = f"{entry['subject']}/{entry['clip']} at onset {entry['onset']}"
        column, old, new = entry["column"], entry["old"], entry["new"]
        if draft is None:
            problems.append(
                f"{name}: no such row, so its {column} was not corrected from {old} to {new}."
            )
            continue
        text = as_text(draft.cells[column])
        if text == str(new):
            continue
        if text != str(old) and not (str(old) in _EMPTY and text in _EMPTY):
            problems.append(
                f"{name} ({draft.row}): {column} is {text!r}, not {old!r}, so it was not"
                f" corrected to {new}."
            )
            continue
        draft.cells[column] = new
        draft.notes.append(f"{column} corrected from {text or 'nothing'} to {new}")
        problems.append(
            f"{name} ({draft.row}): {column} corrected from {text or 'nothing'} to {new}:"
            f" {entry['why']}."
        )
    for entry in entries["remarks"]:
        draft = find(entry) if entry["dataset"] == dataset else None
        if draft is not None:
            draft.notes.append(entry["remark"])
