"""Rows of the dataset as the batches that a network takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mexjax.models.paper import Paper
from mexjax.ops import flow_frames
from mexjax.train import augment

Data = Mapping[str, Any]
Batch = dict[str, jax.Array]
# Rows of the dataset, i[B]: an array of JAX in a program, of NumPy on the host.
Rows = jax.Array | np.ndarray


def gather(data: Data, idx: Rows, *, train: bool = False) -> jax.Array:
    """The clips idx i[B] as f32[B,T,H,W,C] in [0, 1]; with `train` as training sees them."""
    clips = data.get("train_clips", data["clips"]) if train else data["clips"]
    return clips[idx].astype(jnp.float32) / 255.0


def entries(arrays: Mapping[str, jax.Array], idx: Rows) -> Batch:
    """The rows idx i[B] of arrays [N, ...]."""
    return {name: array[idx] for name, array in arrays.items()}


def is_prepared(data: Data) -> bool:
    """True if the frozen part of the network was computed before (`mexjax.train.frozen`)."""
    return "per_clip" in data.get("frozen", {})


def prepared_batch(data: Data, idx: Rows) -> Batch:
    """The input of the network for the clips idx i[B] whose frozen part was computed before."""
    shared = data["frozen"]
    arrays = data.get("views", {}) | shared["per_clip"]
    return {**entries(arrays, idx), **shared["constant"]}


@dataclasses.dataclass(frozen=True)
class BatchMaker:
    """The way from frames of clips to the input of one paper's network.

    Attributes:
      config: the whole configuration.
      paper: the paper.
      options: options of the paper.
      strengths: see `values` of `mexjax.train.augment.augment`.
    """

    config: ConfigDict
    paper: Paper
    options: Any
    strengths: Mapping[str, jax.Array] | None = None

    @property
    def has_flow(self) -> bool:
        """True if flow follows the key frames of a clip (`mexjax.ops.flow_frames`)."""
        return self.paper.follows_frames_with_flow(self.options)

    def mirror(self, frames: jax.Array) -> jax.Array:
        """The frames f32[B,T,H,W,C] of clips, flipped from left to right."""
        return (flow_frames.mirror if self.has_flow else augment.mirror)(frames)

    def plain_frames(self, data: Data, idx: Rows) -> jax.Array:
        """The frames f32[B,T,H,W,C] of clips as evaluation sees them."""
        return augment.center_crop(gather(data, idx), self.config.augment)

    def augmented_frames(self, data: Data, idx: Rows, key: jax.Array) -> jax.Array:
        """The frames f32[B,T,H,W,C] of clips as a training step sees them."""
        num_images = flow_frames.NUM_IMAGES if self.has_flow else None
        frames = gather(data, idx, train=True)
        return augment.augment(
            frames, key, self.config.augment, self.mirror, num_images, self.strengths
        )

    def batch(
        self, data: Data, frames: jax.Array, idx: Rows, scale: jax.Array | None = None
    ) -> Batch:
        """The input of the network.

        Args:
          data: the dataset, see `mexjax.data.dataset.Dataset.on_host`.
          frames: f32[B,T,H,W,C] in [0, 1], augmented or cropped.
          idx: i[B], their rows in the dataset.
          scale: f32[2], mean and maximum of a split, used if `data.split_scale` asks for it.
        """
        if self.config.data.split_scale == "none":
            scale = None
        images = frames[:, : flow_frames.NUM_IMAGES] if self.has_flow else frames
        clip = augment.normalise(images, self.config.data.center, scale=scale)
        if self.has_flow:  # flow is not an image
            clip = jnp.concatenate([clip, frames[:, flow_frames.NUM_IMAGES :]], axis=1)
        return self.paper.inputs(clip, self.options) | entries(data.get("views", {}), idx)

    def plain_batch(self, data: Data, idx: Rows) -> Batch:
        """The input of the network for clips as evaluation sees them, without `scale`."""
        return self.batch(data, self.plain_frames(data, idx), idx)
