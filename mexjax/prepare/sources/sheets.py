"""Spreadsheets as people keep them: renamed, with title rows, empty columns and odd headers."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from mexjax.errors import DataError
from mexjax.prepare.sources.workbooks import Rows, read_workbook
from mexjax.protocol.names import tidy

SUFFIXES = (".xlsx", ".xls", ".csv")
MAX_BYTES = 64 * 2**20  # the largest sheet of the field has 1 MB; a zip of zeros grows 1000-fold
MAX_UNPACKED_BYTES = 512 * 2**20
_HEADER_ROWS = 60  # SAMM has thirteen rows of text before its header
NOTHING = ("", "/", "-", "nan", "nat", "na", "n/a", "#n/a", "<na>", "null")  # of other cells
_MISSING = (*NOTHING, "none")
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
    """Return the text of a cell: "" when it is empty, "4" for 4.0."""
    if cell is None or cell is pd.NaT or (isinstance(cell, float) and math.isnan(cell)):
        return ""
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
    match = re.fullmatch(r"([+-]?[0-9]{1,9})(\.0*)?", text)
    if match is None:
        raise DataError(f"Expected a frame number, found {text!r}.")
    return int(match[1])


def read(path: Path, form: Form, title: str) -> Sheet:
    """Read the first table of the file that has all the columns of the form, and those like it.

    Tables with the same columns of the form are joined, because people keep one table a subject.
    Any other table with cells is named in the remarks.

    Raises:
      DataError: the file cannot be read, or no table in it has the columns.
    """
    closest: tuple[int, list[str], list[str]] = (-1, [], [])
    parts: dict[str, pd.DataFrame] = {}
    others: list[str] = []
    fields: set[str] = set()
    for name, rows in read_rows(path).items():
        for index, row in enumerate(rows[:_HEADER_ROWS]):
            headers = [plain(cell) for cell in row]
            columns = _match(headers, form)
            missing = [field for field in form.fields if field not in columns]
            missing = [field for field in missing if field not in form.optional]
            if not missing and set(columns) == (fields or set(columns)):
                fields = set(columns)
                parts[name] = _table(rows[index + 1 :], headers, columns, index + 2)
                break
            if len(columns) > closest[0]:
                closest = (len(columns), missing, [as_text(c) for c in row if as_text(c)])
        else:
            others += [name] if any(as_text(cell) for row in rows for cell in row) else []
    if parts:
        return join(path, parts, others)
    _, missing, headers = closest
    names = "; ".join(f"{field} ({' or '.join(form.fields[field])})" for field in missing)
    raise DataError(
        f"{path} is not the spreadsheet of {title}: no table in it has the columns"
        f" {names or ', '.join(form.fields)}. The closest row of headers is"
        f" {', '.join(headers[:30]) or 'empty'}."
    )


def read_rows(path: Path) -> dict[str, Rows]:
    """Read all cells of all tables of a file: name of the table -> rows.

    Raises:
      DataError: the file is missing, no spreadsheet, damaged, or larger than any annotation table.
    """
    if not path.is_file():
        raise DataError(f"There is no spreadsheet {path}.")
    try:
        _check_size(path)
        if path.suffix.lower() == ".csv":
            return {path.stem: _read_csv(path)}
        if path.suffix.lower() not in SUFFIXES:
            raise DataError(
                f"{path} is not a spreadsheet mexjax reads; expected {', '.join(SUFFIXES)}."
            )
        return read_workbook(path)
    except DataError:
        raise
    except Exception as error:  # the parsers raise whatever a damaged file leads them to
        raise DataError(
            f"Cannot read the spreadsheet {path}: {error or type(error).__name__}. Open it in a"
            " spreadsheet program and save it again as .xlsx."
        ) from error


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(item.file_size for item in archive.infolist())
    else:
        unpacked = size
    if size > MAX_BYTES or unpacked > MAX_UNPACKED_BYTES:
        raise DataError(
            f"{path} has {size} bytes ({unpacked} unpacked), more than any table of annotations."
        )


def _read_csv(path: Path) -> Rows:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("gb18030", errors="replace")  # Excel writes this in China
    head = text[:4096]
    delimiter = max(",;\t", key=head.count)
    return [list(row) for row in csv.reader(io.StringIO(text), delimiter=delimiter)]


def row_name(index: int) -> str:
    """Name a row of a `Sheet` for messages: "row 3", or "row 3 of table 2"."""
    place, row = divmod(index, _SHEET_ROWS)
    return f"row {row} of table {place + 1}" if place else f"row {row}"


def join(path: Path, parts: Mapping[str, pd.DataFrame], others: Sequence[str] = ()) -> Sheet:
    """Put the rows of several tables one below the other; a column that one lacks is empty.

    Args:
      path: the file.
      parts: the tables that hold clips, by name.
      others: names of the tables that were left out.
    """
    columns = list(dict.fromkeys(str(name) for part in parts.values() for name in part.columns))
    cells = {
        place * _SHEET_ROWS + number: row
        for place, part in enumerate(parts.values())
        for number, row in numbered(part).items()
    }
    rows = [[row.get(name) for name in columns] for row in cells.values()]
    table = pd.DataFrame(rows, index=list(cells), columns=columns, dtype=object)
    return Sheet(path, table, _sheet_remarks(path, list(parts), others))


def _sheet_remarks(path: Path, names: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    remarks = []
    if len(names) > 1:
        remarks.append(
            f"{path.name} has {len(names)} tables with the same columns, which were joined:"
            f" {', '.join(names)}."
        )
    if others:
        remarks.append(
            f"{path.name}: the tables {', '.join(others)} have other columns and were left out;"
            f" {names[0]} was read. Give them the columns of {names[0]} if they hold clips."
        )
    return tuple(remarks)


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
    """Make a table of the rows below the header; wholly empty rows are left out."""
    named = dict(columns)
    for index, header in enumerate(headers):
        if header and header not in named and index not in columns.values():
            named[header] = index
    cells = {
        first_row + i: [row[j] if j < len(row) else None for j in named.values()]
        for i, row in enumerate(rows)
        if any(as_text(cell) for cell in row)
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
