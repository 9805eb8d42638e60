"""The spatio-temporal unit of TSFmicro and GAMDSS, in parts: U(d, p) = head(motion(d) + place(p)).

`motion` is a retention backbone on the difference d of two frames, `place` a small transformer on
one frame p shrunk to the size of the backbone's map. `UNIT` holds the keys of both papers' presets
that describe it; the numbers are those of the released code, the texts give few.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mexjax.errors import ConfigError, unknown_name
from mexjax.models.spatio_temporal.place import RESIZES, PositionViT, resize_map
from mexjax.nn.layers import (
    BatchNorm,
    Dense,
    torch_bias_init,
    torch_kernel_init,
    truncated_normal,
)
from mexjax.nn.mode import Mode
from mexjax.nn.rmt import ConvStem, RetentionStages

UNIT: dict[str, Any] = {
    # Stem of the backbone: channels and strides of its 3x3 convolutions. Stock RMT has stride 4.
    "stem_channels": (32, 32, 64, 64),
    "stem_strides": (2, 1, 1, 1),
    # Stages of the backbone, each half the size of the one before: width, blocks, heads.
    "channels": (64, 128, 256, 512),
    "depths": (1, 1, 2, 1),
    "num_heads": (2, 2, 2, 2),
    # Head h of n decays by 1 - 2^-(start + span * h / n) for each pixel of distance.
    "decay_start": (2.0, 2.0, 2.0, 2.0),
    "decay_span": (4.0, 4.0, 6.0, 6.0),
    # Retention along rows, then columns, instead of over all pairs of pixels.
    "is_decomposed": (True, True, False, False),
    # Hidden width of the feed-forward over the width of the stage.
    "ffn_ratio": (3, 3, 3, 3),
    # Initial value of a factor for each channel of both branches of a block; 0: no factors.
    "layer_scale": (0.0, 0.0, 0.0, 0.0),
    # Stochastic depth of the last block; it grows linearly from 0.
    "drop_path_rate": 0.1,
    # Keys of a retention over all pairs whose scores are held at a time; 0: all. Less memory, the
    # same result.
    "retention_chunk": 0,
    # Side of the last map of the backbone, to which the place branch shrinks its frame: the image
    # over the strides of stem and stages.
    "map_size_px": 14,
    # bilinear: four pixels around each point (torchvision before 0.17, on tensors) |
    # bilinear_antialias: all pixels.
    "resize": "bilinear",
    # Transformer of the place branch; its width is that of the last stage.
    "vit_depth": 2,
    "vit_heads": 4,
    "vit_mlp_ratio": 4,
    # Width of the linear layer before the mean over positions and the classifier.
    "head_width": 1024,
    # Share of a class's probability in the target that is spread over all classes.
    "label_smoothing": 0.0,
    # What the network computes in; parameters, statistics, logits and losses are float32.
    "dtype": "float32",
}

# A unit for frames of 64 pixels on a laptop: 0.1 M parameters.
TINY_UNIT: dict[str, Any] = {
    **UNIT,
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

PER_STAGE = (
    "channels", "depths", "num_heads", "decay_start", "decay_span", "is_decomposed", "ffn_ratio",
    "layer_scale",
)  # fmt: skip

_INIT = truncated_normal(0.02)


def resolve(
    model_config: Mapping[str, Any],
    presets: Mapping[str, dict[str, Any]],
    choices: Mapping[str, tuple[str, ...]],
    paper: str,
) -> dict[str, Any]:
    """Every key of a model with this unit: those given, the others from the preset they name.

    Args:
      model_config: keys of the model, among them `preset` (or `paper` is taken).
      presets: by name; all have the same keys.
      choices: values that a key may have, beyond those of the unit.
      paper: name of the model, for messages.

    Raises:
      ConfigError: an unknown preset, key or choice, or stages that do not match in number.
    """
    given = dict(model_config.items())
    given.pop("name", None)
    preset = given.pop("preset", "paper")
    if preset not in presets:
        raise ConfigError(unknown_name(f"preset of {paper}", preset, presets))
    for key in given:
        if key not in presets["paper"]:
            raise ConfigError(unknown_name(f"key of model {paper}", key, presets["paper"]))
    config = {**presets[preset], **given}
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    for key, known in {"resize": RESIZES, "dtype": ("float32", "bfloat16"), **choices}.items():
        if config[key] not in known:
            raise ConfigError(unknown_name(f"model.{key}", config[key], known))
    lengths = {key: len(config[key]) for key in PER_STAGE}
    if len(set(lengths.values())) != 1:
        raise ConfigError(f"The backbone needs one value a stage for each of these: {lengths}.")
    lengths = {key: len(config[key]) for key in ("stem_channels", "stem_strides")}
    if len(set(lengths.values())) != 1:
        raise ConfigError(f"The stem needs one value a convolution for each of these: {lengths}.")
    if config["stem_channels"][-1] != config["channels"][0]:
        raise ConfigError(
            f"The stem ends with {config['stem_channels'][-1]} channels and the first stage has"
            f" {config['channels'][0]}: make the last of stem_channels the first of channels."
        )
    return config


def key_frames(clip: jax.Array, num_frames: int) -> dict[str, jax.Array]:
    """Onset, apex and, of three, offset f32[B,H,W,C]: the first frames of f32[B,T,H,W,C].

    Raises:
      ConfigError: the clips are not of this form, or too short.
    """
    names = ("onset", "apex", "offset")[:num_frames]
    if clip.ndim != 5 or clip.shape[1] < num_frames:
        raise ConfigError(
            f"Expected clips [B,T,H,W,C] whose first {num_frames} frames are {', '.join(names)};"
            f" found {clip.shape}. Set data.num_frames to fit."
        )
    return {name: clip[:, t] for t, name in enumerate(names)}


class PlaceBranch(nn.Module):
    """A frame, shrunk, through the transformer: f[N,H,W,C] -> f[N,S,S,width].

    Attributes:
      config: of the unit.
      width: of the map it is added to; 0: that of the last stage in the configuration.
    """

    config: Mapping[str, Any]
    width: int = 0

    @nn.compact
    def __call__(self, frame: jax.Array, mode: Mode, *, size: int = 0, **added: Any) -> jax.Array:
        """Runs on frames.

        Args:
          frame: f[N,H,W,C].
          mode: how the pass is run.
          size: S; 0: that of the configuration.
          **added: `added` and `added_at` of `PositionViT`.
        """
        c = self.config
        vit = PositionViT(
            self.width or c["channels"][-1],
            c["vit_depth"],
            c["vit_heads"],
            c["vit_mlp_ratio"],
            jnp.dtype(c["dtype"]),
            name="vit",
        )
        return vit(resize_map(frame, size or c["map_size_px"], c["resize"]), mode, **added)


class Head(nn.Module):
    """Linear, batch norm, swish, mean over the positions, linear: f[N,h,w,C] -> f32[N,K].

    Attributes:
      num_classes: K.
      width: of the first linear layer.
      is_torch_init: draws the linear layers as PyTorch does by default, not by a normal of 0.02.
    """

    num_classes: int
    width: int = 1024
    is_torch_init: bool = False
    per_frame: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        x = self._dense(x, self.width, "fc")
        norm = BatchNorm(per_frame=self.per_frame, dtype=self.dtype, name="norm")
        x = nn.silu(norm(x, mode)).mean(axis=(1, 2))
        return self._dense(x, self.num_classes, "classifier").astype(jnp.float32)

    def _dense(self, x: jax.Array, features: int, name: str) -> jax.Array:
        inits = {"kernel_init": _INIT}
        if self.is_torch_init:
            bias_init = torch_bias_init(x.shape[-1])
            inits = {"kernel_init": torch_kernel_init(), "bias_init": bias_init}
        return Dense(features, dtype=self.dtype, name=name, **inits)(x)


class Parts(NamedTuple):
    """The modules of a unit, not yet called: what is not called has no parameters."""

    stem: ConvStem
    stages: RetentionStages
    place: PlaceBranch
    head: Head


def make_parts(
    config: Mapping[str, Any],
    num_classes: int,
    *,
    per_frame: bool = False,
    is_head_torch_init: bool = False,
) -> Parts:
    """The parts of a unit, as submodules of the module in whose `__call__` this is called.

    Args:
      config: a resolved configuration.
      num_classes: K.
      per_frame: batch norm statistics for each frame of `mode.num_frames` (see `BatchNorm`).
      is_head_torch_init: see `Head`.
    """
    c = config
    dtype = jnp.dtype(c["dtype"])
    common = {"per_frame": per_frame, "dtype": dtype}
    stages = RetentionStages(
        **{key: c[key] for key in PER_STAGE},
        drop_path_rate=c["drop_path_rate"],
        chunk=c["retention_chunk"],
        **common,
        name="stages",
    )
    return Parts(
        stem=ConvStem(c["stem_channels"], c["stem_strides"], **common, name="stem"),
        stages=stages,
        place=PlaceBranch(c, name="place"),
        head=Head(num_classes, c["head_width"], is_head_torch_init, **common, name="head"),
    )
