"""GAMDSS with its retention network in PyTorch, named as `mexjax.to_torch` names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from mexjax.models.gamdss.options import PHASES
from torch_peer import st_unit

_FRAMES = ("onset", "apex", "offset")


class GAMDSS(nn.Module):
    """The network, for options of GAMDSS as a dict.

    In training rise and fall are two passes, as in the released code, so that each has its own
    batch statistics; in evaluation the phase that decides is the only one.
    """

    def __init__(self, c: Mapping[str, Any], *, num_classes: int, channels: int) -> None:
        super().__init__()
        self.c = c
        self.main_branch = st_unit.Backbone(c, channels=channels, num_classes=num_classes)
        self.vit_pos = st_unit.PositionViT(c, channels)
        st_unit.initialise(self)

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        """Maps onset, apex and offset f32[B,T,C,H,W] to the logits f32[B,K] of the phases."""
        frames = dict(zip(_FRAMES, clip.unbind(1), strict=True))
        phases = PHASES[self.c["phases"]]
        phases = phases if self.training else phases[:1]
        outputs = {f"logits_{phase}": self._unit(frames, phase) for phase in phases}
        return {**outputs, "logits": outputs[f"logits_{phases[0]}"]}

    def _unit(self, frames: Mapping[str, Tensor], phase: str) -> Tensor:
        is_rise = phase == "rise"
        difference = frames["apex"] - frames["onset" if is_rise else "offset"]
        x = self.main_branch.layers(self.main_branch.patch_embed(difference))
        place = frames["onset" if is_rise else self.c["fall_place_frame"]]
        return st_unit.run_head(self.main_branch, x + self.vit_pos(place))


def make(
    keys: Mapping[str, Any], *, num_classes: int, num_frames: int, channels: int, image_size: int
) -> nn.Module:
    """The network.

    Raises:
      SystemExit: a backbone or an inference that the peer lacks.
    """
    del num_frames, image_size
    if keys["backbone"] != "rmt" or keys["inference"] != "rise":
        raise SystemExit(
            "The PyTorch side of GAMDSS has model.backbone=rmt and model.inference=rise; found"
            f" {keys['backbone']} and {keys['inference']}. Add --peer=none."
        )
    return GAMDSS(keys, num_classes=num_classes, channels=channels)


def target(frames: Tensor, keys: Mapping[str, Any]) -> Tensor:
    """An empty target, f32[B,0]."""
    del keys
    return st_unit.no_target(frames)


def loss(
    outputs: Mapping[str, Tensor], target: Tensor, label: Tensor, keys: Mapping[str, Any]
) -> Tensor:
    """Cross-entropy of every phase of the network."""
    del target
    phases = PHASES[keys["phases"]]
    entropy = {
        phase: functional.cross_entropy(
            outputs[f"logits_{phase}"], label, label_smoothing=keys["label_smoothing"]
        )
        for phase in phases
    }
    if len(phases) == 1:
        return entropy[phases[0]]
    return entropy["rise"] + keys["lambda_fall"] * entropy["fall"]
