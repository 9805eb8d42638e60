"""State of a group of folds on disk: asynchronous orbax checkpoints with a way back.

Orbax writes arrays of all processes together, and a group is of one process alone. Where several
processes train a run its checkpoint is a file of safetensors; any number of processes reads both.

Each group has one folder. A checkpoint holds everything the group needs to go on: parameters,
optimizer, batch statistics, its position in the plan and its record so far.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import re
import shutil
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import safetensors.numpy

from mexjax import processes
from mexjax.errors import CheckpointError, WorkdirError
from mexjax.files import check_regular, replacing

log = logging.getLogger(__name__)

_DIGEST = "sha256"  # name of the digest among the arrays of a checkpoint
_SUFFIX = ".safetensors"
_ITEM = "default"  # name of the arrays in a checkpoint; also orbax's own for a single item


class GroupCheckpoints:
    """Checkpoints of one group of folds, the newest two kept."""

    def __init__(self, folder: Path) -> None:
        """Takes the folder, which is made if it is absent.

        Raises:
          WorkdirError: it cannot be used.
        """
        self.folder = folder
        _leave_errors_to_us()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(
                folder.absolute(),
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=2,
                    create=False,
                    cleanup_tmp_directories=True,
                    multiprocessing_options=_alone(),
                ),
                # Without a name orbax looks for it in the newest step, which may be damaged.
                item_names=(_ITEM,),
            )
        # Every error counts, here and below: orbax passes on those of its storage layers.
        except Exception as error:
            raise WorkdirError(
                f"Cannot keep checkpoints in {folder}: {_reason(error)}. Move what is in the way;"
                " finished folds are kept."
            ) from error

    def __enter__(self) -> GroupCheckpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # The error of the block says more than one of a checkpoint.
        kept_back = () if kind is None else (WorkdirError,)
        with contextlib.suppress(*kept_back):
            self.close()

    def save(self, position: int, tree: Any) -> None:
        """Starts to write `tree` as the state after `position` steps, and returns at once.

        Raises:
          WorkdirError: it, or the one before, cannot be written.
        """
        if position in self._positions():
            return
        flat = _flatten(tree)
        flat[_DIGEST] = _digest(flat)
        if processes.count() > 1:
            with self._writing():
                self._save_file(position, {name: np.asarray(leaf) for name, leaf in flat.items()})
            return
        items = ocp.args.Composite(**{_ITEM: ocp.args.StandardSave(flat)})
        with self._writing():
            self._manager.save(position, args=items)

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """Reads the newest checkpoint that is whole; its arrays have the digest that was saved.

        Args:
          like: a tree of the same structure; `jax.ShapeDtypeStruct` leaves with a sharding come
            back as arrays on those devices, numpy leaves as numpy arrays.

        Returns:
          The position and the tree, or None if there is no checkpoint.

        Raises:
          CheckpointError: there are checkpoints and none can be read.
        """
        positions = sorted(self._positions(), reverse=True)
        failures = []
        for position in positions:
            try:
                tree = self._read(position, like)
            except Exception as error:
                failures.append(f"step {position}: {_reason(error)}")
                log.warning("checkpoint %s/%s", self.folder, f"{failures[-1]}; it cannot be read.")
                continue
            # orbax saves nothing at or before its newest step: a damaged one must go.
            for damaged in positions[: positions.index(position)]:
                with self._writing():
                    self._delete(damaged)
            return position, tree
        if failures:
            raise CheckpointError(
                f"No checkpoint in {self.folder} can be read ({'; '.join(failures)}). Delete that"
                " folder to train these folds again; finished folds are kept."
            )
        return None

    def _positions(self) -> list[int]:
        files = [path.stem for path in self.folder.glob(f"*{_SUFFIX}")]
        return [*self._manager.all_steps(), *(int(stem) for stem in files if stem.isdecimal())]

    def _file(self, position: int) -> Path:
        return self.folder / f"{position}{_SUFFIX}"

    def _save_file(self, position: int, flat: dict[str, np.ndarray]) -> None:
        """Write the file of one process among several; the newest two are kept."""
        arrays = {name: np.ascontiguousarray(array) for name, array in flat.items()}
        with replacing(self._file(position)) as path:
            safetensors.numpy.save_file(arrays, path)
        files = [int(path.stem) for path in self.folder.glob(f"*{_SUFFIX}")]
        for old in sorted(files)[:-2]:
            self._file(old).unlink(missing_ok=True)

    def _delete(self, position: int) -> None:
        if self._file(position).exists():
            self._file(position).unlink()
        else:
            self._manager.delete(position)

    def _read(self, position: int, like: Any) -> Any:
        """The tree of a checkpoint; any error if it is damaged."""
        shapes = _flatten(like)
        if self._file(position).exists():
            check_regular(self._file(position))
            flat = dict(safetensors.numpy.load_file(self._file(position)))
            flat = {name: array.reshape(_shape(shapes, name)) for name, array in flat.items()}
        else:
            flat = self._read_orbax(position, shapes)
        digest = flat.pop(_DIGEST)
        if not np.array_equal(digest, _digest(flat)):
            raise ValueError("its arrays are not those that were saved")
        for name, leaf in shapes.items():
            if isinstance(flat[name], np.ndarray) and isinstance(leaf, jax.ShapeDtypeStruct):
                flat[name] = jax.device_put(flat[name], leaf.sharding)
        return _unflatten(flat, like)

    def _read_orbax(self, position: int, shapes: Mapping[str, Any]) -> dict[str, Any]:
        for path in (self.folder / str(position)).rglob("*"):
            if not path.is_dir():
                check_regular(path)  # orbax would wait for the writer of a FIFO
        if processes.count() > 1:
            shapes = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}
        shapes = {**shapes, _DIGEST: np.zeros(32, np.uint8)}
        items = ocp.args.Composite(**{_ITEM: ocp.args.StandardRestore(shapes)})
        return dict(self._manager.restore(position, args=items)[_ITEM])

    def wait(self) -> None:
        """Waits until every saved state is on disk.

        Raises:
          WorkdirError: one cannot be written.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Finishes writing and lets go of the folder.

        Raises:
          WorkdirError: a saved state cannot be written.
        """
        with self._writing():
            self._manager.close()

    def remove(self) -> None:
        """Deletes the folder; the group is finished and recorded."""
        with contextlib.suppress(WorkdirError):  # nothing needs them any more
            self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise WorkdirError(
                f"Cannot write a checkpoint to {self.folder}: {_reason(error)}. Free space and"
                " start the same command again: finished folds and checkpoints before are kept."
            ) from error


def _alone() -> ocp.options.MultiprocessingOptions:
    """The options under which this process alone writes its checkpoints."""
    if processes.count() == 1:
        return ocp.options.MultiprocessingOptions()
    own = processes.index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}"
    )


def _shape(shapes: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """The shape of an array; a file has scalars as arrays of one number."""
    return (32,) if name == _DIGEST else shapes[name].shape


def _reason(error: Exception) -> str:
    """The first line of an error, or what the system said where a storage layer quotes it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip() or type(error).__name__
    quoted = re.search(r": ([^:\[]+) \[os_error_code=", text)
    return quoted[1] if quoted else text.splitlines()[0][:200]


def _is_shown(record: logging.LogRecord) -> bool:
    """False for an error of orbax, or of the library that reads and writes for it."""
    if not record.exc_info:
        return True
    _, error, trace = record.exc_info
    return not (_is_of_orbax(trace) or "tensorstore" in str(error))


def _is_of_orbax(trace: TracebackType | None) -> bool:
    """True if an error was raised in orbax, or passed through it."""
    return any("orbax" in frame.f_code.co_filename for frame, _ in traceback.walk_tb(trace))


@functools.cache
def _leave_errors_to_us() -> None:
    """Keep tracebacks of orbax off the terminal; each error is raised here, too.

    Its threads log the errors that they raise, and reads and writes that end after one that failed
    find its event loop closed.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_shown)
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        text = str(unraisable.exc_value)
        # The first ends late; the second nobody waits for after another one has failed.
        is_late = text == "Event loop is closed" or "coroutine 'Store._get_" in text
        if not is_late and not _is_of_orbax(unraisable.exc_traceback):
            before(unraisable)

    sys.unraisablehook = hook


def _digest(flat: Mapping[str, Any]) -> np.ndarray:
    """u8[32], the SHA-256 of the names, shapes, dtypes and bytes of arrays."""
    state = hashlib.sha256()
    for name in sorted(flat):
        array = np.ascontiguousarray(flat[name])
        state.update(f"{name} {array.dtype} {np.shape(flat[name])} ".encode())
        state.update(array.reshape(-1).view(np.uint8).data)
    return np.frombuffer(state.digest(), np.uint8)


def _flatten(tree: Any) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _unflatten(flat: Mapping[str, Any], like: Any) -> Any:
    leaves = []
    for name, leaf in _flatten(like).items():
        value = flat[name]
        leaves.append(np.asarray(value) if isinstance(leaf, np.ndarray) else value)
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
