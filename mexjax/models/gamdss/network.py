"""GAMDSS: the rise and the fall of a micro-expression through one spatio-temporal unit.

From onset, apex and offset frames the unit U(d, p) = head(motion(d) + place(p)) makes the logits
of the rise, U(apex - onset, onset), and of the fall, U(apex - offset, apex), with the same
weights. Both are trained; the rise decides. The unit is that of TSFmicro's late fusion. The option
`backbone` puts another network in the place of its retention network, and `feature` puts flow in
the place of the differences.

Presets: `paper`, `official` (the released code), `tiny` (64 pixels, a laptop).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mexjax.errors import ConfigError
from mexjax.models.gamdss.backbones import BACKBONES, PooledHead, make_backbone
from mexjax.models.gamdss.options import PHASES, Options
from mexjax.models.spatio_temporal.unit import PlaceBranch, joined, make_parts
from mexjax.nn.mode import Mode


class GAMDSS(nn.Module):
    """The network, for the phases that its options name.

    Attributes:
      options: options of the paper.
      num_classes: K.
    """

    options: Options
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
          logits_rise and logits_fall f32[B,K], where there is such a phase, and logits f32[B,K],
          which decide the class.

        Raises:
          ConfigError: frames that are missing, or of several sizes.
        """
        c = self.options
        phases = PHASES[c.phases]
        pairs = self._pairs(batch)
        mode = Mode.from_batch(batch, train=train)
        unit = self._unit(per_frame=len(phases) > 1)

        if train and len(phases) > 1:
            # One pass over 2B rows does the same as two passes: batch norm keeps the phases apart
            # and makes two updates, rise before fall.
            motion, frame = (
                jnp.stack(both, axis=1).reshape(-1, *both[0].shape[1:])
                for both in zip(*(pairs[phase] for phase in phases), strict=True)
            )
            logits = unit(motion, frame, mode.per_frame(len(phases)))
            logits = logits.reshape(-1, len(phases), self.num_classes)
            outputs = {f"logits_{phase}": logits[:, i] for i, phase in enumerate(phases)}
        else:
            # The phases run apart, so that a compiler drops the one that nobody asks for.
            outputs = {f"logits_{phase}": unit(*pairs[phase], mode) for phase in phases}

        if len(phases) > 1 and c.inference == "mean":
            both = jnp.stack([jax.nn.log_softmax(x) for x in outputs.values()])
            outputs["logits"] = jax.nn.logsumexp(both, axis=0) - jnp.log(len(phases))
        else:
            outputs["logits"] = outputs[f"logits_{phases[0]}"]
        return outputs

    def _unit(self, *, per_frame: bool) -> Callable[[jax.Array, jax.Array, Mode], jax.Array]:
        """U: maps motion f[N,H,W,C], frame f[N,H,W,C] and mode to logits f32[N,K]."""
        c = self.options
        if c.backbone == "rmt":
            parts = make_parts(c, self.num_classes, per_frame=per_frame)

            def unit(motion: jax.Array, frame: jax.Array, mode: Mode) -> jax.Array:
                x = parts.stages(parts.stem(motion, mode), mode)
                return parts.head(joined(x, parts.place(frame, mode)), mode)

            return unit

        dtype = jnp.dtype(c.dtype)
        backbone = make_backbone(
            c.backbone,
            c.backbone_size,
            drop_path_rate=c.backbone_drop_path_rate,
            per_frame=per_frame,
            dtype=dtype,
        )
        place = PlaceBranch(c, backbone.channels[-1], name="place")
        has_norm = BACKBONES[c.backbone].has_head_norm
        head = PooledHead(self.num_classes, has_norm, dtype, name="head")

        def plugged(motion: jax.Array, frame: jax.Array, mode: Mode) -> jax.Array:
            x = backbone(motion, mode)
            return head(x + place(frame, mode, size=x.shape[1]), mode)

        return plugged

    def _pairs(self, batch: Mapping[str, jax.Array]) -> dict[str, tuple[jax.Array, jax.Array]]:
        """The motion of each phase, as the unit sees it, and the frame beside it, f[B,H,W,C]."""
        c = self.options
        phases = PHASES[c.phases]
        names = {"apex"} | ({"onset"} if "rise" in phases else set())
        names |= {"offset", c.fall_place_frame} if "fall" in phases else set()
        if c.feature == "flow":
            names |= {f"flow_{phase}" for phase in phases}
        shapes = {name: batch[name].shape for name in sorted(names & set(batch))}
        is_one_size = len({shape[:3] for shape in shapes.values()}) == 1
        if set(shapes) != names or not is_one_size or batch["apex"].ndim != 4:
            raise ConfigError(
                f"GAMDSS, phases {c.phases!r}, expects {', '.join(sorted(names))} [B,H,W,C] of"
                f" one size; found {shapes}."
            )
        arrays = {name: batch[name].astype(c.dtype) for name in names}
        places = {"rise": "onset", "fall": c.fall_place_frame}
        starts = {"rise": "onset", "fall": "offset"}
        return {
            phase: (
                arrays[f"flow_{phase}"]
                if c.feature == "flow"
                else arrays["apex"] - arrays[starts[phase]],
                arrays[places[phase]],
            )
            for phase in phases
        }
