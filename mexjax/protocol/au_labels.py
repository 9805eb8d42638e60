"""From coded action units to the 0/1 label matrix of a multi-label task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mexjax.errors import DataError, unknown_name

AU_SETS: dict[str, tuple[int, ...]] = {
    # Common to the six datasets of the CD6ME benchmark (Varanka et al., IEEE TAFFC 15, 2024).
    "cd6me": (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17),
    # Micro-AU CLIP: eight units of CASME II, four of SAMM.
    "micro_au_casme2": (1, 2, 4, 7, 12, 14, 15, 17),
    "micro_au_samm": (2, 4, 7, 12),
}


def numbers_of(units: str | Sequence[int]) -> tuple[int, ...]:
    """Numbers of action units: of a set of `AU_SETS`, or as they are written, "1,2,4".

    Raises:
      DataError: no such set, nothing but a set or different numbers.
    """
    if isinstance(units, str) and units in AU_SETS:
        return AU_SETS[units]
    parts = units.split(",") if isinstance(units, str) else units
    try:
        numbers = tuple(int(part) for part in parts)
    except ValueError:
        raise DataError(unknown_name("set of action units", str(units), AU_SETS)) from None
    if not numbers or len(set(numbers)) < len(numbers):
        raise DataError(f"Expected different numbers of action units, found {units!r}.")
    return numbers


def label_aus(
    table: pd.DataFrame, units: str | Sequence[int], *, unsure_is_present: bool = False
) -> np.ndarray:
    """The label matrix of a table. Every clip has a row, also one that shows none of the units.

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
    wanted = [str(unit) for unit in numbers_of(units)]
    labels = np.zeros((len(table), len(wanted)), np.int8)
    for row, coded in enumerate(zip(*(table[name] for name in columns), strict=True)):
        shown = {str(au) for part in coded for au in part}
        labels[row] = [unit in shown for unit in wanted]
    return labels
