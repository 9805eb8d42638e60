"""Presets of AC4AU: every option with its meaning, and the gaps that the paper leaves.

"The paper" is "Regulatory Focus Theory Induced Micro-Expression Analysis with Structured
Representation Learning", ACM MM 2025. Its authors have released no code, so there is no preset
`official`; where the text gives no value the comment says so.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from mexjax.config.conditions import When
from mexjax.config.key import Range
from mexjax.errors import ConfigError
from mexjax.models.options import ANY, COUNT, POSITIVE

_EXPERTS = When("head", ("auser", "no_gate"))
_GATES = When("head", ("auser",))
_MLP = When("expert", ("mlp",))
# Conditions without which an option has no effect.
ACTS: dict[str, tuple[When, ...]] = {
    "pretrained": (When("is_pretrained", (True,)),),
    "expert": (_EXPERTS,),
    **dict.fromkeys(("expert_width", "expert_dropout_rate"), (_EXPERTS, _MLP)),
    **dict.fromkeys(("num_experts", "mix", "top_k", "gate_diagonal_bias"), (_GATES,)),
    **dict.fromkeys(("focus", "alpha"), (When("au_loss", ("focal",)),)),
    **dict.fromkeys(("arc_scale", "arc_margin", "arc_mode"), (When("gamma"),)),
}
BOUNDS = {
    "bn_eps": Range(above=0, most=1),
    **dict.fromkeys(("backbone_depths", "spatial_depth", "temporal_depth"), COUNT),
    **dict.fromkeys(("num_experts", "top_k"), COUNT),
    "gate_diagonal_bias": ANY,
    "arc_scale": POSITIVE,
    "arc_margin": Range(least=0, most=3.1416),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of AC4AU; the defaults are those of the text."""

    # Backbone: MobileFaceNet, pre-trained on faces. The text does not say which layout; these are
    # the sizes of the one that most derived code uses.
    width: int = 1
    emb_dim: int = 512
    bn_eps: float = 1e-5
    # Divisor of all widths, and bottlenecks of conv_3, conv_4, conv_5, for our smaller networks.
    backbone_divisor: int = 1
    backbone_depths: tuple[int, ...] = (4, 6, 2)
    # True: the backbone starts from the weights in the file `pretrained`, any that
    # mexjax.from_torch("mobilefacenet", ...) reads. Table 2: 22.3 points without them, 40.5 with.
    is_pretrained: bool = True
    pretrained: str = ""
    # Learning rate of the backbone over that of the rest.
    backbone_rate: float = 1.0
    # Order of the colours that the backbone sees: bgr | rgb. The public weights of this layout
    # were trained on blue, green, red.
    channel_order: Literal["bgr", "rgb"] = "bgr"
    # True: batch norm of the backbone uses and keeps the statistics it has. The text does not say
    # so; the frames of a clip are nearly the same, so B clips count as B samples, not as 8 B.
    freeze_bn: bool = False
    # Place of the spatial transformer: after conv_5 (7 x 7 tokens of 128) | conv_4 (14 x 14). The
    # text does not give it; its residual mapping, three convolutions with batch norm and a PReLU
    # after the first alone, is the rest of the backbone after conv_5.
    insert_at: Literal["conv_4", "conv_5"] = "conv_5"
    # backbone: its own last three layers | residual: three more before them, added to the map.
    tail: Literal["backbone", "residual"] = "backbone"
    # Sizes of the spatial transformer: the text gives the heads and no other.
    spatial_depth: int = 1
    spatial_heads: int = 4
    spatial_mlp_width: int = 512
    # pre_norm starts as the identity, so that pre-trained layers see maps like those of their
    # training | torch_default: with the defaults of PyTorch's encoder layer.
    spatial_style: Literal["pre_norm", "torch_default"] = "pre_norm"
    spatial_dropout_rate: float = 0.1
    has_spatial_position: bool = True
    # Frequency decomposition over time: irfft | eq3, as printed | none: the layers after it see the
    # features themselves (Table 2).
    frd: Literal["irfft", "eq3", "none"] = "irfft"
    # Bins of the transform that are kept, first and last; (): all but 0.
    frd_bands: tuple[int, ...] = ()
    # Sizes of the temporal transformer: the text gives none. Without positions it does not know the
    # order of frames, since the mean over time follows; the text mentions no positions.
    temporal_depth: int = 2
    temporal_heads: int = 4
    temporal_mlp_width: int = 1024
    temporal_style: Literal["pre_norm", "torch_default"] = "pre_norm"
    temporal_dropout_rate: float = 0.1
    has_temporal_position: bool = True
    has_temporal_norm: bool = True
    # True: the repeated last frames of a clip shorter than the input are not attended to.
    masks_repeated_frames: bool = False
    # auser: experts and gates | no_gate: expert k is unit k | linear: one layer (Table 2).
    head: Literal["auser", "no_gate", "linear"] = "auser"
    # Kind of the experts, mlp | linear, and their width. The text gives neither.
    expert: Literal["mlp", "linear"] = "mlp"
    expert_width: int = 128
    expert_dropout_rate: float = 0.1
    # Number of experts; 0: as many as units, as in the paper.
    num_experts: int = 0
    # prob: probabilities of experts are mixed, as equation 5 reads | logit: their logits are.
    mix: Literal["prob", "logit"] = "prob"
    # Each unit listens to its k heaviest experts; 0: to all, as in the paper.
    top_k: int = 0
    # Initial advantage of expert k in the gate of unit k.
    gate_diagonal_bias: float = 0.0
    # focal: equation 8 | bce: plain (Table 2). Both are summed over the units.
    au_loss: Literal["focal", "bce"] = "focal"
    focus: float = 2.0
    # Share of clips with each unit, the weight of its absence, counted in: global, all clips, the
    # held-out dataset included, as the paper does | train, the clips of the training fold.
    alpha: Literal["global", "train"] = "global"
    # Weight of the subject loss (Table 3), its scale s, margin m (rad) and what happens past pi:
    # literal | monotone | easy (mexjax/models/ac4au/losses.py).
    gamma: float = 0.1
    arc_scale: float = 32.0
    arc_margin: float = 0.5
    arc_mode: Literal["literal", "monotone", "easy"] = "monotone"
    # The type the network computes in; parameters, statistics, the subject head, experts' sums and
    # losses are float32.
    dtype: Literal["float32", "bfloat16"] = "float32"

    acts = ACTS
    bounds = BOUNDS

    def __post_init__(self) -> None:
        if len(self.frd_bands) not in (0, 2):
            raise ConfigError(
                "model.frd_bands is the first and the last bin that are kept, or nothing; found"
                f" {self.frd_bands}."
            )


PAPER = Options()
PRESETS = {
    "paper": PAPER,
    "scratch": dataclasses.replace(PAPER, is_pretrained=False),
    # This one is for clips of 64 x 64 on a laptop.
    "tiny": dataclasses.replace(
        PAPER,
        is_pretrained=False,
        backbone_divisor=4,
        backbone_depths=(1, 1, 1),
        emb_dim=128,
        spatial_mlp_width=64,
        spatial_dropout_rate=0.0,
        temporal_depth=1,
        temporal_mlp_width=128,
        temporal_dropout_rate=0.1,
        expert_width=32,
        alpha="train",
        # With 0.1 the subject loss, at first ten times as large, would take the few updates.
        gamma=0.02,
    ),
}
