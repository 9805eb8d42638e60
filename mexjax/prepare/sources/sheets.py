"""Spreadsheets as people keep them: renamed, with title rows, empty columns and odd headers."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from mexjax.errors import DataError
from mexjax.prepare.sources.losses import Loss
from mexjax.prepare.sources.table_files import read_tables
from mexjax.prepare.sources.texts import HEAD_ROWS, Rows, Score
from mexjax.prepare.sources.workbooks import is_date
from mexjax.protocol.names import tidy

NOTHING = ("", "/", "-", "nan", "nat", "na", "n/a", "#n/a", "<na>", "null")  # of other cells
_MISSING = (*NOTHING, "none")
_EXAMPLE = 80  # letters of a row that a remark quotes
_SHEET_ROWS = 2**21  # more than the rows of any sheet: the numbers of a second one follow


@dataclasses.dataclass(frozen=True)
class Sheet:
    """One table of a workbook.

    Attributes:
      path: the file.
      cells: object columns under the names of the fields; any other column under its own header
        as `plain` writes it. The index is the row number that a spreadsheet program shows, in a
        form of its own for rows of further tables, see `row_name`.
      remarks: lines about tables that were joined or left out.
    """

    path: Path
    cells: pd.DataFrame
    remarks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Form:
    """The marks by which a dataset's spreadsheet is recognised.

    Attributes:
      files: file names of the releases, as published, the preferred one first; a copy whose name
        contains one of them (blanks, case and punctuation aside) is recognised.
      fields: name of a field -> headers it has in the releases, the preferred one first.
      optional: fields that may be absent.
    """

    files: tuple[str, ...]
    fields: Mapping[str, tuple[str, ...]]
    optional: frozenset[str] = frozenset()


def plain(header: object) -> str:
    """Strip case, blanks and punctuation from a header or file name; "" for an unnamed column."""
    name = re.sub(r"[\W_]+", "", tidy(as_text(header)).casefold())
    return "" if name.startswith("unnamed") else name


def as_text(cell: object) -> str:
    """Return the text of a cell: "" when it is empty, "4" for 4.0, "2026-01-31" for a day."""
    if cell is None or cell is pd.NaT or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if is_date(cell):
        return str(cell).removesuffix(" 00:00:00")
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53:
        return str(int(cell))
    return str(cell).strip()


def as_number(cell: object) -> int | None:
    """Return the frame number of a cell, or None when it is empty or "/".

    Raises:
      DataError: the cell has something else than a whole number.
    """
    text = as_text(cell)
    if text.casefold() in _MISSING:
        return None
    # A comma may stand for the point, but "1,000" may be a thousand.
    match = re.fullmatch(r"([+-]?[0-9]{1,9})(\.0*|,0{0,2})?", text)
    if match is None:
        raise DataError(f"Expected a frame number, found {text[:40]!r}.")
    return int(match[1])


def as_real(cell: object) -> float:
    """Return the number of a cell, with a decimal point or comma; nan for other text."""
    text = as_text(cell)
    try:
        return float(re.sub(r"^([+-]?[0-9]+),([0-9]+)$", r"\1.\2", text))
    except ValueError:
        return math.nan


def read(path: Path, form: Form, title: str) -> Sheet:
    """Read the first table of the file that has all the columns of the form, and those like it.

    Tables with the same columns of the form are joined, because people keep one table a subject.
    Any other table with cells is named in the remarks.

    Raises:
      DataError: the file cannot be read, or no table in it has the columns.
    """
    tables = read_tables(path, _fit(form))
    closest: tuple[int, list[str], list[str]] = (-1, [], [])
    parts: dict[str, pd.DataFrame] = {}
    others: list[str] = []
    remarks: list[str] = list(tables.remarks)
    fields: set[str] = set()
    for name, rows in tables.rows.items():
        for index, row in enumerate(rows[:HEAD_ROWS]):
            headers = [plain(cell) for cell in row]
            columns = _match(headers, form)
            missing = [field for field in form.fields if field not in columns]
            missing = [field for field in missing if field not in form.optional]
            if not missing and set(columns) == (fields or set(columns)):
                fields = set(columns)
                if tables.is_text:
                    _refuse_shifted(path, rows, index)
                parts[name] = _table(rows[index + 1 :], headers, columns, index + 2)
                where = f"{path.name}, table {name}"
                remarks += _rows_above(where, rows[:index], columns)
                remarks += _header_remarks(where, rows, index, columns)
                break
            if len(columns) > closest[0]:
                closest = (len(columns), missing, [as_text(c) for c in row if as_text(c)])
        else:
            others += [name] if any(as_text(cell) for row in rows for cell in row) else []
    if parts:
        lengths = {
            name: sum(any(map(as_text, row)) for row in tables.rows[name]) for name in others
        }
        return join(path, parts, lengths, remarks)
    _, missing, headers = closest
    names = "; ".join(f"{field} ({' or '.join(form.fields[field])})" for field in missing)
    raise DataError(
        f"{path} is not the spreadsheet of {title}: no table in it has the columns"
        f" {names or ', '.join(form.fields)}. The closest row of headers is"
        f" {', '.join(headers[:30])[:300] or 'empty'}."
    )


def _fit(form: Form) -> Score:
    """Score rows by the number of fields that one of them names."""

    def score(rows: Sequence[Sequence[object]]) -> int:
        return max((len(_match([plain(cell) for cell in row], form)) for row in rows), default=0)

    return score


def _refuse_shifted(path: Path, rows: Rows, header: int) -> None:
    """Refuse a text with a row of more cells than headers: what stands behind has moved.

    Raises:
      DataError: there is such a row.
    """
    width = len(rows[header])
    for number, row in enumerate(rows[header + 1 :], start=header + 2):
        if any(as_text(cell) for cell in row[width:]):
            raise DataError(
                f"{path}, row {number} has {len(row)} cells under {width} headers, so its cells may"
                " have moved to wrong columns. Put a cell that holds the separator in quotes."
            )


def _rows_above(where: str, rows: Rows, columns: Mapping[str, int]) -> list[str]:
    """Tell of rows above the header, such as a title; those that may be clips are a loss.

    Args:
      where: the table, for the message.
      rows: the rows above; empty ones are not told.
      columns: column of each field.
    """
    texts = {
        number: [as_text(cell) for cell in row]
        for number, row in enumerate(rows, start=1)
        if any(as_text(cell) for cell in row)
    }
    if not texts:
        return []
    # A title and a note fill a cell or two; a clip has something under most headers.
    num_clips = sum(
        2 * sum(bool("".join(row[j : j + 1])) for j in columns.values()) > len(columns)
        for row in texts.values()
    )
    number, first = next(iter(texts.items()))
    line = (
        f"{where}: {len(texts)} row{'s' if len(texts) > 1 else ''} above the row of headers (row"
        f" {len(rows) + 1}) {'were' if len(texts) > 1 else 'was'} passed over. The first, row"
        f" {number}: {', '.join(filter(None, first))[:_EXAMPLE]!r}."
    )
    if not num_clips:
        return [line]
    line += " If they are clips, move them below it."
    return [Loss(line, "rows above a row of headers", num_clips)]


def _header_remarks(where: str, rows: Rows, header: int, columns: Mapping[str, int]) -> list[str]:
    """Tell of headers that stand twice over different cells, and of headers repeated below."""
    remarks = []
    headers = [plain(cell) for cell in rows[header]]
    below = [row for row in rows[header + 1 :] if not _is_header(row, headers)]
    for column in columns.values():
        for other in (
            j for j, name in enumerate(headers) if name == headers[column] and j > column
        ):
            pairs = [
                [as_text(row[j]) if j < len(row) else "" for j in (column, other)] for row in below
            ]
            different = next(((one, two) for one, two in pairs if one != two), None)
            if different is not None:
                remarks.append(
                    f"{where}: the header {as_text(rows[header][column])!r} stands over columns"
                    f" {column + 1} and {other + 1}, which differ ({different[0][:40]!r} and"
                    f" {different[1][:40]!r}); column {column + 1} was read. Name the other one"
                    " differently."
                )
    repeats = len(rows) - header - 1 - len(below)
    if repeats:
        remarks.append(f"{where}: the row of headers stands {repeats + 1} times and is no clip.")
    return remarks


def _is_header(row: Sequence[object], headers: Sequence[str]) -> bool:
    if not row or len(row) > len(headers):
        return False
    names = [plain(cell) for cell in row]
    return any(names) and names == list(headers)[: len(names)] and not any(headers[len(names) :])


def row_name(index: int) -> str:
    """Name a row of a `Sheet` for messages: "row 3", or "row 3 of table 2"."""
    place, row = divmod(index, _SHEET_ROWS)
    return f"row {row} of table {place + 1}" if place else f"row {row}"


def join(
    path: Path,
    parts: Mapping[str, pd.DataFrame],
    others: Mapping[str, int] | None = None,
    remarks: Sequence[str] = (),
) -> Sheet:
    """Put the rows of several tables one below the other; a column that one lacks is empty.

    Args:
      path: the file.
      parts: the tables that hold clips, by name.
      others: names of the tables that were left out, with their numbers of rows.
      remarks: lines about the file so far.
    """
    columns = list(dict.fromkeys(str(name) for part in parts.values() for name in part.columns))
    cells = {
        place * _SHEET_ROWS + number: row
        for place, part in enumerate(parts.values())
        for number, row in numbered(part).items()
    }
    rows = [[row.get(name) for name in columns] for row in cells.values()]
    table = pd.DataFrame(rows, index=list(cells), columns=columns, dtype=object)
    return Sheet(path, table, (*remarks, *_sheet_remarks(path, list(parts), others or {})))


def _sheet_remarks(path: Path, names: Sequence[str], others: Mapping[str, int]) -> list[str]:
    remarks = []
    if len(names) > 1:
        remarks.append(
            f"{path.name} has {len(names)} tables with the same columns, which were joined:"
            f" {', '.join(names)}."
        )
    if others:
        text = (
            f"{path.name}: the tables {', '.join(others)} have other columns and were left out;"
            f" {names[0]} was read. Give them the columns of {names[0]} if they hold clips."
        )
        remarks.append(Loss(text, "rows of tables with other columns", sum(others.values())))
    return remarks


def _match(headers: Sequence[str], form: Form) -> dict[str, int]:
    """Map each field to the number of its column; a header serves one field."""
    columns: dict[str, int] = {}
    for field, names in form.fields.items():
        for name in map(plain, names):
            if name in headers and headers.index(name) not in columns.values():
                columns[field] = headers.index(name)
                break
    return columns


def _table(
    rows: Rows, headers: Sequence[str], columns: Mapping[str, int], first_row: int
) -> pd.DataFrame:
    """Make a table of the rows below the header; empty rows and repeated headers are left out."""
    named = dict(columns)
    for index, header in enumerate(headers):
        if header and header not in named and index not in columns.values():
            named[header] = index
    cells = {
        first_row + i: [row[j] if j < len(row) else "" for j in named.values()]
        for i, row in enumerate(rows)
        if any(as_text(cell) for cell in row) and not _is_header(row, headers)
    }
    return pd.DataFrame(cells.values(), index=list(cells), columns=list(named), dtype=object)


def numbered(cells: pd.DataFrame) -> dict[int, dict[str, object]]:
    """Map each row number of a table to its cells by the name of their column."""
    names = [str(name) for name in cells.columns]
    rows = cells.to_numpy(object).tolist()
    return {
        int(number): dict(zip(names, row, strict=True))
        for number, row in zip(cells.index, rows, strict=True)
    }
