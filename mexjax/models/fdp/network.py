"""FDP: micro-expression recognition via fine-grained dynamic perception.

A network sees each frame alone; its features, laid out as maps and stacked over time, are turned
by one temporal convolution into a dynamic representation, from which come the class (MER head)
and the dynamic image of the clip; a linear scorer on the frame features learns their order.

The text of the paper and the released code (CYF-cuber/FDP, commit 7ad36d9) are different networks.
Presets: `paper` is the text, `official` the code, `paper_14m` what the parameter counts of the
paper's Table 10 imply (no attention), `tiny` a small one for a laptop. Every difference is a key.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mexjax.errors import ConfigError
from mexjax.models.fdp.options import PRESETS, resolve
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
from mexjax.ops.rank_pooling import magnitude, rank_pool, scale_to_unit

__all__ = [
    "FDP",
    "PRESETS",
    "TASKS",
    "VIEWS",
    "FrameNetwork",
    "inputs",
    "loss",
    "make",
    "predictions",
    "targets",
]

VIEWS = ("uniform",)
TASKS = ("emotion",)


class FrameNetwork(nn.Module):
    """Frames f[N,H,W,C], each alone, to features f[N,map_size_px^2]."""

    config: Mapping[str, Any]

    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode) -> jax.Array:
        c = self.config
        common = {"per_frame": c["per_frame_batch_norm"], "dtype": jnp.dtype(c["dtype"])}
        num_features = c["map_size_px"] ** 2
        if c["backbone"] == "resnet18":
            return ResNet(num_features, **common, name="resnet18")(x, mode)
        if c["backbone"] == "vit_base":
            vit = VisionTransformer(
                num_features,
                c["vit_patch_px"],
                use_qkv_bias=False,
                dtype=common["dtype"],
                name="vit_base",
            )
            return vit(x, mode)
        x = space_to_depth(x, c["stem_patch_px"])
        for i, pair in enumerate(zip(c["stem_channels"], c["stem_strides"], strict=True)):
            x = ConvNormRelu(*pair, **common, name=f"stem_{i}")(x, mode)
        for i, block in enumerate(self._blocks(common)):
            x = block.copy(name=f"features_{i}")(x, mode)
        x = BatchNorm(**common, name="norm")(x, mode)
        x = x.mean(axis=(1, 2)) if c["frame_head"] == "gap" else x.reshape(x.shape[0], -1)
        head = nn.Dense(
            num_features, dtype=common["dtype"], kernel_init=truncated_normal(0.02), name="head"
        )
        return head(x)

    def _blocks(self, common: dict[str, Any]) -> list[nn.Module]:
        """The aggregators in order, unbound; the first of a stage has the stage's stride."""
        c = self.config
        shared = {key: c[key] for key in ("local_conv", "head_dim", "channel_divisor")}
        shared |= {**common, "parent": None}
        make_local = functools.partial(LocalAggregator, mlp_ratio=c["local_mlp_ratio"], **shared)
        make_global = functools.partial(
            GlobalAggregator,
            mlp_ratio=c["global_mlp_ratio"],
            attention_share=c["global_attention_share"],
            attention_dropout_rate=c["attention_dropout_rate"],
            **shared,
        )
        rates = iter(np.linspace(0.0, c["drop_path_rate"], sum(c["num_local"] + c["num_global"])))
        blocks: list[nn.Module] = []
        for stage, stride in enumerate(c["stage_strides"]):
            attend = functools.partial(make_global, reduction=c["spatial_reduction"][stage])
            makers = [(make_local, c["local_channels"][stage])] * c["num_local"][stage]
            makers += [(attend, c["global_channels"][stage])] * c["num_global"][stage]
            if not makers:
                width = c["global_channels"][stage]
                blocks.append(PatchEmbed(width, stride, **common, parent=None))
            for i, (maker, width) in enumerate(makers):
                blocks.append(maker(width, stride if i == 0 else 1, float(next(rates))))
        return blocks


class FDP(nn.Module):
    """The whole network.

    Attributes:
      config: every key of a preset, from `resolve`.
      num_classes: K.
    """

    config: Mapping[str, Any]
    num_classes: int

    @nn.compact
    def __call__(self, batch: Mapping[str, jax.Array], *, train: bool) -> dict[str, jax.Array]:
        """Runs on whole clips.

        Args:
          batch: `clip` f[B,T,H,W,C], normalised; optional `weight` f32[B] (0: padding) and
            `is_frozen` bool[].
          train: batch statistics and stochastic depth are on.

        Returns:
          logits f32[B,K]; frame_features f[B,T,D]; dynamic_representation f[B,M,M,8]; unless
          left out, dynamic_image f32[B,M,M] in (0,1) and rank_scores f32[B,T]. D = M^2.
        """
        c = self.config
        dtype = jnp.dtype(c["dtype"])
        clip = batch["clip"]
        if clip.ndim != 5:
            raise ConfigError(f"FDP expects clips [B,T,H,W,C]; found {clip.shape}.")
        b, t = clip.shape[:2]
        mode = Mode.from_batch(batch, train=train)
        frames = clip.reshape(b * t, *clip.shape[2:]).astype(dtype)
        network = FrameNetwork(c, name="frame_network")
        features = network(frames, mode.per_frame(t)).reshape(b, t, -1)
        outputs = {"frame_features": features, "logits": jnp.zeros((b, self.num_classes))}

        # One 3x3 convolution over T channels: the published 3-D kernel spans the whole depth.
        volume = self._volume(features)
        width = c["volume_channels"]
        volume = Conv(width, use_bias=True, dtype=dtype, name="volume_conv")(volume)
        outputs["dynamic_representation"] = volume
        if c["use_mer_head"]:
            x = max_pool(volume, 3).reshape(b, -1)
            x = relu(self._dense(x, c["mer_width"], dtype, "mer_fc1"))
            x = Dropout(c["mer_dropout_rate"])(x, mode)
            logits = self._dense(x, self.num_classes, dtype, "mer_fc2")
            outputs["logits"] = logits.astype(jnp.float32)
        if c["dynamic_image_network"] != "none":
            image = self._image_network(dtype)(volume, mode)
            outputs["dynamic_image"] = nn.sigmoid(image[..., 0].astype(jnp.float32))
        if c["use_rank_scorer"]:
            u = self.param("rank_scorer", nn.initializers.normal(0.02), features.shape[-1:])
            scores = features.astype(jnp.float32) * u
            outputs["rank_scores"] = scores.sum(axis=-1)
        return outputs

    def _volume(self, features: jax.Array) -> jax.Array:
        """f[B,T,M^2] -> f[B,M,M,T]."""
        b, t, _ = features.shape
        size = self.config["map_size_px"]
        if self.config["volume_layout"] == "raw_reshape":
            return features.reshape(b, size, size, t)
        return features.reshape(b, t, size, size).transpose(0, 2, 3, 1)

    def _image_network(self, dtype: jnp.dtype) -> nn.Module:
        c = self.config
        name = "dynamic_image_network"
        if c[name] == "segnet":
            return SegNet(dtype=dtype, name=name)
        channels = c["encoder_channels"], c["decoder_channels"]
        return EncoderDecoder(*channels, c["leaky_slope"], dtype=dtype, name=name)

    def _dense(self, x: jax.Array, features: int, dtype: jnp.dtype, name: str) -> jax.Array:
        init = {"kernel_init": torch_kernel_init(), "bias_init": torch_bias_init(x.shape[-1])}
        return nn.Dense(features, dtype=dtype, name=name, **init)(x)


def make(model_config: Mapping[str, Any], *, num_classes: int) -> FDP:
    """The network of a configuration (see `resolve`) for K classes."""
    return FDP(resolve(model_config), num_classes)


def inputs(clip: jax.Array, model_config: Mapping[str, Any]) -> dict[str, jax.Array]:
    """What the network takes of f[B,T,H,W,C], normalised: the clip as it is."""
    del model_config
    return {"clip": clip}


def targets(frames: jax.Array, model_config: Mapping[str, Any]) -> dict[str, jax.Array]:
    """What the dynamic-image network should give: f32[B,M,M] in [0,1], by rank pooling.

    Args:
      frames: f32[B,T,H,W,C] in [0,1], after augmentation and before normalisation.
      model_config: the model's configuration.
    """
    config = resolve(model_config)
    if config["dynamic_image_network"] == "none":
        return {}
    gray = frames[..., 0]
    if frames.shape[-1] == 3:
        gray = (frames * jnp.array([0.299, 0.587, 0.114])).sum(axis=-1)
    pooled = rank_pool(gray)
    b, h, w = pooled.shape
    size = config["map_size_px"]
    # Rank pooling is linear: shrinking after it is the same, and shrinks one image for T.
    if (h, w) != (size, size):
        if h % size == 0 and w % size == 0:
            pooled = pooled.reshape(b, size, h // size, size, w // size).mean(axis=(2, 4))
        else:
            pooled = jax.image.resize(pooled, (b, size, size), "linear")
    image = scale_to_unit(pooled, magnitude(gray), quantize=config["quantize_target"])
    return {"dynamic_image": image}


def loss(
    outputs: Mapping[str, jax.Array],
    batch: Mapping[str, jax.Array],
    model_config: Mapping[str, Any],
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """L = L_MER + lambda_d L_DIC + lambda_r L_rank, for each clip.

    L_MER is cross-entropy, L_DIC the mean squared error over the pixels of the dynamic image,
    L_rank the sum over the frames k of |rank_slope * k - score_k|.

    Args:
      outputs: of the network.
      batch: `label` i32[B] and, with a dynamic-image network, `dynamic_image` f32[B,M,M].
      model_config: the model's configuration.

    Returns:
      f32[B], and each part that is present, unweighted: `ce`, `mse`, `rank`, f32[B].
    """
    config = resolve(model_config)
    total = jnp.zeros(batch["label"].shape, jnp.float32)
    logs = {}
    if config["use_mer_head"]:
        num_classes = outputs["logits"].shape[-1]
        wanted = jax.nn.one_hot(batch["label"], num_classes)
        wanted = optax.smooth_labels(wanted, config["label_smoothing"])
        logs["ce"] = optax.softmax_cross_entropy(outputs["logits"], wanted)
        total += logs["ce"]
    if "dynamic_image" in outputs:
        error = jnp.square(outputs["dynamic_image"] - batch["dynamic_image"])
        logs["mse"] = error.mean(axis=(1, 2))
        total += config["lambda_d"] * logs["mse"]
    if "rank_scores" in outputs:
        scores = outputs["rank_scores"]
        wanted = config["rank_slope"] * jnp.arange(scores.shape[1], dtype=jnp.float32)
        logs["rank"] = jnp.abs(wanted - scores).sum(axis=1)
        total += config["lambda_r"] * logs["rank"]
    return total, logs


def predictions(outputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """What is kept of a clip: logits f32[B,K] and, if there is one, dynamic_image f32[B,M,M]."""
    return {key: outputs[key] for key in ("logits", "dynamic_image") if key in outputs}
