"""The start of Micro-AU CLIP: its sentences, CLIP's weights, and which of them are kept."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mexjax.interop import network_from_torch
from mexjax.models.micro_au_clip import prompts
from mexjax.models.micro_au_clip.options import Options
from mexjax.nn.clip import Clip, ClipSize, TowerSize


@dataclasses.dataclass(frozen=True)
class Texts:
    """Token ids as rows of equal length, hashable.

    Attributes:
      units: 2N rows, negative and positive sentence of unit after unit.
      sentences: one row for each combination that stands for an emotion, if `mer_text` asks.
      comma: id of the comma.
    """

    units: tuple[tuple[int, ...], ...]
    sentences: tuple[tuple[int, ...], ...]
    comma: int


def combination_members(units: Sequence[int]) -> np.ndarray:
    """Mask i[R,N] of the units of each combination of `mexjax.models.micro_au_clip.prompts`."""
    return np.array(
        [[unit in c.aus for unit in units] for c in prompts.combinations(units)], np.int32
    ).reshape(-1, len(units))


def combination_emotions(units: Sequence[int]) -> tuple[str, ...]:
    """The emotion of each combination, in the order of `emotion_scores`."""
    return tuple(c.emotion for c in prompts.combinations(units))


def make_texts(options: Options, units: Sequence[int]) -> tuple[Texts, int]:
    """Token ids of the units' sentences, and the size of their vocabulary.

    Towers without weights have a vocabulary of only the tokens that occur.
    """
    sentences = prompts.read_own(options.prompts_file) if options.prompts_file else None
    pairs = prompts.au_texts(units, sentences)
    merges = options.merges_file
    arrays = [prompts.token_ids([text for pair in pairs for text in pair], merges)]
    if options.mer_text == "sentence":
        arrays.append(prompts.token_ids([c.text for c in prompts.combinations(units)], merges))
    vocabulary, comma = prompts.END + 1, np.array(prompts.COMMA)
    if not options.weights:
        vocabulary, (*arrays, comma) = prompts.compact(*arrays, comma)
    rows = [tuple(tuple(row) for row in ids.tolist()) for ids in arrays]
    return Texts(rows[0], rows[1] if len(rows) > 1 else (), int(comma)), vocabulary


def make_towers(options: Options, vocabulary: int) -> tuple[ClipSize, str]:
    """Size and activation of both towers: those of the checkpoint, or else those of the options."""
    if options.has_checkpoint:
        clip, _ = load_clip(options.weights, options.activation)
        return clip.size, clip.activation
    towers = []
    for kind in ("image", "text"):
        width, depth, heads = (
            getattr(options, f"{kind}_{key}") for key in ("width", "depth", "heads")
        )
        towers.append(TowerSize(width, depth, heads, width * options.mlp_ratio))
    sizes = {key: getattr(options, key) for key in ("patch_px", "grid", "embed_width")}
    return ClipSize(*towers, vocabulary=vocabulary, **sizes), options.activation or "gelu"


@functools.lru_cache(maxsize=1)
def load_clip(path: str, activation: str) -> tuple[Clip, dict[str, Any]]:
    """The network and the weights of a checkpoint; those of the last one stay in memory."""
    keys = {"activation": activation} if activation else {}
    module, variables = network_from_torch("clip", path, **keys)
    assert isinstance(module, Clip)
    return module, variables


def start(options: Options) -> dict[str, Any]:
    """Weights that every fold starts from, or keeps: parts of the tree of parameters."""
    if not options.has_checkpoint:
        return {}
    _, variables = load_clip(options.weights, options.activation)
    return {tower: variables["params"][tower] for tower in ("image", "text")}


def is_frozen(path: tuple[str, ...], options: Options) -> bool:
    """True if a parameter keeps the weights it starts from."""
    first = options.trainable_from
    if path[0] not in ("image", "text"):
        return False
    if path[0] == "text" and not options.train_text:
        return True
    if first == 0:
        return False
    if path[1].startswith("blocks_"):
        return int(path[1].removeprefix("blocks_")) < first
    return path[1] in ("embed", "pre_norm") or not options.train_projections


def clip_arrays(
    labels: np.ndarray, options: Options, units: Sequence[int]
) -> dict[str, np.ndarray]:
    """Arrays of each clip that its labels give: for the global contrast all sentences as one text.

    Args:
      labels: 0/1 [M,N].
      options: options of the paper.
      units: numbers of the N action units.

    Returns:
      `joined_ids` i32[M,L], or nothing.
    """
    if options.contrast != "global":
        return {}
    texts, _ = make_texts(options, units)
    ids = np.array(texts.units).reshape(labels.shape[1], 2, -1)
    return {"joined_ids": prompts.joined_ids(ids, labels, comma=texts.comma)}


def notices(options: Options, config: ConfigDict) -> list[str]:
    """Sentences that a reader of the report must know before the numbers."""
    out = []
    if not options.has_checkpoint:
        out.append(
            "Not a CLIP: no weights were given (model.weights), so both towers are small ones that"
            " were trained from nothing on this dataset. It shows that the method runs, not what"
            " CLIP's knowledge adds."
        )
    if config.data.magnify not in ("none", "magnet"):
        out.append(
            f"Motion was magnified without a learned network (data.magnify={config.data.magnify}):"
            " the paper uses one."
        )
    return out
