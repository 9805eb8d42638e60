"""Networks and options of papers from a mapping of keys, as tests write them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from mexjax.models import get_model
from mexjax.models.options import void_options


def options_of(name: str, model: Mapping[str, Any]) -> Any:
    """The options of a paper, for example `options_of("fdp", {"preset": "tiny"})`."""
    return get_model(name).options(model)


def acting(name: str, model: Mapping[str, Any]) -> dict[str, Any]:
    """The keys without those that others of them leave without effect."""
    void = void_options(get_model(name).presets, model)
    return {key: value for key, value in model.items() if key not in void}


def network_of(name: str, model: Mapping[str, Any], classes: int | Sequence[int] = 5) -> nn.Module:
    """The network of a paper for K classes, or for action units given by their numbers."""
    numbers = range(classes) if isinstance(classes, int) else classes
    return get_model(name).network(options_of(name, model), [f"AU{number}" for number in numbers])


def loss_of(name: str, outputs: Mapping[str, Any], batch: Mapping[str, Any], model: Any) -> Any:
    """The loss of each clip and its logged parts, of a paper with these keys."""
    return get_model(name).loss(outputs, batch, options_of(name, model))


def targets_of(name: str, frames: Any, model: Mapping[str, Any]) -> Any:
    """The targets of a paper with these keys."""
    return get_model(name).targets(frames, options_of(name, model))


def inputs_of(name: str, clip: Any, model: Mapping[str, Any]) -> Any:
    """The inputs of the network of a paper with these keys."""
    return get_model(name).inputs(clip, options_of(name, model))


def keys_of(name: str, model: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a paper as a dict, which the PyTorch peers take."""
    return dataclasses.asdict(options_of(name, model))
