"""Reading PyTorch state dicts, and moving single arrays between the two layouts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mexjax.errors import DataError, beginning, listed
from mexjax.interop.files import read_file
from mexjax.interop.unwrap import State, find_weights, size_of, without_prefix

__all__ = [
    "COUNTER",
    "Entry",
    "Shape",
    "State",
    "check_state",
    "flat_shapes",
    "permuted",
    "plain_entry",
    "read_state",
    "size_of",
    "to_state",
    "to_variables",
    "without_prefix",
]

Shape = tuple[int, ...]

COUNTER = "num_batches_tracked"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One array of the JAX variables and the one or more state-dict entries it is made of.

    Attributes:
      path: keys in the variables, from the collection down: ("params", "head", "kernel").
      names: keys in the state dict.
      shapes: shapes of those entries in PyTorch's layout.
      to_jax: it makes the JAX array of arrays in PyTorch's layout, in the order of `names`.
      to_torch: it is the way back.
    """

    path: tuple[str, ...]
    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    to_jax: Callable[[Sequence[np.ndarray]], np.ndarray]
    to_torch: Callable[[np.ndarray], Sequence[np.ndarray]]


def permuted(path: tuple[str, ...], name: str, shape: Shape, axes: Sequence[int]) -> Entry:
    """An entry whose axes are permuted: axis i in PyTorch is axis `axes[i]` of the JAX array."""
    back = tuple(int(a) for a in np.argsort(axes))
    return Entry(
        path,
        (name,),
        (tuple(shape[a] for a in axes),),
        lambda arrays: arrays[0].transpose(back),
        lambda array: [array.transpose(axes)],
    )


def plain_entry(path: tuple[str, ...], module_name: str, shape: Shape) -> Entry:
    """The entry of a leaf of a Conv, Dense or norm layer called `module_name` in PyTorch.

    Raises:
      KeyError: a leaf of another kind; it needs an entry of its own.
    """
    leaf = path[-1]
    if leaf == "kernel":
        # HWIO -> OIHW, (in, out) -> (out, in).
        axes = {4: (3, 2, 0, 1), 2: (1, 0)}[len(shape)]
        return permuted(path, f"{module_name}.weight", shape, axes)
    names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    return permuted(path, f"{module_name}.{names[leaf]}", shape, range(len(shape)))


def flat_shapes(variables: Mapping[str, Any]) -> dict[tuple[str, ...], Shape]:
    """The shape of every array of a tree of variables, by path."""
    return {path: tuple(array.shape) for path, array in _flat_arrays(variables).items()}


def _flat_arrays(variables: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    return cast(dict[tuple[str, ...], Any], flatten_dict(variables))


def read_state(source: Mapping[str, Any] | str | Path) -> State:
    """A state dict as numpy arrays.

    Args:
      source: a mapping of numpy arrays or PyTorch tensors, or the path of a `.safetensors`,
        `.npz`, `.pt`, `.pth`, `.bin` or `.ckpt` file, or of the index of such files. The content
        tells the kind. Nothing in a file is executed: object arrays and pickled classes are
        refused. TorchScript archives are read by PyTorch's own loader. A dict around the weights
        ("state_dict", "model", ...) is opened, what is no array is left out, and the components
        "module" and "_orig_mod" of names are dropped. bfloat16 and float8 become float32.

    Raises:
      DataError: no such file, another kind of file, or a file that holds no state dict.
      ConfigError: a file of PyTorch, and PyTorch is not installed.
    """
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        content = read_file(path)
        try:
            return find_weights(content)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
    if not isinstance(source, Mapping):
        raise DataError(
            f"Expected a state dict or a path, found {type(source).__name__}"
            + ("; give its state_dict()." if hasattr(source, "state_dict") else ".")
        )
    return find_weights(source)


def check_state(state: State, expected: Mapping[str, Shape], what: str) -> None:
    """Compare names, shapes and types; batch counters and other scalars may be surplus.

    Raises:
      DataError: the first names that are missing, surplus, of another shape, no fractions or not
        finite, and the number of the others, in one line.
    """
    absent = sorted(set(expected) - set(state))
    surplus = sorted(n for n in set(state) - set(expected) if state[n].ndim)
    wrong = [
        f"{beginning(name)} (expected {shape}, found {state[name].shape})"
        for name, shape in expected.items()
        if name in state and state[name].shape != shape
    ]
    if len(absent) == len(expected) and surplus:
        raise DataError(
            f"The weights are not of {what}: it has {len(expected)} arrays like {absent[0]}, and"
            f" the {len(surplus)} found have other names, like {beginning(surplus[0])}."
        )
    problems = [
        f"{len(names)} {kind}: {listed([beginning(name, most=160) for name in names], count)}"
        for kind, names, count in (
            ("of wrong shape", wrong, 1),
            ("missing", absent, 2),
            ("surplus", surplus, 2),
        )
        if names
    ]
    if problems:
        raise DataError(
            f"The weights do not fit {what}. {'; '.join(problems)}. Give the preset or "
            "configuration that the weights were trained with."
        )
    coded = [name for name in expected if state[name].dtype.kind != "f"]
    if coded:
        raise DataError(
            f"{len(coded)} of the {len(expected)} weights are no fractions, the first {coded[0]} of"
            f" type {state[coded[0]].dtype}: quantised weights are not read. Save them as float32."
        )
    broken = [name for name in expected if not np.isfinite(state[name]).all()]
    if broken:
        raise DataError(
            f"{len(broken)} of the {len(expected)} weights of {what} hold numbers that are not"
            f" finite, the first {broken[0]}: the training diverged, or the file is damaged."
        )


def to_variables(entries: Iterable[Entry], state: State, what: str) -> dict[str, Any]:
    """The nested variables (float32) that `entries` make of a state dict, after checking it."""
    entries = list(entries)
    expected = {n: s for e in entries for n, s in zip(e.names, e.shapes, strict=True)}
    check_state(state, expected, what)
    flat = {
        # ascontiguousarray would give a scalar an axis.
        entry.path: np.asarray(
            entry.to_jax([state[name] for name in entry.names]), np.float32, order="C"
        )
        for entry in entries
    }
    return unflatten_dict(flat)


def to_state(entries: Iterable[Entry], variables: Mapping[str, Any]) -> State:
    """The state dict of `variables`; each batch norm gets its counter, at zero."""
    flat = _flat_arrays(variables)
    state: State = {}
    for entry in entries:
        arrays = entry.to_torch(np.asarray(flat[entry.path]))
        for name, array in zip(entry.names, arrays, strict=True):
            state[name] = np.asarray(array, order="C")
            if name.endswith(".running_var"):
                state[name.replace("running_var", COUNTER)] = np.zeros((), np.int64)
    return state
