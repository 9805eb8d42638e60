"""FDP: micro-expression recognition via fine-grained dynamic perception.

A network sees each frame alone; its features, laid out as maps and stacked over time, are turned
by one temporal convolution into a dynamic representation, from which come the class (MER head)
and the dynamic image of the clip; a linear scorer on the frame features learns their order.

The text of the paper and the released code (CYF-cuber/FDP, commit 7ad36d9) are different networks.
Presets: `paper` is the text, `official` the code, `paper_14m` the network without attention that
the parameter counts of Table 10 imply, `tiny` a small one for a laptop. Every difference is a key.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from mexjax.errors import ConfigError
from mexjax.models.fdp.options import Options
from mexjax.nn.layers import (
    BatchNorm,
    Conv,
    Dropout,
    space_to_depth,
    torch_bias_init,
    torch_kernel_init,
    truncated_normal,
)
from mexjax.nn.mode import Mode
from mexjax.nn.next_vit import ConvNormRelu, GlobalAggregator, LocalAggregator, PatchEmbed
from mexjax.nn.pooling import max_pool
from mexjax.nn.resnet import ResNet
from mexjax.nn.segnet import EncoderDecoder, SegNet
from mexjax.nn.vit import VisionTransformer
from mexjax.ops.activations import relu


class FrameNetwork(nn.Module):
    """A network that maps each frame of f[N,H,W,C] alone to features f[N,map_size_px^2]."""

    options: Options

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        """Runs on frames."""
        c = self.options
        common = {"per_frame": c.per_frame_batch_norm, "dtype": jnp.dtype(c.dtype)}
        num_features = c.map_size_px**2
        if c.backbone == "resnet18":
            return ResNet(num_features, **common, name="resnet18")(x, mode)
        if c.backbone == "vit_base":
            vit = VisionTransformer(
                num_features,
                c.vit_patch_px,
                use_qkv_bias=False,
                dtype=common["dtype"],
                name="vit_base",
            )
            return vit(x, mode)
        x = space_to_depth(x, c.stem_patch_px)
        for i, pair in enumerate(zip(c.stem_channels, c.stem_strides, strict=True)):
            x = ConvNormRelu(*pair, **common, name=f"stem_{i}")(x, mode)
        for i, block in enumerate(self._blocks(common)):
            x = block.copy(name=f"features_{i}")(x, mode)
        x = BatchNorm(**common, name="norm")(x, mode)
        x = x.mean(axis=(1, 2)) if c.frame_head == "gap" else x.reshape(x.shape[0], -1)
        head = nn.Dense(
            num_features, dtype=common["dtype"], kernel_init=truncated_normal(0.02), name="head"
        )
        return head(x)

    def _blocks(self, common: dict[str, Any]) -> list[nn.Module]:
        """The aggregators in order, unbound; the first of a stage has the stage's stride."""
        c = self.options
        shared = {key: getattr(c, key) for key in ("local_conv", "head_dim", "channel_divisor")}
        shared |= {**common, "parent": None}
        make_local = functools.partial(LocalAggregator, mlp_ratio=c.local_mlp_ratio, **shared)
        make_global = functools.partial(
            GlobalAggregator,
            mlp_ratio=c.global_mlp_ratio,
            attention_share=c.global_attention_share,
            attention_dropout_rate=c.attention_dropout_rate,
            **shared,
        )
        rates = iter(np.linspace(0.0, c.drop_path_rate, sum(c.num_local + c.num_global)))
        blocks: list[nn.Module] = []
        for stage, stride in enumerate(c.stage_strides):
            attend = functools.partial(make_global, reduction=c.spatial_reduction[stage])
            makers = [(make_local, c.local_channels[stage])] * c.num_local[stage]
            makers += [(attend, c.global_channels[stage])] * c.num_global[stage]
            if not makers:
                width = c.global_channels[stage]
                blocks.append(PatchEmbed(width, stride, **common, parent=None))
            for i, (maker, width) in enumerate(makers):
                blocks.append(maker(width, stride if i == 0 else 1, float(next(rates))))
        return blocks


class FDP(nn.Module):
    """The whole network.

    Attributes:
      options: options of the paper.
      num_classes: K.
    """

    options: Options
    num_classes: int

    @nn.compact
    def __call__(self, batch: Mapping[str, jax.Array], *, train: bool) -> dict[str, jax.Array]:
        """Runs on whole clips.

        Args:
          batch: `clip` f[B,T,H,W,C], normalised; optional `weight` f32[B] (0: padding) and
            `is_frozen` bool[].
          train: batch statistics and stochastic depth are on.

        Returns:
          logits f32[B,K]; frame_features f[B,T,D]; dynamic_representation f[B,M,M,V]; unless
          left out, dynamic_image f32[B,M,M] in (0,1) and rank_scores f32[B,T]. D is M^2, V is
          `volume_channels`.
        """
        c = self.options
        dtype = jnp.dtype(c.dtype)
        clip = batch["clip"]
        if clip.ndim != 5:
            raise ConfigError(f"FDP expects clips [B,T,H,W,C]; found {clip.shape}.")
        b, t = clip.shape[:2]
        mode = Mode.from_batch(batch, train=train)
        frames = clip.reshape(b * t, *clip.shape[2:]).astype(dtype)
        network = FrameNetwork(c, name="frame_network")
        features = network(frames, mode.per_frame(t)).reshape(b, t, -1)
        outputs = {"frame_features": features, "logits": jnp.zeros((b, self.num_classes))}

        # The published 3-D kernel spans the whole depth: it is a 3x3 convolution over T channels.
        volume = self._volume(features)
        width = c.volume_channels
        volume = Conv(width, use_bias=True, dtype=dtype, name="volume_conv")(volume)
        outputs["dynamic_representation"] = volume
        if c.use_mer_head:
            x = max_pool(volume, 3).reshape(b, -1)
            x = relu(self._dense(x, c.mer_width, dtype, "mer_fc1"))
            x = Dropout(c.mer_dropout_rate)(x, mode)
            logits = self._dense(x, self.num_classes, dtype, "mer_fc2")
            outputs["logits"] = logits.astype(jnp.float32)
        if c.dynamic_image_network != "none":
            image = self._image_network(dtype)(volume, mode)
            outputs["dynamic_image"] = nn.sigmoid(image[..., 0].astype(jnp.float32))
        if c.use_rank_scorer:
            u = self.param("rank_scorer", nn.initializers.normal(0.02), features.shape[-1:])
            scores = features.astype(jnp.float32) * u
            outputs["rank_scores"] = scores.sum(axis=-1)
        return outputs

    def _volume(self, features: jax.Array) -> jax.Array:
        """Stacks maps in time: f[B,T,M^2] -> f[B,M,M,T]."""
        b, t, _ = features.shape
        size = self.options.map_size_px
        if self.options.volume_layout == "raw_reshape":
            return features.reshape(b, size, size, t)
        return features.reshape(b, t, size, size).transpose(0, 2, 3, 1)

    def _image_network(self, dtype: DTypeLike) -> nn.Module:
        c = self.options
        name = "dynamic_image_network"
        if c.dynamic_image_network == "segnet":
            return SegNet(dtype=dtype, name=name)
        channels = c.encoder_channels, c.decoder_channels
        return EncoderDecoder(*channels, c.leaky_slope, dtype=dtype, name=name)

    def _dense(self, x: jax.Array, features: int, dtype: DTypeLike, name: str) -> jax.Array:
        init: dict[str, Any] = {
            "kernel_init": torch_kernel_init(),
            "bias_init": torch_bias_init(x.shape[-1]),
        }
        return nn.Dense(features, dtype=dtype, name=name, **init)(x)
