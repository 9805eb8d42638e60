"""The five systems: one folder and one class a paper, looked up by name.

Nothing here imports JAX before a paper or weights are asked for: a list of names must not wait.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mexjax.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    import flax.linen as nn

    from mexjax.interop.common import State
    from mexjax.models.paper import Paper

__all__ = ["MODELS", "from_torch", "get_model", "list_models", "to_torch"]

# The class of each paper.
MODELS = {
    "ac4au": "mexjax.models.ac4au:AC4AUPaper",
    "fdp": "mexjax.models.fdp:FDPPaper",
    "gamdss": "mexjax.models.gamdss:GAMDSSPaper",
    "micro_au_clip": "mexjax.models.micro_au_clip:MicroAUClipPaper",
    "tsfmicro": "mexjax.models.tsfmicro:TSFmicroPaper",
}


def list_models() -> tuple[str, ...]:
    """Names that `get_model` knows, sorted."""
    return tuple(sorted(MODELS))


@functools.cache
def get_model(name: str) -> Paper:
    """The paper of a name.

    Raises:
      ConfigError: no model of that name; the message lists them.
    """
    if name not in MODELS:
        raise ConfigError(unknown_name("model", name, MODELS))
    module, _, member = MODELS[name].partition(":")
    return getattr(importlib.import_module(module), member)()


def from_torch(
    name: str, state: Mapping[str, Any] | str | Path, **kwargs: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """A model with the weights of a PyTorch state dict.

    Args:
      name: of the model, as in `list_models`; or `clip`, `magnet`, `mobilefacenet`.
      state: a mapping of numpy arrays or PyTorch tensors, or the path of a `.safetensors`,
        `.npz`, `.pt`, `.pth`, `.bin` or `.ckpt` file (see `mexjax.interop.common.read_state`).
      **kwargs: for the model's own file, for example `preset="official"` or, for tsfmicro,
        `fusion="early"`.

    Returns:
      The linen module and its variables: `module.apply(variables, batch, train=False)`.

    Raises:
      ConfigError: no such model.
      DataError: weights that cannot be read, or that do not fit; the first names are told.
    """
    from mexjax import interop

    if name in interop.NETWORKS:
        return interop.network_from_torch(name, state, **kwargs)
    return _paper_with_weights(name).from_torch(interop.read_state(state), **kwargs)


def to_torch(name: str, variables: Mapping[str, Any], **kwargs: Any) -> State:
    """The state dict (numpy arrays, PyTorch layout, the released code's names) of `variables`.

    `{n: torch.from_numpy(a) for n, a in to_torch("fdp", variables).items()}` loads into the
    released network with `load_state_dict`. `kwargs` are those the weights were loaded with, where
    the model's own file takes any.

    Raises:
      ConfigError: no such model, or one without released weights.
    """
    from mexjax import interop

    if name in interop.NETWORKS:
        return interop.network_to_torch(name, variables, **kwargs)
    return _paper_with_weights(name).to_torch(variables, **kwargs)


def _paper_with_weights(name: str) -> Paper:
    from mexjax.interop import NETWORKS

    if name not in MODELS:
        raise ConfigError(unknown_name("source of PyTorch weights", name, (*MODELS, *NETWORKS)))
    return get_model(name)
