"""MobileFaceNet (Chen et al., arXiv 1804.07573): a face as one vector, for small machines.

    stage        operator                                         112 x 112 gives
    conv1        3x3 convolution, stride 2                        56 x 56 x 64
    conv2_dw     3x3 depthwise convolution                        56 x 56 x 64
    conv_23      bottleneck, stride 2, 128 inside                 28 x 28 x 64
    conv_3       4 bottlenecks with skip, 128 inside              28 x 28 x 64
    conv_34      bottleneck, stride 2, 256 inside                 14 x 14 x 128
    conv_4       6 bottlenecks with skip, 256 inside              14 x 14 x 128
    conv_45      bottleneck, stride 2, 512 inside                 7 x 7 x 128
    conv_5       2 bottlenecks with skip, 256 inside              7 x 7 x 128
    conv_6_sep   1x1 convolution                                  7 x 7 x 512
    conv_6_dw    depthwise over the whole map, no activation      512
    linear, bn   linear without bias, batch norm                  embedding

Names are those of the public InsightFace_Pytorch. Each convolution is followed by batch norm and
PReLU; a bottleneck (1x1, 3x3 depthwise, 1x1) has no activation after its last. `width` 2 is the
`mbf` of InsightFace: twice the channels between bottlenecks and the same inside, and 64 groups in
the second layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mexjax.errors import ConfigError, unknown_name
from mexjax.nn.layers import BatchNorm, Conv, PReLUSlope, torch_kernel_init
from mexjax.nn.mode import Mode

# Each row is stage, width inside, channels (times `width`), stride; stride 2 means one block.
BOTTLENECKS = (
    ("conv_23", 128, 64, 2),
    ("conv_3", 128, 64, 1),
    ("conv_34", 256, 128, 2),
    ("conv_4", 256, 128, 1),
    ("conv_45", 512, 128, 2),
    ("conv_5", 256, 128, 1),
)
STAGES = ("conv1", "conv2_dw", *(row[0] for row in BOTTLENECKS))
TAIL_WIDTH = 512
GROUPS = 64  # groups of the second layer

Inserted = Mapping[str, Callable[[jax.Array, Mode], jax.Array]]


class ConvBlock(nn.Module):
    """Convolution, batch norm and, if `has_activation`, PReLU."""

    features: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    has_activation: bool = True
    eps: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Apply the block to x f[N,H,W,I]: f[N,H',W',features]."""
        conv = Conv(
            self.features, self.kernel, self.stride, self.groups, dtype=self.dtype, name="conv"
        )
        x = conv(x)
        slope = PReLUSlope(name="prelu")(self.features) if self.has_activation else None
        return BatchNorm(self.eps, dtype=self.dtype, name="bn")(x, mode, slope)


class Bottleneck(nn.Module):
    """A block that widens, convolves each channel by itself, and narrows.

    Attributes:
      features: channels at the end.
      inner: channels inside.
      has_skip: the input is added.
      is_second_linear: no activation after the depthwise convolution.
    """

    features: int
    inner: int
    stride: int = 1
    has_skip: bool = False
    is_second_linear: bool = False
    eps: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Apply the block to x f[N,H,W,I]: f[N,H',W',features]."""
        common = {"eps": self.eps, "dtype": self.dtype}
        y = ConvBlock(self.inner, **common, name="conv")(x, mode)
        second = ConvBlock(
            self.inner,
            3,
            self.stride,
            self.inner,
            has_activation=not self.is_second_linear,
            **common,
            name="conv_dw",
        )
        y = second(y, mode)
        y = ConvBlock(self.features, has_activation=False, **common, name="project")(y, mode)
        return x + y if self.has_skip else y


class GlobalDepthwise(nn.Module):
    """A depthwise convolution whose kernel is the map, without activation: f[N,H,W,C] -> f[N,C]."""

    eps: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """One number a channel of x f[N,H,W,C]: f[N,C]."""
        _, height, width, channels = x.shape

        def init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            limit = (height * width) ** -0.5  # each output sees one channel
            return jax.random.uniform(key, shape, jnp.float32, -limit, limit)

        # This convolution is a weighted sum over places.
        kernel = self.param("kernel", init, (height, width, 1, channels))
        x = jnp.einsum("nhwc,hwc->nc", x, kernel[:, :, 0].astype(x.dtype))
        return BatchNorm(self.eps, dtype=self.dtype, name="bn")(x, mode)


class MobileFaceNet(nn.Module):
    """The network from faces f[N,H,W,C] to embeddings.

    Attributes:
      emb_dim: length of the embedding.
      width: 1, or 2 for the wide public variant.
      divisor: divides every width, inside and tail included; above 1 the network is our own.
      depths: bottlenecks of conv_3, conv_4 and conv_5.
      eps: epsilon of every batch norm; weights converted from other libraries may have another.
      dtype: dtype of the computation; parameters, statistics and embeddings are float32.
    """

    emb_dim: int = 512
    width: int = 1
    divisor: int = 1
    depths: tuple[int, ...] = (4, 6, 2)
    eps: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mode: Mode | None = None,
        *,
        train: bool = False,
        inserted: Inserted | None = None,
    ) -> dict[str, jax.Array]:
        """Embed normalised faces; the result of each stage is sown as `after_<stage>`.

        Args:
          x: f[N,H,W,C], sides multiples of 16; 112 for the public weights.
          mode: the mode of the pass; None: one that `train` decides.
          train: used only without a mode.
          inserted: a function of the map f[N,h,w,c] of each named stage, which keeps the shape.

        Returns:
          `embedding` f32[N,emb_dim] before normalisation, and `embedding_l2` of length 1.

        Raises:
          ConfigError: an unknown stage, or images that shrink to nothing.
        """
        mode = Mode(is_train=train) if mode is None else mode
        inserted = inserted or {}
        if len(self.depths) != 3 or GROUPS % self.divisor:
            raise ConfigError(
                "MobileFaceNet takes the depths of conv_3, conv_4 and conv_5, and a divisor of"
                f" {GROUPS}; found {self.depths} and {self.divisor}."
            )
        for name in inserted:
            if name not in STAGES:
                raise ConfigError(unknown_name("stage of MobileFaceNet", name, STAGES))
        if x.ndim != 4 or min(x.shape[1:3]) < 16:
            raise ConfigError(
                f"MobileFaceNet takes images [N,H,W,C] of 16 px and more; found {x.shape}."
            )
        common = {"eps": self.eps, "dtype": self.dtype}

        def close(name: str, x: jax.Array) -> jax.Array:
            x = inserted[name](x, mode) if name in inserted else x
            self.sow("intermediates", f"after_{name}", x)
            return x

        groups = GROUPS // self.divisor
        channels = groups * self.width
        x = x.astype(self.dtype)
        x = close("conv1", ConvBlock(channels, 3, 2, **common, name="conv1")(x, mode))
        second = ConvBlock(channels, 3, groups=groups, **common, name="conv2_dw")
        x = close("conv2_dw", second(x, mode))
        depths = iter(self.depths)
        for name, inner, features, stride in BOTTLENECKS:
            for i in range(1 if stride > 1 else next(depths)):
                block = Bottleneck(
                    features * self.width // self.divisor,
                    inner // self.divisor,
                    stride,
                    has_skip=stride == 1,
                    **common,
                    name=name if stride > 1 else f"{name}_{i}",
                )
                x = block(x, mode)
            x = close(name, x)
        tail = ConvBlock(TAIL_WIDTH // self.divisor, **common, name="conv_6_sep")
        x = tail(x, mode)
        self.sow("intermediates", "after_conv_6_sep", x)
        x = GlobalDepthwise(**common, name="conv_6_dw")(x, mode)
        self.sow("intermediates", "after_conv_6_dw", x)
        linear = nn.Dense(
            self.emb_dim,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=torch_kernel_init(),
            name="linear",
        )
        x = linear(x)
        self.sow("intermediates", "after_linear", x)
        x = BatchNorm(self.eps, name="bn")(x.astype(jnp.float32), mode)
        return {"embedding": x, "embedding_l2": unit_length(x)}


def unit_length(x: jax.Array) -> jax.Array:
    """Vectors of length 1 along the last axis; zero stays zero, with a finite gradient."""
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-12))
