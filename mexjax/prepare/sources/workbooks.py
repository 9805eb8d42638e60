"""All cells of a workbook as they are shown: words stay words, and merged cells fill their rows."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import openpyxl
import pandas as pd
import xlrd

Rows = list[list[object]]
Block = tuple[int, int, int]  # first row, last row and column of merged cells, all from 0

_CHUNK = 2**20
_MERGED = b"mergeCell "


def read_workbook(path: Path) -> dict[str, Rows]:
    """Read the cells of an .xlsx or .xls file: name of the table -> rows, from the first one on.

    An empty cell is "". Cells such as NA, None and null are text. The value of merged cells stands
    in each of their rows that has anything else.
    """
    with warnings.catch_warnings():
        # The warnings are about styles and validation rules, which are not read.
        warnings.simplefilter("ignore")
        # Without the filter pandas leaves words such as NA and null alone.
        tables = pd.read_excel(path, sheet_name=None, header=None, dtype=object, na_filter=False)
        blocks = dict(_merged_in_xlsx(path) if zipfile.is_zipfile(path) else _merged_in_xls(path))
    sheets = {str(name): table.to_numpy(object).tolist() for name, table in tables.items()}
    for name, rows in sheets.items():
        for block in blocks.get(name, ()):
            _fill(rows, block)
    return sheets


def _fill(rows: Rows, block: Block) -> None:
    first, last, column = block
    for row in rows[first + 1 : last + 1]:
        is_used = any(cell is not None and str(cell).strip() for cell in row)
        if is_used and column < len(row) and first < len(rows):
            row[column] = rows[first][column]


def _merged_in_xlsx(path: Path) -> Iterator[tuple[str, list[Block]]]:
    """Give the merged cells of each table; a file that has none is not read twice."""
    if not _has_merged_cells(path):
        return
    book = openpyxl.load_workbook(path, data_only=True)
    for sheet in book.worksheets:
        ranges = sheet.merged_cells.ranges
        yield sheet.title, [(r.min_row - 1, r.max_row - 1, r.min_col - 1) for r in ranges]


def _has_merged_cells(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        for item in archive.infolist():
            if not re.search(r"worksheets/[^/]*\.xml$", item.filename):
                continue
            with archive.open(item) as file:
                tail = b""
                while chunk := file.read(_CHUNK):
                    if _MERGED in tail + chunk:
                        return True
                    tail = chunk[-len(_MERGED) :]
    return False


def _merged_in_xls(path: Path) -> Iterator[tuple[str, list[Block]]]:
    # Only with the formats does xlrd tell of merged cells.
    try:
        book = xlrd.open_workbook(str(path), formatting_info=True)
    except Exception:
        # Damaged styles stop xlrd, whatever it raises; the cells were read without them, and rows
        # that lack a name are reported.
        return
    with book:
        for sheet in book.sheets():
            blocks = [(top, end - 1, left) for top, end, left, _ in sheet.merged_cells]
            yield sheet.name, blocks
