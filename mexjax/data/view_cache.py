"""One array file for each view of a prepared dataset: made by threads, appears whole, is mapped."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mexjax.errors import ConfigError, DataError
from mexjax.files import TEMPORARIES, replacing

FOLDER = "views"
_ARRAY, _ABOUT = "data.npy", "params.json"
# These columns decide the view of a clip, besides the order of the rows.
_COLUMNS = ("subject", "clip", "onset", "apex", "offset", "sha256")
_ABANDONED_S = 24 * 3600.0  # age from which an unfinished file is of a killed process

Progress = Callable[[int, int], None]
Row = Mapping[Any, Any]


def cached(
    root: Path,
    manifest: pd.DataFrame,
    name: str,
    about: Mapping[str, Any],
    compute: Callable[[Row], np.ndarray],
    *,
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
    folder = root / FOLDER / f"{name}-{_digest(rows, about)}"
    array = _open(folder / _ARRAY, len(rows))
    if array is not None:
        return array
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        content = {"view": name, **about, "num_clips": len(rows)}
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        with replacing(folder / _ABOUT) as place:
            place.write_text(text, encoding="utf-8")
        with replacing(folder / _ARRAY) as place:
            _make(place, rows, name, compute, progress, num_workers)
    except OSError as error:
        raise DataError(
            f"Cannot write the view {name} to {folder}: {error.strerror or error}. Free space, or"
            " make the folder of the prepared dataset writable."
        ) from error
    array = _open(folder / _ARRAY, len(rows))
    if array is None:
        raise DataError(f"{folder / _ARRAY} was written and cannot be read back. Check the disk.")
    return array


def _digest(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    keys = []
    for row in rows:
        if not row.get("sha256"):
            raise DataError(
                f"Clip {row.get('subject')}/{row.get('clip')} has no sha256 in the manifest, so it"
                " was not prepared. Run python -m mexjax.prepare first."
            )
        keys.append([str(row[column]) for column in _COLUMNS])
    text = json.dumps([about, keys], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _open(path: Path, num_rows: int) -> np.ndarray | None:
    """The array, or None if the file is not there or not whole."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array if len(array) == num_rows else None


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
