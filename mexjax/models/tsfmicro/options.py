"""Presets of TSFmicro: every key with what it does, and where the paper's text and code part.

The keys of the two branches are those of `mexjax.models.spatio_temporal.unit.UNIT`. "The code" is
the released TSFmicro, version 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mexjax.models.spatio_temporal import unit as st_unit

# Where the spatial branch S (one frame) and the temporal branch T (the difference) meet.
FUSIONS = ("late", "early", "t_to_s", "s_to_t", "s_only", "t_only")

_PAPER: dict[str, Any] = {
    **st_unit.UNIT,
    # late: the sum of both maps | early: the sum of two stems, one of the onset and one of the
    # difference, then the backbone alone | t_to_s: T is added inside S | s_to_t: S, enlarged by
    # three transposed convolutions, is added after the stem of T | s_only, t_only: the ablations.
    "fusion": "late",
    # Of t_to_s: before_norm, after the blocks of S and before its last norm (the code) |
    # before_blocks: the other reading of "enters the spatial branch".
    "t_to_s_place": "before_norm",
    # Of s_only: the frame that S sees, onset (the text) | apex (the code).
    "s_only_frame": "onset",
}

PRESETS: dict[str, dict[str, Any]] = {
    "paper": _PAPER,
    "official": {**_PAPER, "s_only_frame": "apex"},
    # For frames of 64x64.
    "tiny": {**_PAPER, **st_unit.TINY_UNIT},
}

_CHOICES = {
    "fusion": FUSIONS,
    "t_to_s_place": ("before_norm", "before_blocks"),
    "s_only_frame": ("onset", "apex"),
}


def resolve(model_config: Mapping[str, Any]) -> dict[str, Any]:
    """Every key of the model: those given, the others from the preset they name (or `paper`).

    Raises:
      ConfigError: an unknown preset, key or choice, or stages that do not match in number.
    """
    return st_unit.resolve(model_config, PRESETS, _CHOICES, "tsfmicro")
