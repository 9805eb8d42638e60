"""TSFmicro in PyTorch, in every fusion, named as `mexjax.to_torch` names it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from torch_peer import st_unit

# Fusions whose released class has its head at the top level, and whose transformer is missing.
_TOP_HEAD, _NO_PLACE = ("t_to_s", "s_only"), ("early", "t_only")


class TSFmicro(nn.Module):
    """The network, for options of TSFmicro as a dict."""

    def __init__(self, c: Mapping[str, Any], *, num_classes: int, channels: int) -> None:
        super().__init__()
        self.c, fusion = c, c["fusion"]
        if fusion != "s_only":
            self.main_branch = st_unit.Backbone(
                c,
                channels=channels,
                num_classes=num_classes,
                has_stem=fusion != "early",
                has_head=fusion not in _TOP_HEAD,
            )
        if fusion == "early":
            self.ConvStem_T = st_unit.ConvStem(c, channels)
            self.ConvStem_S = st_unit.ConvStem(c, channels)
        if fusion not in _NO_PLACE:
            self.vit_pos = st_unit.PositionViT(c, channels)
        if fusion in _TOP_HEAD:
            st_unit.add_head(self, c, num_classes)
        if fusion == "s_to_t":
            widths = [c["channels"][-1], *reversed(c["channels"][:-1])]
            for i, pair in enumerate(itertools.pairwise(widths), 1):
                up = nn.ConvTranspose2d(*pair, 4, stride=2, padding=1)
                setattr(self, f"transposed_conv{i}", up)
        st_unit.initialise(self)

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        """Maps f32[B,T,C,H,W], onset and apex first, to `logits` f32[B,K]."""
        onset, apex = clip[:, 0], clip[:, 1]
        fusion = self.c["fusion"]
        if fusion in _TOP_HEAD:
            return {"logits": st_unit.run_head(self, self._placed(onset, apex))}
        stages = self.main_branch.layers
        if fusion == "early":
            x = stages(self.ConvStem_T(onset) + self.ConvStem_S(apex - onset))
        elif fusion == "s_to_t":
            x = stages(self._enlarged(onset) + self.main_branch.patch_embed(apex - onset))
        else:
            x = stages(self.main_branch.patch_embed(apex - onset))
            x = x + self.vit_pos(onset) if fusion == "late" else x
        return {"logits": st_unit.run_head(self.main_branch, x)}

    def _placed(self, onset: Tensor, apex: Tensor) -> Tensor:
        """The map of the spatial branch, where it is the last one."""
        if self.c["fusion"] == "s_only":
            return self.vit_pos(onset if self.c["s_only_frame"] == "onset" else apex)
        motion = self.main_branch.layers(self.main_branch.patch_embed(apex - onset))
        return self.vit_pos(onset, motion, self.c["t_to_s_place"])

    def _enlarged(self, onset: Tensor) -> Tensor:
        x = self.vit_pos(onset).permute(0, 3, 1, 2)
        for i in range(1, len(self.c["channels"])):
            x = getattr(self, f"transposed_conv{i}")(x)
        return x.permute(0, 2, 3, 1)


def make(
    keys: Mapping[str, Any], *, num_classes: int, num_frames: int, channels: int, image_size: int
) -> nn.Module:
    """The network."""
    del num_frames, image_size
    return TSFmicro(keys, num_classes=num_classes, channels=channels)


def target(frames: Tensor, keys: Mapping[str, Any]) -> Tensor:
    """An empty target, f32[B,0]."""
    del keys
    return st_unit.no_target(frames)


def loss(
    outputs: Mapping[str, Tensor], target: Tensor, label: Tensor, keys: Mapping[str, Any]
) -> Tensor:
    """The cross-entropy of the batch."""
    del target
    return functional.cross_entropy(
        outputs["logits"], label, label_smoothing=keys["label_smoothing"]
    )
