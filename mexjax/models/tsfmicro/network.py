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
from jax.typing import DTypeLike

from mexjax.errors import ConfigError
from mexjax.models.spatio_temporal.unit import joined, make_parts
from mexjax.models.tsfmicro.options import Options
from mexjax.nn.layers import torch_bias_init
from mexjax.nn.mode import Mode
from mexjax.nn.rmt import ConvStem
from mexjax.ops.conv import conv2d

# Taps of the kernel of a doubling convolution that reach even and odd output pixels, and the zeros
# before and after.
_PARITIES = ((slice(3, None, -2), (1, 0)), (slice(2, None, -2), (0, 1)))


def upsample_conv(x: jax.Array, w: jax.Array) -> jax.Array:
    """Doubles a map as PyTorch's ConvTranspose2d(k=4, s=2, p=1): f[N,H,W,I] -> f[N,2H,2W,O].

    Input pixel m with tap t gives output pixel 2m - 1 + t, so each of the four parities of an
    output pixel is a plain convolution with a quarter of the taps: no multiplication by a zero.

    Args:
      x: maps f[N,H,W,I].
      w: f[4,4,I,O], kernel of the transposed convolution, whose taps are not mirrored.
    """
    rows = []
    for row_taps, row_padding in _PARITIES:
        row = []
        for column_taps, column_padding in _PARITIES:
            part = w[row_taps, column_taps]
            row.append(conv2d(x, part, padding=(row_padding, column_padding)))
        rows.append(jnp.stack(row, axis=3))
    y = jnp.stack(rows, axis=2)  # (N, H, 2, W, 2, O)
    n, height, _, width, _, out = y.shape
    return y.reshape(n, 2 * height, 2 * width, out)


class UpConv(nn.Module):
    """`upsample_conv` with a kernel and a bias of its own, drawn as PyTorch draws them."""

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Runs on maps f[N,H,W,I] and gives f[N,2H,2W,features]."""
        # PyTorch takes O * k * k as the fan-in of a transposed convolution.
        init = torch_bias_init(self.features * 16)
        kernel = self.param("kernel", init, (4, 4, x.shape[-1], self.features))
        bias = self.param("bias", init, (self.features,))
        y = upsample_conv(x.astype(self.dtype), kernel.astype(self.dtype))
        return y + bias.astype(self.dtype)


class TSFmicro(nn.Module):
    """The network, in the fusion that its options name.

    Attributes:
      options: options of the paper.
      num_classes: K.
    """

    options: Options
    num_classes: int

    @nn.compact
    def __call__(self, batch: Mapping[str, jax.Array], *, train: bool) -> dict[str, jax.Array]:
        """Runs on pairs of frames.

        Args:
          batch: `onset` and `apex` f[B,H,W,C], normalised; optional `weight` f32[B] (0: padding)
            and `is_frozen` bool[]. Other entries are not used.
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
            x = joined(stages(stem(difference, mode), mode), place(onset, mode))
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

    def _enlarged(self, x: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
        """The map of S, doubled to the size and width of the stem's; widths are T's in reverse."""
        for i, width in enumerate(reversed(self.options.channels[:-1])):
            x = UpConv(width, dtype, name=f"up_{i}")(x)
        if x.shape != shape:
            raise ConfigError(
                f"s_to_t: the map of S, enlarged, is {x.shape[1:]} and the stem's {shape[1:]}."
                " Make map_size_px the size of the last map of the backbone."
            )
        return x


def _check(batch: Mapping[str, jax.Array]) -> None:
    shapes = {name: batch[name].shape for name in ("onset", "apex") if name in batch}
    if len(shapes) < 2 or len(set(shapes.values())) > 1 or len(batch["onset"].shape) != 4:
        raise ConfigError(
            f"TSFmicro expects onset and apex frames [B,H,W,C] of one size; found {shapes}."
        )
