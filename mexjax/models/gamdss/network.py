"""GAMDSS: the rise and the fall of a micro-expression through one spatio-temporal unit.

From onset, apex and offset frames the unit U(d, p) = head(motion(d) + place(p)) makes the logits
of the rise, U(apex - onset, onset), and of the fall, U(apex - offset, apex), with the same
weights. Both are trained; the rise decides. The unit is that of TSFmicro's late fusion; `backbone`
puts another network in the place of its retention network, and `feature` flow in the place of the
differences.
Presets: `paper`, `official` (the released code), `tiny` (64 pixels, a laptop).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mexjax.errors import ConfigError
from mexjax.models.gamdss.backbones import BACKBONES, PooledHead, make_backbone
from mexjax.models.gamdss.options import PHASES, PRESETS, resolve
from mexjax.models.spatio_temporal.unit import PlaceBranch, key_frames, make_parts
from mexjax.nn.mode import Mode
from mexjax.ops import flow_frames

__all__ = [
    "GAMDSS",
    "PHASES",
    "PRESETS",
    "TASKS",
    "VIEWS",
    "inputs",
    "loss",
    "make",
    "predictions",
    "resolve",
    "targets",
]

VIEWS = ("key_frames",)
TASKS = ("emotion",)


class GAMDSS(nn.Module):
    """The network, for the phases its configuration names.

    Attributes:
      config: every key of a preset, from `resolve`.
      num_classes: K.
    """

    config: Mapping[str, Any]
    num_classes: int

    @nn.compact
    def __call__(self, batch: Mapping[str, jax.Array], *, train: bool) -> dict[str, jax.Array]:
        """Runs on triples of frames.

        Args:
          batch: `onset`, `apex` and `offset` f[B,H,W,C], normalised; optional `weight` f32[B] (0:
            padding) and `is_frozen` bool[]. A phase that is left out does not need its frame. With
            feature flow also `flow_rise` and `flow_fall` f[B,H,W,3].
          train: batch statistics and stochastic depth are on.

        Returns:
          logits_rise and logits_fall f32[B,K], those of the phases that there are, and logits
          f32[B,K], by which the class is told.

        Raises:
          ConfigError: frames that are missing, or of several sizes.
        """
        c = self.config
        phases = PHASES[c["phases"]]
        pairs = self._pairs(batch)
        mode = Mode.from_batch(batch, train=train)
        unit = self._unit(per_frame=len(phases) > 1)

        if train and len(phases) > 1:
            # One pass over 2B rows. Batch norm keeps the phases apart and makes two updates, rise
            # before fall: what two passes would do.
            seen, frame = (
                jnp.stack(both, axis=1).reshape(-1, *both[0].shape[1:])
                for both in zip(*(pairs[phase] for phase in phases), strict=True)
            )
            logits = unit(seen, frame, mode.per_frame(len(phases)))
            logits = logits.reshape(-1, len(phases), self.num_classes)
            outputs = {f"logits_{phase}": logits[:, i] for i, phase in enumerate(phases)}
        else:
            # Apart, so that a compiler drops the phase that nobody asks for.
            outputs = {f"logits_{phase}": unit(*pairs[phase], mode) for phase in phases}

        if len(phases) > 1 and c["inference"] == "mean":
            both = jnp.stack([jax.nn.log_softmax(x) for x in outputs.values()])
            outputs["logits"] = jax.nn.logsumexp(both, axis=0) - jnp.log(len(phases))
        else:
            outputs["logits"] = outputs[f"logits_{phases[0]}"]
        return outputs

    def _unit(self, *, per_frame: bool) -> Callable[[jax.Array, jax.Array, Mode], jax.Array]:
        """U: what is seen of the motion f[N,H,W,C], frame f[N,H,W,C] and mode to f32[N,K]."""
        c = self.config
        if c["backbone"] == "rmt":
            parts = make_parts(c, self.num_classes, per_frame=per_frame)

            def unit(seen: jax.Array, frame: jax.Array, mode: Mode) -> jax.Array:
                x = parts.stages(parts.stem(seen, mode), mode)
                return parts.head(x + parts.place(frame, mode), mode)

            return unit

        dtype = jnp.dtype(c["dtype"])
        backbone = make_backbone(
            c["backbone"],
            c["backbone_size"],
            drop_path_rate=c["backbone_drop_path_rate"],
            per_frame=per_frame,
            dtype=dtype,
        )
        place = PlaceBranch(c, backbone.channels[-1], name="place")
        has_norm = BACKBONES[c["backbone"]].has_head_norm
        head = PooledHead(self.num_classes, has_norm, dtype, name="head")

        def plugged(seen: jax.Array, frame: jax.Array, mode: Mode) -> jax.Array:
            x = backbone(seen, mode)
            return head(x + place(frame, mode, size=x.shape[1]), mode)

        return plugged

    def _pairs(self, batch: Mapping[str, jax.Array]) -> dict[str, tuple[jax.Array, jax.Array]]:
        """What is seen of the motion of each phase, and the frame beside it, f[B,H,W,C] each."""
        c = self.config
        phases = PHASES[c["phases"]]
        names = {"apex"} | ({"onset"} if "rise" in phases else set())
        names |= {"offset", c["fall_place_frame"]} if "fall" in phases else set()
        if c["feature"] == "flow":
            names |= {f"flow_{phase}" for phase in phases}
        found = {name: batch[name].shape for name in sorted(names & set(batch))}
        is_one_size = len({shape[:3] for shape in found.values()}) == 1
        if set(found) != names or not is_one_size or batch["apex"].ndim != 4:
            raise ConfigError(
                f"GAMDSS, phases {c['phases']!r}, expects {', '.join(sorted(names))} [B,H,W,C] of"
                f" one size; found {found}."
            )
        arrays = {name: batch[name].astype(c["dtype"]) for name in names}
        places = {"rise": "onset", "fall": c["fall_place_frame"]}
        starts = {"rise": "onset", "fall": "offset"}
        return {
            phase: (
                arrays[f"flow_{phase}"]
                if c["feature"] == "flow"
                else arrays["apex"] - arrays[starts[phase]],
                arrays[places[phase]],
            )
            for phase in phases
        }


def make(model_config: Mapping[str, Any], *, num_classes: int) -> GAMDSS:
    """The network of a configuration (see `resolve`) for K classes."""
    return GAMDSS(resolve(model_config), num_classes)


def inputs(clip: jax.Array, model_config: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Names the frames of f32[B,T,H,W,C]: `onset`, `apex`, `offset`.

    With feature flow also `flow_rise` and `flow_fall` f32[B,H,W,3], from the frames after those
    (`mexjax.ops.flow_frames`).

    Raises:
      ConfigError: fewer frames.
    """
    names = key_frames(clip, flow_frames.NUM_IMAGES)
    if resolve(model_config)["feature"] == "flow":
        if clip.shape[1] != flow_frames.num_frames(clip.shape[-1]):
            raise ConfigError(
                f"model.feature=flow expects {flow_frames.num_frames(clip.shape[-1])} frames of"
                f" {clip.shape[-1]} channels a clip, flow among them; found {clip.shape}."
            )
        names["flow_rise"], names["flow_fall"] = flow_frames.decode(
            clip[:, flow_frames.NUM_IMAGES :]
        )
    return names


def targets(frames: jax.Array, model_config: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Nothing: the class is all the network is asked for."""
    del frames, model_config
    return {}


def loss(
    outputs: Mapping[str, jax.Array],
    batch: Mapping[str, jax.Array],
    model_config: Mapping[str, Any],
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Eq. 12: cross-entropy of the rise and of the fall, for each clip.

    Args:
      outputs: of the network.
      batch: `label` i32[B].
      model_config: the model's configuration.

    Returns:
      f32[B], and each part that is present, unweighted: `ce_rise`, `ce_fall`, f32[B]. A phase
      that is alone has weight 1.
    """
    config = resolve(model_config)
    phases = PHASES[config["phases"]]
    wanted = jax.nn.one_hot(batch["label"], outputs["logits"].shape[-1])
    wanted = optax.smooth_labels(wanted, config["label_smoothing"])
    logs = {
        f"ce_{phase}": optax.softmax_cross_entropy(outputs[f"logits_{phase}"], wanted)
        for phase in phases
    }
    if len(phases) == 1:
        return logs[f"ce_{phases[0]}"], logs
    return logs["ce_rise"] + config["lambda_fall"] * logs["ce_fall"], logs


def predictions(outputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """What is kept of a clip: logits f32[B,K]."""
    return {"logits": outputs["logits"]}
