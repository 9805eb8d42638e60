"""Small backbones beside the same ones in Hugging Face transformers: configurations and names.

The golden figures in `golden/backbones.json` are transformers' (the file says which version) with
weights by the rule of `rule_weights` under transformers' names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from rule_weights import rule_array

from mexjax.nn.convnext import ConvNeXt
from mexjax.nn.mode import Mode
from mexjax.nn.resnet import ResNet
from mexjax.nn.swin import Swin

# Odd sizes, so that what is done at the edges of a map is seen.
MODULES = {
    "resnet": ResNet(channels=(8, 16), blocks=(2, 1)),
    "convnext": ConvNeXt(channels=(8, 16), depths=(2, 1)),
    "swin": Swin(channels=(12, 24), depths=(2, 2), num_heads=(2, 4), window=3),
}
SIZES = {"resnet": (34, 37), "convnext": (42, 36), "swin": (43, 40)}
MAPS = {"resnet": (5, 5), "convnext": (5, 4), "swin": (6, 5)}
PUBLISHED = {"resnet": ResNet(), "convnext": ConvNeXt(), "swin": Swin()}

# Class in transformers, and the keys its configuration differs in.
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": (
        "ResNet",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 1], "layer_type": "basic"},
    ),
    "convnext": ("ConvNext", {"hidden_sizes": [8, 16], "depths": [2, 1], "num_stages": 2}),
    "swin": (
        "Swin",
        {"embed_dim": 12, "depths": [2, 2], "num_heads": [2, 4], "window_size": 3}
        | {"drop_path_rate": 0.0, "image_size": [43, 40]},
    ),
}
THEIRS_PUBLISHED: dict[str, dict[str, Any]] = {
    "resnet": {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"},
    "convnext": {},
    "swin": {},
}

_RENAMES = {
    "resnet": (
        (r"^stem_conv", "embedder.embedder.convolution"),
        (r"^stem_norm", "embedder.embedder.normalization"),
        (r"^stage_(\d)_block_(\d)", r"encoder.stages.\1.layers.\2"),
        (r"\.first_", ".layer.0."),
        (r"\.second_", ".layer.1."),
        (r"\.skip_", ".shortcut."),
        (r"\.conv$", ".convolution"),
        (r"\.norm$", ".normalization"),
    ),
    "convnext": (
        (r"^patch_0", "embeddings.patch_embeddings"),
        (r"^norm_0", "embeddings.layernorm"),
        (r"^norm_(\d)", r"encoder.stages.\1.downsampling_layer.0"),
        (r"^patch_(\d)", r"encoder.stages.\1.downsampling_layer.1"),
        (r"^stage_(\d)_block_(\d)", r"encoder.stages.\1.layers.\2"),
        (r"\.depthwise$", ".dwconv"),
        (r"\.norm$", ".layernorm"),
        (r"\.mlp\.fc", ".pwconv"),
    ),
    "swin": (
        (r"^patch$", "embeddings.patch_embeddings.projection"),
        (r"^patch_norm", "embeddings.norm"),
        (r"^norm$", "layernorm"),
        (r"^merge_(\d)", lambda m: f"encoder.layers.{int(m[1]) - 1}.downsample"),
        (r"^stage_(\d)_block_(\d)", r"encoder.layers.\1.blocks.\2"),
        (r"\.norm1$", ".layernorm_before"),
        (r"\.norm2$", ".layernorm_after"),
        (r"\.attention\.out$", ".attention.o_proj"),
    ),
}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_LEAVES |= {"mean": "running_mean", "var": "running_var", "gamma": "layer_scale_parameter"}


def their_names(name: str, path: tuple[str, ...]) -> list[str]:
    """Names in transformers of what the array at `path` is made of."""
    module, leaf = ".".join(path[1:-1]), path[-1]
    for pattern, new in _RENAMES[name]:
        module = re.sub(pattern, new, module)
    if leaf in ("qkv_kernel", "qkv_bias"):
        kind = leaf.removeprefix("qkv_").replace("kernel", "weight")
        return [f"{module}.{letter}_proj.{kind}" for letter in "qkv"]
    if leaf == "position_bias":
        return [f"{module}.relative_position_bias.relative_position_bias_table"]
    return [f"{module}.{_LEAVES[leaf]}"]


def to_torch(leaf: str, array: np.ndarray) -> list[np.ndarray]:
    """The array in PyTorch's layout, in as many parts as it has names."""
    if leaf.startswith("qkv_"):
        return [part.T for part in np.split(array, 3, axis=-1)]
    if leaf == "kernel":
        return [array.transpose({4: (3, 2, 0, 1), 2: (1, 0)}[array.ndim])]
    return [array]


def to_jax(leaf: str, parts: list[np.ndarray]) -> np.ndarray:
    """The inverse of `to_torch`."""
    if leaf.startswith("qkv_"):
        return np.concatenate([part.T for part in parts], axis=-1)
    if leaf == "kernel":
        return parts[0].transpose({4: (2, 3, 1, 0), 2: (1, 0)}[parts[0].ndim])
    return parts[0]


def images(name: str) -> np.ndarray:
    """f32[2,H,W,3] of noise."""
    rng = np.random.default_rng(7)
    return rng.standard_normal((2, *SIZES[name], 3)).astype(np.float32)


def variable_shapes(module: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Variables as shapes; nothing is computed."""
    x = jnp.zeros((1, *size, 3))
    return jax.eval_shape(lambda: module.init(jax.random.key(0), x, Mode()))


def rule_variables(name: str) -> dict[str, Any]:
    """Variables of a small backbone by the rule, each array under transformers' names."""
    flat = flax.traverse_util.flatten_dict(variable_shapes(MODULES[name], SIZES[name]))
    made = {}
    for path, shape in flat.items():
        empty = to_torch(path[-1], np.zeros(shape.shape, np.float32))
        names = their_names(name, path)
        parts = [rule_array(n, part.shape) for n, part in zip(names, empty, strict=True)]
        made[path] = to_jax(path[-1], parts)
    return flax.traverse_util.unflatten_dict(made)


def their_model(name: str, changes: Mapping[str, Any]) -> Any:
    """The model of transformers without its classifier; `changes` are to its configuration."""
    import transformers

    prefix, _ = THEIRS[name]
    config = getattr(transformers, f"{prefix}Config")(**changes)
    options = {"add_pooling_layer": False} if name == "swin" else {}
    return getattr(transformers, f"{prefix}Model")(config, **options)


def their_small_model(name: str) -> Any:
    """The small model with weights by the rule."""
    import torch

    model = their_model(name, THEIRS[name][1])
    state = {
        key: torch.from_numpy(np.array(rule_array(key, tuple(value.shape))))
        for key, value in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model


def their_map(model: Any, x: np.ndarray, size: tuple[int, int]) -> Any:
    """The last map f32[N,C,h,w] (a tensor) of images f32[N,H,W,3]; h, w are `size`."""
    import torch

    found = model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).last_hidden_state
    return found if found.ndim == 4 else found.transpose(1, 2).unflatten(2, size)
