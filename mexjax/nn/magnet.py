"""The learned motion magnifier of Oh et al. (ECCV 2018), as two public PyTorch ports have it.

    frame = decode(texture(b), manipulate(motion(a), motion(b), gain))

a is the onset, b the frame whose motion grows. There are no norm layers; every convolution mirrors
the image at its border. `zhengpeng` is the port that public micro-expression projects use
(ZhengPeng7/motion_magnification_learning-based), `postech` the one the authors verified. The
official TensorFlow network differs from both: it has no convolution before the motion branch.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mexjax.errors import ConfigError, unknown_name
from mexjax.nn.layers import Conv


class Layout(NamedTuple):
    """Differences between the two ports.

    Attributes:
      use_bias: convolutions have a bias.
      gain_kernel: side of the kernel before the gain.
      has_texture_conv: a convolution follows after the texture is enlarged.
      has_up_conv: a convolution follows after the last enlargement.
    """

    use_bias: bool
    gain_kernel: int
    has_texture_conv: bool
    has_up_conv: bool


LAYOUTS = {
    "zhengpeng": Layout(False, 3, False, False),
    "postech": Layout(True, 7, True, True),
}
GAINS = ("port", "official")
MULTIPLE_PX = 4  # height and width are multiples of this


def gain_of(factor: float, convention: str) -> float:
    """The gain that makes a motion `factor` times as far, by one of two conventions.

    Args:
      factor: magnified displacement over the real one.
      convention: `official` gives factor - 1, as the official code, in which 1 is no change.
        `port` gives factor, as both ports train and run it; the motion then ends between `factor`
        and `factor` + 1 times as far, and this is how micro-expression papers ran it.

    Raises:
      ConfigError: another convention.
    """
    if convention not in GAINS:
        raise ConfigError(unknown_name("convention of the gain", convention, GAINS))
    return factor - 1 if convention == "official" else factor


class _Conv(nn.Module):
    """A convolution with a mirrored border, f[N,H,W,I] -> f[N,H',W',features]."""

    features: int
    kernel: int = 3
    stride: int = 1
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        p = self.kernel // 2
        x = jnp.pad(x, ((0, 0), (p, p), (p, p), (0, 0)), mode="reflect")
        conv = Conv(
            self.features,
            self.kernel,
            self.stride,
            use_bias=self.use_bias,
            padding=((0, 0), (0, 0)),
            name="conv",
        )
        return conv(x)


class _Residual(nn.Module):
    """The sum x + conv(relu(conv(x))), `count` times in turn."""

    count: int
    use_bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = x.shape[-1]
        for i in range(self.count):
            y = nn.relu(_Conv(c, use_bias=self.use_bias, name=f"first_{i}")(x))
            x += _Conv(c, use_bias=self.use_bias, name=f"second_{i}")(y)
        return x


class MagNet(nn.Module):
    """The magnifier.

    Attributes:
      layout: a key of `LAYOUTS`.
    """

    layout: str = "zhengpeng"

    def setup(self) -> None:
        """Make the layers.

        Raises:
          ConfigError: an unknown layout.
        """
        if self.layout not in LAYOUTS:
            raise ConfigError(unknown_name("layout of MagNet", self.layout, LAYOUTS))
        options = LAYOUTS[self.layout]
        bias = options.use_bias
        self.encoder_1 = _Conv(16, 7, use_bias=bias)
        self.encoder_2 = _Conv(32, stride=2, use_bias=bias)
        self.encoder_blocks = _Residual(3, bias)
        self.texture_conv = _Conv(32, stride=2, use_bias=bias)
        self.texture_blocks = _Residual(2, bias)
        self.motion_conv = _Conv(32, use_bias=bias)
        self.motion_blocks = _Residual(2, bias)
        self.gain_conv = _Conv(32, options.gain_kernel, use_bias=bias)
        self.change_conv = _Conv(32, use_bias=bias)
        self.change_blocks = _Residual(1, bias)
        if options.has_texture_conv:
            self.texture_up_conv = _Conv(32, use_bias=bias)
        self.decoder_blocks = _Residual(9, bias)
        if options.has_up_conv:
            self.up_conv = _Conv(64, use_bias=bias)
        self.decoder_1 = _Conv(32, use_bias=bias)
        self.decoder_2 = _Conv(3, 7, use_bias=bias)

    def __call__(self, a: jax.Array, b: jax.Array, gain: jax.Array) -> jax.Array:
        """Magnify the motion from a to b.

        Args:
          a: f[N,H,W,3] in [-1, 1], the onset; H and W are multiples of `MULTIPLE_PX`.
          b: f[N,H,W,3] in [-1, 1], the frame whose motion grows.
          gain: f[], see `gain_of`.

        Returns:
          f[N,H,W,3], not clipped.

        Raises:
          ConfigError: other shapes.
        """
        if a.shape != b.shape or a.ndim != 4 or a.shape[-1] != 3:
            raise ConfigError(f"MagNet takes two f[N,H,W,3]; found {a.shape} and {b.shape}.")
        if a.shape[1] % MULTIPLE_PX or a.shape[2] % MULTIPLE_PX:
            raise ConfigError(
                f"MagNet takes sides that are multiples of {MULTIPLE_PX} px; found {a.shape[1:3]}."
            )
        code_a, code_b = self._encode(a), self._encode(b)
        motion_a, motion_b = self._motion(code_a), self._motion(code_b)
        change = nn.relu(self.gain_conv(motion_b - motion_a)) * gain
        motion = motion_b + self.change_blocks(self.change_conv(change))
        texture = _doubled(self.texture_blocks(nn.relu(self.texture_conv(code_b))))
        options = LAYOUTS[self.layout]
        if options.has_texture_conv:
            texture = nn.relu(self.texture_up_conv(texture))
        x = _doubled(self.decoder_blocks(jnp.concatenate([texture, motion], axis=-1)))
        if options.has_up_conv:
            x = nn.relu(self.up_conv(x))
        return self.decoder_2(nn.relu(self.decoder_1(x)))

    def _encode(self, x: jax.Array) -> jax.Array:
        x = nn.relu(self.encoder_2(nn.relu(self.encoder_1(x))))
        return self.encoder_blocks(x)

    def _motion(self, code: jax.Array) -> jax.Array:
        return self.motion_blocks(nn.relu(self.motion_conv(code)))


def _doubled(x: jax.Array) -> jax.Array:
    """The map f[N,2H,2W,C] in which every pixel of x f[N,H,W,C] is repeated."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
