"""The ways in which coders write action units down, each with its meaning."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

Aus = Sequence[int]


@dataclasses.dataclass(frozen=True)
class Coded:
    """A cell of a spreadsheet and its meaning.

    Attributes:
      cell: content: text, or a number where a single unit stands alone.
      present: units that move according to it, ascending.
      unsure: units marked "?".
    """

    cell: str | int
    present: tuple[int, ...]
    unsure: tuple[int, ...] = ()


def plain(aus: Aus) -> Coded:
    """Write `4+7`."""
    return Coded("+".join(map(str, aus)), tuple(aus))


def spaced(aus: Aus) -> Coded:
    """Write `4 + 7`."""
    return Coded(" + ".join(map(str, aus)), tuple(aus))


def sided(aus: Aus) -> Coded:
    """Write `L4+7`: the first unit is on the left, the others have no side."""
    first, *rest = aus
    return Coded("+".join([f"L{first}", *map(str, rest)]), tuple(aus))


def right_last(aus: Aus) -> Coded:
    """Write `4+R7`."""
    *rest, last = aus
    return Coded("+".join([*map(str, rest), f"R{last}"]), tuple(aus))


def with_lips(aus: Aus) -> Coded:
    """Write `T28+4`: a unit of the upper lip is not among the usual twelve."""
    return Coded("+".join(["T28", *map(str, aus)]), tuple(sorted((*aus, 28))))


def with_unsure(aus: Aus) -> Coded:
    """Write `4+13?`: the coder doubts one unit."""
    return Coded("+".join([*map(str, aus), "13?"]), tuple(aus), (13,))


def with_blink(aus: Aus) -> Coded:
    """Write `4+45`: a blink stands among the units."""
    return Coded("+".join([*map(str, aus), "45"]), tuple(sorted((*aus, 45))))


def graded(aus: Aus) -> Coded:
    """Write `R4A+7B`: the side stands before the number, the intensity after it."""
    first, *rest = aus
    return Coded("+".join([f"R{first}A", *(f"{au}B" for au in rest)]), tuple(aus))


def either(aus: Aus) -> Coded:
    """Write `12 or 15`: the coder could not decide, so no unit is known to move."""
    first, *rest = aus
    other = next(au for au in (*rest, 15, 12) if au != first)
    return Coded(f"{first} or {other}", ())


def number(aus: Aus) -> Coded:
    """Write one unit as a number, as spreadsheets keep it, and several as `plain` does."""
    return Coded(aus[0], tuple(aus)) if len(aus) == 1 else plain(aus)


def comma_number(aus: Aus) -> Coded:
    """Write one unit as a number, and several as `4,7`."""
    return Coded(aus[0] if len(aus) == 1 else ",".join(map(str, aus)), tuple(aus))


def commas(aus: Aus) -> Coded:
    """Write `4,L24,`: there is a comma too many."""
    return Coded(",".join([*map(str, aus), "L24", ""]), tuple(sorted((*aus, 24))))


def wide_comma(aus: Aus) -> Coded:
    """Write `4，11` with the full-width comma of an East Asian keyboard."""
    return Coded("，".join([*map(str, aus), "11"]), tuple(sorted((*aus, 11))))


def comma_unsure(aus: Aus) -> Coded:
    """Write `4,13?`."""
    return Coded(",".join([*map(str, aus), "13?"]), tuple(aus), (13,))


def held(aus: Aus, static: int) -> Coded:
    """Write `AU4(k)+L7`: unit 4 is there all the time, so it does not count."""
    return Coded("+".join([f"AU{static}(k)", *(f"L{au}" for au in aus)]), tuple(aus))


def held_between(aus: Aus, static: int) -> Coded:
    """Write `AUR2+12(k)+45`: the side follows the prefix; a static unit and a blink come last."""
    first, *rest = aus
    tokens = [f"AUR{first}", f"{static}(k)", *map(str, rest), "45"]
    return Coded("+".join(tokens), tuple(sorted((*aus, 45))))


def prefixed(aus: Aus) -> Coded:
    """Write `AU4+AU7`."""
    return Coded("+".join(f"AU{au}" for au in aus), tuple(aus))


def objective_class(aus: Aus) -> str:
    """Give a Roman number I to VII, as the objective classes of SAMM and CAS(ME)3 have.

    Those are defined on sets of action units (Davison et al., 2018); no reader uses them, so
    any of the seven will do.
    """
    return ("I", "II", "III", "IV", "V", "VI", "VII")[math.prod(aus) % 7]
