"""Old workbooks (.xls, BIFF8 without its container), as far as tests of the reader need them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

ERRORS = {"#NULL!": 0, "#DIV/0!": 7, "#VALUE!": 15, "#REF!": 23, "#NAME?": 29, "#NUM!": 36}
ERRORS["#N/A"] = 42
_GENERAL, _PADDED = 15, 16  # styles


def write_xls(
    path: Path,
    *tables: Sequence[Sequence[object]],
    names: Sequence[str] = (),
    merged: Sequence[tuple[int, int, int]] = (),
) -> Path:
    """A workbook with these rows.

    Args:
      path: file to write.
      tables: rows of each sheet: text, numbers, truth values, `Error` and `Padded`; None is empty.
      names: names of the sheets.
      merged: first row, last row and column of merged cells of the first sheet, from 0.
    """
    names = names or [f"Sheet{i + 1}" for i in range(len(tables))]
    sheets = [_sheet(rows, merged if i == 0 else ()) for i, rows in enumerate(tables)]
    head = _bof(5) + _record(0x42, struct.pack("<H", 1200)) + _record(0x22, bytes(2))
    head += b"".join(_font() for _ in range(4))
    head += _record(0x41E, struct.pack("<H", 164) + _text("000"))
    head += b"".join(_style(number, 0) for number in range(16)) + _style(16, 164)
    # The places of the sheets are written behind the length of their own list.
    titles = [name.encode("utf-16-le") for name in names]
    start = len(head) + sum(4 + 8 + len(title) for title in titles) + 4
    for name, title, sheet in zip(names, titles, sheets, strict=True):
        head += _record(0x85, struct.pack("<IBBBB", start, 0, 0, len(name), 1) + title)
        start += len(sheet)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + _record(0x0A) + b"".join(sheets))
    return path


class Error(str):
    """A cell with an error, such as #REF!."""


class Padded(int):
    """A number that is shown with three digits."""


def _sheet(rows: Sequence[Sequence[object]], merged: Sequence[tuple[int, int, int]]) -> bytes:
    out = _bof(16)
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            out += _cell(i, j, cell)
    if merged:
        blocks = b"".join(struct.pack("<4H", a, b, c, c) for a, b, c in merged)
        out += _record(0xE5, struct.pack("<H", len(merged)) + blocks)
    return out + _record(0x0A)


def _cell(row: int, column: int, cell: object) -> bytes:
    place = struct.pack("<3H", row, column, _PADDED if isinstance(cell, Padded) else _GENERAL)
    if cell is None or cell == "":
        return b""
    if isinstance(cell, Error):
        return _record(0x205, place + bytes([ERRORS[cell], 1]))
    if isinstance(cell, bool):
        return _record(0x205, place + bytes([cell, 0]))
    if isinstance(cell, int | float):
        return _record(0x203, place + struct.pack("<d", cell))
    return _record(0x204, place + _text(str(cell)))


def _text(text: str) -> bytes:
    data = text.encode("utf-16-le")
    return struct.pack("<HB", len(data) // 2, 1) + data


def _record(kind: int, data: bytes = b"") -> bytes:
    return struct.pack("<2H", kind, len(data)) + data


def _bof(kind: int) -> bytes:
    return _record(0x809, struct.pack("<4H2I", 0x600, kind, 0x0DBB, 1996, 0x41, 6))


def _font() -> bytes:
    name = "Arial".encode("utf-16-le")
    return _record(0x31, struct.pack("<5H4B2B", 200, 0, 0x7FFF, 400, 0, 0, 0, 0, 0, 5, 1) + name)


def _style(number: int, number_format: int) -> bytes:
    """The first sixteen are styles, those behind are of cells."""
    kind = 0xFFF5 if number < 15 else 1
    return _record(0xE0, struct.pack("<3H14B", 0, number_format, kind, *([0] * 14)))
