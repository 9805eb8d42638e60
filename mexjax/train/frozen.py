"""Networks whose first part is frozen: its outputs are computed once, for all folds.

A paper says with `Paper.start` which weights it starts from, with `Paper.start_statistics` which
batch statistics, and with `Paper.is_frozen` which of its parameters stay as they are. Its module
has `frozen_part(batch)`, which maps clips through the frozen part, and `frozen_constants()`, the
part that depends on no clip: entries that stand for those of the batch they are computed from.
Without augmentation they depend on the clip alone, so they are a view of the dataset like any
other: computed once, on the device, shared by all folds, whose programs then hold the trainable
part only.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
from ml_collections import ConfigDict

from mexjax.errors import ConfigError
from mexjax.models.paper import Paper, ParamPath
from mexjax.train.batches import BatchMaker, Data
from mexjax.train.draws import alike_at_once

log = logging.getLogger(__name__)

Tree = Mapping[str, Any]
BATCH = 16  # clips that the frozen part takes at a time


def split(params: Tree, paper: Paper, options: Any) -> tuple[Tree, Tree]:
    """The parameters that are trained, and those that are kept, as two trees."""
    flat = flax.traverse_util.flatten_dict(params)
    frozen = {path: leaf for path, leaf in flat.items() if paper.is_frozen(path, options)}
    others = {path: leaf for path, leaf in flat.items() if path not in frozen}
    return flax.traverse_util.unflatten_dict(others), flax.traverse_util.unflatten_dict(frozen)


def merge(trained: Tree, kept: Tree) -> dict[str, Any]:
    """One tree of both, which undoes `split`. Leaves of `kept` replace those of `trained`."""
    flat = flax.traverse_util.flatten_dict(trained) | flax.traverse_util.flatten_dict(kept)
    return flax.traverse_util.unflatten_dict(flat)


def started(params: Tree, start: Tree) -> Tree:
    """`params` with the values of those leaves that `start` has."""
    flat, values = (flax.traverse_util.flatten_dict(tree) for tree in (params, start))
    return flax.traverse_util.unflatten_dict(
        {path: values.get(path, leaf) for path, leaf in flat.items()}
    )


def is_cached(config: ConfigDict, kept: Tree) -> bool:
    """True if the frozen part is computed once: it exists, and every epoch sees the same images."""
    is_augmented = any(value for _, value in config.augment.items())
    if not kept or not config.train.is_frozen_part_cached:
        return False
    is_scaled = config.data.split_scale != "none"
    if is_augmented or is_scaled or config.eval.is_flip_averaged:
        log.warning(
            "The frozen part of the network is computed in every step: augmentation (augment.*,"
            " eval.is_flip_averaged, data.split_scale) shows it other images each time."
        )
        return False
    return True


def shared_arrays(
    batches: BatchMaker,
    module: nn.Module,
    data: Data,
    compile_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Arrays that all folds of a study share beside the dataset.

    Args:
      batches: makes the batches of the paper.
      module: the network.
      data: N clips, see `mexjax.data.dataset.Dataset.on_host`.
      compile_options: options of XLA for the programs, by name.

    Returns:
      Nothing, if the network keeps no parameters and starts from none; else `kept` and `start`,
      parts of the tree of parameters, and `start_statistics`, a part of the tree of batch
      statistics. If the frozen part is computed once, also `per_clip` {name: [N, ...]}, with the
      paper's targets, and `constant` {name: array}.

    Raises:
      ConfigError: parameters that are kept but that nothing gives.
    """
    config, paper, options = batches.config, batches.paper, batches.options
    start = paper.start(options)
    if not start and type(paper).is_frozen is Paper.is_frozen:
        return {}
    example = batches.plain_batch(data, np.zeros(2, np.int32))

    def init(batch: Mapping[str, jax.Array]) -> Tree:
        key = jax.random.key(config.seed, impl="threefry2x32")
        keys: dict[str, jax.Array] = dict.fromkeys(("params", "drop_path", "dropout"), key)
        return module.init(keys, batch, train=False)["params"]

    shapes = jax.eval_shape(init, example)
    _check_shapes(shapes, start)
    _, kept_shapes = split(shapes, paper, options)
    if not kept_shapes and not start:
        return {}
    missing = set(_flat(kept_shapes)) - set(_flat(start))
    if missing and not paper.may_draw_frozen(options):
        raise ConfigError(
            f"{len(missing)} parameters are kept as they are and the weights lack them:"
            f" {', '.join('/'.join(path) for path in sorted(missing)[:4])} ..."
        )

    def draw(batch: Mapping[str, jax.Array]) -> Tree:
        return alike_at_once(lambda batch: _only(init(batch), missing), batch)

    jit = functools.partial(jax.jit, compiler_options=dict(compile_options or {}) or None)
    drawn = jit(draw)(example) if missing else {}
    values = _only(merge(jax.device_get(drawn), start), set(_flat(shapes)))
    to_train, to_keep = split(values, paper, options)
    shared: dict[str, Any] = {"kept": to_keep, "start": to_train}
    statistics = paper.start_statistics(options)
    if statistics:
        shared["start_statistics"] = statistics
    if not is_cached(config, to_keep) or "train_clips" in data:  # other frames in training
        return shared
    variables = jax.device_put({"params": to_keep})
    first = jit(lambda *arguments: module.apply(*arguments, method="frozen_part"))
    parts = []
    num_clips = len(data["labels"])
    for begin in range(0, num_clips, BATCH):
        # All batches are whole, so that one program serves them.
        rows = np.minimum(np.arange(begin, begin + BATCH), num_clips - 1)
        outputs = first(variables, batches.plain_batch(data, rows))
        outputs |= paper.targets(batches.plain_frames(data, rows), options)
        parts.append(jax.device_get(outputs))
    shared["per_clip"] = {
        name: np.concatenate([part[name] for part in parts])[:num_clips] for name in parts[0]
    }
    constants = jit(lambda variables: module.apply(variables, method="frozen_constants"))
    shared["constant"] = jax.device_get(constants(variables))
    return shared


def _flat(tree: Tree) -> dict[ParamPath, Any]:
    return flax.traverse_util.flatten_dict(tree)


def _only(tree: Tree, paths: set[ParamPath]) -> dict[str, Any]:
    return flax.traverse_util.unflatten_dict(
        {path: leaf for path, leaf in _flat(tree).items() if path in paths}
    )


def _check_shapes(shapes: Tree, start: Tree) -> None:
    expected = _flat(shapes)
    wrong = [
        f"{'/'.join(path)} (network {expected[path].shape}, weights {leaf.shape})"
        for path, leaf in _flat(start).items()
        if path in expected and expected[path].shape != leaf.shape
    ]
    if wrong:
        raise ConfigError(
            f"The weights are not of this network: {', '.join(wrong[:4])}. Check model.weights or"
            " model.pretrained, and data.image_size_px and data.is_color against the images the"
            " weights were trained with."
        )
