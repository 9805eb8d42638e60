"""GAMDSS: rise and fall of an expression through one shared network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import optax

from mexjax.errors import ConfigError
from mexjax.models.gamdss import weights
from mexjax.models.gamdss.network import GAMDSS
from mexjax.models.gamdss.options import PHASES, PRESETS, Options
from mexjax.models.paper import Paper
from mexjax.models.spatio_temporal.unit import key_frames
from mexjax.ops import flow_frames

__all__ = ["GAMDSS", "GAMDSSPaper", "Options"]


class GAMDSSPaper(Paper):
    """One spatio-temporal unit for the rise and for the fall; key frames may be chosen anew."""

    name = "gamdss"
    presets = PRESETS
    weights = weights
    views = ("key_frames",)
    loss_numbers = ("lambda_fall", "label_smoothing")

    def network(self, options: Options, classes: Sequence[str]) -> GAMDSS:
        """The network for K classes."""
        return GAMDSS(options, len(classes))

    def inputs(self, clip: jax.Array, options: Options) -> dict[str, jax.Array]:
        """Names the frames of f32[B,T,H,W,C]: `onset`, `apex`, `offset`.

        With feature flow also `flow_rise` and `flow_fall` f32[B,H,W,3], from the frames after those
        (`mexjax.ops.flow_frames`).

        Raises:
          ConfigError: fewer frames.
        """
        names = key_frames(clip, flow_frames.NUM_IMAGES)
        if options.feature == "flow":
            if clip.shape[1] != flow_frames.num_frames(clip.shape[-1]):
                raise ConfigError(
                    f"model.feature=flow expects {flow_frames.num_frames(clip.shape[-1])} frames of"
                    f" {clip.shape[-1]} channels a clip, flow among them; found {clip.shape}."
                )
            names["flow_rise"], names["flow_fall"] = flow_frames.decode(
                clip[:, flow_frames.NUM_IMAGES :]
            )
        return names

    def loss(
        self,
        outputs: Mapping[str, jax.Array],
        batch: Mapping[str, jax.Array],
        options: Options,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Eq. 12: cross-entropy of the rise and of the fall, for each clip.

        Args:
          outputs: outputs of the network.
          batch: `label` i32[B].
          options: options of the paper.

        Returns:
          f32[B], and each part that is present, unweighted: `ce_rise`, `ce_fall`, f32[B]. A phase
          that is alone has weight 1.
        """
        phases = PHASES[options.phases]
        target = jax.nn.one_hot(batch["label"], outputs["logits"].shape[-1])
        target = optax.smooth_labels(target, options.label_smoothing)
        logs = {
            f"ce_{phase}": optax.softmax_cross_entropy(outputs[f"logits_{phase}"], target)
            for phase in phases
        }
        if len(phases) == 1:
            return logs[f"ce_{phases[0]}"], logs
        return logs["ce_rise"] + options.lambda_fall * logs["ce_fall"], logs

    def follows_frames_with_flow(self, options: Options) -> bool:
        """True if the backbone sees optical flow in the place of differences."""
        return options.feature == "flow"
