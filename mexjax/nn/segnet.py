"""Networks from a feature map to an image of the same size: with remembered maxima, or with skips.

`SegNet` is the published dynamic-image network of FDP (CYF-cuber/FDP, `fdp.py`; Badrinarayanan
et al. 2017). `EncoderDecoder` is the one of the FDP paper, Fig. 3, whose widths are not given.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mexjax.errors import ConfigError
from mexjax.nn.layers import BatchNorm, Conv, ConvTranspose
from mexjax.nn.mode import Mode
from mexjax.nn.pooling import max_pool, max_pool_with_argmax, max_unpool

# These are the output channels of the 3x3 convolutions of each stage of VGG16.
SEGNET_CHANNELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def _check_size(x: jax.Array, stages: int) -> None:
    if x.shape[1] % 2**stages or x.shape[2] % 2**stages:
        raise ConfigError(
            f"The dynamic-image network halves its input {stages} times; a map of "
            f"{x.shape[1]}x{x.shape[2]} cannot be. Make map_size_px a multiple of {2**stages} or "
            "give fewer stages."
        )


class SegNet(nn.Module):
    """Five stages of convolutions down, five up; unpooling puts values where the maxima were.

    Every 3x3 convolution has a bias and is followed by batch norm and ReLU, but the last.
    Submodules are called as in the public code: conv11 ... conv53, conv53d ... conv11d.

    Attributes:
      stages: output channels of the convolutions of each encoder stage; the decoder mirrors it.
    """

    stages: Sequence[Sequence[int]] = SEGNET_CHANNELS
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Map x f[N,H,W,C] to an image f[N,H,W,1] without an activation at the end.

        Raises:
          ConfigError: sides that the stages do not divide, or widths that do not fit.
        """
        _check_size(x, len(self.stages))

        def step(x: jax.Array, features: int, tag: str) -> jax.Array:
            x = Conv(features, use_bias=True, dtype=self.dtype, name=f"conv{tag}")(x)
            return BatchNorm(dtype=self.dtype, name=f"bn{tag}")(x, mode, 0.0)

        places = []
        for i, channels in enumerate(self.stages, start=1):
            for j, features in enumerate(channels, start=1):
                x = step(x, features, f"{i}{j}")
            x, place = max_pool_with_argmax(x)
            places.append(place)
        for i in range(len(self.stages), 0, -1):
            x = max_unpool(x, places[i - 1])
            channels = self.stages[i - 1]
            for j in range(len(channels), 1, -1):
                x = step(x, channels[j - 1], f"{i}{j}d")
            if i > 1:
                x = step(x, self.stages[i - 2][-1], f"{i}1d")
        return Conv(1, use_bias=True, dtype=self.dtype, name="conv11d")(x)


class EncoderDecoder(nn.Module):
    """Encoder and decoder blocks with added skips, as Fig. 3 of the FDP paper draws them.

    An encoder block is convolution, batch norm, leaky ReLU, 2x2 max-pooling. A decoder block is a
    2x2 deconvolution, the addition of the encoder's map of that size (before its pooling),
    convolution, batch norm, leaky ReLU. A last 3x3 convolution gives one channel. The paper gives
    no widths.

    Attributes:
      encoder_channels: width of each encoder block.
      decoder_channels: width of each decoder block. All but the last are those of the encoder block
        whose map the next decoder block adds, so reversed and shifted by one.
      leaky_slope: slope of the leaky ReLU below zero.
    """

    encoder_channels: Sequence[int] = (64, 128, 256, 512)
    decoder_channels: Sequence[int] = (256, 128, 64, 64)
    leaky_slope: float = 0.01
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Map x f[N,H,W,C] to an image f[N,H,W,1] without an activation at the end.

        Raises:
          ConfigError: sides that the stages do not divide, or widths that do not fit.
        """
        encoder, decoder = tuple(self.encoder_channels), tuple(self.decoder_channels)
        if len(encoder) != len(decoder) or decoder[:-1] != encoder[-2::-1]:
            raise ConfigError(
                f"decoder_channels must be {encoder[-2::-1]} and one more width, so that the maps "
                f"of encoder_channels {encoder} can be added; found {decoder}."
            )
        _check_size(x, len(encoder))

        def step(x: jax.Array, features: int, tag: str) -> jax.Array:
            x = Conv(features, use_bias=True, dtype=self.dtype, name=f"{tag}_conv")(x)
            return BatchNorm(dtype=self.dtype, name=f"{tag}_norm")(x, mode, self.leaky_slope)

        skips = []
        for i, features in enumerate(encoder):
            x = step(x, features, f"encoder_{i}")
            skips.append(x)
            x = max_pool(x, 2)
        for i, features in enumerate(decoder):
            skip = skips.pop()
            up = ConvTranspose(skip.shape[-1], dtype=self.dtype, name=f"decoder_{i}_deconv")
            x = step(up(x) + skip, features, f"decoder_{i}")
        return Conv(1, use_bias=True, dtype=self.dtype, name="out_conv")(x)
