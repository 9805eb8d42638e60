"""AC4AU: action units from what changes in a clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mexjax.models.ac4au import losses
from mexjax.models.ac4au.network import AC4AU
from mexjax.models.ac4au.options import PRESETS, Options
from mexjax.models.ac4au.start import fold_arrays, start
from mexjax.models.paper import Paper, ParamPath

if TYPE_CHECKING:
    from mexjax.data.dataset import Dataset
    from mexjax.protocol.splits import Fold

__all__ = ["AC4AU", "AC4AUPaper", "Options"]


class AC4AUPaper(Paper):
    """Action units and, in training, subjects from frequencies of a clip's features."""

    name = "ac4au"
    presets = PRESETS
    tasks = ("au",)
    training_only = ("subject_prototypes",)
    on_request = ("f_dc", "f_ac", "gates")
    loss_numbers = ("gamma", "focus", "arc_scale")

    def network(self, options: Options, classes: Sequence[str]) -> AC4AU:
        """The network for A action units."""
        return AC4AU(options, len(classes))

    def inputs(self, clip: jax.Array, options: Options) -> dict[str, jax.Array]:
        """The clip f[B,T,H,W,C], red, green, blue, in the backbone's order of colours.

        With `masks_repeated_frames` there is also `is_seen` bool[B,T], which is false from the
        second of equal last frames on.
        """
        batch = {"clip": clip[..., ::-1] if options.channel_order == "bgr" else clip}
        if options.masks_repeated_frames:
            is_same = (clip[:, 1:] == clip[:, :-1]).all(axis=(2, 3, 4))
            is_repeated = jnp.cumprod(is_same[:, ::-1], axis=1)[:, ::-1].astype(bool)
            batch["is_seen"] = jnp.pad(~is_repeated, ((0, 0), (1, 0)), constant_values=True)
        return batch

    def loss(
        self,
        outputs: Mapping[str, jax.Array],
        batch: Mapping[str, jax.Array],
        options: Options,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """L = L_AU + gamma L_DC of each clip (equations 7 and 8), L_AU summed over the units.

        Args:
          outputs: outputs of the network.
          batch: `label` 0/1 i32[B,A], `unit_share` f32[A]; with a subject head `subject` i32[B] and
            `is_training_subject` bool[S].
          options: options of the paper.

        Returns:
          f32[B], and its parts: `au`, and with a subject head `dc`, unweighted, and `subject_acc`.
        """
        c = options
        log_p, log_not_p = outputs["log_p"], outputs["log_not_p"]
        if c.au_loss == "focal":
            terms = losses.focal_terms(
                log_p, log_not_p, batch["label"], batch["unit_share"], focus=c.focus
            )
        else:
            terms = losses.cross_entropy_terms(log_p, log_not_p, batch["label"])
        total = terms.sum(axis=-1)
        logs = {"au": total}
        if "subject_cosines" in outputs:
            cosines, is_class = outputs["subject_cosines"], batch["is_training_subject"]
            logs["dc"] = losses.angular_margin_loss(
                cosines,
                batch["subject"],
                is_class,
                scale=c.arc_scale,
                margin=c.arc_margin,
                mode=c.arc_mode,
            )
            nearest = jnp.where(is_class, cosines, -2.0).argmax(axis=-1)
            logs["subject_acc"] = (nearest == batch["subject"]).astype(jnp.float32)
            total += c.gamma * logs["dc"]
        return total, logs

    def predictions(self, outputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """The recorded outputs of a clip: logits f32[B,A], and those of `on_request` that exist."""
        return {key: outputs[key] for key in ("logits", *self.on_request) if key in outputs}

    def rate_factor(self, path: ParamPath, options: Options) -> float:
        """`backbone_rate` for parameters of the backbone, 1 for all others."""
        return options.backbone_rate if path[0] == "backbone" else 1.0

    def start(self, options: Options) -> dict[str, Any]:
        """See `mexjax.models.ac4au.start.start`: the parameters of the backbone, if any."""
        return start(options, "params")

    def start_statistics(self, options: Options) -> dict[str, Any]:
        """See `mexjax.models.ac4au.start.start`: the batch statistics of the backbone, if any."""
        return start(options, "batch_stats")

    def fold_arrays(
        self, dataset: Dataset, folds: Sequence[Fold], options: Options
    ) -> dict[str, np.ndarray]:
        """See `mexjax.models.ac4au.start.fold_arrays`."""
        return fold_arrays(dataset, folds, options)

    def features(
        self,
        config: ConfigDict,
        dataset: Dataset,
        rows: np.ndarray,
        outputs: Mapping[str, np.ndarray],
    ) -> dict[str, np.ndarray]:
        """`on_request` of each held-out clip, and its name; nothing without them."""
        del config
        return {"clip": np.array(dataset.clip_ids)[rows], **outputs} if outputs else {}
