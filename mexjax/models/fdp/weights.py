"""FDP weights under the names of the released code (CYF-cuber/FDP, `fdp.py`).

Layers that the released network lacks (attention, skips, rank scorer, other backbones) get the
names they would have there: Next-ViT's for the aggregators, torchvision's and timm's for the
others.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mexjax.interop import common
from mexjax.models.fdp.network import FDP
from mexjax.models.fdp.options import PRESETS
from mexjax.models.options import read_options

# These are applied in order to the "/"-joined path of a module.
_RENAMES = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        (r"^frame_network/resnet18/head$", "frame_rep/fc"),
        (r"^frame_network/(resnet18|vit_base)", "frame_rep"),
        (r"^frame_network/head$", "frame_rep/proj_head/0"),
        (r"^frame_network", "frame_rep"),
        (r"^dynamic_image_network", "dyimg_net"),
        (r"^volume_conv", "mer/conv3d"),
        (r"^mer_fc", "mer/fc"),
        # The names of ResNet-18 are torchvision's.
        (r"/stem_conv$", "/conv1"),
        (r"/stem_norm$", "/bn1"),
        (r"/stage_(\d)_block_(\d)/", lambda m: f"/layer{int(m[1]) + 1}/{m[2]}/"),
        (r"/first_conv$", "/conv1"),
        (r"/first_norm$", "/bn1"),
        (r"/second_conv$", "/conv2"),
        (r"/second_norm$", "/bn2"),
        (r"/skip_conv$", "/downsample/0"),
        (r"/skip_norm$", "/downsample/1"),
        # The names of the vision transformer are timm's.
        (r"/block_(\d+)/attention/", r"/blocks/\1/attn/"),
        (r"/block_(\d+)/fc", r"/blocks/\1/mlp/fc"),
        (r"/block_(\d+)/", r"/blocks/\1/"),
        # The names of aggregators are Next-ViT's.
        (r"/(stem|features)_(\d+)", r"/\1/\2"),
        (r"mhca/spatial$", "mhca/group_conv3x3"),
        (r"(^|/)attention(/|$)", r"\1e_mhsa\2"),
    )
)


_FIRST_KERNELS = (
    "frame_rep.stem.0.conv.weight",
    "frame_rep.conv1.weight",
    "frame_rep.patch_embed.proj.weight",
)
_CLASSIFIER = "mer.fc2.weight"


def module_name(path: tuple[str, ...]) -> str:
    """The PyTorch name of the module at `path`, without collection and leaf."""
    name = "/".join(path)
    for pattern, new in _RENAMES:
        name = pattern.sub(new, name)
    return name.replace("/", ".")


def make_entries(variables: Mapping[str, Any]) -> list[common.Entry]:
    """One entry for each array of FDP's variables, or of one of its blocks."""
    shapes = common.flat_shapes(variables)
    return [_entry(path, shape, shapes) for path, shape in shapes.items()]


def _entry(
    path: tuple[str, ...],
    shape: common.Shape,
    shapes: Mapping[tuple[str, ...], common.Shape],
) -> common.Entry:
    name, module = module_name(path[1:-1]), path[-2]
    if path == ("params", "volume_conv", "kernel"):
        # f[3,3,T,O] <-> f[O,1,3,3,T]: time is the depth of the published 3-D convolution.
        kh, kw, depth, out = shape
        return common.Entry(
            path,
            (f"{name}.weight",),
            ((out, 1, kh, kw, depth),),
            lambda a: a[0][:, 0].transpose(1, 2, 3, 0),
            lambda a: [a.transpose(3, 0, 1, 2)[:, None]],
        )
    if path == ("params", "mer_fc1", "kernel"):
        # Channels are the slowest index of the rows in the released code, and the fastest here.
        channels = shapes["params", "volume_conv", "kernel"][-1]
        rows, out = shape
        return common.Entry(
            path,
            (f"{name}.weight",),
            ((out, rows),),
            lambda a: a[0].reshape(out, channels, -1).transpose(2, 1, 0).reshape(rows, out),
            lambda a: [a.reshape(-1, channels, out).transpose(2, 1, 0).reshape(out, rows)],
        )
    if path[-1] in ("qkv_kernel", "qkv_bias"):
        kind = "weight" if path[-1] == "qkv_kernel" else "bias"
        width = shape[0] if kind == "weight" else shape[0] // 3
        return common.Entry(
            path,
            tuple(f"{name}.{letter}.{kind}" for letter in "qkv"),
            (((width, width) if kind == "weight" else (width,)),) * 3,
            lambda a: np.concatenate(a, axis=0).T,
            lambda a: np.split(a.T, 3, axis=0),
        )
    if module.endswith("_deconv") and path[-1] == "kernel":
        return common.permuted(path, f"{name}.weight", shape, (2, 3, 0, 1))
    if path == ("params", "rank_scorer"):
        return common.Entry(
            path, ("rank_scorer.weight",), ((1, *shape),), lambda a: a[0][0], lambda a: [a[None]]
        )
    if path[-1] in ("cls_token", "pos_embed"):
        return common.permuted(path, f"{name}.{path[-1]}", shape, range(len(shape)))
    if path[-1] in ("patch_kernel", "patch_bias"):
        leaf = path[-1].removeprefix("patch_")
        entry = common.plain_entry((*path[:-1], leaf), f"{name}.patch_embed.proj", shape)
        return dataclasses.replace(entry, path=path)
    return common.plain_entry(path, name, shape)


def variable_shapes(
    module: FDP, *, channels: int = 1, image_size_px: int = 64, num_frames: int = 8
) -> dict[str, Any]:
    """The variables of `module` as shapes; nothing is computed."""
    clip = jnp.zeros((1, num_frames, image_size_px, image_size_px, channels))
    key = jax.random.key(0)
    return jax.eval_shape(lambda: module.init(key, {"clip": clip}, train=False))


def from_torch(
    state: common.State,
    *,
    preset: str = "official",
    config: Mapping[str, Any] | None = None,
    image_size_px: int = 64,
) -> tuple[FDP, dict[str, Any]]:
    """The network and its variables (float32 numpy arrays) that a state dict holds.

    Args:
      state: from `read_state`. Classes, frames and image channels are read off it.
      preset: name of a preset of `mexjax.models.fdp.options`.
      config: keys that differ from the preset.
      image_size_px: side of the frames; only a head that keeps places and positions need it.

    Raises:
      DataError: names or shapes that do not fit; the first of them are named.
    """
    state = common.without_prefix(state, (*_FIRST_KERNELS, _CLASSIFIER), "FDP")
    num_classes = common.size_of(state, _CLASSIFIER, 0, 5)
    options = read_options("fdp", PRESETS, {"preset": preset, **(config or {})})
    module = FDP(options, num_classes)
    first = next((n for n in _FIRST_KERNELS if n in state), "")
    pixels = options.stem_patch_px**2 if options.backbone == "lgf" else 1
    shapes = variable_shapes(
        module,
        channels=max(common.size_of(state, first, 1, pixels) // pixels, 1),
        image_size_px=image_size_px,
        num_frames=common.size_of(state, "mer.conv3d.weight", -1, 8),
    )
    what = f"FDP, preset {preset!r}" + (f" with {dict(config)}" if config else "")
    return module, common.to_variables(make_entries(shapes), state, what)


def to_torch(variables: Mapping[str, Any]) -> common.State:
    """The state dict of FDP's variables, under the names and in the layout of the released code."""
    return common.to_state(make_entries(variables), variables)
