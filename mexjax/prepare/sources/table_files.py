"""Files that hold tables, told apart by their content: workbooks, and text with separators."""

from __future__ import annotations

import dataclasses
import stat
import zipfile
from pathlib import Path

from openpyxl.utils import get_column_letter

from mexjax.errors import DataError
from mexjax.prepare.sources.texts import Rows, Score, read_text
from mexjax.prepare.sources.workbooks import read_workbook

SUFFIXES = (".xlsx", ".xls", ".csv", ".tsv")
MAX_BYTES = 64 * 2**20  # the largest sheet of the field has 1 MB
_TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # .xls, and locked workbooks of any kind
_BIFF = (b"\x09\x08", b"\x09\x04", b"\x09\x02", b"\x09\x00")  # .xls of old programs
_PAGES = (b"<html", b"<!doctype", b"<table", b"<?xml", b"<meta", b"<style", b"<div")
_LOCKED = "EncryptedPackage".encode("utf-16-le")
_ERRORS = frozenset(
    "#NULL! #DIV/0! #VALUE! #REF! #NAME? #NUM! #N/A #SPILL! #CALC! #FIELD! #BLOCKED! #CONNECT!"
    " #UNKNOWN! #GETTING_DATA".split()
)
_MAX_EXAMPLES = 8


@dataclasses.dataclass(frozen=True)
class Tables:
    """The cells of a file.

    Attributes:
      rows: name of the table -> rows; cells with errors of a spreadsheet program are "".
      is_text: the rows were cut at a separator, so that a cell too many shifts those behind it.
      remarks: lines about what was assumed or cannot be read.
    """

    rows: dict[str, Rows]
    is_text: bool = False
    remarks: tuple[str, ...] = ()


def read_tables(path: Path, score: Score) -> Tables:
    """Read all cells of all tables of a file.

    Args:
      path: the file.
      score: how well rows fit what is looked for; it decides the separator of a text.

    Raises:
      DataError: the file is missing, no spreadsheet, damaged, locked, or larger than any
        annotation.
    """
    _check_kind(path)
    try:
        with path.open("rb") as file:
            start = file.read(512)
        if _is_text(path, start):
            rows, remarks = read_text(path, score)
            tables = {path.stem: rows}
        else:
            tables, remarks = read_workbook(path)
    except DataError:
        raise
    except Exception as error:  # the parsers raise whatever a damaged file leads them to
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"Cannot read the spreadsheet {path}: {text}. Open it in a spreadsheet program and save"
            " it again as .xlsx."
        ) from error
    for name, rows in tables.items():
        remarks = [*remarks, *_without_errors(f"{path.name}, table {name}", rows)]
    return Tables(tables, _is_text(path, start), tuple(remarks))


def _check_kind(path: Path) -> None:
    """Refuse what cannot be a table, before it is opened: reading a pipe never ends."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"There is no spreadsheet {path} ({why}).") from error
    if stat.S_ISDIR(status.st_mode):
        raise DataError(f"{path} is a folder; expected a file with a table in it.")
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path} is a pipe or a device; expected a file with a table in it.")
    if status.st_size == 0:
        raise DataError(
            f"Cannot read the spreadsheet {path}: it is empty (0 bytes). Copy it again."
        )
    if status.st_size > MAX_BYTES:
        raise DataError(
            f"{path} has {status.st_size} bytes, more than any table of annotations. Expected a"
            f" spreadsheet ({', '.join(SUFFIXES)})."
        )


def _is_text(path: Path, start: bytes) -> bool:
    """Tell whether a file is a table of text, whatever its name says.

    Raises:
      DataError: it is of another kind, which is named.
    """
    suffix = path.suffix.lower()
    if suffix not in (*SUFFIXES, *_TEXT_SUFFIXES):
        raise DataError(
            f"{path} is not a spreadsheet mexjax reads; expected {', '.join(SUFFIXES)}."
        )
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
        raise DataError(
            f"{path} is a web page or XML, not a spreadsheet. Open it in a spreadsheet program and"
            " save it as .xlsx."
        )
    if zipfile.is_zipfile(path):
        _check_zip(path)
        return False
    if start.startswith(_OLE):
        if _LOCKED in path.read_bytes():
            raise DataError(
                f"{path} is locked by a password. Open it in a spreadsheet program and save it"
                " without one."
            )
        return False
    if suffix in _TEXT_SUFFIXES:
        return True
    # Programs export text under the name of a workbook.
    return suffix == ".xls" and not start.startswith(_BIFF) and not _has_control(start)


def _has_control(start: bytes) -> bool:
    return any(byte < 32 and byte not in b"\t\r\n" for byte in start)


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if "[Content_Types].xml" in names and "xl/workbook.bin" not in names:
        return
    kind = "an OpenDocument or other archive" if "xl/workbook.bin" not in names else "an .xlsb file"
    raise DataError(
        f"{path} is {kind}, not a spreadsheet mexjax reads. Open it in a spreadsheet program and"
        " save it as .xlsx."
    )


def _without_errors(where: str, rows: Rows) -> list[str]:
    """Empty the cells in which a spreadsheet program shows an error, and say so."""
    cells = []
    for number, row in enumerate(rows, start=1):
        for column, cell in enumerate(row):
            if isinstance(cell, str) and cell.startswith("#") and cell.strip().upper() in _ERRORS:
                cells.append(f"{get_column_letter(column + 1)}{number} {cell.strip()}")
                row[column] = ""
    if not cells:
        return []
    more = ", ..." if len(cells) > _MAX_EXAMPLES else ""
    return [
        f"{where}: {len(cells)} cells hold errors of the spreadsheet program and are read as empty"
        f" ({', '.join(cells[:_MAX_EXAMPLES])}{more})."
    ]
