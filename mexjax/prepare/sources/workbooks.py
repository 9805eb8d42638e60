"""All cells of a workbook as they are shown: words stay words, and merged cells fill their rows.

A small file may claim or hold any amount: a zip of zeros grows a thousandfold, one cell may stand
in row 1,048,576, merged cells may cover a whole sheet. All of this is bounded before memory is
spent: by the directory of the zip, by which `zipfile` stops reading even where it lies, then by
counting tags, rows and cells.
"""

from __future__ import annotations

import datetime
import io
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import xlrd
from openpyxl.reader.excel import ExcelReader
from openpyxl.utils import column_index_from_string, get_column_letter
from openpyxl.utils.escape import unescape

from mexjax.errors import DataError
from mexjax.prepare.sources.texts import Rows

Block = tuple[int, int, int]  # first row, last row and column of merged cells, all from 0
Place = tuple[int, int]  # row and column, from 0

MAX_UNPACKED_BYTES = 2**27
MAX_TAGS = 2**21  # of the XML in a workbook; an annotation has some ten thousand
MAX_CELLS = 2**22  # of one workbook, with the empty ones before others in their row
MAX_ROWS = 2**20  # of one sheet, as spreadsheet programs have it
_CHUNK = 2**16
_OVERLAP = 256  # bytes at the end of a chunk that are looked at again with the next
_MERGED = re.compile(rb'mergeCell\s[^>]*?ref="\$?([A-Z]{1,3})\$?(\d{1,7}):\$?[A-Z]+\$?(\d{1,7})"')
_FORMULA = re.compile(rb"<(?:\w+:)?c\s([^<>]*)>\s*<(?:\w+:)?f[\s/>]")
_PLACE = re.compile(rb'\br="([A-Z]{1,3})(\d{1,7})"')


def read_workbook(path: Path) -> tuple[dict[str, Rows], list[str]]:
    """Read the cells of an .xlsx or .xls file: name of the table -> rows, from the first one on.

    An empty cell is "". Cells such as NA, None and null are text. The value of merged cells stands
    in each of their rows that has anything else.

    Returns:
      the tables, and remarks.

    Raises:
      DataError: the workbook holds more than any annotation, or is locked by a password.
      Exception: whatever a damaged file leads the parsers to.
    """
    remarks: list[str] = []
    with warnings.catch_warnings():
        # The warnings are about styles and validation rules, which are not read.
        warnings.simplefilter("ignore")
        if zipfile.is_zipfile(path):
            sheets = dict(_read_xlsx(path, remarks))
        else:
            sheets = dict(_read_xls(path))
    return sheets, remarks


def _read_xlsx(path: Path, remarks: list[str]) -> Iterator[tuple[str, Rows]]:
    with zipfile.ZipFile(path) as archive:
        blocks, formulas = _scan(archive, path)
    with path.open("rb") as file:  # a name with another ending would be refused
        book = ExcelReader(file, read_only=True, data_only=True, keep_links=False)
        book.read()
        parts = {sheet.name: relation.target for sheet, relation in book.parser.find_sheets()}
        count = 0
        for sheet in book.wb.worksheets:
            part = parts.get(sheet.title, "")
            sheet.reset_dimensions()  # they may say anything
            rows = _bounded(([_shown(cell) for cell in row] for row in sheet.rows), path, count)
            count += sum(map(len, rows))
            remarks += _uncalculated(f"{path.name}, table {sheet.title}", rows, formulas.get(part))
            _fill(rows, blocks.get(part, ()), path)
            if rows and sheet.sheet_state != "visible":
                remarks.append(
                    f"{path.name}: the table {sheet.title} is hidden, and was looked at."
                )
            yield sheet.title, rows


def _scan(
    archive: zipfile.ZipFile, path: Path
) -> tuple[dict[str, list[Block]], dict[str, list[Place]]]:
    """Go through all parts of a workbook once, in pieces.

    Returns:
      the merged cells of each part, and the places of its formulas whose value is no text.

    Raises:
      DataError: it unpacks to more than any annotation holds.
    """
    unpacked = sum(item.file_size for item in archive.infolist())
    if unpacked > MAX_UNPACKED_BYTES:
        raise DataError(
            f"{path} unpacks to {unpacked} bytes, more than any table of annotations. Copy the"
            " table alone into a new workbook."
        )
    blocks: dict[str, list[Block]] = {}
    formulas: dict[str, list[Place]] = {}
    num_tags = 0
    for item in archive.infolist():
        with archive.open(item) as file:
            rest = b""
            while chunk := file.read(_CHUNK):
                num_tags += chunk.count(b"<")
                if num_tags > MAX_TAGS:
                    raise DataError(
                        f"{path} has more than {MAX_TAGS} cells and other elements, more than any"
                        " table of annotations. Copy the table alone into a new workbook."
                    )
                data = rest + chunk
                end = max(0, len(data) - _OVERLAP)
                # What ends in the overlap was seen with the chunk before.
                for match in _MERGED.finditer(data):
                    if match.end() > len(rest):
                        column, first, last = match.groups()
                        block = (int(first) - 1, int(last) - 1, _column(column))
                        blocks.setdefault(item.filename, []).append(block)
                for match in _FORMULA.finditer(data):
                    place = _PLACE.search(match[1])
                    # An empty text (t="str") is a value that was calculated.
                    if match.end() > len(rest) and place and b't="str"' not in match[1]:
                        cell = (int(place[2]) - 1, _column(place[1]))
                        formulas.setdefault(item.filename, []).append(cell)
                rest = data[end:]
    return blocks, formulas


def _column(letters: bytes) -> int:
    return column_index_from_string(letters.decode()) - 1


def _shown(cell: Any) -> object:
    """Return the value of a cell, as `_as_shown` has it."""
    value = cell.value
    if isinstance(value, str):
        return unescape(value)
    has_zeros = isinstance(value, int | float) and cell.number_format
    return _as_shown(value, cell.number_format if has_zeros else "")


def _as_shown(value: object, number_format: str) -> object:
    """Return truth values as words, whole numbers as such, and leading zeros of a number format."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, int) and value >= 0 and re.fullmatch("0{2,30}", number_format):
        return str(value).zfill(len(number_format))
    return value


def _bounded(rows: Iterable[Sequence[object]], path: Path, count: int) -> Rows:
    """Copy rows without empty cells at their ends, and without empty rows at the end.

    Args:
      rows: the rows of a sheet; gaps are filled.
      path: the file, for messages.
      count: cells of the sheets before.

    Raises:
      DataError: too many rows or cells.
    """
    out: Rows = []
    nothing: list[object] = []
    last = 0
    for number, row in enumerate(rows, start=1):
        if number > MAX_ROWS:
            raise DataError(f"{path} has a row behind row {MAX_ROWS}; no spreadsheet program does.")
        width = len(row)
        while width and (row[width - 1] is None or row[width - 1] == ""):
            width -= 1
        count += width
        if count > MAX_CELLS:
            raise DataError(
                f"{path} has more than {MAX_CELLS} cells, more than any table of annotations. Copy"
                " the table alone into a new workbook."
            )
        out.append(list(row[:width]) if width else nothing)
        last = number if width else last
    return out[:last]


def _fill(rows: Rows, blocks: Iterable[Block], path: Path) -> None:
    """Write the value of merged cells into each of their rows that has anything else."""
    blocks = list(blocks)
    if not blocks:
        return
    used = [any(str(cell).strip() for cell in row) for row in rows]
    count = 0
    for first, last, column in blocks:
        count += max(0, min(last + 1, len(rows)) - first)
        if count > MAX_CELLS:
            raise DataError(f"{path} has merged cells that lie on each other. Save it again.")
        for number in range(first + 1, min(last + 1, len(rows))):
            if not used[number] or column >= len(rows[first]):
                continue
            row = rows[number]
            row += [""] * (column + 1 - len(row))
            row[column] = row[column] or rows[first][column]


def _uncalculated(where: str, rows: Rows, formulas: Sequence[Place] | None) -> list[str]:
    """Say which cells of a sheet hold formulas that no program has calculated yet."""
    cells = [
        f"{get_column_letter(column + 1)}{row + 1}"
        for row, column in formulas or ()
        if row >= len(rows) or column >= len(rows[row]) or rows[row][column] == ""
    ]
    if not cells:
        return []
    return [
        f"{where}: {len(cells)} cells hold formulas that were never calculated and are read as"
        f" empty ({', '.join(cells[:8])}{', ...' if len(cells) > 8 else ''}). Open the file in a"
        " spreadsheet program and save it."
    ]


def _read_xls(path: Path) -> Iterator[tuple[str, Rows]]:
    book, has_formats = _open_xls(path)
    count = 0
    with book:
        for sheet in book.sheets():
            cells = (
                [_shown_xls(book, sheet, i, j, has_formats) for j in range(sheet.row_len(i))]
                for i in range(sheet.nrows)
            )
            rows = _bounded(cells, path, count)
            count += sum(map(len, rows))
            # Only with the formats does xlrd tell of merged cells; their ends are not counted.
            blocks = [(top, end - 1, left) for top, end, left, _ in sheet.merged_cells]
            _fill(rows, blocks, path)
            yield sheet.name, rows


def _open_xls(path: Path) -> tuple[xlrd.Book, bool]:
    """Open an old workbook, and tell whether its formats could be read."""
    for has_formats in (True, False):
        try:
            return xlrd.open_workbook(
                str(path),
                formatting_info=has_formats,
                ragged_rows=True,
                logfile=io.StringIO(),  # else remarks about its styles go to the terminal
            ), has_formats
        except Exception:  # damaged styles stop xlrd, whatever it raises
            if not has_formats:
                raise
    raise AssertionError


def _shown_xls(book: xlrd.Book, sheet: Any, row: int, column: int, has_formats: bool) -> object:
    kind, value = sheet.cell_type(row, column), sheet.cell_value(row, column)
    if kind == xlrd.XL_CELL_BOOLEAN:
        return str(bool(value)).upper()
    if kind == xlrd.XL_CELL_ERROR:
        return xlrd.error_text_from_code.get(value, "#VALUE!")
    if kind == xlrd.XL_CELL_DATE:
        try:
            return xlrd.xldate.xldate_as_datetime(value, book.datemode)
        except (ValueError, OverflowError):
            return value
    if kind != xlrd.XL_CELL_NUMBER:
        return value
    number_format = ""
    if has_formats:
        style = book.xf_list[sheet.cell_xf_index(row, column)]
        number_format = book.format_map[style.format_key].format_str
    return _as_shown(value, number_format)


def is_date(cell: object) -> bool:
    """Tell whether a spreadsheet program keeps a cell as a date or time."""
    return isinstance(cell, datetime.date | datetime.time | datetime.timedelta)
