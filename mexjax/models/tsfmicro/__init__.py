"""TSFmicro: onset frame and motion to the apex, fused in one of six ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import optax

from mexjax.models.paper import Paper
from mexjax.models.spatio_temporal.unit import key_frames
from mexjax.models.tsfmicro import weights
from mexjax.models.tsfmicro.network import TSFmicro
from mexjax.models.tsfmicro.options import PRESETS, Options

__all__ = ["Options", "TSFmicro", "TSFmicroPaper"]


class TSFmicroPaper(Paper):
    """A retention network on a difference of frames and a transformer on the onset frame."""

    name = "tsfmicro"
    presets = PRESETS
    weights = weights
    views = ("key_frames",)
    loss_numbers = ("label_smoothing",)

    def network(self, options: Options, classes: Sequence[str]) -> TSFmicro:
        """The network for K classes."""
        return TSFmicro(options, len(classes))

    def inputs(self, clip: jax.Array, options: Options) -> dict[str, jax.Array]:
        """Names the frames of f32[B,T,H,W,C]: `onset`, `apex`. The frames after them are not used.

        Raises:
          ConfigError: fewer than two frames.
        """
        del options
        return key_frames(clip, 2)

    def loss(
        self,
        outputs: Mapping[str, jax.Array],
        batch: Mapping[str, jax.Array],
        options: Options,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Cross-entropy of each clip.

        Args:
          outputs: outputs of the network.
          batch: `label` i32[B].
          options: options of the paper.

        Returns:
          f32[B], and the same as `ce`.
        """
        smoothing = options.label_smoothing
        target = jax.nn.one_hot(batch["label"], outputs["logits"].shape[-1])
        target = optax.smooth_labels(target, smoothing)
        entropy = optax.softmax_cross_entropy(outputs["logits"], target)
        return entropy, {"ce": entropy}
