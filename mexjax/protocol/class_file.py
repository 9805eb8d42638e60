"""Files that merge emotion words into classes (`protocol.class_map`), and the spelling of words."""

from __future__ import annotations

import csv
from pathlib import Path

from mexjax.errors import DataError, beginning
from mexjax.protocol.classes import canonical_emotion
from mexjax.protocol.names import fold, tidy

MAX_BYTES = 2**20
_HEADS = (("word", "class"), ("emotion", "class"))
_MAX_LETTERS = 60  # of a name in a message


def read_class_map(path: Path) -> dict[str, str]:
    """Read a file of lines `word,class`; an empty class leaves the clips of a word out.

    Columns may be parted by a comma, a semicolon or a tab, and a header `word,class` is allowed.

    Returns:
      class by word, in the spelling of tables; the order of the file is that of the classes.

    Raises:
      DataError: the file is absent or no such text, or a word has two classes.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"protocol.class_map={path} is larger than 1 MiB: it is no class map.")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(
            f"Cannot read protocol.class_map={path} (looked from {Path.cwd()}):"
            f" {error.strerror or error}."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"protocol.class_map={path} is no UTF-8 text. Save it as UTF-8.") from error
    head = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    lines: dict[str, str] = {}
    try:
        rows = list(csv.reader(text.splitlines(), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(f"protocol.class_map={path} cannot be read: {error}.") from error
    for number, row in enumerate(rows, start=1):
        cells = [tidy(cell) for cell in row]
        if not any(cells) or (not lines and tuple(map(fold, cells)) in _HEADS):
            continue
        if len(cells) != 2 or not cells[0]:
            raise DataError(
                f"{path}, line {number}: expected word,class, found {short(delimiter.join(row))}."
                " Nothing behind the comma leaves the clips of a word out."
            )
        word = spelled(cells[0])
        if lines.setdefault(word, cells[1]) != cells[1]:
            raise DataError(
                f"{path}, line {number}: {word} is {short(cells[1])} here and"
                f" {short(lines[word])} above. Keep one of the lines."
            )
    if not lines:
        raise DataError(f"protocol.class_map={path} has no line word,class.")
    return lines


def spelled(emotion: object) -> str:
    """The emotion as tables have it; "" where there is none."""
    text = emotion if isinstance(emotion, str) else ""
    text = "" if fold(text) == "nan" else text
    return "+".join(filter(None, map(canonical_emotion, text.split("+"))))


def short(text: str) -> str:
    """A name for a message, of at most 60 characters."""
    return beginning(text, _MAX_LETTERS)
