"""Checkpoints as people have them: the weights among all else that training scripts save.

A script wraps a state dict in a key (`state_dict`, `model`, `ema`), saves counters, settings and
the optimiser beside it, and its wrappers of modules put components into the names (`module.`,
`_orig_mod.`). `find_weights` finds the arrays and cleans their names; `without_prefix` drops what a
larger network or Lightning puts before the names of the network that is asked for.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from mexjax.errors import DataError, beginning, listed

log = logging.getLogger(__name__)

State = dict[str, np.ndarray]

# Keys around a state dict; where a file has several, the first of this order is read.
_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model_weights",
    "model",
    "net_state_dict",
    "net",
    "network",
    "weights",
    "params",
    "module",
    "ema",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "ema_model",
    "params_ema",
)
# Keys whose arrays belong to the training and not to the network.
_TRAINING = re.compile(
    r"(optim|sched|lr_|scaler|amp$|loops|callbacks|hyper_?param|hparams|args|cfg|config|history"
    r"|metric|meta$|rng|random|datamodule|criterion_state|loss_state)",
    re.IGNORECASE,
)
# DataParallel, torch.compile, FSDP and activation checkpointing name themselves inside names.
_ARTEFACTS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_AVERAGED = re.compile(r"(^|[._])(ema|shadow|averaged|teacher|momentum)([._]|$)", re.IGNORECASE)
_SCALAR_WEIGHT = "logit_scale"  # no other weight of the networks here is a single number
_DEEPEST = 6  # nested mappings of weights; more are no checkpoint


def find_weights(source: Mapping[Any, Any]) -> State:
    """The arrays of a checkpoint under their plain names.

    Numbers, texts, lists and the state of an optimiser beside the weights are left out. Of several
    wrapped state dicts the first of a fixed order is read, and a line of the log names the others.

    Args:
      source: a state dict, or a mapping around one, of numpy arrays, JAX arrays or PyTorch tensors.

    Raises:
      DataError: no array, or one of numbers that numpy cannot hold.
    """
    outer = source
    for _ in range(_DEEPEST):
        arrays, inner = _split(source)
        key = next((k for k in _WRAPPERS if k in inner and _count(inner[k]) >= len(arrays)), None)
        if key is None:
            break
        others = [other for other in inner if other != key and other in _WRAPPERS]
        if others:
            log.warning(
                "The checkpoint holds weights under %r and under %s; those of %r are read.",
                key,
                ", ".join(map(repr, others)),
                key,
            )
        source = inner[key]
    flat = _flatten(source, is_outermost=True)
    if not flat:
        kinds = [f"{beginning(key)} ({type(value).__name__})" for key, value in outer.items()]
        raise DataError(
            f"There are no arrays among these weights; found {listed(kinds) or 'nothing'}."
            " Give the state dict of the network: names and tensors."
        )
    return _clean({name: as_numpy(name, value) for name, value in flat.items()})


def _split(source: Mapping[Any, Any]) -> tuple[dict[str, Any], dict[str, Mapping[Any, Any]]]:
    """The arrays of a mapping, and its mappings that hold arrays of a network."""
    arrays, inner = {}, {}
    for key, value in source.items():
        if not isinstance(key, str):
            continue
        if isinstance(value, Mapping):
            if not _TRAINING.match(key) and _count(value):
                inner[key] = value
        elif is_array(value) or (isinstance(value, np.number) and key.endswith(_SCALAR_WEIGHT)):
            arrays[key] = value
    return arrays, inner


def _count(source: Mapping[Any, Any], depth: int = _DEEPEST) -> int:
    """The number of arrays in a mapping and in the mappings inside it."""
    if not depth:
        return 0
    return sum(
        _count(value, depth - 1) if isinstance(value, Mapping) else int(is_array(value))
        for key, value in source.items()
        if isinstance(key, str) and not _TRAINING.match(key)
    )


def _flatten(source: Mapping[Any, Any], *, is_outermost: bool, depth: int = _DEEPEST) -> dict:
    """The arrays of nested mappings under names joined by dots."""
    arrays, inner = _split(source)
    if not depth:
        return arrays
    for key, value in inner.items():
        if is_outermost and arrays and key in _WRAPPERS:
            log.warning("The weights under %r are left out: there are others beside them.", key)
            continue
        below = _flatten(value, is_outermost=False, depth=depth - 1)
        arrays |= {f"{key}.{name}": array for name, array in below.items()}
    return arrays


def is_array(value: Any) -> bool:
    """True for a tensor or an array of numbers; scalars, texts and objects are none."""
    if hasattr(value, "detach"):
        return True
    if isinstance(value, np.generic) or not hasattr(value, "__array__"):
        return False
    dtype = getattr(value, "dtype", None)
    return dtype is not None and np.dtype(dtype).kind not in "OSUTMm"


def as_numpy(name: str, value: Any) -> np.ndarray:
    """An array of numbers that numpy knows: bfloat16 and float8 become float32.

    Raises:
      DataError: complex numbers, or a tensor without values.
    """
    if hasattr(value, "detach"):
        return _of_tensor(name, value)
    array = np.asarray(value)
    if array.dtype.kind in "fiub":
        return array
    if array.dtype == np.dtype("V2"):
        # numpy stores bfloat16 as two bytes without a name.
        array = array.view(ml_dtypes.bfloat16)
    if array.dtype.type.__module__ != "ml_dtypes" or array.dtype.name.startswith(("int", "uint")):
        raise DataError(
            f"{beginning(name)} of these weights has the type {array.dtype}; expected real numbers:"
            " save it as float32."
        )
    return array.astype(np.float32)


def _of_tensor(name: str, tensor: Any) -> np.ndarray:
    kind = str(tensor.dtype).removeprefix("torch.")
    if not tensor.is_complex():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch calls rare types experimental
                tensor = tensor.detach()
                if tensor.is_quantized:
                    tensor = tensor.dequantize()
                tensor = tensor.to_dense() if str(tensor.layout) != "torch.strided" else tensor
                tensor = tensor.cpu()
                # numpy has neither bfloat16 nor the floating types of 8 bits.
                return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        except (RuntimeError, TypeError, ValueError):  # NotImplementedError is a RuntimeError
            pass
    raise DataError(
        f"{beginning(name)} of these weights is a tensor of type {kind} on device {tensor.device},"
        " whose values cannot be read as real numbers: save it as float32 on the CPU."
    )


def _clean(state: State) -> State:
    """`state` without the components that wrappers of modules put into names."""
    names = {
        name: ".".join(part for part in name.split(".") if part not in _ARTEFACTS) or name
        for name in state
    }
    if len(set(names.values())) < len(names):
        return state
    return {names[name]: array for name, array in state.items()}


def without_prefix(state: State, anchors: Sequence[str], what: str) -> State:
    """The weights of one network among those of a larger one, under the network's own names.

    Args:
      state: result of `read_state`.
      anchors: names that the network has and that end no other name of it; the part of a name
        before one of them is the prefix.
      what: the network, for messages.

    Returns:
      `state` where a name is an anchor as it is, or where none is.

    Raises:
      DataError: two networks of this kind.
    """
    prefixes = list(
        dict.fromkeys(
            name[: len(name) - len(anchor)]
            for anchor in anchors
            for name in state
            if name == anchor or name.endswith(f".{anchor}")
        )
    )
    if not prefixes:
        return state
    plain = [prefix for prefix in prefixes if not _AVERAGED.search(prefix)] or prefixes
    prefix = "" if "" in prefixes else plain[0]
    if prefix and len(plain) > 1:
        raise DataError(
            f"These weights hold {len(plain)} networks with the names of {what}, below"
            f" {listed([beginning(p) for p in plain])}: give the state dict of one of them."
        )
    others = tuple(p for p in prefixes if p != prefix and p.startswith(prefix))
    part = {
        name.removeprefix(prefix): array
        for name, array in state.items()
        if name.startswith(prefix) and not (others and name.startswith(others))
    }
    if len(part) < len(state):
        outside = [
            name
            for name in state
            if not name.startswith(prefix) or (others and name.startswith(others))
        ]
        log.warning(
            "%d of %d arrays are not of %s and are left out: %s.",
            len(outside),
            len(state),
            f"{what}, which begins with {beginning(prefix)!r}" if prefix else what,
            listed([beginning(name) for name in outside]),
        )
    return part


def size_of(state: State, name: str, axis: int, otherwise: int) -> int:
    """Length of an axis of one tensor, where there is such a tensor with such an axis."""
    shape = state[name].shape if name in state else ()
    is_there = -len(shape) <= axis < len(shape)
    return (shape[axis] or otherwise) if is_there else otherwise
