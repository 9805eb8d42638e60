"""Files of weights: their kind, told by content and not by suffix, and their arrays."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from mexjax.errors import DataError, beginning, listed
from mexjax.files import digest, file_digest
from mexjax.interop.pickled import read_pickled

_SUFFIXES = (".safetensors", ".npz", ".pt", ".pth", ".bin", ".ckpt", ".tar")
_EXPECTED = ".safetensors, .npz, .pt, .pth, .bin or .ckpt"
_HEAD_BYTES = 1024
_MAX_HEADER_BYTES = 100_000_000  # the limit of the format
# First bytes of files that are taken for weights, what they are, and what to do.
_OTHERS = (
    (b"version https://git-lfs", "a pointer of git-lfs", "run `git lfs pull` where it was cloned"),
    (b"\x89HDF", "an HDF5 file (Keras)", "convert it where its framework is"),
    (b"GGUF", "a GGUF file", "convert it where its framework is"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it"),
    (b"BZh", "compressed with bzip2", "unpack it"),
    (b"\xfd7zXZ", "compressed with xz", "unpack it"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"%PDF", "a PDF document", "download the weights themselves"),
    (b"\x93NUMPY", "a single array (.npy)", "save all arrays with their names: np.savez"),
)
_PAGE = re.compile(rb"\s*(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)
_PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.\w+$)")
_MAX_PARTS = 10_000
_TYPES: dict[str, Any] = {
    **{f"{k.upper()}{8 * n}": np.dtype(f"<{k}{n}") for k in "fiu" for n in (1, 2, 4, 8) if n > 1},
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(bool),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}


def read_file(path: Path) -> Mapping[Any, Any]:
    """The content of a file of weights; nothing in it is executed.

    Args:
      path: a file of safetensors, of `np.savez`, of `torch.save` or of TorchScript, or the index
        (`*.index.json`) of such files.

    Raises:
      DataError: no such file, another kind of file, or a damaged one.
      ConfigError: a file of PyTorch, and PyTorch is not installed.
    """
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
        inside = sorted(p.name for p in path.iterdir()) if is_folder else []
    except OSError as error:
        raise DataError(
            f"Cannot read the weights {beginning(path)}: {error.strerror or error}."
        ) from error
    if is_folder:
        names = [n for n in inside if n.endswith((*_SUFFIXES, ".index.json"))]
        raise DataError(
            f"{path} is a folder; expected a file of weights"
            + (f", such as {listed(names)} in it." if names else f" ({_EXPECTED}).")
        )
    if not is_file:
        raise DataError(f"No weights at {path} (looked from {Path.cwd()}).")
    if names := _part_names(path):
        return _read_parts(path, names)
    return _read_one(path)


def weights_digest(path: Path) -> str:
    """The SHA-256 of a file of weights, or of all its parts and its index.

    Raises:
      OSError: one cannot be read.
      DataError: the index of parts cannot be read.
    """
    names = _part_names(path) or ([path.name, *_indexed(path)] if _is_index(path) else [path.name])
    digests = [file_digest(path.parent / name) for name in names]
    return digests[0] if len(digests) == 1 else digest(" ".join(digests))


def _part_names(path: Path) -> list[str]:
    """The names of all parts, where a name is that of one part of several."""
    if not (part := _PART.search(path.name)) or int(part[2]) < 2:
        return []
    width = len(part[2])
    first, last = path.name[: part.start()], path.name[part.end() :]
    numbers = (f"{k + 1:0{width}d}-of-{part[2]}" for k in range(min(int(part[2]), _MAX_PARTS)))
    return [f"{first}-{number}{last}" for number in numbers]


def _read_one(path: Path) -> Mapping[Any, Any]:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        return _reader(path, head)(path)
    except OSError as error:
        raise DataError(f"Cannot read the weights {path}: {error.strerror or error}.") from error
    except MemoryError as error:
        raise DataError(
            f"{path} says that it holds more than fits into memory; it is damaged, or too large."
        ) from error


def _reader(path: Path, head: bytes) -> Callable[[Path], Mapping[Any, Any]]:
    """The reader for the first bytes of a file."""
    if not head.strip(b"\0"):
        what = "empty" if not head else "full of zeros"
        raise DataError(f"The file of weights {path} is {what}; fetch it again.")
    for first, what, remedy in _OTHERS:
        if head.startswith(first):
            raise DataError(f"{path} is {what}, not a file of weights: {remedy}.")
    if _PAGE.match(head):
        raise DataError(
            f"{path} is a web page, not a file of weights: download the file behind its link."
        )
    if _is_index(path):
        return _read_index
    if head.startswith(b"PK"):
        return _read_zip
    length = int.from_bytes(head[:8], "little")
    if path.suffix == ".safetensors" or (
        head[8:9] == b"{" and 2 <= length <= _MAX_HEADER_BYTES and len(head) > 8
    ):
        return _read_safetensors
    if head[:1] == b"\x80" or head[257:262] == b"ustar":
        return read_pickled
    if path.suffix == ".npz":
        return _read_npz
    if head.lstrip()[:1] in (b"{", b"["):
        raise DataError(f"{path} is a JSON text, not a file of weights; expected {_EXPECTED}.")
    if path.suffix in _SUFFIXES:
        raise DataError(
            f"{path} is no file of weights, or a damaged one: its first bytes {head[:8]!r} are of"
            " no kind that is read. Fetch it again."
        )
    raise DataError(
        f"Cannot read weights from {path}: expected {_EXPECTED}; "
        f"found {path.suffix or 'no suffix'}."
    )


def _is_index(path: Path) -> bool:
    return path.name.endswith(".index.json")


def _read_zip(path: Path) -> Mapping[Any, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        kind = "not an .npz of plain arrays" if path.suffix == ".npz" else "not a file of weights"
        raise DataError(
            f"{path} is {kind}: the archive is damaged or cut short. Fetch it again."
        ) from error
    if any(name.endswith("data.pkl") for name in names):
        return read_pickled(path)
    if any(name.endswith(".npy") for name in names):
        return _read_npz(path)
    files = [name for name in names if name.endswith(_SUFFIXES)] or names
    raise DataError(
        f"{path} is an archive of other files ({beginning(listed(files))}): unpack it and give the"
        " file of weights."
    )


def _read_npz(path: Path) -> Mapping[Any, Any]:
    name = ""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {}
            for name in file.files:
                arrays[name] = file[name]
            return arrays
    except (OSError, MemoryError):
        raise
    except Exception as error:  # zip, zlib and numpy's header each fail in their own way
        is_object = "allow_pickle" in str(error) and name
        raise DataError(
            f"{path} is not an .npz of plain arrays: "
            + (
                f"{beginning(name)} is a pickled object, which is not opened. Save the arrays"
                " alone."
                if is_object
                else "it is damaged or of another kind. Fetch it again."
            )
        ) from error


def _read_safetensors(path: Path) -> Mapping[Any, Any]:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="np") as file:
            names = list(file.keys())
        # The library has looked at the header: every tensor lies inside the file.
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
            arrays = {}
            for name in names:
                entry = header[name]
                if entry["dtype"] not in _TYPES:
                    raise DataError(
                        f"{beginning(name)} in {path} has the type {beginning(entry['dtype'])},"
                        " which is not read; save it as float32."
                    )
                first, last = entry["data_offsets"]
                stream.seek(8 + length + first)
                flat = np.frombuffer(stream.read(last - first), _TYPES[entry["dtype"]])
                arrays[name] = flat.reshape(entry["shape"])
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} is not a safetensors file, or is damaged or cut short. Fetch it again."
        ) from error
    return arrays


def _read_index(path: Path) -> Mapping[Any, Any]:
    """The weights of all files that an index names, which lie beside it."""
    return _read_parts(path, _indexed(path))


def _indexed(path: Path) -> list[str]:
    """The names of the files that an index names."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return sorted({str(name) for name in content["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} is not the index of a file of weights in parts: expected a JSON text with a"
            " weight_map."
        ) from error


def _read_parts(path: Path, files: list[str]) -> Mapping[Any, Any]:
    """The union of the files of weights called `files`, which lie beside `path`."""
    strange = [name for name in files if Path(name).name != name or name.endswith(".json")]
    if strange:
        raise DataError(
            f"{path} names {beginning(strange[0])}; expected files of weights that lie beside it."
        )
    missing = [name for name in files if not (path.parent / name).is_file()]
    if missing:
        raise DataError(
            f"The weights of {path} lie in {len(files)} files, of which {len(missing)} are missing:"
            f" {listed([beginning(name) for name in missing])}. Put them beside it."
        )
    state: dict[Any, Any] = {}
    for name in files:
        state |= _read_one(path.parent / name)
    return state
