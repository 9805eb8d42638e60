"""Presets of GAMDSS: every option with its meaning, and where the paper's text and code part.

The keys of the unit are those of `UnitOptions`. "The code" is the released GAMDSS, version 1.0.1.
The data, not the network, says which frames are onset, apex and offset.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from mexjax.config.conditions import When
from mexjax.models.spatio_temporal.options import NETWORK_KEYS, TINY_UNIT, UnitOptions

PHASES = {"full": ("rise", "fall"), "rise": ("rise",), "fall": ("fall",)}
_BOTH = When("phases", ("full",))
# Conditions without which an option has no effect.
ACTS: dict[str, tuple[When, ...]] = {
    **dict.fromkeys((*NETWORK_KEYS, "map_size_px", "head_width"), (When("backbone", ("rmt",)),)),
    "backbone_size": (When("backbone", ("rmt",), is_unless=True),),
    "backbone_drop_path_rate": (When("backbone", ("convnext_tiny", "swin_tiny", "vmamba_tiny")),),
    "fall_place_frame": (When("phases", ("full", "fall")),),
    "lambda_fall": (_BOTH,),
    "inference": (_BOTH,),
}


@dataclasses.dataclass(frozen=True)
class Options(UnitOptions):
    """Options of GAMDSS; the defaults are those of the text."""

    # The network that sees the difference of two frames: rmt, the retention network that the keys
    # above describe | one of `mexjax.models.gamdss.backbones`, which have a head of their own; the
    # map of the transformer is fitted to theirs, and the keys from stem_channels to map_size_px and
    # head_width are not used.
    backbone: Literal[
        "rmt", "resnet_shallow", "resnet18", "convnext_tiny", "swin_tiny", "vmamba_tiny"
    ] = "rmt"
    # Size of those other backbones: published, the network of that name | small, for frames of 64
    # pixels.
    backbone_size: Literal["published", "small"] = "published"
    # Stochastic depth of the last block of ConvNeXt, Swin and VMamba. The released ConvNeXt has
    # none; their own papers train with 0.1 and 0.2.
    backbone_drop_path_rate: float = 0.0
    # Motion of a phase that the backbone sees: difference of its frames | flow (u, v and magnitude,
    # see `mexjax.ops.flow_frames`; the text names it and says no more).
    feature: Literal["difference", "flow"] = "difference"
    # full: rise and fall, one after the other through the same unit | rise: the difference of
    # apex and onset alone | fall: of apex and offset alone.
    phases: Literal["full", "rise", "fall"] = "full"
    # The frame that the transformer sees beside the fall: apex (the code) | onset | offset. The
    # text says "onset or offset". Beside the rise it sees the onset.
    fall_place_frame: Literal["apex", "onset", "offset"] = "apex"
    # Weight of the cross-entropy of the fall; that of the rise is 1 (Eq. 12).
    lambda_fall: float = 1.0
    # Prediction with phases=full: rise, its logits alone (the code) | mean, the mean of the
    # probabilities of both phases.
    inference: Literal["rise", "mean"] = "rise"

    acts = ACTS


PAPER = Options()
PRESETS = {
    "paper": PAPER,
    # The network of the text is that of the code, which fills every gap that the text leaves.
    "official": PAPER,
    # This one is for frames of 64x64. The mean of both phases helps: small networks err apart.
    "tiny": dataclasses.replace(PAPER, **TINY_UNIT, backbone_size="small", inference="mean"),
}
