"""Rows of the dataset as the batches that a network takes."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mexjax.ops import flow_frames
from mexjax.train import augment

Data = Mapping[str, Any]


def gather(data: Data, idx: jax.Array, *, train: bool = False) -> jax.Array:
    """The clips idx i[B] as f32[B,T,H,W,C] in [0, 1]; as training sees them if `train`."""
    clips = data.get("train_clips", data["clips"]) if train else data["clips"]
    return clips[idx].astype(jnp.float32) / 255.0


def has_flow(config: ConfigDict) -> bool:
    """Whether flow follows the key frames of a clip (`mexjax.ops.flow_frames`)."""
    return config.model.get("feature", "difference") == "flow"


def network_batch(
    config: ConfigDict,
    paper: ModuleType,
    data: Data,
    frames: jax.Array,
    idx: jax.Array,
    scale: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """What the network takes of frames f32[B,T,H,W,C] and of the other views of their clips.

    Args:
      config: the whole configuration.
      paper: the file of the model.
      data: the dataset, see `mexjax.data.dataset.Dataset.on_host`.
      frames: in [0, 1], augmented or cropped.
      idx: i[B], their rows in the dataset.
      scale: f32[2], mean and maximum of a split, see `mexjax.train.augment.normalise`.
    """
    images = frames[:, : flow_frames.NUM_IMAGES] if has_flow(config) else frames
    clip = augment.normalise(images, config.data.center, scale=scale)
    if has_flow(config):  # which is not an image
        clip = jnp.concatenate([clip, frames[:, flow_frames.NUM_IMAGES :]], axis=1)
    return paper.inputs(clip, config.model) | clip_entries(data.get("views", {}), idx)


def clip_entries(arrays: Mapping[str, jax.Array], idx: jax.Array) -> dict[str, jax.Array]:
    """The rows idx i[B] of arrays [N, ...]."""
    return {name: array[idx] for name, array in arrays.items()}


def prepared_batch(data: Data, idx: jax.Array) -> dict[str, jax.Array]:
    """What the network takes of the clips idx i[B] where its frozen part was computed before."""
    shared = data["frozen"]
    arrays = data.get("views", {}) | shared["per_clip"]
    return {**clip_entries(arrays, idx), **shared["constant"]}
