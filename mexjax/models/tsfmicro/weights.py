"""TSFmicro weights under the names of the released code, one class for each way of fusion.

| fusion | released class    | beside the plain names                                          |
|--------|-------------------|-----------------------------------------------------------------|
| late   | `ts_micro`        |                                                                 |
| early  | `ts_fusion`       | `ConvStem_T` sees the onset and `ConvStem_S` the difference;     |
|        |                   | `main_branch.patch_embed` is not used                           |
| t_to_s | `TS_micro_after`  | the head is at the top level; that of `main_branch` is not used |
| s_to_t | `TS_micro_before` | `transposed_conv1` ... `transposed_conv3`                       |
| s_only | `fusion_TS_micro` | the head is at the top level                                    |

For `t_only` there is no released class: its names are those of late fusion without `vit_pos`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mexjax.errors import ConfigError, unknown_name
from mexjax.interop import common
from mexjax.models.options import read_options
from mexjax.models.spatio_temporal import weights as st_unit
from mexjax.models.tsfmicro.network import TSFmicro
from mexjax.models.tsfmicro.options import FUSIONS, PRESETS, Options

_TOP_HEAD = {f"main_branch.{part}": part for part in ("proj", "norm", "head")}
_RENAMES: dict[str, dict[str, str]] = {
    "late": {},
    "early": {"onset_stem": "ConvStem_T", "main_branch.patch_embed": "ConvStem_S"},
    "t_to_s": _TOP_HEAD,
    "s_to_t": {f"up_{i}": f"transposed_conv{i + 1}" for i in range(8)},
    "s_only": _TOP_HEAD,
    "t_only": {},
}
# The first convolution of each fusion, where it is not that of the main branch.
_FIRST_KERNELS = {
    "early": "ConvStem_T.proj.0.weight",
    "s_only": "vit_pos.patch_embed.proj.weight",
}


def make_entries(variables: Mapping[str, Any], fusion: str) -> list[common.Entry]:
    """One entry for each array of the variables of a TSFmicro with this fusion."""
    return st_unit.make_entries(variables, _RENAMES[fusion])


def leftovers(options: Options, num_classes: int) -> dict[str, common.Shape]:
    """Names and shapes of the tensors that the released class of a fusion never reads."""
    fusion, width = options.fusion, options.channels[-1]
    names: dict[str, common.Shape] = {}
    if fusion not in ("early", "t_only"):
        names |= st_unit.vit_leftovers(width, num_classes)
    if fusion == "early":
        before = 3
        for i, channels in enumerate(options.stem_channels):
            prefix = "main_branch.patch_embed.proj"
            names[f"{prefix}.{3 * i}.weight"] = (channels, before, 3, 3)
            names[f"{prefix}.{3 * i}.bias"] = (channels,)
            for leaf in ("weight", "bias", "running_mean", "running_var"):
                names[f"{prefix}.{3 * i + 1}.{leaf}"] = (channels,)
            before = channels
    if fusion == "t_to_s":
        hidden = options.head_width
        names |= {
            "main_branch.proj.weight": (hidden, width),
            "main_branch.proj.bias": (hidden,),
            "main_branch.head.weight": (num_classes, hidden),
            "main_branch.head.bias": (num_classes,),
        }
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            names[f"main_branch.norm.{leaf}"] = (width,)
    return names


def from_torch(
    state: common.State,
    *,
    fusion: str = "late",
    preset: str = "official",
    config: Mapping[str, Any] | None = None,
) -> tuple[TSFmicro, dict[str, Any]]:
    """The network and its variables (float32 numpy arrays) that a state dict holds.

    Args:
      state: from `read_state`. Classes and image channels are read off it. Tensors that the
        released class never reads, and its buffers of angles and decays, are ignored.
      fusion: one of `FUSIONS`.
      preset: name of a preset of `mexjax.models.tsfmicro.options`.
      config: keys that differ from the preset.

    Raises:
      ConfigError: an unknown fusion, preset or key.
      DataError: names or shapes that do not fit; the first of them are named.
    """
    if fusion not in FUSIONS:
        raise ConfigError(unknown_name("fusion of tsfmicro", fusion, FUSIONS))
    first = _FIRST_KERNELS.get(fusion, "main_branch.patch_embed.proj.0.weight")
    state = common.without_prefix(state, (first,), "TSFmicro")
    head = "head" if fusion in ("t_to_s", "s_only") else "main_branch.head"
    num_classes = common.size_of(state, f"{head}.weight", 0, 5)
    keys = {"preset": preset, **(config or {}), "fusion": fusion}
    options = read_options("tsfmicro", PRESETS, keys)
    module = TSFmicro(options, num_classes)
    shapes = st_unit.variable_shapes(module, channels=common.size_of(state, first, 1, 3))
    ignored = {
        **leftovers(options, num_classes),
        **st_unit.relative_position_buffers(options),
    }
    what = f"TSFmicro, fusion {fusion!r}, preset {preset!r}"
    what += f" with {dict(config)}" if config else ""
    entries = make_entries(shapes, fusion)
    return module, common.to_variables(entries, st_unit.used(state, ignored), what)


def to_torch(
    variables: Mapping[str, Any],
    *,
    fusion: str = "late",
    preset: str = "official",
    config: Mapping[str, Any] | None = None,
) -> common.State:
    """The state dict of TSFmicro's variables, under the names of the released class.

    Args:
      variables: variables of the network.
      fusion: one of `FUSIONS`.
      preset: name of the preset that the network was made with.
      config: keys that differ from the preset.

    Raises:
      ConfigError: an unknown fusion, preset or key.
    """
    keys = {"preset": preset, **(config or {}), "fusion": fusion}
    options = read_options("tsfmicro", PRESETS, keys)
    num_classes = variables["params"]["head"]["classifier"]["bias"].shape[0]
    state = common.to_state(make_entries(variables, fusion), variables)
    if fusion != "s_only":
        state |= st_unit.relative_position_buffers(options)
    return state | st_unit.zeros(leftovers(options, num_classes))
