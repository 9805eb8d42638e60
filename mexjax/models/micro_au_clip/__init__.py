"""Micro-AU CLIP: action units by contrast of image and text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mexjax.models.micro_au_clip import losses, record, start
from mexjax.models.micro_au_clip.network import MicroAUClip, make_network
from mexjax.models.micro_au_clip.options import PRESETS, RANDOM, Options, check_start
from mexjax.models.paper import Paper, ParamPath
from mexjax.nn.clip import IMAGE_MEAN, IMAGE_STD

if TYPE_CHECKING:
    from mexjax.data.dataset import Dataset

__all__ = ["MicroAUClip", "MicroAUClipPaper", "Options"]


class MicroAUClipPaper(Paper):
    """CLIP on images of optical flow, with sentences for each action unit."""

    name = "micro_au_clip"
    presets = PRESETS
    views = ("flow_image",)
    tasks = ("au",)
    loss_numbers = ("alpha", "beta")

    def options(self, model: Mapping[str, Any], dtype: str | None = None) -> Options:
        """See `Paper.options`.

        Raises:
          ConfigError: as there, and if weights are to be kept and there are none.
        """
        options = super().options(model, dtype)
        check_start(options)
        return options

    def network(self, options: Options, classes: Sequence[str]) -> MicroAUClip:
        """See `mexjax.models.micro_au_clip.network.make_network`."""
        return make_network(options, classes)

    def inputs(self, clip: jax.Array, options: Options) -> dict[str, jax.Array]:
        """The image of flow f[B,1,S,S,3] in [-1, 1], as CLIP's towers take images."""
        del options
        mean, std = np.array(IMAGE_MEAN, np.float32), np.array(IMAGE_STD, np.float32)
        return {"image": (0.5 * clip[:, 0] + (0.5 - mean)) / std}

    def loss(
        self,
        outputs: Mapping[str, jax.Array],
        batch: Mapping[str, jax.Array],
        options: Options,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """L = sum_n CE_n + alpha MiAUCL + beta GD, for each clip.

        Args:
          outputs: outputs of the network.
          batch: `label` 0/1 [B,N] and, where the batch is padded, `weight` f32[B].
          options: options of the paper.

        Returns:
          f32[B], and each part that is present, unweighted: `ce`, `contrast`, `gd`; beside them
          `text_cosine`, the mean over units of the cosine between their sentences, and
          `even_share`, the share of clips in which no unit was scored above zero; f32[B].
        """
        labels, weight = batch["label"], batch.get("weight")
        logs = {"ce": losses.multitask_loss(outputs["unit_logits"], labels).sum(axis=-1)}
        total = logs["ce"]
        scale = outputs.get("contrast_scale", options.contrast_scale)
        how = options.contrast
        if how != "none":
            if how == "global":
                faces, texts = outputs["image_features"], outputs["joined_features"]
                m = losses.text_cosines(faces[:, None], texts[None])[None, :, 0]
                how = "diagonal"
            else:
                m = losses.similarities(outputs["cosines"], labels)
            logs["contrast"] = losses.contrast_loss(m, labels, weight, how=how, scale=scale)
            total += options.alpha * logs["contrast"]
            mean = outputs["text_cosines"].mean()
            logs["text_cosine"] = jnp.broadcast_to(mean, total.shape)
        if "share" in outputs:
            logs["gd"] = losses.dependency_loss(outputs["share"], labels, options.gd_target)
            total += options.beta * logs["gd"]
            logs["even_share"] = outputs["is_even"]
        return total, logs

    def predictions(self, outputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """The `logits` f32[B,N] of a clip, and its other outputs that the network gives."""
        names = ("logits", "cosines", "emotion_scores", "features", "attention", "share")
        return {key: outputs[key] for key in names if key in outputs}

    def rate_factor(self, path: ParamPath, options: Options) -> float:
        """`tower_rate` for parameters of both towers, 1 for all others."""
        return options.tower_rate if path[0] in ("image", "text") else 1.0

    def start(self, options: Options) -> dict[str, Any]:
        """The weights of both towers, if there is a checkpoint."""
        return start.start(options)

    def is_frozen(self, path: ParamPath, options: Options) -> bool:
        """See `mexjax.models.micro_au_clip.start.is_frozen`."""
        return start.is_frozen(path, options)

    def may_draw_frozen(self, options: Options) -> bool:
        """True with `weights=random`, which only measures times."""
        return options.weights == RANDOM

    def clip_views(self, options: Options, units: tuple[int, ...]) -> dict[str, dict[str, Any]]:
        """The patches that the landmarks of each action unit lie in."""
        return {"landmark_tokens": {"aus": units, "grid": options.grid}}

    def clip_arrays(
        self, labels: np.ndarray, options: Options, units: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        """See `mexjax.models.micro_au_clip.start.clip_arrays`."""
        return start.clip_arrays(labels, options, units)

    def features(
        self,
        config: ConfigDict,
        dataset: Dataset,
        rows: np.ndarray,
        outputs: Mapping[str, np.ndarray],
    ) -> dict[str, np.ndarray]:
        """See `mexjax.models.micro_au_clip.record.features`."""
        return record.features(config, dataset, rows, outputs)

    def notices(self, config: ConfigDict) -> list[str]:
        """See `mexjax.models.micro_au_clip.start.notices`."""
        return start.notices(self.options(config.model), config)
