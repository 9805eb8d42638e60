"""Weights of the learned motion magnifier under the names of its two PyTorch ports.

`magnet_epoch12_loss7.28e-02.pth` of ZhengPeng7/motion_magnification_learning-based is a plain state
dict, `epoch50.tar` of the postech port a file of PyTorch that holds one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mexjax.errors import DataError, beginning, listed
from mexjax.interop import common
from mexjax.nn.magnet import LAYOUTS, MagNet

# Module here -> module there; the name of blocks is the part before their number.
_ZHENGPENG = {
    "encoder_1": "encoder.cba_1",
    "encoder_2": "encoder.cba_2",
    "encoder_blocks": "encoder.resblks",
    "texture_conv": "encoder.texture_cba",
    "texture_blocks": "encoder.texture_resblks",
    "motion_conv": "encoder.motion_cba",
    "motion_blocks": "encoder.motion_resblks",
    "gain_conv": "manipulator.g",
    "change_conv": "manipulator.h_conv",
    "decoder_blocks": "decoder.resblks",
    "decoder_1": "decoder.cba_1",
    "decoder_2": "decoder.cba_2",
}
_POSTECH = {
    "encoder_1": "encoder.res_encoder.conv1",
    "encoder_2": "encoder.res_encoder.conv2",
    "encoder_blocks": "encoder.res_encoder.residual",
    "texture_conv": "encoder.conv_tex",
    "texture_blocks": "encoder.texture_resblk",
    "motion_conv": "encoder.conv_sha",
    "motion_blocks": "encoder.shape_resblk",
    "gain_conv": "res_manipulator.conv1",
    "change_conv": "res_manipulator.conv2",
    "change_blocks": "res_manipulator.residual",
    "texture_up_conv": "decoder.conv_tex_aft_upsample",
    "decoder_blocks": "decoder.res_decoder.residual",
    "up_conv": "decoder.res_decoder.conv_up_sample",
    "decoder_1": "decoder.res_decoder.conv1",
    "decoder_2": "decoder.res_decoder.conv2",
}
# One name of each port, which tells it below any prefix.
_ANCHORS = ("encoder.cba_1.conv2d.weight", "encoder.res_encoder.conv1.weight")


def _module_name(path: tuple[str, ...], layout: str) -> str:
    """The convolution of a path without its collection, leaf and `conv`."""
    module, *inside = path
    if layout == "postech":
        if not inside:
            return _POSTECH[module]
        step, number = inside[0].split("_")
        return f"{_POSTECH[module]}.{number}.conv{1 if step == 'first' else 2}"
    if not inside:
        return f"{_ZHENGPENG[module]}.conv2d"
    step, number = inside[0].split("_")
    # The one block of the manipulator has no number.
    block = (
        "manipulator.h_resblk" if module == "change_blocks" else f"{_ZHENGPENG[module]}.{number}"
    )
    return f"{block}.cba_{1 if step == 'first' else 2}.conv2d"


def make_entries(variables: Mapping[str, Any], layout: str) -> list[common.Entry]:
    """One entry for each array of the variables of a `MagNet`."""
    return [
        common.plain_entry(path, _module_name(path[1:-2], layout), shape)
        for path, shape in common.flat_shapes(variables).items()
    ]


def variable_shapes(module: MagNet) -> dict[str, Any]:
    """The variables of `module` as shapes; nothing is computed."""
    frame = jnp.zeros((1, 16, 16, 3))
    return jax.eval_shape(lambda: module.init(jax.random.key(0), frame, frame, jnp.ones(())))


def from_torch(state: common.State) -> tuple[MagNet, dict[str, Any]]:
    """The network and its variables (float32 numpy arrays) that a state dict holds.

    Args:
      state: result of `read_state`; the layout is read off its names.

    Raises:
      DataError: names of neither port, or names or shapes that do not fit.
    """
    state = common.without_prefix(state, _ANCHORS, "MagNet")
    first = {"zhengpeng": r"encoder\.cba_1\.", "postech": r"encoder\.res_encoder\."}
    for layout, pattern in first.items():
        if any(re.match(pattern, name) for name in state):
            module = MagNet(layout)
            entries = make_entries(variable_shapes(module), layout)
            return module, common.to_variables(entries, state, f"MagNet, layout {layout!r}")
    names = listed([beginning(name) for name in sorted(state)])
    raise DataError(
        f"No MagNet of a known port ({', '.join(LAYOUTS)}): expected names like"
        f" encoder.cba_1.conv2d.weight or encoder.res_encoder.conv1.weight; found {names}."
    )


def to_torch(variables: Mapping[str, Any], *, layout: str = "zhengpeng") -> common.State:
    """The state dict of a MagNet's variables under the names of a port."""
    return common.to_state(make_entries(variables, layout), variables)
