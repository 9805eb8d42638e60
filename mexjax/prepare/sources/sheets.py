"""Spreadsheets as people keep them: renamed, with title rows, empty columns and odd headers."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from mexjax.errors import DataError
from mexjax.protocol.names import tidy

SUFFIXES = (".xlsx", ".xls", ".csv")
MAX_BYTES = 64 * 2**20  # the largest sheet of the field has 1 MB; a zip of zeros grows 1000-fold
MAX_UNPACKED_BYTES = 512 * 2**20
_HEADER_ROWS = 60  # SAMM has thirteen rows of text before its header
_MISSING = ("", "/", "-", "nan", "none", "nat")

Rows = list[list[object]]


@dataclasses.dataclass(frozen=True)
class Sheet:
    """One table of a workbook.

    Attributes:
      path: the file.
      cells: object columns under the names of the fields; any other column under its own header
        as `plain` writes it. The index is the row number that a spreadsheet program shows.
    """

    path: Path
    cells: pd.DataFrame


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
    """Read the first table of the file that has all the columns of the form.

    Raises:
      DataError: the file cannot be read, or no table in it has the columns.
    """
    closest: tuple[int, list[str], list[str]] = (-1, [], [])
    for rows in read_rows(path).values():
        for index, row in enumerate(rows[:_HEADER_ROWS]):
            headers = [plain(cell) for cell in row]
            columns = _match(headers, form)
            missing = [field for field in form.fields if field not in columns]
            missing = [field for field in missing if field not in form.optional]
            if not missing:
                return Sheet(path, _table(rows[index + 1 :], headers, columns, index + 2))
            if len(columns) > closest[0]:
                closest = (len(columns), missing, [as_text(c) for c in row if as_text(c)])
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
        with warnings.catch_warnings():
            # The warnings are about styles and validation rules, which are not read.
            warnings.simplefilter("ignore")
            tables = pd.read_excel(path, sheet_name=None, header=None, dtype=object)
    except DataError:
        raise
    except Exception as error:  # the parsers raise whatever a damaged file leads them to
        raise DataError(
            f"Cannot read the spreadsheet {path}: {error or type(error).__name__}. Open it in a"
            " spreadsheet program and save it again as .xlsx."
        ) from error
    return {str(name): table.to_numpy(object).tolist() for name, table in tables.items()}


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
