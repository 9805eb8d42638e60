"""Action units: the text of coders, sets of units, and the label matrix of a multi-label task.

Coders write "4+R10", "14,L24,", "AU4(k)+L7", "13?" in spreadsheets. A cell is a list of tokens
between "+" or "," (CAS(ME)3 part C also has the full-width comma, and commas at the end). A token
is an optional "AU", an optional side or position (L, R, T, B), the number, an optional intensity A
to E (FACS), "(k)" for a unit that is held through the whole clip (4DME) and "?" for a doubtful one.
Nothing is guessed: "12 or 14" is refused, because reading the digits alone would invent unit 1214.

A cell may say that no unit is shown ("0", "none"). An empty cell says nothing: units that were not
coded are unknown, and unknown is not absent (see `is_coded`).
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mexjax.errors import DataError, quoted, unknown_name

if TYPE_CHECKING:
    import pandas as pd

AU_SETS: dict[str, tuple[int, ...]] = {
    # The six datasets of the CD6ME benchmark share these (Varanka et al., IEEE TAFFC 15, 2024).
    "cd6me": (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17),
    # Micro-AU CLIP scores eight units of CASME II and four of SAMM.
    "micro_au_casme2": (1, 2, 4, 7, 12, 14, 15, 17),
    "micro_au_samm": (2, 4, 7, 12),
}

_TOKEN = re.compile(
    r"(?:AU)?[LRTB]?0*(?P<number>[1-9][0-9]?)[A-E]?(?P<static>\(k\))?(?P<unsure>\?)?", re.IGNORECASE
)
_NONE_SHOWN = ("0", "au0", "none", "no au", "no aus")
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
    """Read the units of a spreadsheet cell.

    Args:
      text: the cell: text, a number where a spreadsheet made one of it, an empty cell (None, nan,
        "" or "/"), or one that says that there is no unit ("0", "none").

    Raises:
      DataError: the cell does not follow the grammar above.
    """
    content = _as_text(text).translate(_FULL_WIDTH)
    if content.casefold() in _NONE_SHOWN:
        return ParsedAus()
    tokens = [token.strip() for token in re.split("[+,]", content)]
    units: dict[str, set[int]] = {"present": set(), "unsure": set(), "static": set()}
    for token in filter(None, tokens):
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise DataError(
                f"Cannot read {quoted(token)} in the action units {quoted(text)}. Expected numbers"
                " with '+' or ',' between them, such as 4+R12B+AU7(k)+13?."
            )
        kind = "static" if match["static"] else "unsure" if match["unsure"] else "present"
        units[kind].add(int(match["number"]))
    # A unit that is coded twice (one side doubtful or held, the other moving) moves.
    unsure = units["unsure"] - units["present"]
    static = units["static"] - units["present"] - unsure
    return ParsedAus(*(tuple(sorted(group)) for group in (units["present"], unsure, static)))


def _as_text(cell: object) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, numbers.Integral) and not isinstance(cell, bool):
        return str(int(cell))
    if isinstance(cell, numbers.Real) and not isinstance(cell, bool) and float(cell).is_integer():
        return str(int(float(cell)))
    text = str(cell).strip()
    return "" if text == "/" else text


def is_coded(table: pd.DataFrame, *, unsure_is_present: bool = False) -> np.ndarray:
    """Tell for which clips somebody coded action units: bool[N].

    A clip without a unit counts where its cell says so; where the cell is empty, or could not be
    read, its units are unknown. The embedded datasets, and a table without the column `au`, the
    text of the coder, are coded throughout.

    Args:
      table: columns dataset and au, and aus_unsure where it has units.
      unsure_is_present: whether doubtful units count. A cell of alternatives that a rule of the
        CD6ME benchmark has made doubtful units of is then coded.
    """
    if "au" not in table.columns:
        return np.ones(len(table), bool)
    names, cells = table["dataset"].tolist(), table["au"].tolist()
    has_unsure = [False] * len(table)
    if unsure_is_present and "aus_unsure" in table.columns:
        has_unsure = [len(units) > 0 for units in table["aus_unsure"]]
    return np.array(
        [
            str(name).startswith("synthetic") or is_settled or _says_units(cell)
            for name, cell, is_settled in zip(names, cells, has_unsure, strict=True)
        ],
        bool,
    )


def _says_units(cell: object) -> bool:
    try:
        parse_aus(cell)
    except DataError:
        return False
    return bool(_as_text(cell).strip("+,，＋ "))


def numbers_of(units: str | Sequence[int]) -> tuple[int, ...]:
    """Read numbers of action units: the name of a set in `AU_SETS`, or a list such as "1,2,4".

    Raises:
      DataError: there is no such set, or the list is empty or names a unit twice.
    """
    if isinstance(units, str) and units in AU_SETS:
        return AU_SETS[units]
    parts = units.split(",") if isinstance(units, str) else units
    try:
        values = tuple(int(part) for part in parts)
    except ValueError:
        raise DataError(unknown_name("set of action units", str(units), AU_SETS)) from None
    if not values or len(set(values)) < len(values):
        raise DataError(f"Expected different numbers of action units, found {quoted(units)}.")
    return values


def label_aus(
    table: pd.DataFrame, units: str | Sequence[int], *, unsure_is_present: bool = False
) -> np.ndarray:
    """Make the label matrix of a table. A clip that shows none of the units has a row, too.

    Args:
      table: columns aus and, if unsure units are to count, aus_unsure: lists of numbers as text.
      units: a key of `AU_SETS`, or the numbers of the units (see `numbers_of`).
      unsure_is_present: whether a unit coded "12?" counts; the CD6ME benchmark counts it.

    Returns:
      i8[N, A], columns in the order of `units`.

    Raises:
      DataError: an unknown set, or a table without coded units.
    """
    columns = ["aus", "aus_unsure"] if unsure_is_present else ["aus"]
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise DataError(
            f"The table has no column {', '.join(missing)}: action units are not coded in it."
            f" It has {', '.join(table.columns)}."
        )
    names = [str(unit) for unit in numbers_of(units)]
    labels = np.zeros((len(table), len(names)), np.int8)
    for row, coded in enumerate(zip(*(table[name] for name in columns), strict=True)):
        present = {str(au) for part in coded for au in part}
        labels[row] = [unit in present for unit in names]
    return labels
