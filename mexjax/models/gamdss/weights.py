"""GAMDSS weights under the names of the released code (`BDRT`, `DRT` and `ADRT` are alike)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mexjax.errors import ConfigError
from mexjax.interop import common
from mexjax.models.gamdss.network import GAMDSS
from mexjax.models.gamdss.options import PRESETS, Options
from mexjax.models.options import read_options
from mexjax.models.spatio_temporal import weights as st_unit

_FIRST_KERNEL = "main_branch.patch_embed.proj.0.weight"


def make_entries(variables: Mapping[str, Any]) -> list[common.Entry]:
    """One entry for each array of GAMDSS's variables."""
    return st_unit.make_entries(variables)


def _options(preset: str, config: Mapping[str, Any] | None) -> Options:
    """The options, refused if the released code has no names for the weights of such a network."""
    options = read_options("gamdss", PRESETS, {"preset": preset, **(config or {})})
    if options.backbone != "rmt":
        raise ConfigError(
            f"The names of GAMDSS's weights in PyTorch are those of backbone 'rmt'; found"
            f" {options.backbone!r}, which the released code cannot run. Save checkpoints instead."
        )
    return options


def from_torch(
    state: common.State,
    *,
    preset: str = "official",
    config: Mapping[str, Any] | None = None,
) -> tuple[GAMDSS, dict[str, Any]]:
    """The network and its variables (float32 numpy arrays) that a state dict holds.

    Args:
      state: from `read_state`. Classes and image channels are read off it. Tensors that the
        released class never reads, and its buffers of angles and decays, are ignored.
      preset: name of a preset of `mexjax.models.gamdss.options`.
      config: keys that differ from the preset, for example `{"phases": "rise"}`.

    Raises:
      ConfigError: an unknown preset or key, or a backbone other than the retention network.
      DataError: names or shapes that do not fit; the first of them are named.
    """
    options = _options(preset, config)
    state = common.without_prefix(state, (_FIRST_KERNEL,), "GAMDSS")
    num_classes = common.size_of(state, "main_branch.head.weight", 0, 5)
    module = GAMDSS(options, num_classes)
    channels = common.size_of(state, _FIRST_KERNEL, 1, 3)
    shapes = st_unit.variable_shapes(module, channels=channels)
    width = options.channels[-1]
    ignored = {
        **st_unit.vit_leftovers(width, num_classes),
        **st_unit.relative_position_buffers(options),
    }
    what = f"GAMDSS, preset {preset!r}" + (f" with {dict(config)}" if config else "")
    return module, common.to_variables(make_entries(shapes), st_unit.used(state, ignored), what)


def to_torch(
    variables: Mapping[str, Any],
    *,
    preset: str = "official",
    config: Mapping[str, Any] | None = None,
) -> common.State:
    """The state dict of GAMDSS's variables, under the names of the released class.

    Args:
      variables: variables of the network.
      preset: name of the preset that the network was made with.
      config: keys that differ from the preset.

    Raises:
      ConfigError: an unknown preset or key, or a backbone other than the retention network.
    """
    options = _options(preset, config)
    num_classes = variables["params"]["head"]["classifier"]["bias"].shape[0]
    state = common.to_state(make_entries(variables), variables)
    state |= st_unit.relative_position_buffers(options)
    return state | st_unit.zeros(st_unit.vit_leftovers(options.channels[-1], num_classes))
