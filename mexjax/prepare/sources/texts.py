"""Tables of text (.csv): their encoding, their separator, and their cells.

The separator is decided by the row of headers and not by counting characters, because notes hold
commas too. The encoding is that of the marks in the file, else UTF-8; where neither fits, the most
likely one is assumed and said.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from mexjax.errors import DataError

Rows = list[list[object]]
Score = Callable[[Sequence[Sequence[object]]], int]  # rows as one separator cuts them -> fit

SEPARATORS = ",;\t|"
MAX_CELLS = 2**22  # of one file; the largest table of the field has some ten thousand
MAX_COLUMNS = 2**10
HEAD_ROWS = 60  # SAMM has thirteen rows of text before its header
_MARKS = (  # the longer mark first: that of UTF-16 begins that of UTF-32
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_EXAMPLE = 40  # letters of a line that a remark quotes


def read_text(path: Path, score: Score) -> tuple[Rows, list[str]]:
    """Read the cells of a table of text, and remarks about what was assumed.

    Args:
      path: the file.
      score: how well some rows fit what is looked for; the separator with the best is taken, and
        among equals the one with the longest row.

    Raises:
      DataError: no text, bytes of no encoding, a quotation mark that is not closed, or too many
        cells.
    """
    text, remarks = decode(path.read_bytes(), path)
    text, separator = find_separator(text, score)
    return _parse(text, separator, path), remarks


def find_separator(text: str, score: Score) -> tuple[str, str]:
    """Return the text without an order such as "sep=;" in its first line, and the separator."""
    first, _, rest = text.partition("\n")
    named = re.fullmatch(r'"?sep=(.)"?[,;\s]*', first.lstrip("\ufeff").rstrip("\r"), re.IGNORECASE)
    if named is not None:  # spreadsheet programs take this line as an order and do not show it
        return rest, named[1]
    heads = {mark: _head(text, mark) for mark in SEPARATORS}
    best = max(SEPARATORS, key=lambda mark: (score(heads[mark]), _width(heads[mark], score)))
    return text, best


def decode(data: bytes, path: Path) -> tuple[str, list[str]]:
    """Return the text of a file, and a remark where its encoding is not plain UTF-8.

    Raises:
      DataError: the bytes are no text, or those of no encoding that is met in releases.
    """
    for mark, codec, title in _MARKS:
        if data.startswith(mark):
            says = [] if title == "UTF-8" else [f"{path.name} was read as {title}, as it says."]
            return _strictly(data, codec, title, path), says
    if b"\0" in data:
        codec = _wide(data)
        if codec:
            says = f"{path.name} has no mark of its encoding; it was read as UTF-16."
            return _strictly(data, codec, "UTF-16", path), [says]
        number = data[: data.index(0)].count(b"\n") + 1
        raise DataError(
            f"{path} is no table of text: line {number} holds bytes of value 0. Save it again as"
            " .xlsx, or as .csv in UTF-8."
        )
    try:
        return data.decode("utf-8"), []
    except UnicodeDecodeError as error:
        start = error.start
    lines = [line for line in data.splitlines() if not line.isascii()]
    valid = sum(_fits(line, "utf-8") for line in lines)
    codecs_ = [codec for codec in _likely(data) if _fits(data, codec)]
    if 2 * valid >= len(lines) - valid or not codecs_:
        number = data[:start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {number}: these bytes are not UTF-8"
            f"{', though other lines are' if valid else ', GB18030 or Windows-1252'}:"
            f" {data[start : start + 12]!r}. Save the table again, as UTF-8."
        )
    text = data.decode(codecs_[0])
    title = {"gb18030": "GB18030", "cp1252": "Windows-1252"}[codecs_[0]]
    number, line = next(
        (number, line)
        for number, line in enumerate(text.splitlines(), start=1)
        if not line.isascii()
    )
    place = max(0, next(i for i, letter in enumerate(line) if ord(letter) > 127) - _EXAMPLE // 2)
    return text, [
        f"{path.name} is not UTF-8; it was read as {title}. Where names look wrong (line {number}:"
        f" {line[place : place + _EXAMPLE]!r}), save it as UTF-8."
    ]


def _strictly(data: bytes, codec: str, title: str, path: Path) -> str:
    try:
        return data.decode(codec)
    except UnicodeDecodeError as error:
        number = data[: error.start].decode(codec, "replace").count("\n") + 1
        raise DataError(
            f"{path}, line {number}: the file says that it is {title}, and these bytes are not:"
            f" {data[error.start : error.start + 12]!r}. Save the table again, as UTF-8."
        ) from None


def _wide(data: bytes) -> str:
    """Name the codec of UTF-16 without a mark, by the zeros beside letters of ASCII; else ""."""
    even, odd = data[::2].count(0), data[1::2].count(0)
    if (
        len(data) % 2 == 0
        and max(even, odd) >= len(data) / 10
        and 20 * min(even, odd) <= max(even, odd)
    ):
        return "utf-16-be" if even > odd else "utf-16-le"
    return ""


def _likely(data: bytes) -> tuple[str, str]:
    """Order the encodings of Chinese and of western Windows.

    Chinese letters are pairs of bytes above 127; an accent is one such byte among ASCII.
    """
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", data)]
    paired = sum(length for length in runs if length % 2 == 0)
    return ("gb18030", "cp1252") if 2 * paired > sum(runs) else ("cp1252", "gb18030")


def _fits(data: bytes, codec: str) -> bool:
    try:
        data.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


def _reader(text: str, separator: str, *, is_strict: bool = False) -> Iterator[list[str]]:
    # Without newline="" lines of old Macs are one, and quoted line ends change.
    lines = io.StringIO(text, newline="")
    return csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=is_strict)


def _head(text: str, separator: str) -> list[list[str]]:
    try:
        return [row[:MAX_COLUMNS] for row in itertools.islice(_reader(text, separator), HEAD_ROWS)]
    except csv.Error:
        return []


def _width(rows: Sequence[Sequence[object]], score: Score) -> int:
    """Count the cells of the row that fits best."""
    return max((len(row) for row in rows if score([row]) == score(rows)), default=0)


def _parse(text: str, separator: str, path: Path) -> Rows:
    """Cut a text into rows of cells.

    Raises:
      DataError: a quotation mark is not closed, so that rows would end up in one cell; or there
        are too many cells.
    """
    try:
        return _cells(_reader(text, separator, is_strict=True), path)
    except csv.Error:
        pass
    # A mark inside of a cell (5" screen) does no harm as long as no cell holds several lines.
    count = 0
    try:
        rows = _cells(_reader(text, separator), path)
        for row in rows:
            count += 1
            if any("\n" in str(cell) or "\r" in str(cell) for cell in row):
                raise DataError(
                    f"{path}, row {count}: a quotation mark is not closed there, so that rows below"
                    " it would be in one cell. Close it, or take it out."
                )
    except csv.Error as error:
        raise DataError(f"{path}: {error}. Save it again as .xlsx.") from None
    return rows


def _cells(rows: Iterable[Sequence[object]], path: Path) -> Rows:
    out: Rows = []
    count = 0
    for row in rows:
        count += len(row) + 1
        if count > MAX_CELLS or len(row) > MAX_COLUMNS:
            raise DataError(
                f"{path}, row {len(out) + 1}: more than {MAX_CELLS} cells in all or {MAX_COLUMNS}"
                " in a row, more than any table of annotations."
            )
        out.append(list(row))
    return out
