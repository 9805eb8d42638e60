"""The action units: each moves and shades the skin and moves the lids.

Directions follow the Facial Action Coding System (Ekman, Friesen and Hager, 2002). Sizes are
those of micro-expressions: one to four pixels on a face of 112 pixels.
"""

from __future__ import annotations

import dataclasses

Point = int | tuple[float, float]  # a landmark, or a place on the template's left half (u)


@dataclasses.dataclass(frozen=True)
class ActionUnit:
    """One action unit at intensity 1, given for the image's left side (x < 0).

    Attributes:
      anchors: (point, (dx, dy)): displacement in u; dx > 0 points to the midline.
      radius: Gaussian radius of an anchor, u.
      lids: rise of the upper and of the lower lid, u.
      lines: (from, to, amplitude, width): a furrow with bright flanks.
      blobs: (centre, radius, amplitude): a bulge or a dent.
      size: largest displacement, u; the unit of a set with the largest size is the main one.
    """

    anchors: tuple[tuple[Point, tuple[float, float]], ...]
    radius: float
    size: float
    lids: tuple[float, float] = (0.0, 0.0)
    lines: tuple[tuple[tuple[float, float], tuple[float, float], float, float], ...] = ()
    blobs: tuple[tuple[tuple[float, float], float, float], ...] = ()


TABLE: dict[int, ActionUnit] = {
    1: ActionUnit(  # inner brow raiser
        anchors=(
            (21, (0.004, -0.055)),
            (20, (0.002, -0.036)),
            (19, (0.0, -0.012)),
            ((-0.14, -0.52), (0.0, -0.022)),
        ),
        radius=0.10,
        size=0.052,
        lines=(((-0.22, -0.47), (-0.04, -0.49), -0.07, 0.016),),
    ),
    2: ActionUnit(  # outer brow raiser
        anchors=(
            (17, (0.0, -0.042)),
            (18, (0.0, -0.055)),
            (19, (0.0, -0.036)),
            (20, (0.0, -0.010)),
            ((-0.50, -0.55), (0.0, -0.020)),
        ),
        radius=0.10,
        size=0.047,
        lines=(((-0.60, -0.48), (-0.34, -0.52), -0.06, 0.016),),
    ),
    4: ActionUnit(  # brow lowerer
        anchors=(
            (21, (0.031, 0.048)),
            (20, (0.028, 0.045)),
            (19, (0.017, 0.028)),
            (18, (0.006, 0.011)),
            ((-0.07, -0.36), (0.014, 0.031)),
            ((0.0, -0.12), (0.0, 0.020)),
        ),
        radius=0.09,
        size=0.046,
        lines=(((-0.055, -0.30), (-0.065, -0.16), -0.13, 0.016),),
        blobs=(((0.0, -0.23), 0.05, 0.04),),
    ),
    5: ActionUnit(  # upper lid raiser
        anchors=(((-0.306, -0.10), (0.0, -0.010)),),
        radius=0.06,
        size=0.036,
        lids=(0.036, 0.0),
    ),
    6: ActionUnit(  # cheek raiser
        anchors=(
            ((-0.44, 0.36), (0.006, -0.042)),
            ((-0.30, 0.28), (0.0, -0.026)),
            ((-0.56, 0.22), (0.010, -0.026)),
        ),
        radius=0.13,
        size=0.042,
        lids=(-0.004, 0.014),
        lines=(
            ((-0.54, 0.03), (-0.64, 0.07), -0.12, 0.014),
            ((-0.54, 0.0), (-0.64, -0.03), -0.10, 0.014),
            ((-0.44, 0.15), (-0.18, 0.16), -0.10, 0.018),
        ),
        blobs=(((-0.44, 0.27), 0.09, 0.10), ((-0.46, 0.48), 0.09, -0.06)),
    ),
    7: ActionUnit(  # lid tightener
        anchors=(((-0.306, 0.11), (0.0, -0.026)), ((-0.306, -0.12), (0.0, 0.010))),
        radius=0.07,
        size=0.026,
        lids=(-0.014, 0.022),
        lines=(((-0.42, 0.105), (-0.20, 0.10), -0.12, 0.014),),
    ),
    9: ActionUnit(  # nose wrinkler
        anchors=(
            ((-0.165, 0.45), (0.0, -0.043)),
            ((-0.09, 0.22), (0.007, -0.034)),
            (31, (0.0, -0.031)),
            (50, (0.0, -0.024)),
            (21, (0.012, 0.024)),
            ((0.0, 0.34), (0.0, -0.019)),
        ),
        radius=0.085,
        size=0.040,
        lines=(
            ((-0.045, 0.03), (-0.13, 0.12), -0.15, 0.014),
            ((-0.05, 0.10), (-0.12, 0.19), -0.12, 0.014),
            ((-0.19, 0.44), (-0.27, 0.56), -0.12, 0.020),
        ),
        blobs=(((-0.20, 0.34), 0.06, 0.06),),
    ),
    10: ActionUnit(  # upper lip raiser
        anchors=(
            (50, (0.0, -0.046)),
            (49, (-0.005, -0.038)),
            (51, (0.0, -0.034)),
            (61, (0.0, -0.036)),
            ((-0.24, 0.60), (-0.012, -0.034)),
        ),
        radius=0.075,
        size=0.040,
        lines=(((-0.20, 0.46), (-0.31, 0.64), -0.13, 0.020),),
        blobs=(((-0.30, 0.50), 0.06, 0.07),),
    ),
    12: ActionUnit(  # lip corner puller
        anchors=(
            (48, (-0.046, -0.034)),
            (60, (-0.042, -0.030)),
            (49, (-0.020, -0.014)),
            (59, (-0.026, -0.014)),
            ((-0.42, 0.58), (-0.022, -0.030)),
            ((0.0, 0.79), (0.0, 0.0)),
        ),
        radius=0.095,
        size=0.042,
        lines=(((-0.22, 0.50), (-0.40, 0.76), -0.12, 0.022),),
        blobs=(((-0.44, 0.52), 0.09, 0.08),),
    ),
    14: ActionUnit(  # dimpler
        anchors=(
            (48, (-0.039, 0.003)),
            (60, (-0.033, 0.0)),
            ((-0.42, 0.80), (0.033, -0.006)),
            ((0.0, 0.79), (0.0, 0.0)),
        ),
        radius=0.075,
        size=0.032,
        lines=(((-0.34, 0.72), (-0.35, 0.86), -0.20, 0.018),),
        blobs=(((-0.40, 0.79), 0.045, 0.08), ((-0.33, 0.79), 0.03, -0.10)),
    ),
    15: ActionUnit(  # lip corner depressor
        anchors=(
            (48, (-0.008, 0.044)),
            (60, (-0.006, 0.040)),
            (59, (0.0, 0.022)),
            (49, (0.0, 0.014)),
            ((-0.33, 0.93), (0.0, 0.024)),
            ((0.0, 0.79), (0.0, 0.0)),
        ),
        radius=0.085,
        size=0.044,
        lines=(((-0.31, 0.84), (-0.37, 0.96), -0.13, 0.020),),
        blobs=(((-0.30, 0.95), 0.05, 0.05),),
    ),
    17: ActionUnit(  # chin raiser
        anchors=(
            ((-0.08, 1.13), (0.0, -0.046)),
            ((-0.20, 1.10), (0.004, -0.030)),
            (58, (0.0, -0.030)),
            (57, (0.0, -0.032)),
            (66, (0.0, -0.020)),
            (51, (0.0, -0.008)),
        ),
        radius=0.10,
        size=0.040,
        lines=(((-0.11, 0.985), (0.0, 1.0), -0.14, 0.022),),
        blobs=(((-0.06, 1.12), 0.05, 0.07), ((-0.06, 1.20), 0.05, -0.06)),
    ),
}
