"""Everything that decides the compiled programs of a run, as text: the key they are kept under."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import mexjax
from mexjax import machine
from mexjax.files import canonical
from mexjax.report.agreement import INDIFFERENT
from mexjax.train import plan
from mexjax.train.study import Study

FORMAT = 1
_PACKAGES = (*machine.PACKAGES, "ml_collections", "ml_dtypes", "chex")
# Settings of JAX that say where programs lie, not what they are.
_PLACES = (
    *("jax_compilation_cache_", "jax_enable_compilation_cache", "jax_persistent_cache_"),
    *("jax_log_", "jax_logging_"),
)


class CannotDescribeError(Exception):
    """A value decides the programs, and there is no text that tells it from all others."""


def description(study: Study, data: Any, per_device: int) -> dict[str, Any]:
    """Everything that decides the programs of a run, as JSON takes it.

    The seed is not among it: it is data.

    Args:
      study: the run.
      data: arrays from `device_data`, or their shapes.
      per_device: folds in a group on one device.

    Raises:
      CannotDescribeError: something that decides them is not known to this function.
    """
    if not type(study.paper).__module__.startswith(f"{mexjax.__name__}."):
        raise CannotDescribeError(f"{type(study.paper)} is not of this package")
    num_folds = per_device * study.num_devices
    layout = plan.take_folds(study.plan, slice(0, 1))
    is_whole = bool(study.plan.valid.all()) and len(study.fold_ids) % num_folds == 0
    config = {
        key: value
        for key, value in _flat(study.config.to_dict())
        if key != "seed" and not key.startswith(INDIFFERENT)
    }
    return {
        "format": FORMAT,
        "code": code_digest(Path(mexjax.__file__).parent),
        "python": sys.version,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "processor": [machine.processor(), processor_flags(), machine.num_cores()],
        "devices": [[d.platform, d.device_kind, d.id] for d in jax.local_devices()],
        "used": [d.id for d in study.devices],
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name == "XLA_FLAGS"
            or (name.startswith("JAX_") and not name.lower().startswith(_PLACES))
        },
        # The attributes know the values of `with` blocks; JAX defines them when it runs.
        "settings": {
            name: repr(getattr(jax.config, name, value))
            for name, value in jax.config.values.items()
            if not name.startswith(_PLACES)
        },
        "config": described(config),
        "paper": f"{type(study.paper).__module__}.{type(study.paper).__qualname__}",
        "options": described(study.options),
        "network": described(study.module),
        "strategy": [study.strategy, num_folds, is_whole],
        "schedule": [study.schedule.epoch_steps, study.schedule.steps_per_call],
        "plan": _shapes(layout),
        "data": _shapes(data),
    }


def described(value: Any) -> Any:
    """A value as JSON takes it: equal texts mean equal values.

    Raises:
      CannotDescribeError: a value of another kind than numbers, texts, arrays, functions of
        this package and lists, dicts and dataclasses (networks too) of these.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise CannotDescribeError("an array of objects")
        return [str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest()]
    if isinstance(value, list | tuple):
        return [type(value).__qualname__, *map(described, value)]
    if isinstance(value, dict | ConfigDict):
        pairs = [[described(key), described(item)] for key, item in value.items()]
        return ["dict", *sorted(pairs, key=canonical)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # The parent of a network is a marker object that says nothing.
        names = [f.name for f in dataclasses.fields(value) if f.name != "parent"]
        fields = {name: described(getattr(value, name)) for name in names}
        return [f"{type(value).__module__}.{type(value).__qualname__}", fields]
    raise CannotDescribeError(f"a {type(value).__module__}.{type(value).__qualname__}")


def code_digest(folder: Path) -> str:
    """A digest of the names and contents of the files of a package."""
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if "__pycache__" in path.parts or not path.is_file():
            continue
        name = path.relative_to(folder).as_posix()
        state.update(f"{name}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return state.hexdigest()


@functools.cache
def processor_flags() -> str:
    """The instructions that the processor has, as Linux names them; empty elsewhere."""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        for line in text.splitlines():
            if line.lower().startswith(("flags", "features")):
                return " ".join(sorted(line.partition(":")[2].split()))
    return ""


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of nested dicts with dots between, and their values."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shapes(tree: Any) -> list[Any]:
    """The structure of a tree of arrays, and their shapes and types."""
    leaves, structure = jax.tree.flatten(tree)
    shapes = [[list(np.shape(leaf)), str(np.result_type(leaf))] for leaf in leaves]
    weak = [bool(getattr(leaf, "weak_type", False)) for leaf in leaves]
    return [str(structure), shapes, weak]
