"""Labels and ranges as the CD6ME benchmark has them, where it names a clip by its row alone.

The public MEB code, with which the benchmark was made, overwrites cells by the number of their row
in the released sheet. `cd6me.json` has these rows. They mean something in that sheet only, so the
rule is: the sheet has as many rows as the benchmark's, the rows of a subject stand together, and
every row that is to be changed has the flaw that the change mends. A missing apex is missing, units
are alternatives ("R12 or R15") among which the benchmark's are, and a range is in order afterwards.
Rows whose labels are exchanged have no flaw of their own; there the clips of each of the twelve
units in the whole sheet must be as many as the benchmark has. Where one of them fails, the sheet is
another one, nothing of it is changed, and a line says what was expected.

Alternatives become doubtful units: the raw text stays, and they count where doubtful units do
(`protocol.is_unsure_present`, as the benchmark counts them).
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mexjax.errors import DataError
from mexjax.prepare.sources.counts import published
from mexjax.prepare.sources.drafts import Draft
from mexjax.prepare.sources.sheets import as_number, as_text, numbered, row_name
from mexjax.protocol.action_units import ParsedAus, parse_aus

_AS_CD6ME = "as CD6ME has it"
_UNITS = tuple(published()["action_units"])


@functools.cache
def rules() -> dict[str, dict[str, Any]]:
    """The contents of `cd6me.json` by dataset: `rows`, and changes by number of the row."""
    file = importlib.resources.files("mexjax.prepare.sources") / "cd6me.json"
    return json.loads(file.read_text(encoding="utf-8"))["datasets"]


def apply(dataset: str, cells: pd.DataFrame, drafts: Sequence[Draft], problems: list[str]) -> None:
    """Change the rows of a dataset as the benchmark does, in place.

    Args:
      dataset: name, such as "samm".
      cells: the sheet, with the columns subject and clip.
      drafts: its rows, after the corrections that have a clip's name.
      problems: lines are added for every change, or one where the sheet is another one.
    """
    rule = rules().get(dataset)
    if rule is None:
        return
    by_index = {draft.index: draft for draft in drafts}
    sheet = numbered(cells)
    indices = [i for i, row in sheet.items() if as_text(row["subject"]) and as_text(row["clip"])]
    if len(indices) != rule["rows"]:
        if 2 * len(indices) < rule["rows"]:
            return  # a small part of the release: the counts of clips say so
        problems.append(
            f"{dataset}: the sheet has {len(indices)} rows and that of CD6ME {rule['rows']}, so the"
            f" benchmark's changes by row ({_summary(rule)}) were not applied."
        )
        return
    rows = {number: by_index.get(index) for number, index in enumerate(indices)}
    flaw = _flaw(rule, rows) if _subjects_stand_together(drafts) else "subjects are mixed"
    if not flaw and "exchanged" in rule:
        flaw = _other_counts(dataset, sheet, drafts)
    if flaw:
        problems.append(
            f"{dataset}: the sheet has {len(indices)} rows like the one of CD6ME, but is another"
            f" one ({flaw}), so the benchmark's corrections by row were not applied."
        )
        return
    for number, draft in rows.items():
        if draft is None:
            continue
        changes = dict(rule.get("ranges", {}).get(str(number), {}))
        if str(number) in rule.get("apexes", {}):
            changes["apex"] = rule["apexes"][str(number)]
        for column, value in changes.items():
            _set(draft, column, value, problems)
        units = rule.get("doubtful", {}).get(str(number))
        if units and not _is_readable(draft.cells["au"]):
            draft.doubtful = tuple(units)
    for first, second in rule.get("exchanged", ()):
        _exchange(rows[first], rows[second], problems)


def _subjects_stand_together(drafts: Sequence[Draft]) -> bool:
    subjects = [draft.subject for draft in drafts]
    blocks = [a for a, b in zip(subjects, [*subjects[1:], None], strict=True) if a != b]
    return len(blocks) == len(set(subjects))


def _flaw(rule: dict[str, Any], rows: dict[int, Draft | None]) -> str:
    """The first row that is not what the benchmark changes, as text; "" if all of them are."""
    ranges, apexes = rule.get("ranges", {}), rule.get("apexes", {})
    doubtful = rule.get("doubtful", {})
    exchanged = [str(number) for pair in rule.get("exchanged", ()) for number in pair]
    for key in dict.fromkeys((*ranges, *apexes, *doubtful, *exchanged)):
        draft = rows[int(key)]
        if draft is None:
            return f"row {key} below the header stands twice"
        onset, apex, offset = (
            ranges.get(key, {}).get(column, _number(draft.cells[column]))
            for column in ("onset", "apex", "offset")
        )
        if key in apexes:
            is_annotated = apex is not None and (onset or 0) <= apex <= (offset or 0)
            if is_annotated and apex != apexes[key]:
                return f"{draft.row} has the apex {apex}"
            apex = apexes[key]
        if key in ranges or key in apexes:
            ends = [number for number in (onset, apex, offset) if number is not None]
            if ends != sorted(ends):
                return f"{draft.row} would be from {onset} over {apex} to {offset}"
        cell = draft.cells["au"]
        if key in doubtful and not _is_readable(cell):
            numbers = {int(number) for number in re.findall("[0-9]+", as_text(cell))}
            if not numbers.issuperset(doubtful[key]):
                return f"{draft.row} has the units {as_text(cell)[:40]!r}"
    return ""


def _summary(rule: dict[str, Any]) -> str:
    """The changes of a rule, by kind."""
    kinds = {
        "ranges": "{} ranges",
        "apexes": "{} apexes",
        "doubtful": "units of {} rows",
        "exchanged": "labels of {} pairs of rows",
    }
    return ", ".join(text.format(len(rule[kind])) for kind, text in kinds.items() if kind in rule)


def _other_counts(
    dataset: str, sheet: Mapping[int, Mapping[str, object]], drafts: Sequence[Draft]
) -> str:
    """The units that more or fewer rows have than the benchmark's sheet; "" if none.

    Both notations of a sheet are tried, its text and its columns of 0 and 1.
    """
    by_text: Counter[int] = Counter()
    by_column: Counter[int] = Counter()
    for draft in drafts:
        try:
            units = parse_aus(draft.cells["au"])
        except DataError:
            units = ParsedAus()
        by_text.update({*units.present, *units.unsure})
        row = sheet[draft.index]
        marked = {unit for unit in _UNITS if as_text(row.get(f"au{unit}")) == "1"}
        by_column.update(marked - set(units.static))
    expected = dict(zip(_UNITS, published()["datasets"][dataset]["aus"], strict=True))
    if any(all(counts[u] == expected[u] for u in _UNITS) for counts in (by_text, by_column)):
        return ""
    differing = [
        f"AU{unit} in {by_text[unit]} rows and not {expected[unit]}"
        for unit in _UNITS
        if by_text[unit] != expected[unit]
    ]
    return ", ".join(differing)


def _number(cell: object) -> int | None:
    try:
        return as_number(cell)
    except DataError:
        return None


def _is_readable(cell: object) -> bool:
    try:
        parse_aus(cell)
    except DataError:
        return False
    return True


def _set(draft: Draft, column: str, value: int, problems: list[str]) -> None:
    text = as_text(draft.cells[column])
    if text == str(value):
        return
    draft.cells[column] = value
    note = f"{column} {value} {_AS_CD6ME}: the spreadsheet has {text or 'none'}"
    draft.notes.append(note)
    problems.append(f"{draft.name}: {note}.")


def _exchange(first: Draft | None, second: Draft | None, problems: list[str]) -> None:
    """Exchange emotion and units of two rows."""
    assert first is not None and second is not None  # `_flaw` has looked
    for draft, other in ((first, second), (second, first)):
        draft.notes.append(
            f"labels exchanged with those of {other.subject}/{other.clip}, {_AS_CD6ME}"
        )
    for column in ("emotion", "au"):
        cells = first.cells, second.cells
        cells[0][column], cells[1][column] = cells[1][column], cells[0][column]
    problems.append(
        f"{first.name} and {row_name(second.index)}: emotion and units exchanged, {_AS_CD6ME}."
    )
