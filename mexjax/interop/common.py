"""Reading PyTorch state dicts, and moving single arrays between the two layouts."""

from __future__ import annotations

import dataclasses
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mexjax.errors import ConfigError, DataError

State = dict[str, np.ndarray]
Shape = tuple[int, ...]

# Training scripts wrap a state dict in these keys; data-parallel training puts the prefix before
# names.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_PREFIX = "module."
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
        `.npz`, `.pt`, `.pth` or `.bin` file. Nothing in a file is executed: object arrays and
        pickled classes are refused. TorchScript archives are read by PyTorch's own loader. A dict
        around the weights ("state_dict", "model", ...) is opened, and "module." before every
        name is dropped.

    Raises:
      DataError: no such file, another kind of file, or a file that holds no state dict.
      ConfigError: a `.pt` file, and PyTorch is not installed.
    """
    state = _read_file(Path(source)) if isinstance(source, str | Path) else source
    for wrapper in _WRAPPERS:
        inner = state.get(wrapper)
        if isinstance(inner, Mapping):
            state = inner
    if state and all(name.startswith(_PREFIX) for name in state):
        state = {name.removeprefix(_PREFIX): value for name, value in state.items()}
    return {name: _as_numpy(name, value) for name, value in state.items()}


def _read_file(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise DataError(f"No weights at {path} (looked from {Path.cwd()}).")
    if path.suffix == ".safetensors":
        import safetensors
        import safetensors.numpy

        try:
            return safetensors.numpy.load_file(path)
        except safetensors.SafetensorError as error:
            raise DataError(f"{path} is not a safetensors file: {error}") from error
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (ValueError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is not an .npz of plain arrays: {error}") from error
    if path.suffix in (".pt", ".pth", ".bin", ".tar"):
        return _read_pickled(path)
    raise DataError(
        f"Cannot read weights from {path}: expected .safetensors, .npz, .pt, .pth or .bin; "
        f"found {path.suffix or 'no suffix'}."
    )


def _read_pickled(path: Path) -> Mapping[str, Any]:
    try:
        import torch  # pyright: ignore[reportMissingImports]  (an extra)
    except ImportError as error:
        raise ConfigError(
            f"Reading {path} needs PyTorch: pip install torch, or convert the file to "
            ".safetensors where PyTorch is."
        ) from error
    try:
        if _is_torch_script(path):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # the files stay what they are
                return torch.jit.load(path, map_location="cpu").state_dict()
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds for a file it refuses
        raise DataError(f"{path} holds more than tensors, or is damaged: {error}") from error
    if not isinstance(state, Mapping):
        raise DataError(f"{path} holds a {type(state).__name__}; expected a state dict.")
    return state


def _is_torch_script(path: Path) -> bool:
    """True if an archive holds a program beside its tensors, as OpenAI's CLIP files do."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _as_numpy(name: str, value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.float()  # numpy has no bfloat16
        value = value.numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name} of the state dict is no array: {type(value).__name__}.")
    return array


def check_state(state: State, expected: Mapping[str, Shape], what: str) -> None:
    """Compare names and shapes; batch counters may be absent or surplus.

    Raises:
      DataError: everything missing, surplus or of another shape, in one message.
    """
    absent = sorted(set(expected) - set(state))
    surplus = sorted(n for n in set(state) - set(expected) if not n.endswith("." + COUNTER))
    wrong = [
        f"{name} (expected {shape}, found {state[name].shape})"
        for name, shape in expected.items()
        if name in state and state[name].shape != shape
    ]
    problems = [
        f"{len(names)} {kind}: {', '.join(names)}"
        for kind, names in (("missing", absent), ("surplus", surplus), ("of wrong shape", wrong))
        if names
    ]
    if problems:
        raise DataError(
            f"The weights do not fit {what}. {'; '.join(problems)}. Give the preset or "
            "configuration that the weights were trained with."
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
