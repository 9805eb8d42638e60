"""The models: one paper, one file, looked up by name."""

from __future__ import annotations

import importlib
from types import ModuleType

from mexjax.errors import ConfigError, unknown_name

MODELS = {
    "ac4au": "mexjax.models.ac4au.network",
    "fdp": "mexjax.models.fdp.network",
    "gamdss": "mexjax.models.gamdss.network",
    "micro_au_clip": "mexjax.models.micro_au_clip.network",
    "tsfmicro": "mexjax.models.tsfmicro.network",
}


def list_models() -> tuple[str, ...]:
    """Names that `get_model` knows, sorted."""
    return tuple(sorted(MODELS))


def get_model(name: str) -> ModuleType:
    """The module of one paper.

    It has `make`, `inputs`, `targets`, `loss`, `predictions`, `PRESETS`, `VIEWS` and `TASKS`: the
    values of `data.view` and of `protocol.task` that it takes. It may have
    `fold_arrays(dataset, folds, model_config) -> {name: array [F, ...]}`: what a fold's own
    training clips give, numbers of units or subjects for instance; entries of every training batch
    of the fold, and of the batch that initialises. And, each on its own:

    * `of_protocol(protocol) -> dict`: further arguments of `make`;
    * `clip_views(config) -> {view: parameters}` and `clip_arrays(labels, config) -> {name: array
      [N, ...]}`: what it takes of each clip beside the view, entries of every batch;
    * `rate_factor(path, model_config) -> float`: learning rate of a parameter over the usual one;
    * `notices(config) -> [text]`: what a reader must know before the numbers;
    * `TRAINING_ONLY`: names of parameters that no prediction needs;
    * `ON_REQUEST`: names of predictions that are kept only where `eval.keeps_features` asks;
    * `features(config, dataset, where, extras) -> {name: array}`: what of its predictions is
      written to features.npz;
    * `start(model_config) -> tree`, `start_statistics(model_config) -> tree`, `is_frozen(path,
      model_config) -> bool` and `may_draw_frozen(model_config) -> bool`: see `mexjax.train.frozen`.

    Raises:
      ConfigError: no model of that name; the message lists them.
    """
    if name not in MODELS:
        raise ConfigError(unknown_name("model", name, MODELS))
    return importlib.import_module(MODELS[name])
