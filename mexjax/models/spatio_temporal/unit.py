"""The spatio-temporal unit of TSFmicro and GAMDSS, in parts: U(d, p) = head(motion(d) + place(p)).

`motion` is a retention backbone on the difference d of two frames, `place` a small transformer on
one frame p shrunk to the size of the backbone's map.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mexjax.errors import ConfigError
from mexjax.models.spatio_temporal.options import PER_STAGE, UnitOptions
from mexjax.models.spatio_temporal.place import PositionViT, resize_map
from mexjax.nn.layers import (
    BatchNorm,
    Dense,
    torch_bias_init,
    torch_kernel_init,
    truncated_normal,
)
from mexjax.nn.mode import Mode
from mexjax.nn.rmt import ConvStem, RetentionStages

_INIT = truncated_normal(0.02)


def key_frames(clip: jax.Array, num_frames: int) -> dict[str, jax.Array]:
    """The first two or three frames of f32[B,T,H,W,C] by name: onset, apex, offset f32[B,H,W,C].

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


def joined(motion: jax.Array, place: jax.Array) -> jax.Array:
    """The sum of the last map of a backbone and that of the place branch, f[N,h,w,C] each.

    Raises:
      ConfigError: they have two sizes.
    """
    if motion.shape != place.shape:
        raise ConfigError(
            f"The last map of the backbone is {motion.shape[1:]} and that of the place branch"
            f" {place.shape[1:]}. Set model.map_size_px={motion.shape[1]}, the side of the image"
            " over the strides of stem and stages."
        )
    return motion + place


class PlaceBranch(nn.Module):
    """A frame, shrunk, through the transformer: f[N,H,W,C] -> f[N,S,S,width].

    Attributes:
      options: options of the unit.
      width: channels of the map it is added to; 0: those of the last stage.
    """

    options: UnitOptions
    width: int = 0

    @nn.compact
    def __call__(self, frame: jax.Array, mode: Mode, *, size: int = 0, **added: Any) -> jax.Array:
        """Runs on frames.

        Args:
          frame: f[N,H,W,C].
          mode: how the pass is run.
          size: S; 0: `map_size_px` of the options.
          **added: `added` and `added_at` of `PositionViT`.
        """
        c = self.options
        vit = PositionViT(
            self.width or c.channels[-1],
            c.vit_depth,
            c.vit_heads,
            c.vit_mlp_ratio,
            jnp.dtype(c.dtype),
            name="vit",
        )
        return vit(resize_map(frame, size or c.map_size_px, c.resize), mode, **added)


class Head(nn.Module):
    """Linear, batch norm, swish, mean over the positions, linear: f[N,h,w,C] -> f32[N,K].

    Attributes:
      num_classes: K.
      width: outputs of the first linear layer.
      is_torch_init: draws the linear layers as PyTorch does by default, not by a normal of 0.02.
      per_frame: see `BatchNorm`.
      dtype: the type it computes in.
    """

    num_classes: int
    width: int = 1024
    is_torch_init: bool = False
    per_frame: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Runs on maps."""
        x = self._dense(x, self.width, "fc")
        norm = BatchNorm(per_frame=self.per_frame, dtype=self.dtype, name="norm")
        x = nn.silu(norm(x, mode)).mean(axis=(1, 2))
        return self._dense(x, self.num_classes, "classifier").astype(jnp.float32)

    def _dense(self, x: jax.Array, features: int, name: str) -> jax.Array:
        inits: dict[str, Any] = {"kernel_init": _INIT}
        if self.is_torch_init:
            bias_init = torch_bias_init(x.shape[-1])
            inits = {"kernel_init": torch_kernel_init(), "bias_init": bias_init}
        return Dense(features, dtype=self.dtype, name=name, **inits)(x)


class Parts(NamedTuple):
    """The modules of a unit, not yet called: a module that nobody calls has no parameters."""

    stem: ConvStem
    stages: RetentionStages
    place: PlaceBranch
    head: Head


def make_parts(
    options: UnitOptions,
    num_classes: int,
    *,
    per_frame: bool = False,
    is_head_torch_init: bool = False,
) -> Parts:
    """The parts of a unit, as submodules of the module in whose `__call__` this is called.

    Args:
      options: options of the unit.
      num_classes: K.
      per_frame: batch norm statistics for each frame of `mode.num_frames` (see `BatchNorm`).
      is_head_torch_init: see `Head`.
    """
    c = options
    dtype = jnp.dtype(c.dtype)
    common = {"per_frame": per_frame, "dtype": dtype}
    stages = RetentionStages(
        **{key: getattr(c, key) for key in PER_STAGE},
        drop_path_rate=c.drop_path_rate,
        chunk=c.retention_chunk,
        **common,
        name="stages",
    )
    return Parts(
        stem=ConvStem(c.stem_channels, c.stem_strides, **common, name="stem"),
        stages=stages,
        place=PlaceBranch(c, name="place"),
        head=Head(num_classes, c.head_width, is_head_torch_init, **common, name="head"),
    )
