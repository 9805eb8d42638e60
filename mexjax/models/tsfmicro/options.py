"""Presets of TSFmicro: every option with its meaning, and where the paper's text and code part.

The keys of the two branches are those of `UnitOptions`. "The code" is the released TSFmicro,
version 1.0.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from mexjax.config.conditions import When
from mexjax.models.spatio_temporal.options import (
    NETWORK_KEYS,
    PER_STAGE,
    PLACE_KEYS,
    TINY_UNIT,
    UnitOptions,
)

# The place where the spatial branch S (one frame) and the temporal branch T (the difference) meet.
Fusion = Literal["late", "early", "t_to_s", "s_to_t", "s_only", "t_only"]
FUSIONS: tuple[str, ...] = get_args(Fusion)
# Conditions without which an option has no effect. `channels` gives S its width in every fusion,
# and the options of stem and stages must fit it.
ACTS: dict[str, tuple[When, ...]] = {
    **dict.fromkeys(NETWORK_KEYS, (When("fusion", ("s_only",), is_unless=True),)),
    **dict.fromkeys((*PER_STAGE, "stem_channels", "stem_strides"), ()),
    **dict.fromkeys(PLACE_KEYS, (When("fusion", ("late", "t_to_s", "s_to_t", "s_only")),)),
    "t_to_s_place": (When("fusion", ("t_to_s",)),),
    "s_only_frame": (When("fusion", ("s_only",)),),
}


@dataclasses.dataclass(frozen=True)
class Options(UnitOptions):
    """Options of TSFmicro; the defaults are those of the text."""

    # late: the sum of both maps | early: the sum of two stems, one of the onset and one of the
    # difference, then the backbone alone | t_to_s: T is added inside S | s_to_t: S, enlarged by
    # three transposed convolutions, is added after the stem of T | s_only, t_only: the ablations.
    fusion: Fusion = "late"
    # Used only with fusion=t_to_s: before_norm, after the blocks of S and before its last norm (the
    # code) | before_blocks: the other reading of "enters the spatial branch".
    t_to_s_place: Literal["before_norm", "before_blocks"] = "before_norm"
    # Used only with fusion=s_only: the frame that S sees, onset (the text) | apex (the code).
    s_only_frame: Literal["onset", "apex"] = "onset"

    acts = ACTS


PAPER = Options()
PRESETS = {
    "paper": PAPER,
    "official": dataclasses.replace(PAPER, s_only_frame="apex"),
    # This one is for frames of 64x64.
    "tiny": dataclasses.replace(PAPER, **TINY_UNIT),
}
