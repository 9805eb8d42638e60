"""Presets of FDP: every option with its meaning, and where the paper's text and code part.

Tables and figures are those of "Micro-Expression Recognition via Fine-Grained Dynamic Perception";
"the code" is CYF-cuber/FDP, commit 7ad36d9.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from mexjax.config.conditions import When
from mexjax.config.key import Range
from mexjax.models.options import ANY, COUNT, check_lengths

PER_STAGE = (
    "num_local", "num_global", "local_channels", "global_channels", "stage_strides",
    "spatial_reduction",
)  # fmt: skip
_LGF = When("backbone", ("lgf",))
_MER = When("use_mer_head", (True,))
_IMAGE = When("dynamic_image_network", ("encoder_decoder", "segnet"))
_ENCODER = When("dynamic_image_network", ("encoder_decoder",))
_SCORER = When("use_rank_scorer", (True,))
_LGF_KEYS = (
    "stem_patch_px", "stem_channels", "stem_strides", *PER_STAGE, "head_dim", "local_conv",
    "local_mlp_ratio", "global_mlp_ratio", "global_attention_share", "channel_divisor",
    "drop_path_rate", "attention_dropout_rate", "frame_head",
)  # fmt: skip
# Conditions without which an option has no effect.
ACTS: dict[str, tuple[When, ...]] = {
    **dict.fromkeys(_LGF_KEYS, (_LGF,)),
    "local_mlp_ratio": (_LGF, When("num_local")),
    **dict.fromkeys(
        ("global_mlp_ratio", "global_attention_share", "attention_dropout_rate"),
        (_LGF, When("num_global")),
    ),
    "vit_patch_px": (When("backbone", ("vit_base",)),),
    "per_frame_batch_norm": (When("backbone", ("lgf", "resnet18")),),
    **dict.fromkeys(("mer_width", "mer_dropout_rate", "label_smoothing"), (_MER,)),
    **dict.fromkeys(("encoder_channels", "decoder_channels", "leaky_slope"), (_ENCODER,)),
    **dict.fromkeys(("lambda_d", "quantize_target"), (_IMAGE,)),
    "lambda_r": (_SCORER,),
    "rank_slope": (_SCORER, When("lambda_r")),
}
BOUNDS = {
    "num_local": COUNT,
    "num_global": COUNT,
    "global_attention_share": Range(above=0, below=1),
    "leaky_slope": Range(least=0, most=1),
    "rank_slope": ANY,
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of FDP; the defaults are those of the text."""

    # Frame network. Table 10: lgf (local and global aggregators) | resnet18 | vit_base.
    backbone: Literal["lgf", "resnet18", "vit_base"] = "lgf"
    # Squares with this side in pixels become channels before the stem (space to depth); 1: none.
    stem_patch_px: int = 1
    # Output channels and strides of the 3x3 convolutions of the stem.
    stem_channels: tuple[int, ...] = (64, 32, 64, 64)
    stem_strides: tuple[int, ...] = (2, 1, 1, 2)
    # Local (N_L) and then global (N_G) aggregators of each stage. Both 0: a bare patch embedding
    # to `global_channels`. Tables 9 and 14: w/o L is num_local 0, w/o G is num_global 0.
    num_local: tuple[int, ...] = (2, 2, 2, 2)
    num_global: tuple[int, ...] = (1, 1, 1, 1)
    # Channels after a local and after a global aggregator of each stage.
    local_channels: tuple[int, ...] = (96, 192, 384, 768)
    global_channels: tuple[int, ...] = (128, 256, 512, 1024)
    # Stride of the first aggregator of each stage.
    stage_strides: tuple[int, ...] = (1, 2, 2, 2)
    # Channels of a head, in the convolution and in the attention.
    head_dim: int = 8
    # Table 10: dense (C) | dense_projected (C') | multi_head (C*).
    local_conv: Literal["dense", "dense_projected", "multi_head"] = "multi_head"
    # Hidden width of the MLPs over the width of the block.
    local_mlp_ratio: int = 3
    global_mlp_ratio: int = 2
    # Share of a global aggregator's channels that attention makes; the convolution makes the rest.
    global_attention_share: float = 0.75
    # Keys and values of stage s are means of spatial_reduction[s]^2 tokens.
    spatial_reduction: tuple[int, ...] = (8, 4, 2, 1)
    # Hidden and branch widths are multiples of this.
    channel_divisor: int = 32
    # Stochastic depth of the last aggregator; it grows linearly from 0. Not in the text.
    drop_path_rate: float = 0.1
    # Dropout on the weights of attention and after its output projection. The text names no value.
    attention_dropout_rate: float = 0.0
    # Side of a patch of vit_base; resnet18 and vit_base have no other option.
    vit_patch_px: int = 16
    # gap: mean over the last map | flatten: the map as it is, so that features keep their place.
    frame_head: Literal["gap", "flatten"] = "gap"
    # The feature of a frame has map_size_px^2 entries and is looked at as a square map.
    map_size_px: int = 64
    # True: batch norm statistics for each frame position, and one running update a position.
    # False: one set of statistics for all frames.
    per_frame_batch_norm: bool = False
    # time_last: maps stacked in time | raw_reshape: the released code's reshape without transpose,
    # which puts neighbouring features of one frame where time should be.
    volume_layout: Literal["time_last", "raw_reshape"] = "time_last"
    # Channels of the dynamic representation.
    volume_channels: int = 8
    # Table 14, w/o L_MER: false leaves out the classifier (logits are then zero).
    use_mer_head: bool = True
    mer_width: int = 256
    mer_dropout_rate: float = 0.0
    # encoder_decoder (Fig. 3) | segnet (code) | none (Table 9, w/o L_DIC).
    dynamic_image_network: Literal["encoder_decoder", "segnet", "none"] = "encoder_decoder"
    encoder_channels: tuple[int, ...] = (64, 128, 256, 512)
    decoder_channels: tuple[int, ...] = (256, 128, 64, 64)
    leaky_slope: float = 0.01
    # Table 9, w/o L_Rank: false.
    use_rank_scorer: bool = True
    # The score of frame k should be rank_slope * k, k = 0 ... T-1. The text gives no value.
    rank_slope: float = 1.0
    # Weights of the dynamic-image and of the rank loss (Table 11).
    lambda_d: float = 100.0
    lambda_r: float = 0.1
    label_smoothing: float = 0.0
    # True: targets are cut to 8 bits, as the code stores them.
    quantize_target: bool = False
    # True: after the first epoch batch norm keeps its running statistics and stochastic depth is
    # off, as in the code, whose evaluation leaves the network in evaluation mode.
    freeze_bn_after_epoch_1: bool = False
    # The type the network computes in; parameters, statistics, logits and losses are float32.
    dtype: Literal["float32", "bfloat16"] = "float32"

    acts = ACTS
    bounds = BOUNDS

    def __post_init__(self) -> None:
        check_lengths("FDP", self, PER_STAGE)
        check_lengths("The stem", self, ("stem_channels", "stem_strides"))


PAPER = Options()
PRESETS = {
    "paper": PAPER,
    "paper_14m": dataclasses.replace(PAPER, num_global=(0, 0, 0, 0)),
    "official": dataclasses.replace(
        PAPER,
        num_local=(3, 4, 10, 3),
        num_global=(0, 0, 0, 0),
        local_conv="dense",
        per_frame_batch_norm=True,
        volume_layout="raw_reshape",
        dynamic_image_network="segnet",
        use_rank_scorer=False,
        lambda_r=0.0,
        quantize_target=True,
        freeze_bn_after_epoch_1=True,
    ),
    # For clips of 64x64 whose mean over time is subtracted: raw frames hide a sub-pixel motion
    # from a network that sees them one by one, unless it has thousands of clips.
    "tiny": dataclasses.replace(
        PAPER,
        stem_patch_px=2,
        stem_channels=(24,),
        stem_strides=(2,),
        num_local=(1, 0),
        num_global=(0, 1),
        local_channels=(32, 32),
        global_channels=(64, 64),
        stage_strides=(2, 2),
        spatial_reduction=(2, 1),
        channel_divisor=8,
        head_dim=16,
        local_mlp_ratio=2,
        drop_path_rate=0.0,
        frame_head="flatten",
        map_size_px=32,
        mer_width=128,
        mer_dropout_rate=0.5,
        encoder_channels=(8, 16),
        decoder_channels=(8, 8),
        lambda_d=3.0,
        lambda_r=0.01,
        label_smoothing=0.1,
    ),
}
