"""Local and global aggregators: the convolution and attention blocks of Next-ViT.

FDP's frame network is made of them. The facts come from the public Next-ViT (bytedance/Next-ViT,
`classification/nextvit.py`; Li et al. 2022, arXiv 2207.05501) and the code of FDP
(CYF-cuber/FDP, `fdp.py`), which descends from it.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mexjax.errors import ConfigError, unknown_name
from mexjax.nn.layers import (
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    DropPath,
    truncated_normal,
)
from mexjax.nn.mode import Mode
from mexjax.nn.pooling import avg_pool_2x2
from mexjax.ops.activations import relu
from mexjax.ops.products import matmul

LOCAL_CONVS = ("dense", "dense_projected", "multi_head")

_INIT = truncated_normal(0.02)
_ZEROS = nn.initializers.zeros


def round_channels(channels: float, divisor: int) -> int:
    """The multiple of `divisor` nearest to `channels`, never more than 10% below."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class ConvNormRelu(nn.Module):
    """One step of the stem: 3x3 convolution, batch norm, ReLU."""

    features: int
    stride: int = 1
    per_frame: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Apply the step to x f[N,H,W,I]: f[N,H',W',features]."""
        conv = Conv(
            self.features, stride=self.stride, dtype=self.dtype, kernel_init=_INIT, name="conv"
        )
        x = conv(x)
        return BatchNorm(per_frame=self.per_frame, dtype=self.dtype, name="norm")(x, mode, 0.0)


class PatchEmbed(nn.Module):
    """A change of width and size: 2x2 mean if the stride is 2, then 1x1 convolution and norm.

    It is the identity, without parameters, if neither changes. There is no activation.
    """

    features: int
    stride: int = 1
    per_frame: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Embed x f[N,H,W,I]: f[N,H',W',features].

        Raises:
          ConfigError: another stride than 1 or 2.
        """
        if self.stride == 1 and x.shape[-1] == self.features:
            return x
        if self.stride not in (1, 2):
            raise ConfigError(f"A patch embedding has stride 1 or 2; found {self.stride}.")
        if self.stride == 2:
            x = avg_pool_2x2(x)
        x = Conv(self.features, 1, dtype=self.dtype, kernel_init=_INIT, name="conv")(x)
        return BatchNorm(per_frame=self.per_frame, dtype=self.dtype, name="norm")(x, mode)


class LocalConv(nn.Module):
    """The 3x3 convolution of an aggregator, in the three forms of Table 10 of the FDP paper.

    Attributes:
      kind: "dense" (C) one 3x3 convolution over all channels, nothing after it;
        "dense_projected" (C') the same, batch norm, ReLU, 1x1 convolution;
        "multi_head" (C*) as C', but the 3x3 convolution is split into heads of `head_dim`
        channels that do not see each other.
    """

    kind: str = "multi_head"
    head_dim: int = 8
    per_frame: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Convolve x f[N,H,W,C]; the shape stays.

        Raises:
          ConfigError: an unknown kind, or heads that do not divide the channels.
        """
        if self.kind not in LOCAL_CONVS:
            raise ConfigError(unknown_name("local_conv", self.kind, LOCAL_CONVS))
        width = x.shape[-1]
        if self.kind == "multi_head" and width % self.head_dim:
            raise ConfigError(
                f"local_conv multi_head: {width} channels are not a multiple of "
                f"head_dim {self.head_dim}."
            )
        groups = width // self.head_dim if self.kind == "multi_head" else 1
        x = Conv(width, groups=groups, dtype=self.dtype, kernel_init=_INIT, name="spatial")(x)
        if self.kind == "dense":
            return x
        x = BatchNorm(per_frame=self.per_frame, dtype=self.dtype, name="norm")(x, mode, 0.0)
        return Conv(width, 1, dtype=self.dtype, kernel_init=_INIT, name="projection")(x)


class Mlp(nn.Module):
    """Two 1x1 convolutions with bias and a ReLU between: f[N,H,W,C] -> f[N,H,W,C]."""

    hidden: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply both layers to x f[N,H,W,C]; the shape stays."""

        def pointwise(features: int, name: str) -> Conv:
            return Conv(
                features,
                1,
                use_bias=True,
                dtype=self.dtype,
                kernel_init=_INIT,
                bias_init=_ZEROS,
                name=name,
            )

        return pointwise(x.shape[-1], "conv2")(relu(pointwise(self.hidden, "conv1")(x)))


class LocalAggregator(nn.Module):
    """Patch embedding, a residual convolution (without a norm before it), a residual MLP."""

    features: int
    stride: int = 1
    drop_path_rate: float = 0.0
    local_conv: str = "multi_head"
    head_dim: int = 8
    mlp_ratio: int = 3
    channel_divisor: int = 32
    per_frame: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Apply the block to x f[N,H,W,I]: f[N,H',W',features]."""
        common = {"per_frame": self.per_frame, "dtype": self.dtype}
        drop_path = DropPath(self.drop_path_rate)
        x = PatchEmbed(self.features, self.stride, **common, name="patch_embed")(x, mode)
        conv = LocalConv(self.local_conv, self.head_dim, **common, name="mhca")
        x += drop_path(conv(x, mode), mode)
        y = BatchNorm(**common, name="norm")(x, mode)
        hidden = round_channels(self.features * self.mlp_ratio, self.channel_divisor)
        return x + drop_path(Mlp(hidden, self.dtype, name="mlp")(y), mode)


class ReducedAttention(nn.Module):
    """Multi-head self-attention whose keys and values are means of `reduction`^2 tokens.

    The tokens that are averaged follow each other in raster order: they are pieces of rows, not
    squares. There is no positional encoding.
    """

    reduction: int = 1
    head_dim: int = 8
    dropout_rate: float = 0.0
    per_frame: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Attend from each token of x f[N,H,W,C] to the means; the shape stays.

        Raises:
          ConfigError: heads that do not divide the channels, or fewer tokens than a mean takes.
        """
        n, height, width, c = x.shape
        if c % self.head_dim:
            raise ConfigError(f"Attention: {c} channels, head_dim {self.head_dim} does not divide.")
        window = self.reduction**2
        if height * width < window:
            raise ConfigError(
                f"Attention: {height}x{width} tokens cannot be averaged {window} at a time; "
                f"lower spatial_reduction (now {self.reduction})."
            )
        x = x.reshape(n, height * width, c).astype(self.dtype)
        kernel = self.param("qkv_kernel", _INIT, (c, 3 * c)).astype(self.dtype)
        bias = self.param("qkv_bias", _ZEROS, (3 * c,)).astype(self.dtype)
        if self.reduction == 1:
            q, k, v = jnp.split(matmul(x, kernel) + bias, 3, axis=-1)
        else:
            keys = x.shape[1] // window
            pooled = x[:, : keys * window].reshape(n, keys, window, c).mean(axis=2)
            norm = BatchNorm(per_frame=self.per_frame, dtype=self.dtype, name="norm")
            pooled = norm(pooled, mode)
            q = matmul(x, kernel[:, :c]) + bias[:c]
            k, v = jnp.split(matmul(pooled, kernel[:, c:]) + bias[c:], 2, axis=-1)
        y = self._attend(q * self.head_dim**-0.5, k, v, mode).reshape(n, height, width, c)
        out = Dense(c, dtype=self.dtype, kernel_init=_INIT, name="proj")
        return Dropout(self.dropout_rate)(out(y), mode)

    def _attend(self, q: jax.Array, k: jax.Array, v: jax.Array, mode: Mode) -> jax.Array:
        """Attention from f[N,Q,C] to f[N,K,C] twice: f[N,Q,C], with the softmax in float32."""
        q, k, v = (a.reshape(*a.shape[:2], -1, self.head_dim) for a in (q, k, v))
        scores = jnp.einsum("nqhd,nkhd->nhqk", q, k, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        weights = Dropout(self.dropout_rate)(weights, mode)
        return jnp.einsum("nhqk,nkhd->nqhd", weights, v)


class GlobalAggregator(nn.Module):
    """Attention on a share of the channels, a convolution on the rest, and an MLP on both.

    A share `attention_share` of the `features` channels (rounded to `channel_divisor`) comes out of
    the attention branch, the others out of a convolution branch that starts from them.
    """

    features: int
    stride: int = 1
    drop_path_rate: float = 0.0
    reduction: int = 1
    attention_share: float = 0.75
    local_conv: str = "multi_head"
    head_dim: int = 8
    mlp_ratio: int = 2
    attention_dropout_rate: float = 0.0
    channel_divisor: int = 32
    per_frame: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Apply the block to x f[N,H,W,I]: f[N,H',W',features].

        Raises:
          ConfigError: attention takes all channels.
        """
        common = {"per_frame": self.per_frame, "dtype": self.dtype}
        wide = round_channels(self.features * self.attention_share, self.channel_divisor)
        narrow = self.features - wide
        if narrow <= 0:
            raise ConfigError(
                f"Global aggregator: {self.features} channels leave none for the convolution "
                f"branch (attention takes {wide}); lower channel_divisor or attention_share."
            )
        x = PatchEmbed(wide, self.stride, **common, name="patch_embed")(x, mode)
        attention = ReducedAttention(
            self.reduction, self.head_dim, self.attention_dropout_rate, **common, name="attention"
        )
        y = attention(BatchNorm(**common, name="norm1")(x, mode), mode)
        x += DropPath(self.drop_path_rate * self.attention_share)(y, mode)

        y = PatchEmbed(narrow, **common, name="projection")(x, mode)
        conv = LocalConv(self.local_conv, self.head_dim, **common, name="mhca")
        y += DropPath(self.drop_path_rate * (1 - self.attention_share))(conv(y, mode), mode)

        x = jnp.concatenate([x, y], axis=-1)
        hidden = round_channels(self.features * self.mlp_ratio, self.channel_divisor)
        y = Mlp(hidden, self.dtype, name="mlp")(BatchNorm(**common, name="norm2")(x, mode))
        return x + DropPath(self.drop_path_rate)(y, mode)
