"""Weights of a model from and to PyTorch, by the name of the model."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn

from mexjax.errors import ConfigError, unknown_name
from mexjax.interop.common import State, read_state

# Each module has `from_torch(state, **kwargs)` and `to_torch(variables, **kwargs)`.
SOURCES = {
    "clip": "mexjax.interop.clip",
    "fdp": "mexjax.models.fdp.weights",
    "gamdss": "mexjax.models.gamdss.weights",
    "magnet": "mexjax.interop.magnet",
    "mobilefacenet": "mexjax.interop.mobilefacenet",
    "tsfmicro": "mexjax.models.tsfmicro.weights",
}


def _source(name: str) -> Any:
    if name not in SOURCES:
        raise ConfigError(unknown_name("source of PyTorch weights", name, SOURCES))
    return importlib.import_module(SOURCES[name])


def from_torch(
    name: str, state: Mapping[str, Any] | str | Path, **kwargs: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """A model with the weights of a PyTorch state dict.

    Args:
      name: of the model, as in `list_models`; or `clip`, `magnet`, `mobilefacenet`.
      state: a mapping of numpy arrays or PyTorch tensors, or the path of a `.safetensors`,
        `.npz`, `.pt`, `.pth` or `.bin` file (see `mexjax.interop.common.read_state`).
      **kwargs: for the model's own file, for example `preset="official"` or, for tsfmicro,
        `fusion="early"`.

    Returns:
      The linen module and its variables: `module.apply(variables, batch, train=False)`.

    Raises:
      ConfigError: no such model.
      DataError: weights that cannot be read, or that do not fit: every name is listed.
    """
    source = _source(name)
    if isinstance(state, str | Path) and hasattr(source, "read_beside"):
        kwargs = source.read_beside(Path(state)) | kwargs
    return source.from_torch(read_state(state), **kwargs)


def to_torch(name: str, variables: Mapping[str, Any], **kwargs: Any) -> State:
    """The state dict (numpy arrays, PyTorch layout, the released code's names) of `variables`.

    `{n: torch.from_numpy(a) for n, a in to_torch("fdp", variables).items()}` loads into the
    released network with `load_state_dict`. `kwargs` are those the weights were loaded with, where
    the model's own file takes any.
    """
    return _source(name).to_torch(variables, **kwargs)
