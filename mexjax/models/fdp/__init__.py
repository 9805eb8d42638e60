"""FDP: micro-expression recognition via fine-grained dynamic perception."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from mexjax.models.fdp import weights
from mexjax.models.fdp.network import FDP
from mexjax.models.fdp.options import PRESETS, Options
from mexjax.models.paper import Paper
from mexjax.ops.rank_pooling import magnitude, rank_pool, scale_to_unit

__all__ = ["FDP", "FDPPaper", "Options"]


class FDPPaper(Paper):
    """Class and dynamic image of a clip at once, from frames that are seen one by one."""

    name = "fdp"
    presets = PRESETS
    weights = weights
    loss_numbers = ("lambda_d", "lambda_r", "rank_slope", "label_smoothing")

    def network(self, options: Options, classes: Sequence[str]) -> FDP:
        """The network for K classes."""
        return FDP(options, len(classes))

    def targets(self, frames: jax.Array, options: Options) -> dict[str, jax.Array]:
        """The image that the network should give: f32[B,M,M] in [0,1], by rank pooling.

        Args:
          frames: f32[B,T,H,W,C] in [0,1], after augmentation and before normalisation.
          options: options of the paper.
        """
        if options.dynamic_image_network == "none":
            return {}
        gray = frames[..., 0]
        if frames.shape[-1] == 3:
            gray = (frames * jnp.array([0.299, 0.587, 0.114])).sum(axis=-1)
        pooled = rank_pool(gray)
        b, h, w = pooled.shape
        size = options.map_size_px
        # Rank pooling is linear: to shrink its one image is the same as to shrink all T frames.
        if (h, w) != (size, size):
            if h % size == 0 and w % size == 0:
                pooled = pooled.reshape(b, size, h // size, size, w // size).mean(axis=(2, 4))
            else:
                pooled = jax.image.resize(pooled, (b, size, size), "linear")
        image = scale_to_unit(pooled, magnitude(gray), quantize=options.quantize_target)
        return {"dynamic_image": image}

    def loss(
        self,
        outputs: Mapping[str, jax.Array],
        batch: Mapping[str, jax.Array],
        options: Options,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """L = L_MER + lambda_d L_DIC + lambda_r L_rank, for each clip.

        L_MER is cross-entropy, L_DIC the mean squared error over the pixels of the dynamic image,
        L_rank the sum over the frames k of |rank_slope * k - score_k|.

        Args:
          outputs: outputs of the network.
          batch: `label` i32[B] and, with a dynamic-image network, `dynamic_image` f32[B,M,M].
          options: options of the paper.

        Returns:
          f32[B], and each part that is present, unweighted: `ce`, `mse`, `rank`, f32[B].
        """
        total = jnp.zeros(batch["label"].shape, jnp.float32)
        logs = {}
        if options.use_mer_head:
            num_classes = outputs["logits"].shape[-1]
            target = jax.nn.one_hot(batch["label"], num_classes)
            target = optax.smooth_labels(target, options.label_smoothing)
            logs["ce"] = optax.softmax_cross_entropy(outputs["logits"], target)
            total += logs["ce"]
        if "dynamic_image" in outputs:
            error = jnp.square(outputs["dynamic_image"] - batch["dynamic_image"])
            logs["mse"] = error.mean(axis=(1, 2))
            total += options.lambda_d * logs["mse"]
        if "rank_scores" in outputs:
            scores = outputs["rank_scores"]
            ranks = options.rank_slope * jnp.arange(scores.shape[1], dtype=jnp.float32)
            logs["rank"] = jnp.abs(ranks - scores).sum(axis=1)
            total += options.lambda_r * logs["rank"]
        return total, logs

    def predictions(self, outputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """The logits f32[B,K] and, if there is one, the dynamic image f32[B,M,M] of a clip."""
        return {key: outputs[key] for key in ("logits", "dynamic_image") if key in outputs}

    def freezes_norms(self, options: Options) -> bool:
        """True in the released code, whose evaluation leaves the network in evaluation mode."""
        return options.freeze_bn_after_epoch_1
