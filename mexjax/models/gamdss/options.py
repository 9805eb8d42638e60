"""Presets of GAMDSS: every key with what it does, and where the paper's text and code part.

The keys of the unit are those of `mexjax.models.spatio_temporal.unit.UNIT`. "The code" is the
released GAMDSS, version 1.0.1. Which frames are onset, apex and offset is a
matter of the data, not of the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mexjax.models.gamdss.backbones import BACKBONES, SIZES
from mexjax.models.spatio_temporal import unit as st_unit

PHASES = {"full": ("rise", "fall"), "rise": ("rise",), "fall": ("fall",)}

_PAPER: dict[str, Any] = {
    **st_unit.UNIT,
    # What sees the difference of two frames: rmt, the retention network that the keys above
    # describe | one of `mexjax.models.gamdss.backbones`, which have a head of their own and to
    # whose map the transformer's is fitted. Beside them the keys from stem_channels to
    # map_size_px and
    # head_width say nothing.
    "backbone": "rmt",
    # Of those others: published, the network of that name | small, for frames of 64 pixels.
    "backbone_size": "published",
    # Stochastic depth of the last block of ConvNeXt, Swin and VMamba. The released ConvNeXt has
    # none; their own papers train with 0.1 and 0.2.
    "backbone_drop_path_rate": 0.0,
    # What the backbone sees of a phase: difference of its frames | flow (u, v and magnitude, see
    # `mexjax.ops.flow_frames`; the text names it and no more).
    "feature": "difference",
    # full: rise and fall, one after the other through the same unit | rise: the difference of
    # apex and onset alone | fall: of apex and offset alone.
    "phases": "full",
    # The frame whose places the unit sees beside the fall: apex (the code) | onset | offset. The
    # text says "onset or offset". Beside the rise it is the onset.
    "fall_place_frame": "apex",
    # Weight of the cross-entropy of the fall; that of the rise is 1 (Eq. 12).
    "lambda_fall": 1.0,
    # Of full: rise, its logits alone (the code) | mean: of the probabilities of both.
    "inference": "rise",
}

PRESETS: dict[str, dict[str, Any]] = {
    "paper": _PAPER,
    # The network of the text is that of the code: what the text leaves open was taken from there.
    "official": dict(_PAPER),
    # For frames of 64x64.
    "tiny": {
        **_PAPER,
        **st_unit.TINY_UNIT,
        "backbone_size": "small",
        # Two looks at one expression: small networks err apart.
        "inference": "mean",
    },
}

_CHOICES = {
    "backbone": ("rmt", *BACKBONES),
    "backbone_size": SIZES,
    "feature": ("difference", "flow"),
    "phases": tuple(PHASES),
    "fall_place_frame": ("apex", "onset", "offset"),
    "inference": ("rise", "mean"),
}


def resolve(model_config: Mapping[str, Any]) -> dict[str, Any]:
    """Every key of the model: those given, the others from the preset they name (or `paper`).

    Raises:
      ConfigError: an unknown preset, key or choice, or stages that do not match in number.
    """
    return st_unit.resolve(model_config, PRESETS, _CHOICES, "gamdss")
