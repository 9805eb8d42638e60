"""Action units as coders write them in spreadsheets: "4+R10", "14,L24,", "AU4(k)+L7", "13?".

A cell is a list of tokens between "+" or "," (CAS(ME)3 part C also has the full-width comma, and
commas at the end). A token is an optional "AU", an optional side or position (L, R, T, B), the
number, an optional intensity A to E (FACS), "(k)" for a unit that is held through the whole clip
(4DME) and "?" for a doubtful one. Nothing is guessed: "12 or 14" is refused, because reading the
digits alone would invent unit 1214.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import re

from mexjax.errors import DataError

_TOKEN = re.compile(
    r"(?:AU)?[LRTB]?0*(?P<number>[1-9][0-9]?)[A-E]?(?P<static>\(k\))?(?P<unsure>\?)?", re.IGNORECASE
)
_FULL_WIDTH = str.maketrans("，＋？（）", ",+?()")


@dataclasses.dataclass(frozen=True)
class ParsedAus:
    """The units of one clip, each tuple ascending; a unit is in one of them only.

    Attributes:
      present: units that move.
      unsure: units the coder marked as doubtful.
      static: units held from the first frame to the last, so that nothing moves.
    """

    present: tuple[int, ...] = ()
    unsure: tuple[int, ...] = ()
    static: tuple[int, ...] = ()


def parse_aus(text: object) -> ParsedAus:
    """The units of a spreadsheet cell.

    Args:
      text: the cell: text, a number where a spreadsheet made one of it, or an empty cell (None,
        nan, "" or "/").

    Raises:
      DataError: the cell does not follow the grammar above.
    """
    tokens = [token.strip() for token in re.split("[+,]", _as_text(text).translate(_FULL_WIDTH))]
    found: dict[str, set[int]] = {"present": set(), "unsure": set(), "static": set()}
    for token in filter(None, tokens):
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise DataError(
                f"Cannot read {token!r} in the action units {text!r}. Expected numbers with"
                " '+' or ',' between them, such as 4+R12B+AU7(k)+13?."
            )
        kind = "static" if match["static"] else "unsure" if match["unsure"] else "present"
        found[kind].add(int(match["number"]))
    # Coded twice (one side doubtful or held, the other moving): it moves.
    unsure = found["unsure"] - found["present"]
    static = found["static"] - found["present"] - unsure
    return ParsedAus(*(tuple(sorted(units)) for units in (found["present"], unsure, static)))


def _as_text(cell: object) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, numbers.Real) and not isinstance(cell, bool) and float(cell).is_integer():
        return str(int(cell))
    text = str(cell).strip()
    return "" if text == "/" else text
