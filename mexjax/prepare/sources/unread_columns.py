"""Columns of a user's own table that no field is read from, and the field that one may mean."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

import pandas as pd

from mexjax.errors import listed
from mexjax.prepare.sources.losses import Risk
from mexjax.prepare.sources.sheets import as_text, plain

_MAX_NAMES = 8
_SHORT = 4  # letters of a header such as apex, which may be a part of other words
_LIKE = 0.75  # least similarity of a header to one that is known; "ofset" has 0.91


def lines_of_unread_columns(
    cells: pd.DataFrame, fields: Mapping[str, tuple[str, ...]], file: str
) -> list[str]:
    """Return a line for each column that may be a field which was not found, and one for others.

    Args:
      cells: the table; columns that are no field are called as `sheets.plain` writes their header.
      fields: headers of each field.
      file: name of the file, for messages.
    """
    columns = [str(name) for name in cells.columns]
    unread = [
        name
        for name in columns
        if name not in fields
        and not re.fullmatch("au[0-9]+", name)
        and any(as_text(cell) for cell in cells[name])
    ]
    lines: list[str] = []
    others = []
    for name in unread:
        field = _field_of(name, fields)
        if field and field not in columns:
            line = (
                f"{file}: the column {name!r} is not one that is read, and there is no {field}. If"
                f" it is that, call it {field}."
            )
            lines.append(Risk(line))
        else:
            others.append(name)
    if others:
        lines.append(f"{file}: columns that are not read: {listed(others, _MAX_NAMES)}.")
    return lines


def _field_of(name: str, fields: Mapping[str, tuple[str, ...]]) -> str:
    """Return the field whose header is a part of a column's, or the nearest one; "" if none is."""
    likeness = {
        field: max(_likeness(name, plain(header)) for header in headers)
        for field, headers in fields.items()
    }
    field = max(likeness, key=lambda field: likeness[field])
    return field if likeness[field] >= _LIKE else ""


def _likeness(name: str, header: str) -> float:
    if (len(header) >= _SHORT and name.startswith(header)) or (
        len(header) > _SHORT and header in name
    ):
        return 1.0 + len(header)
    return difflib.SequenceMatcher(None, name, header).ratio()
