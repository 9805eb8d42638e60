"""Options of the spatio-temporal unit: those of TSFmicro and GAMDSS begin with them.

The numbers are those of the released code; the texts give few.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from mexjax.errors import ConfigError
from mexjax.models.options import COUNT, POSITIVE, WEIGHT, check_lengths

PER_STAGE = (
    "channels", "depths", "num_heads", "decay_start", "decay_span", "is_decomposed", "ffn_ratio",
    "layer_scale",
)  # fmt: skip
# Options of the retention network, of the place branch, and numbers that are no sizes.
NETWORK_KEYS = (*PER_STAGE, "stem_channels", "stem_strides", "drop_path_rate", "retention_chunk")
PLACE_KEYS = ("map_size_px", "resize", "vit_depth", "vit_heads", "vit_mlp_ratio")
BOUNDS = {
    "retention_chunk": COUNT,
    "decay_start": POSITIVE,
    "decay_span": WEIGHT,
    "vit_depth": COUNT,
}


@dataclasses.dataclass(frozen=True)
class UnitOptions:
    """Options of the unit."""

    # Stem of the backbone: channels and strides of its 3x3 convolutions. Stock RMT has stride 4.
    stem_channels: tuple[int, ...] = (32, 32, 64, 64)
    stem_strides: tuple[int, ...] = (2, 1, 1, 1)
    # Stages of the backbone, each half the size of the one before: width, blocks, heads.
    channels: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (1, 1, 2, 1)
    num_heads: tuple[int, ...] = (2, 2, 2, 2)
    # Head h of n heads decays by 1 - 2^-(start + span * h / n) for each pixel of distance.
    decay_start: tuple[float, ...] = (2.0, 2.0, 2.0, 2.0)
    decay_span: tuple[float, ...] = (4.0, 4.0, 6.0, 6.0)
    # Retention along rows, then columns, instead of over all pairs of pixels.
    is_decomposed: tuple[bool, ...] = (True, True, False, False)
    # Hidden width of the feed-forward over the width of the stage.
    ffn_ratio: tuple[int, ...] = (3, 3, 3, 3)
    # Initial value of a factor for each channel of both branches of a block; 0: there is none.
    layer_scale: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    # Stochastic depth of the last block; it grows linearly from 0.
    drop_path_rate: float = 0.1
    # A retention over all pairs holds the scores of this many keys at a time; 0: of all keys. Fewer
    # keys need less memory and give the same result.
    retention_chunk: int = 0
    # Side of the last map of the backbone, to which the place branch shrinks its frame: the image
    # over the strides of stem and stages.
    map_size_px: int = 14
    # bilinear: four pixels around each point (torchvision before 0.17, on tensors) |
    # bilinear_antialias: all pixels.
    resize: Literal["bilinear", "bilinear_antialias"] = "bilinear"
    # Transformer of the place branch; its width is that of the last stage.
    vit_depth: int = 2
    vit_heads: int = 4
    vit_mlp_ratio: int = 4
    # Width of the linear layer before the mean over positions and the classifier.
    head_width: int = 1024
    # Share of a class's probability in the target that is spread over all classes.
    label_smoothing: float = 0.0
    # The type the network computes in; parameters, statistics, logits and losses are float32.
    dtype: Literal["float32", "bfloat16"] = "float32"

    bounds = BOUNDS

    def __post_init__(self) -> None:
        check_lengths("The backbone", self, PER_STAGE)
        check_lengths("The stem", self, ("stem_channels", "stem_strides"))
        if self.stem_channels[-1:] != self.channels[:1]:
            raise ConfigError(
                f"The stem ends with {self.stem_channels[-1:]} channels and the first stage has"
                f" {self.channels[:1]}: make the last of stem_channels the first of channels."
            )


# A unit for frames of 64 pixels on a laptop: 0.1 M parameters.
TINY_UNIT: dict[str, Any] = {
    "stem_channels": (16, 24),
    "stem_strides": (2, 2),
    "channels": (24, 48),
    "depths": (1, 1),
    "decay_start": (2.0, 2.0),
    "decay_span": (4.0, 6.0),
    "num_heads": (2, 2),
    "is_decomposed": (True, False),
    "ffn_ratio": (2, 2),
    "layer_scale": (0.0, 0.0),
    "drop_path_rate": 0.0,
    "map_size_px": 8,
    "vit_depth": 1,
    "vit_mlp_ratio": 2,
    "head_width": 128,
    "label_smoothing": 0.1,
}
