"""State of a group of folds on disk: asynchronous orbax checkpoints with a way back.

Each group has one folder. A checkpoint holds everything the group needs to go on: parameters,
optimizer, batch statistics, its position in the plan and its record so far.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mexjax.errors import CheckpointError

log = logging.getLogger(__name__)

_DIGEST = "sha256"  # name of the digest among the arrays of a checkpoint


class GroupCheckpoints:
    """Checkpoints of one group of folds, the newest two kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=2, create=True, cleanup_tmp_directories=True
            ),
        )

    def save(self, position: int, tree: Any) -> None:
        """Starts to write `tree` as the state after `position` steps, and returns at once."""
        if position in self._manager.all_steps():
            return
        flat = _flatten(tree)
        flat[_DIGEST] = _digest(flat)
        self._manager.save(position, args=ocp.args.StandardSave(flat))

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
        positions = sorted(self._manager.all_steps(), reverse=True)
        failures = []
        for position in positions:
            try:
                shapes = _flatten(like) | {_DIGEST: np.zeros(32, np.uint8)}
                flat = dict(self._manager.restore(position, args=ocp.args.StandardRestore(shapes)))
                digest = flat.pop(_DIGEST)
                if not np.array_equal(digest, _digest(flat)):
                    raise ValueError("its arrays are not those that were saved")
                tree = _unflatten(flat, like)
                # orbax saves nothing at or before its newest step: a damaged one must go.
                for damaged in positions[: positions.index(position)]:
                    self._manager.delete(damaged)
                return position, tree
            # Every error counts: orbax passes on those of its storage layers for damaged files.
            except Exception as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
                failures.append(f"step {position}: {reason}")
                log.warning("checkpoint %s/%d cannot be read: %s", self.folder, position, reason)
        if failures:
            raise CheckpointError(
                f"No checkpoint in {self.folder} can be read ({'; '.join(failures)}). Delete that"
                " folder to train these folds again; finished folds are kept."
            )
        return None

    def wait(self) -> None:
        """Waits until every saved state is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Finishes writing and lets go of the folder."""
        self._manager.close()

    def remove(self) -> None:
        """Deletes the folder; the group is finished and recorded."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


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
