"""Micro-AU CLIP: action units of micro-expressions by CLIP on images of optical flow.

The tokens in which an action unit's landmarks lie become a feature of the unit (LSI); attention
among units weighs what the face does as a whole (GSD); each unit's feature is classified, and
pulled towards the one of two sentences that describes it. Emotions are then read off the cosines
with those sentences, without an emotion label in training (Eq. 13).

Presets: `paper` and `paper_samm` need the weights of a CLIP; `tiny` trains small towers from
nothing. What the paper leaves open is a key (`micro_au_clip_presets`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mexjax.data.landmark_tokens import AU_LANDMARKS
from mexjax.errors import ConfigError
from mexjax.models.micro_au_clip import losses as au_losses
from mexjax.models.micro_au_clip.options import PRESETS, resolve
from mexjax.models.micro_au_clip.record import features
from mexjax.models.micro_au_clip.start import (
    Texts,
    clip_arrays,
    clip_views,
    combination_emotions,
    combination_members,
    is_frozen,
    make_texts,
    make_towers,
    may_draw_frozen,
    notices,
    rate_factor,
    start,
)
from mexjax.models.micro_au_clip.unit_features import UnitFeatures, UnitMlp, token_slots
from mexjax.nn.clip import IMAGE_MEAN, IMAGE_STD, ClipSize, ImageTower, TextTower
from mexjax.nn.layers import Dropout
from mexjax.nn.mode import Mode
from mexjax.protocol.action_units import numbers_of

__all__ = [
    "PRESETS",
    "TASKS",
    "VIEWS",
    "MicroAUClip",
    "clip_arrays",
    "clip_views",
    "combination_emotions",
    "combination_members",
    "features",
    "inputs",
    "is_frozen",
    "loss",
    "make",
    "may_draw_frozen",
    "notices",
    "of_protocol",
    "predictions",
    "rate_factor",
    "resolve",
    "start",
    "targets",
]

VIEWS = ("flow_image",)
TASKS = ("au",)


class _Scalar(nn.Module):
    """One learnt number. A module, so that what does not use it does not need it."""

    start: float

    @nn.compact
    def __call__(self) -> jax.Array:
        return self.param("value", nn.initializers.constant(self.start), ())


class MicroAUClip(nn.Module):
    """The network.

    Attributes:
      config: every key of a preset, from `resolve`.
      units: numbers of the N action units.
      texts: their sentences.
      size: of the towers.
      activation: of the towers.
    """

    config: Mapping[str, Any]
    units: tuple[int, ...]
    texts: Texts
    size: ClipSize
    activation: str

    def setup(self) -> None:
        c = self.config
        dtype = jnp.dtype(c["dtype"])
        self.image = ImageTower(self.size, self.activation, dtype)
        self.text = TextTower(self.size, self.activation, dtype)
        self.unit_features = UnitFeatures(c, len(self.units))
        self.heads = UnitMlp(c["head_width"], 2)
        self.dropout = Dropout(c["dropout_rate"])
        if c["token_space"] == "width":
            init = nn.initializers.normal(self.size.image.width**-0.5)
            self.to_joint = nn.Dense(
                self.size.embed_width, use_bias=False, dtype=dtype, kernel_init=init
            )
        if c["is_contrast_scale_learnt"]:
            self.log_scale = _Scalar(float(np.log(c["contrast_scale"])))

    def frozen_part(self, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """What the frozen blocks make of clips: entries that stand for those of `batch`.

        Args:
          batch: `image` f[B,S,S,3], normalised, and, of the global contrast, `joined_ids` i32[B,L].

        Returns:
          `image_tokens` f[B,1+G*G,C] after the frozen blocks, and `joined_tokens` f[B,L,C].
        """
        first = self.config["trainable_from"]
        outputs = {"image_tokens": self.image.first(batch["image"], first)}
        if "joined_ids" in batch:
            outputs["joined_tokens"] = self.text.first(batch["joined_ids"], self._text_from)
        return outputs

    def frozen_constants(self) -> dict[str, jax.Array]:
        """The same of the texts, which no clip changes: `unit_tokens`, `sentence_tokens`."""
        if self.config["contrast"] == "none":
            return {}
        return {
            f"{name}_tokens": self.text.first(jnp.array(ids, jnp.int32), self._text_from)
            for name, ids in (("unit", self.texts.units), ("sentence", self.texts.sentences))
            if ids
        }

    @property
    def _text_from(self) -> int:
        c = self.config
        return c["trainable_from"] if c["train_text"] else self.size.text.depth

    def __call__(self, batch: Mapping[str, jax.Array], *, train: bool) -> dict[str, jax.Array]:
        """Runs on images of flow, or on what the frozen part made of them.

        Args:
          batch: `image` f[B,S,S,3], normalised, or the entries of `frozen_part` and
            `frozen_constants`; `landmark_tokens` i32[B,N,6], patches of each unit's landmarks,
            counted from 0 without the class token; optional `joined_ids` and `weight` f32[B].
          train: dropout is on.

        Returns:
          logits f32[B,N], above 0: active; unit_logits f32[B,N,2]; features F_V f[B,N,d]; cosines
          f32[B,N,2] with both sentences, and text_cosines f32[N] between them, unless there is no
          contrast; emotion_scores f32[B,R], see `combination_emotions`; what `UnitFeatures` gives;
          and of the global contrast image_features and joined_features f[B,E].
        """
        c = self.config
        if "image_tokens" not in batch:
            batch = {**batch, **self.frozen_part(batch), **self.frozen_constants()}
        mode = Mode.from_batch(batch, train=train)
        tokens, mask, class_token = self._tokens(batch)
        outputs = self.unit_features(tokens, mask)
        features = outputs["features"]
        outputs["unit_logits"] = self.heads(self.dropout(features, mode)).astype(jnp.float32)
        outputs["logits"] = outputs["unit_logits"][..., 1] - outputs["unit_logits"][..., 0]
        if "unit_tokens" not in batch:
            return outputs
        if c["is_contrast_scale_learnt"]:
            outputs["contrast_scale"] = jnp.exp(self.log_scale())
        compared = self.to_joint(features) if c["token_space"] == "width" else features
        texts = self._encoded(batch["unit_tokens"], self.texts.units)
        texts = texts.reshape(len(self.units), 2, -1)
        outputs["cosines"] = au_losses.text_cosines(compared, texts)
        outputs["text_cosines"] = au_losses.text_cosines(texts[None, :, 0], texts)[0, :, 1]
        if c["contrast"] == "global":
            if c["token_space"] == "width":
                class_token = self.to_joint(class_token)
            outputs["image_features"] = class_token
            ids = batch["joined_ids"]
            outputs["joined_features"] = self.text.rest(
                batch["joined_tokens"], ids, self._text_from
            )
        if "sentence_tokens" in batch:
            sentences = self._encoded(batch["sentence_tokens"], self.texts.sentences)
            n = len(self.units)
            every = jnp.broadcast_to(sentences, (n, *sentences.shape))
            outputs["emotion_scores"] = au_losses.text_cosines(compared, every).sum(axis=1)
        else:
            members = jnp.asarray(combination_members(self.units))
            outputs["emotion_scores"] = au_losses.combination_scores(outputs["cosines"], members)
        return outputs

    def _tokens(
        self, batch: Mapping[str, jax.Array]
    ) -> tuple[jax.Array, np.ndarray | None, jax.Array | None]:
        """What `UnitFeatures` takes, and the class token f[B,d] where something asks for it."""
        c = self.config
        slots, index, mask = token_slots(self.units)
        places = batch["landmark_tokens"]
        if places.shape[1:] != index.shape:
            raise ConfigError(
                f"Micro-AU CLIP with {len(self.units)} action units takes landmark_tokens"
                f" [B, {index.shape[0]}, {index.shape[1]}]; found {places.shape}."
            )
        # Of the last block only the tokens are computed that something asks for.
        wanted = []
        if c["branches"] != "global":
            # Patches count from 0, tokens have the class token before them.
            wanted.append(places[:, slots[:, 0], slots[:, 1]].astype(jnp.int32) + 1)
        if "global" in (c["branches"], c["contrast"]):
            wanted.append(jnp.zeros((len(places), 1), jnp.int32))
        x = self.image.rest(
            batch["image_tokens"], c["trainable_from"], jnp.concatenate(wanted, axis=1)
        )
        x = self.image.norm(x)
        if c["token_space"] == "joint":
            x = self.image.project(x)
        if c["branches"] == "global":
            return x[:, 0], None, x[:, 0]
        # A product with ones and zeros: its gradient is another, where a gather's is a scatter.
        pick = jnp.asarray(np.eye(len(slots))[index], x.dtype)  # (N, J, Q)
        tokens = jnp.einsum(
            "njq,bqd->bnjd", pick, x[:, : len(slots)], precision=jax.lax.Precision.HIGHEST
        )
        return tokens, mask, x[:, -1] if len(wanted) > 1 else None

    def _encoded(self, tokens: jax.Array, ids: tuple[tuple[int, ...], ...]) -> jax.Array:
        return self.text.rest(tokens, jnp.array(ids, jnp.int32), self._text_from)


def of_protocol(protocol: ConfigDict) -> dict[str, Any]:
    """What `make` needs of the protocol: the numbers of the action units."""
    return {"units": numbers_of(protocol.units)}


def make(
    model_config: Mapping[str, Any], *, num_classes: int, units: Sequence[int] = ()
) -> MicroAUClip:
    """The network of a configuration (see `resolve`).

    Args:
      model_config: the model's configuration.
      num_classes: N.
      units: numbers of the N action units, see `of_protocol`.

    Raises:
      ConfigError: units that the paper gives no landmarks for, or not N of them.
      DataError: weights or sentences that cannot be read.
    """
    config = resolve(model_config)
    unknown = [unit for unit in units if unit not in AU_LANDMARKS]
    if unknown or len(units) != num_classes:
        raise ConfigError(
            f"Micro-AU CLIP needs the numbers of {num_classes} action units among"
            f" {', '.join(map(str, AU_LANDMARKS))}; found {', '.join(map(str, units)) or 'none'}."
            " Set protocol.units, for example to micro_au_casme2 or micro_au_samm."
        )
    texts, vocabulary = make_texts(config, units)
    size, activation = make_towers(config, vocabulary)
    depth = min(size.image.depth, size.text.depth)
    if not 0 <= config["trainable_from"] <= depth:
        raise ConfigError(
            f"model.trainable_from must be 0 to {depth}, the blocks of a tower; found"
            f" {config['trainable_from']}."
        )
    return MicroAUClip(config, tuple(units), texts, size, activation)


def inputs(clip: jax.Array, model_config: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The image of flow f[B,1,S,S,3] in [-1, 1], as CLIP's towers take images."""
    del model_config
    mean, std = np.array(IMAGE_MEAN, np.float32), np.array(IMAGE_STD, np.float32)
    return {"image": (0.5 * clip[:, 0] + (0.5 - mean)) / std}


def targets(frames: jax.Array, model_config: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Nothing: labels are all the network is asked for."""
    del frames, model_config
    return {}


def loss(
    outputs: Mapping[str, jax.Array],
    batch: Mapping[str, jax.Array],
    model_config: Mapping[str, Any],
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """L = sum_n CE_n + alpha MiAUCL + beta GD, for each clip.

    Args:
      outputs: of the network.
      batch: `label` 0/1 [B,N] and, where the batch is padded, `weight` f32[B].
      model_config: the model's configuration.

    Returns:
      f32[B], and each part that is present, unweighted: `ce`, `contrast`, `gd`; beside them
      `text_cosine`, the mean over units of the cosine between their sentences, and `even_share`,
      the share of clips in which no unit was scored above zero; f32[B].
    """
    config = resolve(model_config)
    labels, weight = batch["label"], batch.get("weight")
    logs = {"ce": au_losses.multitask_loss(outputs["unit_logits"], labels).sum(axis=-1)}
    total = logs["ce"]
    scale = outputs.get("contrast_scale", config["contrast_scale"])
    how = config["contrast"]
    if how != "none":
        if how == "global":
            faces, texts = outputs["image_features"], outputs["joined_features"]
            m = au_losses.text_cosines(faces[:, None], texts[None])[None, :, 0]
            how = "diagonal"
        else:
            m = au_losses.similarities(outputs["cosines"], labels)
        logs["contrast"] = au_losses.contrast_loss(m, labels, weight, how=how, scale=scale)
        total += config["alpha"] * logs["contrast"]
        mean = outputs["text_cosines"].mean()
        logs["text_cosine"] = jnp.broadcast_to(mean, total.shape)
    if "share" in outputs:
        logs["gd"] = au_losses.dependency_loss(outputs["share"], labels, config["gd_target"])
        total += config["beta"] * logs["gd"]
        logs["even_share"] = outputs["is_even"]
    return total, logs


def predictions(outputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """What is kept of a clip: `logits` f32[B,N]; `cosines`, `emotion_scores`, `features`,
    `attention` and `share`, as the network gives them, where it does."""
    kept = ("logits", "cosines", "emotion_scores", "features", "attention", "share")
    return {key: outputs[key] for key in kept if key in outputs}
