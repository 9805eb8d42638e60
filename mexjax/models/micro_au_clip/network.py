"""Micro-AU CLIP: action units of micro-expressions by CLIP on images of optical flow.

The tokens in which an action unit's landmarks lie become a feature of the unit (LSI); attention
among units weighs the state of the whole face (GSD); each unit's feature is classified, and
pulled towards the one of two sentences that describes it. Emotions are then read off the cosines
with those sentences, without an emotion label in training (Eq. 13).

Presets: `paper` and `paper_samm` need the weights of a CLIP; `tiny` trains small towers from
nothing. Every choice that the paper leaves open is an option (`options.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mexjax.data.landmark_tokens import AU_LANDMARKS
from mexjax.errors import ConfigError
from mexjax.models.micro_au_clip import losses as au_losses
from mexjax.models.micro_au_clip.attention import UnitFeatures, UnitMlp, token_slots
from mexjax.models.micro_au_clip.options import Options
from mexjax.models.micro_au_clip.start import (
    Texts,
    combination_members,
    make_texts,
    make_towers,
)
from mexjax.nn.clip import ClipSize, ImageTower, TextTower
from mexjax.nn.layers import Dropout
from mexjax.nn.mode import Mode


class _Scalar(nn.Module):
    """One learnt number; as a module of its own it exists only in networks that use it."""

    start: float

    @nn.compact
    def __call__(self) -> jax.Array:
        return self.param("value", nn.initializers.constant(self.start), ())


class MicroAUClip(nn.Module):
    """The network.

    Attributes:
      options: options of the paper.
      units: numbers of the N action units.
      texts: their sentences.
      size: sizes of the towers.
      activation: activation of the towers.
    """

    options: Options
    units: tuple[int, ...]
    texts: Texts
    size: ClipSize
    activation: str

    def setup(self) -> None:
        """Makes the towers, the features of units, their heads and the optional layers."""
        c = self.options
        dtype = jnp.dtype(c.dtype)
        self.image = ImageTower(self.size, self.activation, dtype)
        self.text = TextTower(self.size, self.activation, dtype)
        self.unit_features = UnitFeatures(c, len(self.units))
        self.heads = UnitMlp(c.head_width, 2)
        self.dropout = Dropout(c.dropout_rate)
        if c.token_space == "width":
            init = nn.initializers.normal(self.size.image.width**-0.5)
            self.to_joint = nn.Dense(
                self.size.embed_width, use_bias=False, dtype=dtype, kernel_init=init
            )
        if c.is_contrast_scale_learnt:
            self.log_scale = _Scalar(float(np.log(c.contrast_scale)))

    def frozen_part(self, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """The outputs of the frozen blocks for clips: entries that stand for those of `batch`.

        Args:
          batch: `image` f[B,S,S,3], normalised; with the global contrast `joined_ids` i32[B,L].

        Returns:
          `image_tokens` f[B,1+G*G,C] after the frozen blocks, and `joined_tokens` f[B,L,C].
        """
        first = self.options.trainable_from
        outputs = {"image_tokens": self.image.first(batch["image"], first)}
        if "joined_ids" in batch:
            outputs["joined_tokens"] = self.text.first(batch["joined_ids"], self._text_from)
        return outputs

    def frozen_constants(self) -> dict[str, jax.Array]:
        """The outputs of the frozen blocks for texts: `unit_tokens` and `sentence_tokens`."""
        if self.options.contrast == "none":
            return {}
        return {
            f"{name}_tokens": self.text.first(jnp.array(ids, jnp.int32), self._text_from)
            for name, ids in (("unit", self.texts.units), ("sentence", self.texts.sentences))
            if ids
        }

    @property
    def _text_from(self) -> int:
        c = self.options
        return c.trainable_from if c.train_text else self.size.text.depth

    def __call__(self, batch: Mapping[str, jax.Array], *, train: bool) -> dict[str, jax.Array]:
        """Runs on images of flow, or on the outputs of the frozen part for them.

        Args:
          batch: `image` f[B,S,S,3], normalised, or the entries of `frozen_part` and
            `frozen_constants`; `landmark_tokens` i32[B,N,6], patches of each unit's landmarks,
            counted from 0 without the class token; optional `joined_ids` and `weight` f32[B].
          train: dropout is on.

        Returns:
          logits f32[B,N], above 0: active; unit_logits f32[B,N,2]; features F_V f[B,N,d]; cosines
          f32[B,N,2] with both sentences, and text_cosines f32[N] between them, unless there is no
          contrast; emotion_scores f32[B,R], see `combination_emotions`; the outputs of
          `UnitFeatures`; with the global contrast image_features and joined_features f[B,E].
        """
        c = self.options
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
        if c.is_contrast_scale_learnt:
            outputs["contrast_scale"] = jnp.exp(self.log_scale())
        compared = self.to_joint(features) if c.token_space == "width" else features
        texts = self._encoded(batch["unit_tokens"], self.texts.units)
        texts = texts.reshape(len(self.units), 2, -1)
        outputs["cosines"] = au_losses.text_cosines(compared, texts)
        outputs["text_cosines"] = au_losses.text_cosines(texts[None, :, 0], texts)[0, :, 1]
        if c.contrast == "global":
            assert class_token is not None
            if c.token_space == "width":
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
        """The inputs of `UnitFeatures`, and the class token f[B,d] where something asks for it."""
        c = self.options
        slots, index, mask = token_slots(self.units)
        places = batch["landmark_tokens"]
        if places.shape[1:] != index.shape:
            raise ConfigError(
                f"Micro-AU CLIP with {len(self.units)} action units takes landmark_tokens"
                f" [B, {index.shape[0]}, {index.shape[1]}]; found {places.shape}."
            )
        # The last block computes only the tokens that something asks for.
        queries = []
        if c.branches != "global":
            # Patches count from 0, and tokens have the class token before them.
            queries.append(places[:, slots[:, 0], slots[:, 1]].astype(jnp.int32) + 1)
        if "global" in (c.branches, c.contrast):
            queries.append(jnp.zeros((len(places), 1), jnp.int32))
        x = self.image.rest(
            batch["image_tokens"], c.trainable_from, jnp.concatenate(queries, axis=1)
        )
        x = self.image.norm(x)
        if c.token_space == "joint":
            x = self.image.project(x)
        if c.branches == "global":
            return x[:, 0], None, x[:, 0]
        # A one-hot product instead of a gather: its gradient is a product too, not a slow scatter.
        pick = jnp.asarray(np.eye(len(slots))[index], x.dtype)  # (N, J, Q)
        tokens = jnp.einsum(
            "njq,bqd->bnjd", pick, x[:, : len(slots)], precision=jax.lax.Precision.HIGHEST
        )
        return tokens, mask, x[:, -1] if len(queries) > 1 else None

    def _encoded(self, tokens: jax.Array, ids: tuple[tuple[int, ...], ...]) -> jax.Array:
        return self.text.rest(tokens, jnp.array(ids, jnp.int32), self._text_from)


def make_network(options: Options, classes: Sequence[str]) -> MicroAUClip:
    """The network for the action units of a protocol.

    Args:
      options: options of the paper.
      classes: names of the N action units, for example "AU12".

    Raises:
      ConfigError: units that the paper gives no landmarks for.
      DataError: weights or sentences that cannot be read.
    """
    names = {f"AU{number}": number for number in AU_LANDMARKS}
    if not classes or any(name not in names for name in classes):
        raise ConfigError(
            f"Micro-AU CLIP needs action units among {', '.join(names)}; found"
            f" {', '.join(classes) or 'none'}. Set protocol.units, for example to micro_au_casme2"
            " or micro_au_samm."
        )
    units = tuple(names[name] for name in classes)
    texts, vocabulary = make_texts(options, units)
    size, activation = make_towers(options, vocabulary)
    depth = min(size.image.depth, size.text.depth)
    if not 0 <= options.trainable_from <= depth:
        raise ConfigError(
            f"model.trainable_from must be 0 to {depth}, the blocks of a tower; found"
            f" {options.trainable_from}."
        )
    return MicroAUClip(options, units, texts, size, activation)
