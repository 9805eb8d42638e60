"""Weights in files of `torch.save`, of which nothing is executed.

PyTorch's own restricted reader opens them. It refuses every object that is not a tensor or plain
data; objects of well-known keepers of settings (argparse, pathlib, omegaconf, Lightning, ...) are
read as empty stand-ins here, whose code is neither imported nor run, and arrays of numpy as plain
bytes with a shape. Any other object makes the file refused.
"""

from __future__ import annotations

import importlib
import io
import math
import pickletools
import re
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from mexjax.errors import ConfigError, DataError, beginning

# Objects that stand beside weights in checkpoints and hold settings; each becomes a stand-in.
_SETTINGS = re.compile(
    r"(argparse\.Namespace|types\.SimpleNamespace|pathlib(\._local)?\.\w+|datetime\.\w+"
    r"|collections\.(defaultdict|deque)|typing\.\w+|enum\.\w+"
    r"|builtins\.(dict|list|tuple|int|float|bool|str|bytes|object|slice|range)"
    r"|(omegaconf|easydict|addict|yacs|ml_collections|pytorch_lightning|lightning"
    r"|lightning_fabric|lightning_utilities|mmengine|mmcv|detectron2\.config)\.[\w.]+"
    r"|numpy\.(dtype|ndarray|dtypes\.\w+|(core|_core)\.multiarray\.(scalar|_reconstruct)"
    r"|bool_?|u?int\d+|float\d+|str_))"
)
_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")


class _StandIn(dict):
    """The place of an object that is not opened; it keeps nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _StandIn:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass


class _NumpyType(_StandIn):
    """The place of a numpy type: it keeps its name and byte order."""

    code, order = "", "="

    def __init__(self, code: Any = "", *_: Any) -> None:
        super().__init__()
        self.code = code if isinstance(code, str) else ""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|"):
            self.order = state[1]


class _NumpyArray(_StandIn):
    """The place of a numpy array, which keeps shape, type and bytes."""

    array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, is_fortran, content = state
        is_plain = isinstance(kind, _NumpyType) and re.fullmatch(r"[fiub]\d+", kind.code)
        if not is_plain or not isinstance(content, bytes):
            return
        order = kind.order if kind.order in ("<", ">") else ""
        flat = np.frombuffer(content, np.dtype(order + kind.code))
        if flat.size == math.prod(shape):
            array = flat.reshape(shape, order="F" if is_fortran else "C")
            self.array = array.astype(array.dtype.newbyteorder("="))


def read_pickled(path: Path) -> Mapping[Any, Any]:
    """The content of a file of `torch.save`, or the weights of a TorchScript archive.

    Raises:
      DataError: a file that is damaged, or that holds objects other than tensors and settings.
      ConfigError: PyTorch is not installed.
    """
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        raise ConfigError(
            f"Reading {path} needs PyTorch: pip install torch, or convert the file to "
            ".safetensors where PyTorch is."
        ) from error
    names, protocol = _globals_in(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # files of old versions stay what they are
            if _is_torch_script(path):
                return torch.jit.load(path, map_location="cpu").state_dict()
            with torch.serialization.safe_globals(list(_stand_ins(names))):
                state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds for a file it refuses
        raise DataError(_refusal(path, names, protocol)) from error
    if hasattr(state, "detach"):
        raise DataError(f"{path} holds one tensor; expected a state dict: names and tensors.")
    if not isinstance(state, Mapping) or isinstance(state, _StandIn):
        kind = "object" if isinstance(state, _StandIn) else type(state).__name__
        raise DataError(
            f"{path} holds more than tensors, or is damaged: a single {kind}; expected a state"
            " dict: torch.save(model.state_dict(), FILE)."
        )
    return _with_arrays(state)


def _stand_ins(names: Iterable[str]) -> Iterable[tuple[type, str]]:
    for name in names:
        if name in _RECONSTRUCT:
            yield _NumpyArray, name
        elif name == "numpy.dtype":
            yield _NumpyType, name
        elif _SETTINGS.fullmatch(name):
            yield _StandIn, name


def _with_arrays(value: Any, depth: int = 8) -> Any:
    """`value` with numpy's arrays in the places of their stand-ins, and without the others."""
    if isinstance(value, _NumpyArray):
        return value.array
    if isinstance(value, _StandIn):
        return None
    if isinstance(value, Mapping) and depth:
        return {key: _with_arrays(inner, depth - 1) for key, inner in value.items()}
    return value


def _refusal(path: Path, names: Iterable[str], protocol: int) -> str:
    """The sentence for a file that PyTorch's reader refused."""
    if protocol > 2:
        return (
            f"{path} is pickled with protocol {protocol}; expected 2, which torch.save takes unless"
            " told otherwise. Save it again without pickle_protocol."
        )
    foreign = [
        name
        for name in names
        if not re.match(r"torch\.|collections\.|_codecs\.|builtins\.(set|complex|bytearray)$", name)
        and not _SETTINGS.fullmatch(name)
    ]
    layers = [name for name in names if name.startswith("torch.nn.modules.")]
    if layers:
        kind = beginning((foreign or layers)[0])
        return (
            f"{path} holds more than tensors: a whole model ({kind}), whose code would have to run."
            " Save its weights where that code is: torch.save(model.state_dict(), FILE)."
        )
    if foreign:
        return (
            f"{path} holds more than tensors: an object {beginning(foreign[0])}, which is not"
            " opened because a pickle can run code. Where the file was made, save the state dict"
            " alone."
        )
    return (
        f"{path} holds more than tensors, or is damaged or cut short. Fetch it again, or save the"
        " state dict alone where the file was made."
    )


def _globals_in(path: Path) -> tuple[list[str], int]:
    """The names that a file's pickles ask for, and their protocol; nothing is looked up."""
    names: dict[str, None] = {}
    protocol = 0
    try:
        for stream in _pickles_of(path):
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "PROTO" and argument is not None:
                    protocol = max(protocol, int(argument))
                elif opcode.name in ("GLOBAL", "INST"):
                    module, _, name = str(argument).partition(" ")
                    # Protocol 2 writes the names that Python 2 had.
                    module, name = NAME_MAPPING.get((module, name), (module, name))
                    names[f"{IMPORT_MAPPING.get(module, module)}.{name}"] = None
    except Exception:  # a damaged pickle fails in many ways, and the reader says so
        pass
    return list(names), protocol


def _pickles_of(path: Path) -> Iterable[IO[bytes]]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    yield io.BytesIO(archive.read(name))
        return
    with path.open("rb") as file:
        for _ in range(4):  # magic number, version, system, and the objects
            yield file


def _is_torch_script(path: Path) -> bool:
    """True if an archive holds a program beside its tensors, as OpenAI's CLIP files do."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False
