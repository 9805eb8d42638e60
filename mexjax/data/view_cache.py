"""One array file for each view of a prepared dataset: made by threads, appears whole, is mapped.

A view lies in `views/<name>-<key>/`: `data.npy`, and `params.json` with the parameters and the
digest of the array. The key is of the parameters and of the clips (bytes and key frames), so that
other data never get it, wherever it lies. An array that is not the one that was written is made
again.
"""

from __future__ import annotations

import errno
import functools
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mexjax.errors import ConfigError, DataError
from mexjax.files import (
    SEAL,
    TEMPORARIES,
    canonical,
    digest,
    file_digest,
    read_sealed,
    replacing,
    sealed,
    temporary,
)

log = logging.getLogger(__name__)

FOLDER = "views"
_ARRAY, _ABOUT = "data.npy", "params.json"
# These columns decide the view of a clip, besides the order of the rows.
_COLUMNS = ("subject", "clip", "onset", "apex", "offset", "sha256")
_ABANDONED_S = 24 * 3600.0  # age from which an unfinished file is of a killed process
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
_NUM_DIGITS = 16  # of a key in the name of a folder

Progress = Callable[[int, int], None]
Row = Mapping[Any, Any]


def cached(
    root: Path,
    manifest: pd.DataFrame,
    name: str,
    about: Mapping[str, Any],
    compute: Callable[[Row], np.ndarray],
    *,
    cache: str | Path = "",
    progress: Progress | None = None,
    num_workers: int = 1,
) -> np.ndarray:
    """Read or make the array of a view.

    Args:
      root: folder of the prepared dataset.
      manifest: N rows.
      name: name of the view.
      about: parameters and version, of types that JSON can hold.
      compute: row -> array, of one shape and dtype for all rows; called by several threads.
      cache: folder that holds views in place of `root`; empty: `root`, or a folder of the user
        where `root` cannot be written.
      progress: called with (clips done, N).
      num_workers: threads.

    Returns:
      [N, ...], read-only, mapped from the file.

    Raises:
      DataError: no rows, rows that were not prepared, a clip that fails, or a folder that cannot
        be written.
    """
    rows = manifest.to_dict("records")
    if not rows:
        raise DataError("The manifest has no rows, so there is no view to compute.")
    key = _key(rows, about)
    content = {"view": name, **about, "num_clips": len(rows), "key": key}
    leaf = f"{name}-{key[:_NUM_DIGITS]}"
    folder = (Path(cache) / _name_of(root, rows) if cache else root / FOLDER) / leaf
    array = _open(folder, content)
    if array is not None:
        return array
    try:
        if not cache and not _is_writable(folder):
            place = _users_cache() / _name_of(root, rows)
            _say_place(root, place)
            folder = place / leaf
            array = _open(folder, content)
            if array is not None:
                return array
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        with replacing(folder / _ARRAY) as place:
            _make(place, rows, name, compute, progress, num_workers)
            # The digest comes first: an array without it was not written here.
            seal = sealed({**content, "digests": {_ARRAY: file_digest(place)}})
            with replacing(folder / _ABOUT) as text:
                text.write_text(json.dumps(seal, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"Cannot write the view {name} to {folder}: {error.strerror or error}. Free space, or"
            " set data.cache to a folder that can be written."
        ) from error
    array = _open(folder, content)
    if array is None:
        raise DataError(f"{folder / _ARRAY} was written and cannot be read back. Check the disk.")
    return array


def _key(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    keys = []
    for row in rows:
        if not row.get("sha256"):
            raise DataError(
                f"Clip {row.get('subject')}/{row.get('clip')} has no sha256 in the manifest, so it"
                " was not prepared. Run python -m mexjax.prepare first."
            )
        keys.append([str(row[column]) for column in _COLUMNS])
    return digest(json.dumps([about, keys], sort_keys=True))


def _open(folder: Path, content: Mapping[str, Any]) -> np.ndarray | None:
    """The array, or None if it is not there or not the one that was written.

    It is read once for its digest, in half a second for a gigabyte, and then mapped.
    """
    path = folder / _ARRAY
    if not path.exists():
        return None
    about = read_sealed(folder / _ABOUT)
    try:
        if about is not None and _without_digests(about) == json.loads(canonical(content)):
            if file_digest(path) == about["digests"][_ARRAY]:
                return np.load(path, mmap_mode="r", allow_pickle=False)
            log.warning("%s is damaged: its digest does not fit. The view is made again.", path)
        else:
            log.warning("%s has no digest that is whole. The view is made again.", path)
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        reason = str(error).partition("\n")[0][:200]
        log.warning("%s cannot be read (%s). The view is made again.", path, reason)
    return None


def _without_digests(about: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in about.items() if name not in ("digests", SEAL)}


def _is_writable(folder: Path) -> bool:
    """Make the folder, if it can be, and see whether a file can be written into it.

    Raises:
      OSError: for another reason than a lack of rights, as a full disk.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary(folder / "writable") as probe:
            probe.touch()
    except OSError as error:
        if error.errno in _NOT_WRITABLE:
            return False
        raise
    return True


def _users_cache() -> Path:
    """The folder for views of prepared datasets that cannot be written."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = os.path.expanduser("~")
    if not os.path.isabs(base) and not os.path.isabs(home):
        raise FileNotFoundError(errno.ENOENT, "it is read-only, and the user has no home folder")
    return (Path(base) if os.path.isabs(base) else Path(home) / ".cache") / "mexjax" / FOLDER


def _name_of(root: Path, rows: Sequence[Row]) -> str:
    """A name for the views of a prepared dataset elsewhere: the digest of its clips."""
    from mexjax.data.manifest import read_manifest  # it takes a second to import
    from mexjax.data.records import MANIFEST

    if (root / MANIFEST).is_file():
        # All rows count, also where a run takes some of the datasets.
        rows = read_manifest(root / MANIFEST, required=_COLUMNS).to_dict("records")
    clips = sorted([str(row[name]) for name in ("subject", "clip", "sha256")] for row in rows)
    return digest(canonical(clips))[:_NUM_DIGITS]


@functools.cache
def _say_place(root: Path, place: Path) -> None:
    """Say once where views are."""
    log.warning(
        "%s cannot be written: its views are in %s (data.cache sets a folder).", root, place
    )


def _remove_abandoned(folder: Path) -> None:
    for path in folder.glob(TEMPORARIES):
        if time.time() - path.stat().st_mtime > _ABANDONED_S:
            path.unlink(missing_ok=True)


def _make(
    path: Path,
    rows: Sequence[Row],
    name: str,
    compute: Callable[[Row], np.ndarray],
    progress: Progress | None,
    num_workers: int,
) -> None:
    """Compute every row into the file. The first one tells shape and dtype."""
    first = _computed(rows[0], name, compute)
    array = np.lib.format.open_memmap(path, "w+", first.dtype, (len(rows), *first.shape))
    if hasattr(os, "posix_fallocate"):
        # A mapped file has no space of its own yet: a disk that fills up would end the process.
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    array[0] = first

    def fill(index: int) -> None:
        view = _computed(rows[index], name, compute)
        if view.shape != first.shape or view.dtype != first.dtype:
            raise DataError(
                f"{_id(rows[index])}: the view {name} is {view.dtype}{list(view.shape)}, that of"
                f" {_id(rows[0])} {first.dtype}{list(first.shape)}."
            )
        array[index] = view

    if progress is not None:
        progress(1, len(rows))
    # Threads do it: the work is in OpenCV, numpy and XLA, which release the interpreter's lock, and
    # a process that holds JAX must not fork.
    pool = ThreadPoolExecutor(num_workers)
    try:
        pending = [pool.submit(fill, index) for index in range(1, len(rows))]
        for done, future in enumerate(as_completed(pending), start=2):
            future.result()
            if progress is not None:
                progress(done, len(rows))
    finally:
        pool.shutdown(cancel_futures=True)
    array.flush()


def _computed(row: Row, name: str, compute: Callable[[Row], np.ndarray]) -> np.ndarray:
    try:
        return np.asarray(compute(row))
    except ConfigError:
        raise  # it is about the parameters, the same for every clip
    except ValueError as error:  # a DataError is one too
        text = str(error)
        clip = _id(row)
        raise DataError(text if clip in text else f"View {name} of clip {clip}: {text}") from error


def _id(row: Row) -> str:
    return f"{row['subject']}/{row['clip']}"
