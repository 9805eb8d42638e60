"""CLIP weights under the names of OpenAI and open_clip, or under those of Hugging Face.

A published checkpoint is loaded in three lines; download the file where there is a network:

    # https://huggingface.co/openai/clip-vit-base-patch32 -> model.safetensors
    import mexjax
    module, variables = mexjax.from_torch("clip", "model.safetensors")

OpenAI's own `ViT-B-32.pt` and open_clip's `open_clip_model.safetensors` load the same way.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mexjax.errors import ConfigError, DataError, beginning, listed, unknown_name
from mexjax.interop import common
from mexjax.nn.clip import SIZES, Clip, ClipSize, TowerSize
from mexjax.nn.vit import ACTIVATIONS

log = logging.getLogger(__name__)

NAMINGS = ("openai", "huggingface")
# These scalars are beside the weights in OpenAI's own archives, and nowhere else.
_OPENAI_SCALARS = ("input_resolution", "context_length", "vocab_size")
_PATCH = {
    "openai": "visual.conv1.weight",
    "huggingface": "vision_model.embeddings.patch_embedding.weight",
}
_HEAD_WIDTH = 64  # channels of a head of every published CLIP

# (naming, tower) -> the name before the number of a block.
_BLOCKS = {
    ("openai", "image"): "visual.transformer.resblocks",
    ("openai", "text"): "transformer.resblocks",
    ("huggingface", "image"): "vision_model.encoder.layers",
    ("huggingface", "text"): "text_model.encoder.layers",
}
_IN_BLOCK = {
    "openai": {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attention/proj": "attn.out_proj",
        "fc1": "mlp.c_fc",
        "fc2": "mlp.c_proj",
    },
    "huggingface": {
        "norm1": "layer_norm1",
        "norm2": "layer_norm2",
        "attention/proj": "self_attn.out_proj",
        "fc1": "mlp.fc1",
        "fc2": "mlp.fc2",
    },
}
# Names of the tensors outside the blocks: path here -> (OpenAI, Hugging Face).
_ALONE = {
    "image/embed/kernel": (_PATCH["openai"], _PATCH["huggingface"]),
    "image/embed/class_token": (
        "visual.class_embedding",
        "vision_model.embeddings.class_embedding",
    ),
    "image/embed/position": (
        "visual.positional_embedding",
        "vision_model.embeddings.position_embedding.weight",
    ),
    "image/pre_norm/scale": ("visual.ln_pre.weight", "vision_model.pre_layrnorm.weight"),
    "image/pre_norm/bias": ("visual.ln_pre.bias", "vision_model.pre_layrnorm.bias"),
    "image/post_norm/scale": ("visual.ln_post.weight", "vision_model.post_layernorm.weight"),
    "image/post_norm/bias": ("visual.ln_post.bias", "vision_model.post_layernorm.bias"),
    "image/projection/kernel": ("visual.proj", "visual_projection.weight"),
    "text/embed/tokens": ("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
    "text/embed/position": (
        "positional_embedding",
        "text_model.embeddings.position_embedding.weight",
    ),
    "text/final_norm/scale": ("ln_final.weight", "text_model.final_layer_norm.weight"),
    "text/final_norm/bias": ("ln_final.bias", "text_model.final_layer_norm.bias"),
    "text/projection/kernel": ("text_projection", "text_projection.weight"),
    "logit_scale": ("logit_scale", "logit_scale"),
}


def make_entries(variables: Mapping[str, Any], naming: str) -> list[common.Entry]:
    """One entry for each array of the variables of a `Clip`, with the names of a source."""
    if naming not in NAMINGS:
        raise ConfigError(unknown_name("naming of CLIP weights", naming, NAMINGS))
    shapes = common.flat_shapes(variables)
    return [_entry(path, shape, naming) for path, shape in shapes.items()]


def _entry(path: tuple[str, ...], shape: common.Shape, naming: str) -> common.Entry:
    name = "/".join(path[1:])
    if name in _ALONE:
        theirs = _ALONE[name][NAMINGS.index(naming)]
        axes = tuple(range(len(shape)))
        if name == "image/embed/kernel":
            axes = (3, 2, 0, 1)  # HWIO -> OIHW
        elif name.endswith("projection/kernel") and naming == "huggingface":
            # OpenAI stores the projections as they are multiplied: x @ projection.
            axes = (1, 0)
        return common.permuted(path, theirs, shape, axes)
    tower, block, *inside, leaf = path[1:]
    where = f"{_BLOCKS[naming, tower]}.{block.removeprefix('blocks_')}"
    layer = "/".join(inside)
    if layer != "attention/qkv":
        return common.plain_entry(path, f"{where}.{_IN_BLOCK[naming][layer]}", shape)
    kind = "weight" if leaf == "kernel" else "bias"
    if naming == "openai":
        axes = tuple(range(len(shape)))[::-1]
        return common.permuted(path, f"{where}.attn.in_proj_{kind}", shape, axes)
    width = shape[-1] // 3
    return common.Entry(
        path,
        tuple(f"{where}.self_attn.{letter}_proj.{kind}" for letter in "qkv"),
        ((width,) * len(shape),) * 3,
        lambda arrays: np.concatenate(arrays, axis=0).T,
        lambda array: np.split(array.T, 3, axis=0),
    )


def variable_shapes(module: Clip) -> dict[str, Any]:
    """The variables of `module` as shapes; nothing is computed."""
    side = module.size.image_px
    image, ids = jnp.zeros((1, side, side, 3)), jnp.zeros((1, 1), jnp.int32)
    return jax.eval_shape(lambda: module.init(jax.random.key(0), image, ids))


def find_naming(state: Mapping[str, Any]) -> str:
    """The naming of a state dict: `openai` (open_clip has the same) or `huggingface`.

    Raises:
      DataError: neither.
    """
    for naming, name in _PATCH.items():
        if name in state:
            return naming
    first = listed([beginning(name) for name in sorted(state)])
    raise DataError(
        f"No CLIP with a vision transformer: expected {_PATCH['openai']} (OpenAI, open_clip) or"
        f" {_PATCH['huggingface']} (Hugging Face) among the {len(state)} tensors; found {first}."
    )


def find_size(
    state: common.State, naming: str, *, image_heads: int = 0, text_heads: int = 0
) -> ClipSize:
    """The size of the network that a state dict holds.

    The number of heads is in no tensor: every published CLIP has one for 64 channels. A network of
    a size in `SIZES` has the heads of that size.

    Args:
      state: result of `read_state`.
      naming: result of `find_naming`.
      image_heads: heads of the image transformer; 0: as above.
      text_heads: heads of the text transformer; 0: as above.

    Raises:
      DataError: tensors missing that tell the size, or channels that 64 does not divide.
    """
    number = NAMINGS.index(naming)

    def shape(name: str, num_axes: int = 2) -> common.Shape:
        theirs = _ALONE[name][number]
        if theirs not in state:
            raise DataError(f"The CLIP weights lack {theirs}, which tells the network's size.")
        lengths = state[theirs].shape
        if len(lengths) != num_axes or not all(lengths):
            raise DataError(
                f"{theirs} of the CLIP weights has the shape {lengths}; expected {num_axes}"
                " axes, as a vision transformer has."
            )
        return lengths

    def tower(kind: str, width: int, num_heads: int) -> TowerSize:
        prefix = re.escape(_BLOCKS[naming, kind])
        matches = [re.match(rf"{prefix}\.(\d+)\.", name) for name in state]
        depth = 1 + max((int(match[1]) for match in matches if match), default=-1)
        hidden = f"{_BLOCKS[naming, kind]}.0.{_IN_BLOCK[naming]['fc1']}.weight"
        mlp_width = state[hidden].shape[0] if hidden in state else 4 * width
        return TowerSize(width, depth, num_heads, mlp_width)

    width, _, px, _ = shape("image/embed/kernel", 4)
    vocabulary, text_width = shape("text/embed/tokens")
    projection = shape("image/projection/kernel")
    size = ClipSize(
        image=tower("image", width, image_heads),
        text=tower("text", text_width, text_heads),
        patch_px=px,
        grid=round((shape("image/embed/position")[0] - 1) ** 0.5),
        context=shape("text/embed/position")[0],
        vocabulary=vocabulary,
        embed_width=projection[1] if naming == "openai" else projection[0],
    )
    candidates = (_with_heads(size, other) for other in SIZES.values())
    full = next((candidate for candidate in candidates if candidate), None)
    if full is None and not (width % _HEAD_WIDTH or text_width % _HEAD_WIDTH):
        heads = (width // _HEAD_WIDTH, text_width // _HEAD_WIDTH)
        image, text = (
            dataclasses.replace(t, num_heads=n)
            for t, n in zip((size.image, size.text), heads, strict=True)
        )
        full = dataclasses.replace(size, image=image, text=text)
    if image_heads and text_heads:
        return size
    if full is None:
        raise DataError(
            f"The number of attention heads of a CLIP of widths {width} and {text_width} cannot be"
            " read off its weights: published ones have a head for 64 channels. Give image_heads"
            " and text_heads."
        )
    return full


def _with_heads(size: ClipSize, other: ClipSize) -> ClipSize | None:
    """`size` with the heads of a known one, if it is that in all but its texts."""
    image, text = (
        dataclasses.replace(tower, num_heads=like.num_heads)
        for tower, like in ((size.image, other.image), (size.text, other.text))
    )
    full = dataclasses.replace(size, image=image, text=text)
    texts = {"context": other.context, "vocabulary": other.vocabulary}
    return full if dataclasses.replace(full, **texts) == other else None


def read_beside(path: Path) -> dict[str, str]:
    """The activation that the folder of a file of weights tells, since no tensor holds it.

    Hugging Face's `config.json` and open_clip's `open_clip_config.json` have it.

    Returns:
      {"activation": ...}, or nothing.
    """
    for name in ("config.json", "open_clip_config.json"):
        activation = _activation_in(path.parent / name)
        if activation:
            return {"activation": activation}
    return {}


def _activation_in(path: Path) -> str | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    if isinstance(content.get("model_cfg"), dict):  # open_clip
        return "quick_gelu" if content["model_cfg"].get("quick_gelu") else "gelu"
    for part in (content.get("vision_config"), content):
        if isinstance(part, dict) and "hidden_act" in part:
            return part["hidden_act"] if part["hidden_act"] in ACTIVATIONS else None
    # Hugging Face leaves out the default of its class, which is OpenAI's activation.
    return "quick_gelu" if content.get("model_type") == "clip" else None


def from_torch(
    state: common.State,
    *,
    activation: str = "",
    image_heads: int = 0,
    text_heads: int = 0,
) -> tuple[Clip, dict[str, Any]]:
    """The network and its variables (float32 numpy arrays) that a state dict holds.

    Args:
      state: result of `read_state`; the naming and all sizes are read off it.
      activation: `quick_gelu` or `gelu`. If empty, it is `quick_gelu`, and a line of the log says
        so unless the weights are an archive of OpenAI's own, which alone has three more scalars.
      image_heads: heads of the image transformer; 0: see `find_size`.
      text_heads: heads of the text transformer; 0: see `find_size`.

    Raises:
      ConfigError: an unknown activation.
      DataError: no CLIP, or names or shapes that do not fit; the first of them are named.
    """
    state = common.without_prefix(state, list(_PATCH.values()), "CLIP")
    naming = find_naming(state)
    size = find_size(state, naming, image_heads=image_heads, text_heads=text_heads)
    if not activation and not all(name in state for name in _OPENAI_SCALARS):
        log.warning(
            "Nothing tells the activation of these CLIP weights; taken as quick_gelu, OpenAI's."
            " Weights that open_clip trained (laion2b, datacomp, ...) have the exact one: pass"
            ' activation="gelu". The wrong one moves features by some hundredths.'
        )
    module = Clip(size, activation or "quick_gelu")
    if module.activation not in ACTIVATIONS:
        raise ConfigError(unknown_name("activation", activation, ACTIVATIONS))
    weights = {
        name: array
        for name, array in state.items()
        if name not in _OPENAI_SCALARS and not name.endswith("embeddings.position_ids")
    }
    entries = make_entries(variable_shapes(module), naming)
    what = f"a CLIP of {size.image.depth} and {size.text.depth} blocks under the names of {naming}"
    return module, common.to_variables(entries, weights, what)


def to_torch(variables: Mapping[str, Any], *, naming: str = "openai") -> common.State:
    """The state dict of a CLIP's variables.

    Args:
      variables: variables of the network.
      naming: `openai` (also open_clip's) or `huggingface`.
    """
    return common.to_state(make_entries(variables, naming), variables)
