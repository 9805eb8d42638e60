"""Weights of the spatio-temporal unit under the names of the released TSFmicro and GAMDSS code.

The released classes also hold tensors that no forward pass reads. They are ignored when weights
come in and are zeros when weights go out.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mexjax.interop import common
from mexjax.models.spatio_temporal.options import UnitOptions
from mexjax.ops import retention_tables

# These are applied in order to the "/"-joined path of a module.
_RENAMES: tuple[tuple[str, str | Callable[[re.Match], str]], ...] = (
    (r"^place/vit", "vit_pos"),
    (r"^vit_pos/embed$", "vit_pos/patch_embed/proj"),
    (r"^vit_pos/block_(\d+)/attention/", r"vit_pos/blocks/\1/attn/"),
    (r"^vit_pos/block_(\d+)/fc", r"vit_pos/blocks/\1/mlp/fc"),
    (r"^vit_pos/block_(\d+)/", r"vit_pos/blocks/\1/"),
    (r"^stem/", "main_branch/patch_embed/"),
    (r"/conv_(\d+)$", lambda m: f"/proj/{3 * int(m[1])}"),
    (r"/norm_(\d+)$", lambda m: f"/proj/{3 * int(m[1]) + 1}"),
    (r"^stages/stage_(\d+)", r"main_branch/layers/\1"),
    (r"/merge$", "/downsample/reduction"),
    (r"^(main_branch/layers/\d+)/norm$", r"\1/downsample/norm"),
    (r"/block_(\d+)", r"/blocks/\1"),
    (r"^(main_branch/layers/.*)/norm1$", r"\1/retention_layer_norm"),
    (r"^(main_branch/layers/.*)/norm2$", r"\1/final_layer_norm"),
    (r"/retention/lepe$", "/retention/lepe/conv"),
    (r"/retention/out$", "/retention/out_proj"),
    (r"/ffn/depthwise$", "/ffn/dwconv/conv"),
    (r"/position$", "/pos/conv"),
    (r"^head/fc$", "main_branch/proj"),
    (r"^head/norm$", "main_branch/norm"),
    (r"^head/classifier$", "main_branch/head"),
)


def make_entries(
    variables: Mapping[str, Any], renames: Mapping[str, str] | None = None
) -> list[common.Entry]:
    """One entry for each array of the variables of TSFmicro or GAMDSS.

    Args:
      variables: arrays or their shapes.
      renames: beginnings of module names that differ from the usual ones, for example
        {"main_branch.patch_embed": "ConvStem_S"}.
    """
    shapes = common.flat_shapes(variables)
    return [_entry(path, shape, renames or {}) for path, shape in shapes.items()]


def _module_name(path: tuple[str, ...], renames: Mapping[str, str]) -> str:
    name = "/".join(path)
    for pattern, new in _RENAMES:
        name = re.sub(pattern, new, name)
    name = name.replace("/", ".")
    for old, new in renames.items():
        if name == old or name.startswith(old + "."):
            return (new + name[len(old) :]).removeprefix(".")
    return name


def _entry(path: tuple[str, ...], shape: common.Shape, renames: Mapping[str, str]) -> common.Entry:
    name, module, leaf = _module_name(path[1:-1], renames), path[-2], path[-1]
    if leaf in ("qkv_kernel", "qkv_bias"):
        kind = "weight" if leaf == "qkv_kernel" else "bias"
        width = shape[-1] // 3
        return common.Entry(
            path,
            tuple(f"{name}.{letter}_proj.{kind}" for letter in "qkv"),
            (((width, width) if kind == "weight" else (width,)),) * 3,
            lambda a: np.concatenate(a, axis=0).T,
            lambda a: np.split(a.T, 3, axis=0),
        )
    if leaf == "position":
        return common.permuted(path, f"{name}.pos_embed", shape, range(3))
    if leaf in ("gamma_1", "gamma_2"):
        return common.permuted(path, f"{name}.{leaf}", shape, range(1))
    if module == "embed" and leaf == "kernel":
        # The released layer is a convolution with a kernel of one pixel, ours a linear layer.
        entry = common.plain_entry(path, name, (1, 1, *shape))
        to_jax, to_torch = entry.to_jax, entry.to_torch
        return dataclasses.replace(
            entry, to_jax=lambda a: to_jax(a)[0, 0], to_torch=lambda a: to_torch(a[None, None])
        )
    if module.startswith("up_") and leaf == "kernel":
        # (kh, kw, I, O) -> (I, O, kh, kw): the taps keep their order.
        return common.permuted(path, f"{name}.weight", shape, (2, 3, 0, 1))
    return common.plain_entry(path, name, shape)


def vit_leftovers(width: int, num_classes: int) -> dict[str, common.Shape]:
    """Names and shapes of the tensors that the released transformer holds and never reads."""
    return {
        "vit_pos.cls_token": (1, 1, width),
        "vit_pos.head.weight": (num_classes, width),
        "vit_pos.head.bias": (num_classes,),
        "vit_pos.to_Mask.0.weight": (1, width),
        "vit_pos.to_Mask.0.bias": (1,),
    }


def relative_position_buffers(options: UnitOptions) -> common.State:
    """Angles and log decays of every stage, which the released backbone keeps as buffers."""
    state: common.State = {}
    for i, heads in enumerate(options.num_heads):
        angle = retention_tables.frequencies(options.channels[i] // heads)
        decay = retention_tables.log_decays(heads, options.decay_start[i], options.decay_span[i])
        prefix = f"main_branch.layers.{i}.Relpos"
        state[f"{prefix}.angle"] = np.repeat(angle, 2).astype(np.float32)
        state[f"{prefix}.decay"] = np.array(decay, np.float32)
    return state


def used(state: common.State, leftovers: Mapping[str, Any]) -> common.State:
    """`state` without the tensors called in `leftovers`, and without those of their layers."""
    layers = {name.rpartition(".")[0] for name in leftovers if name.endswith("running_var")}
    counters = {f"{layer}.{common.COUNTER}" for layer in layers}
    return {n: a for n, a in state.items() if n not in leftovers and n not in counters}


def zeros(leftovers: Mapping[str, common.Shape]) -> common.State:
    """The tensors called in `leftovers`, all zero, and their batch counters."""
    state: common.State = {}
    state |= {name: np.zeros(shape, np.float32) for name, shape in leftovers.items()}
    for name in leftovers:
        if name.endswith("running_var"):
            state[name.replace("running_var", common.COUNTER)] = np.zeros((), np.int64)
    return state


def variable_shapes(module: nn.Module, *, channels: int = 3) -> dict[str, Any]:
    """The variables of `module` as shapes; nothing is computed."""
    c = module.options
    size = c.map_size_px * int(np.prod(c.stem_strides)) * 2 ** (len(c.channels) - 1)
    frame = jnp.zeros((1, size, size, channels))
    batch = {name: frame for name in ("onset", "apex", "offset")}
    batch |= {name: jnp.zeros((1, size, size, 3)) for name in ("flow_rise", "flow_fall")}
    return jax.eval_shape(lambda: module.init(jax.random.key(0), batch, train=False))
