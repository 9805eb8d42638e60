"""AC4AU: action units from the changes in a clip, subjects from what stays.

A face network with a transformer over its last map sees each frame alone. Over time its features
split into their sum (DC) and the rest (AC). A margin loss tells subjects apart by the sum, so that
identity gathers there; a second transformer and gated experts tell the action units by the rest.
The paper is "Regulatory Focus Theory Induced Micro-Expression Analysis with Structured
Representation Learning", ACM MM 2025.

Presets: `paper` starts from pre-trained weights, `scratch` without them; `tiny` is for a laptop.
"""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mexjax.cpu.sums import sum_terms
from mexjax.errors import ConfigError
from mexjax.models.ac4au.experts import ExpertMixture, binary_outputs
from mexjax.models.ac4au.frequency import frd
from mexjax.models.ac4au.options import Options
from mexjax.models.ac4au.token_encoder import TokenEncoder
from mexjax.nn.mobilefacenet import Bottleneck, MobileFaceNet, unit_length
from mexjax.nn.mode import Mode


class AC4AU(nn.Module):
    """The whole network.

    Attributes:
      options: options of the paper.
      num_units: A.
    """

    options: Options
    num_units: int

    @nn.compact
    def __call__(self, batch: Mapping[str, jax.Array], *, train: bool) -> dict[str, jax.Array]:
        """Runs on whole clips.

        Args:
          batch: `clip` f[B,T,H,W,C], normalised; optional `weight` f32[B] (0: padding),
            `is_frozen` bool[], `is_seen` bool[B,T] (false: a repeated frame) and
            `is_training_subject` bool[S], which alone brings the subject head.
          train: batch statistics and dropout are on.

        Returns:
          logits, log_p, log_not_p f32[B,A]; gates f32[B,A,E] and expert_logits f32[B,E], unless
          the head is linear; f f32[B,D], f_dc f32[B,D], f_ac f32[B,T,D]; with a subject head
          subject_cosines f32[B,S].

        Raises:
          ConfigError: clips of another form.
        """
        c = self.options
        clip = batch["clip"]
        if clip.ndim != 5:
            raise ConfigError(f"AC4AU expects clips [B,T,H,W,C]; found {clip.shape}.")
        b, t = clip.shape[:2]
        mode = Mode.from_batch(batch, train=train)
        features = self._frames(clip.reshape(b * t, *clip.shape[2:]), mode.per_frame(t))
        features = features.reshape(b, t, -1)  # F

        f_dc, f_ac = frd(
            features,
            mode="irfft" if c.frd == "none" else c.frd,
            bands=(c.frd_bands[0], c.frd_bands[1]) if c.frd_bands else None,
        )
        changing = features if c.frd == "none" else f_ac
        outputs = {"f_dc": f_dc, "f_ac": f_ac, "f": self._temporal(changing, batch, mode)}
        if "is_training_subject" in batch:
            shape = (batch["is_training_subject"].shape[0], f_dc.shape[-1])
            prototypes = self.param("subject_prototypes", nn.initializers.normal(0.01), shape)
            outputs["subject_cosines"] = unit_length(f_dc) @ unit_length(prototypes).T
        return outputs | self._units(outputs["f"], mode)

    def _frames(self, frames: jax.Array, mode: Mode) -> jax.Array:
        """Features f32[N,D] of frames f[N,H,W,C], before any normalisation of their length."""
        c = self.options
        dtype = jnp.dtype(c.dtype)
        norm_mode = Mode() if c.freeze_bn else mode
        encoder = TokenEncoder(
            c.spatial_depth,
            c.spatial_heads,
            c.spatial_mlp_width,
            c.spatial_dropout_rate,
            c.spatial_style,
            has_position=c.has_spatial_position,
            starts_as_identity=c.spatial_style == "pre_norm",
            dtype=dtype,
            name="spatial",
        )

        def attend(x: jax.Array, _: Mode) -> jax.Array:
            tokens = x.reshape(x.shape[0], -1, x.shape[-1])
            return encoder(tokens, mode).reshape(x.shape)

        inserted = {c.insert_at: attend}
        if c.tail == "residual":

            def extend(x: jax.Array, _: Mode) -> jax.Array:
                x = attend(x, _) if c.insert_at == "conv_5" else x
                # The block is as wide as the map, and its second convolution has no activation.
                block = Bottleneck(
                    x.shape[-1],
                    x.shape[-1],
                    has_skip=True,
                    is_second_linear=True,
                    eps=c.bn_eps,
                    dtype=dtype,
                    name="residual",
                    parent=self,
                )
                return block(x, norm_mode)

            inserted["conv_5"] = extend
        backbone = MobileFaceNet(
            c.emb_dim,
            c.width,
            c.backbone_divisor,
            c.backbone_depths,
            c.bn_eps,
            dtype,
            name="backbone",
        )
        return backbone(frames, norm_mode, inserted=inserted)["embedding"]

    def _temporal(self, x: jax.Array, batch: Mapping[str, jax.Array], mode: Mode) -> jax.Array:
        """The mean over time of a transformer: f32[B,T,D] -> f32[B,D]."""
        c = self.options
        is_seen = batch.get("is_seen")
        encoder = TokenEncoder(
            c.temporal_depth,
            c.temporal_heads,
            c.temporal_mlp_width,
            c.temporal_dropout_rate,
            c.temporal_style,
            has_position=c.has_temporal_position,
            has_last_norm=c.has_temporal_norm,
            dtype=jnp.dtype(c.dtype),
            name="temporal",
        )
        x = encoder(x, mode, is_seen).astype(jnp.float32)
        if is_seen is None:
            return sum_terms(x[:, t] for t in range(x.shape[1])) / x.shape[1]
        weight = is_seen.astype(jnp.float32)
        weight /= weight.sum(axis=1, keepdims=True)
        return (weight[..., None] * x).sum(axis=1)

    def _units(self, f: jax.Array, mode: Mode) -> dict[str, jax.Array]:
        c = self.options
        dtype = jnp.dtype(c.dtype)
        if c.head == "linear":
            return binary_outputs(nn.Dense(self.num_units, dtype=dtype, name="head")(f))
        head = ExpertMixture(
            self.num_units,
            c.num_experts,
            c.expert,
            c.expert_width,
            c.expert_dropout_rate,
            c.mix,
            c.top_k,
            c.gate_diagonal_bias,
            has_gates=c.head == "auser",
            dtype=dtype,
            name="head",
        )
        return head(f, mode)
