"""Public PyTorch weights of the networks in `mexjax.nn`: one file a network, and their reader."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn

from mexjax.errors import ConfigError, unknown_name
from mexjax.interop.common import State, read_state

__all__ = ["NETWORKS", "network_from_torch", "network_to_torch", "read_state"]

# Each module has `from_torch(state, **kwargs)` and `to_torch(variables, **kwargs)`.
NETWORKS = {
    "clip": "mexjax.interop.clip",
    "magnet": "mexjax.interop.magnet",
    "mobilefacenet": "mexjax.interop.mobilefacenet",
}


def _module(name: str) -> Any:
    if name not in NETWORKS:
        raise ConfigError(unknown_name("network with PyTorch weights", name, NETWORKS))
    return importlib.import_module(NETWORKS[name])


def network_from_torch(
    name: str, state: Mapping[str, Any] | str | Path, **kwargs: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """A network of `mexjax.nn` with the weights of a PyTorch state dict.

    Args:
      name: a key of `NETWORKS`.
      state: a mapping of arrays, or a path (see `read_state`).
      **kwargs: options of `from_torch` in the network's own module.

    Returns:
      The linen module and its variables.

    Raises:
      ConfigError: no such network.
      DataError: weights that cannot be read, or that do not fit.
    """
    module = _module(name)
    if name == "clip" and isinstance(state, str | Path):
        # The files that lie beside a checkpoint of CLIP say which activation it was trained with.
        kwargs = module.read_beside(Path(state).expanduser()) | kwargs
    return module.from_torch(read_state(state), **kwargs)


def network_to_torch(name: str, variables: Mapping[str, Any], **kwargs: Any) -> State:
    """The state dict of a network's variables, under the names of its public weights."""
    return _module(name).to_torch(variables, **kwargs)
