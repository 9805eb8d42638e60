"""TSFmicro: temporal-spatial fusion for micro-expressions, from an onset and an apex frame.

T, a retention backbone, sees the difference of the two frames; S, a transformer of 196 tokens, the
onset. The paper compares ways to join them; late fusion, the sum of both maps, is its main model.
Presets: `paper`, `official` (the released code), `tiny` (64 pixels, a laptop).
"""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mexjax.errors import ConfigError
from mexjax.models.spatio_temporal.unit import make_parts
from mexjax.models.tsfmicro.options import Options
from mexjax.models.tsfmicro.up_conv import UpConv
from mexjax.nn.mode import Mode
from mexjax.nn.rmt import ConvStem


class TSFmicro(nn.Module):
    """The network, in the fusion its configuration names.

    Attributes:
      options: of the paper.
      num_classes: K.
    """

    options: Options
    num_classes: int

    @nn.compact
    def __call__(self, batch: Mapping[str, jax.Array], *, train: bool) -> dict[str, jax.Array]:
        """Runs on pairs of frames.

        Args:
          batch: `onset` and `apex` f[B,H,W,C], normalised; optional `weight` f32[B] (0: padding)
            and `is_frozen` bool[]. Other entries are not looked at.
          train: batch statistics and stochastic depth are on.

        Returns:
          logits f32[B,K].

        Raises:
          ConfigError: frames that are missing or too small, or of two sizes.
        """
        c = self.options
        dtype = jnp.dtype(c.dtype)
        _check(batch)
        onset, apex = batch["onset"].astype(dtype), batch["apex"].astype(dtype)
        mode = Mode.from_batch(batch, train=train)
        # In t_to_s the released class has a head of its own, which the backbone's initialisation
        # does not reach.
        stem, stages, place, head = make_parts(
            c, self.num_classes, is_head_torch_init=c.fusion == "t_to_s"
        )
        difference = apex - onset

        if c.fusion == "late":
            x = stages(stem(difference, mode), mode) + place(onset, mode)
        elif c.fusion == "early":
            onset_stem = ConvStem(c.stem_channels, c.stem_strides, dtype=dtype, name="onset_stem")
            x = stages(onset_stem(onset, mode) + stem(difference, mode), mode)
        elif c.fusion == "t_to_s":
            motion = stages(stem(difference, mode), mode)
            x = place(onset, mode, added=motion, added_at=c.t_to_s_place)
        elif c.fusion == "s_to_t":
            x = place(onset, mode)
            motion = stem(difference, mode)
            x = self._enlarged(x, motion.shape, dtype) + motion
            x = stages(x, mode)
        elif c.fusion == "s_only":
            x = place(batch[c.s_only_frame].astype(dtype), mode)
        else:
            x = stages(stem(difference, mode), mode)
        return {"logits": head(x, mode)}

    def _enlarged(self, x: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        """The map of S at the size and width of the stem's, by doubling; widths are T's, back."""
        for i, width in enumerate(reversed(self.options.channels[:-1])):
            x = UpConv(width, dtype, name=f"up_{i}")(x)
        if x.shape != shape:
            raise ConfigError(
                f"s_to_t: the map of S, enlarged, is {x.shape[1:]} and the stem's {shape[1:]}."
                " Make map_size_px the size of the last map of the backbone."
            )
        return x


def _check(batch: Mapping[str, jax.Array]) -> None:
    found = {name: batch[name].shape for name in ("onset", "apex") if name in batch}
    if len(found) < 2 or len(set(found.values())) > 1 or len(batch["onset"].shape) != 4:
        raise ConfigError(
            f"TSFmicro expects onset and apex frames [B,H,W,C] of one size; found {found}."
        )
