"""MobileFaceNet weights in the two public layouts.

    insightface_pytorch   `conv1.conv.weight`, `conv_3.model.0.conv_dw.bn.weight`: the public
                          InsightFace_Pytorch, 512 numbers, width 1. Trained on images in blue,
                          green, red order, as far as its data scripts tell.
    arcface_torch         `layers.3.layers.0.layers.1.layers.1.weight`: InsightFace's `mbf`, width
                          2, red, green, blue.

Both take (x / 255 - 0.5) / 0.5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mexjax.errors import ConfigError, unknown_name
from mexjax.interop import common
from mexjax.nn.mobilefacenet import GROUPS, STAGES, MobileFaceNet

# The renames apply in order to the "/"-joined path of a module, without collection and leaf.
_RENAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "insightface_pytorch": ((r"^(conv_[345])_(\d)(/|$)", r"\1/model/\2\3"),),
    "arcface_torch": (
        (r"^conv_6_sep(/|$)", r"conv_sep/"),
        (r"^conv_6_dw(/|$)", r"features/layers/0/"),
        (r"^linear$", r"features/layers/2"),
        (r"^bn$", r"features/layers/3"),
        *(
            (rf"^{stage}(?:_(\d))?(/|$)", rf"layers/{i}/\1/")
            for i, stage in enumerate(STAGES)
            if stage not in ("conv_3", "conv_4", "conv_5")
        ),
        *(
            (rf"^{stage}_(\d)(/|$)", rf"layers/{STAGES.index(stage)}/layers/\1/")
            for stage in ("conv_3", "conv_4", "conv_5")
        ),
        # First come the three parts of a bottleneck, then convolution, norm and activation of each.
        (r"/conv/(bn|prelu|conv)$", r"/layers/0/\1"),
        (r"/conv_dw/(bn|prelu|conv)$", r"/layers/1/\1"),
        (r"/project/(bn|conv)$", r"/layers/2/\1"),
        (r"/conv$", r"/layers/0"),
        (r"(?<!^)/bn$", r"/layers/1"),
        (r"/prelu$", r"/layers/2"),
        (r"/+", "/"),
    ),
}
LAYOUTS = tuple(_RENAMES)
# The first convolution and the last layer of each layout.
_ENDS = {
    "insightface_pytorch": ("conv1.conv.weight", "linear.weight"),
    "arcface_torch": ("layers.0.layers.0.weight", "features.layers.2.weight"),
}
# One name of each layout that ends no other name of it, so that it tells a prefix.
_ANCHORS = ("conv1.conv.weight", "features.layers.2.weight")


def make_entries(
    variables: Mapping[str, Any], layout: str, *, prefix: str = ""
) -> list[common.Entry]:
    """One entry for each array of MobileFaceNet's variables; names begin with `prefix`."""
    return [_entry(p, s, layout, prefix) for p, s in common.flat_shapes(variables).items()]


def _entry(path: tuple[str, ...], shape: common.Shape, layout: str, prefix: str) -> common.Entry:
    name = "/".join(path[1:-1])
    if path[1:] == ("conv_6_dw", "kernel"):
        name += "/conv"  # here the convolution has no module of its own
    for pattern, new in _RENAMES[layout]:
        name = re.sub(pattern, new, name)
    name = prefix + name.strip("/").replace("/", ".")
    if path[-1] == "slope":
        return common.permuted(path, f"{name}.weight", shape, (0,))
    return common.plain_entry(path, name, shape)


def variable_shapes(module: MobileFaceNet, *, image_size_px: int = 112) -> dict[str, Any]:
    """The variables of `module` for colour images, as shapes; nothing is computed."""
    faces = jnp.zeros((1, image_size_px, image_size_px, 3))
    return jax.eval_shape(lambda: module.init(jax.random.key(0), faces))


def from_torch(
    state: common.State, *, layout: str = "auto", eps: float = 1e-5
) -> tuple[MobileFaceNet, dict[str, Any]]:
    """The network and its variables (float32 numpy arrays) that a state dict holds.

    Args:
      state: result of `read_state`. Width and length of the embedding are read off it.
      layout: one of `LAYOUTS`; `auto` tells by the names.
      eps: epsilon of the batch norms; weights converted from MXNet may want 2e-5.

    Raises:
      ConfigError: an unknown layout.
      DataError: names or shapes that do not fit; the first of them are named.
    """
    state = common.without_prefix(state, _ANCHORS, "MobileFaceNet")
    if layout == "auto":
        is_wide = any(name.startswith("layers.") for name in state)
        layout = "arcface_torch" if is_wide else "insightface_pytorch"
    if layout not in LAYOUTS:
        raise ConfigError(unknown_name("layout of MobileFaceNet weights", layout, LAYOUTS))
    first, linear = _ENDS[layout]
    width = max(common.size_of(state, first, 0, GROUPS) // GROUPS, 1)
    length = common.size_of(state, linear, 0, 512)
    module = MobileFaceNet(emb_dim=length, width=width, eps=eps)
    entries = make_entries(variable_shapes(module), layout)
    return module, common.to_variables(entries, state, f"MobileFaceNet, layout {layout!r}")


def to_torch(variables: Mapping[str, Any], *, layout: str = "insightface_pytorch") -> common.State:
    """The state dict of MobileFaceNet's variables, under the names of a layout.

    Raises:
      ConfigError: an unknown layout.
    """
    if layout not in LAYOUTS:
        raise ConfigError(unknown_name("layout of MobileFaceNet weights", layout, LAYOUTS))
    return common.to_state(make_entries(variables, layout), variables)
