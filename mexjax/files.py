"""Files that appear under their name only when they are whole, and digests that tell damage."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from mexjax.errors import WorkdirError

TEMPORARIES = ".*.tmp"  # pattern of the names that `temporary` gives
_TEXT: Mapping[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace"}
SEAL = "sha256"  # entry of a JSON file that holds the digest of the others


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """A name beside `path` for a file in the making, `.<name>.<process id>.tmp`.

    A file that still has this name when the block ends is deleted.
    """
    place = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield place
    finally:
        with suppress(OSError):  # an earlier error says more
            place.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write, renamed to `path` when the block ends without an error."""
    with temporary(path) as place:
        yield place
        os.replace(place, path)


@contextmanager
def atomic(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that appears under its name only when it is whole and on the disk.

    Raises:
      WorkdirError: in place of OSError.
    """
    try:
        with (
            replacing(path) as place,
            # Names of files may have bytes that are no UTF-8; they are written as escapes.
            open(place, mode, **({} if "b" in mode else _TEXT)) as file,
        ):
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise WorkdirError(
            f"Cannot write {path}: {error.strerror or error}. Free space or choose another"
            " --workdir; start the same command again to go on from what is saved."
        ) from error


def is_folder(path: Path) -> bool:
    """True if there is such a folder; False also for a name that no file can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long
        return False


def is_file(path: Path) -> bool:
    """True if there is such a file; False also for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


@contextmanager
def open_regular(path: Path) -> Iterator[io.BufferedReader]:
    """A file opened for reading; a FIFO, which would wait for a writer, and a device are refused.

    Raises:
      OSError: it cannot be opened, or is no regular file.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        yield file


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def check_regular(path: Path) -> None:
    """Refuses what `open_regular` refuses, before a library opens it that would wait."""
    with open_regular(path):
        pass


def read_regular(path: Path) -> bytes:
    """The content of a file, see `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def digest(content: bytes | str) -> str:
    """The SHA-256 of some bytes, or of a text in UTF-8, as 64 hexadecimal digits."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, which is read in pieces: half a second for a gigabyte.

    Raises:
      OSError: it cannot be read.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical(value: Any) -> str:
    """The JSON text of a value that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def sealed(content: Mapping[str, Any], entry: str = SEAL) -> dict[str, Any]:
    """The content of a JSON file with an entry, by custom `sha256`, that tells later damage."""
    values = {name: value for name, value in content.items() if name != entry}
    return values | {entry: digest(canonical(values))}


def is_damaged(content: Mapping[str, Any], entry: str = SEAL) -> bool:
    """True if the entry `sha256` of a JSON file is not that of its other entries."""
    return entry in content and sealed(content, entry)[entry] != content[entry]


def read_sealed(path: Path, *entries: str) -> dict[str, Any] | None:
    """The content of a sealed JSON file; None if it is missing, damaged or has no seal.

    Args:
      path: the file.
      *entries: names that a file of this kind has; without them it is another sealed file that
        was put in its place.
    """
    try:
        content = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError):
        return None
    is_whole = isinstance(content, dict) and SEAL in content and not is_damaged(content)
    return content if is_whole and set(entries) <= content.keys() else None
