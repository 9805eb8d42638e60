"""Compiled programs kept on disk, so that a second start of a configuration traces nothing.

JAX's own cache saves compiling; the way to its key, tracing and lowering, takes seconds more. Here
the key is a digest of everything that decides the programs: the configuration, the network, shapes,
every file of this package, versions, flags, the processor and its cores. An entry is for a CPU, is
written whole, and is read only if it is the user's own and undamaged; otherwise the programs are
compiled as if it were not there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pickle
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable

from mexjax import processes
from mexjax.files import canonical, digest, open_regular, replacing
from mexjax.train import cost, fold_axis
from mexjax.train.program_key import CannotDescribeError, description
from mexjax.train.programs import Compiled
from mexjax.train.study import Study

log = logging.getLogger(__name__)

SUFFIX = ".programs"
MOST_BYTES = 2**29  # of all entries; those that were not used for longest go first
_NAMES = ("init", "train", "evaluate")
_NUM_DIGITS = 64
_HIT = "/jax/compilation_cache/cache_hits"


@dataclasses.dataclass(frozen=True)
class Kept:
    """The programs of a run as they come from the disk.

    Attributes:
      compiled: the programs.
      clip_flops: the result of `mexjax.train.programs.clip_flops`, which is traced too.
    """

    compiled: Compiled
    clip_flops: int


class Shelf:
    """The programs of one run in a folder.

    A program that came out of JAX's cache cannot be written again: the copy lacks functions. So an
    entry is written only if no program was read from there while the block `watching` ran.
    """

    def __init__(
        self,
        folder: Path | None,
        study: Study,
        data: Any,
        *,
        per_device: int = 0,
        begun: int = 0,
    ) -> None:
        """Finds the entry's name; without a folder, or where nothing is kept, there is none.

        Args:
          folder: the folder of entries, made if absent; None: nothing is kept.
          study: the run.
          data: arrays from `device_data`.
          per_device: folds in a group on one device; 0: the number follows from memory.
          begun: see `mexjax.train.programs.compile_programs`.
        """
        self.path: Path | None = None
        self._num_hits, self._study = 0, study
        self._size = cost.first_group(
            len(study.fold_ids), study.devices, per_device, strategy=study.strategy, begun=begun
        )
        if folder is None or study.target.platform != "cpu" or processes.count() > 1:
            return
        if not self._size.fits:  # the group depends on the memory that is free
            return
        try:
            key = digest(canonical(description(study, data, self._size.per_device)))
        except CannotDescribeError as error:
            log.debug("The programs of this run are not kept: %s", error)
        else:
            self.path = folder / f"{key}{SUFFIX}"

    def read(self) -> Kept | None:
        """The programs, if there is a sound entry."""
        if self.path is None:
            return None
        try:
            content = _read(self.path)
            return None if content is None else self._loaded(pickle.loads(content))
        # Whatever is wrong with an entry, the programs can be compiled.
        except Exception as error:
            log.debug("%s is not used: %s", self.path, error)
            return None

    def _loaded(self, entry: dict[str, Any]) -> Kept:
        devices = self._study.devices
        init, train, evaluate = (
            serialize_executable.deserialize_and_load(
                *entry["executables"][name],
                backend=devices[0].client,
                execution_devices=devices,
            )
            for name in _NAMES
        )
        mesh = fold_axis.mesh_of(self._study.strategy, self._study.target)
        folded, shared = fold_axis.shardings(mesh, devices[0])
        programs = fold_axis.Programs(init, train, evaluate, entry["log_names"], folded, shared)
        shapes = entry["carry_shape"], entry["eval_shape"]
        compiled = Compiled(self._size, programs, init, train, evaluate, *shapes, is_kept=True)
        return Kept(compiled, entry["clip_flops"])

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Notice programs that JAX reads from its own cache in a `with` block."""
        jax.monitoring.register_event_listener(self._listen)
        try:
            yield
        finally:
            jax.monitoring.unregister_event_listener(self._listen)

    def _listen(self, event: str, **_: Any) -> None:
        self._num_hits += event == _HIT

    def write(self, compiled: Compiled, clip_flops: int) -> bool:
        """Keeps the programs, and deletes the oldest entries above `MOST_BYTES`.

        Returns:
          True if they were written. A full disk is no error: the run has its programs.
        """
        if self.path is None or self._num_hits:
            return False
        try:
            content = pickle.dumps(
                {
                    "executables": {
                        name: serialize_executable.serialize(getattr(compiled, name))
                        for name in _NAMES
                    },
                    "carry_shape": _bare(compiled.carry_shape),
                    "eval_shape": _bare(compiled.eval_shape),
                    "log_names": compiled.programs.log_names,
                    "clip_flops": clip_flops,
                }
            )
            _write(self.path, content)
        # A program with constants of its own, for example, cannot be serialised.
        except Exception as error:
            log.debug("%s is not written: %s", self.path, error)
            return False
        return True


def _bare(tree: Any) -> Any:
    """Shapes without the devices that they may name."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def _read(path: Path) -> bytes | None:
    """The content of an entry; None if it is absent, damaged, or others could have written it.

    An entry is code. So it and its folder must be this user's, and nobody else may write there.
    """
    try:
        with open_regular(path) as file:
            for status in (os.fstat(file.fileno()), os.stat(path.parent)):
                is_own = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
                if not is_own or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    log.debug("%s is not used: others may write there", path)
                    return None
            head, content = file.read(_NUM_DIGITS), file.read()
    except OSError:
        return None
    if head.decode("latin-1") != digest(content):
        log.debug("%s is damaged", path)
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return content


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with replacing(path) as place:
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(digest(content).encode() + content)
    entries = sorted(path.parent.glob(f"*{SUFFIX}"), key=_last_use, reverse=True)
    total = 0
    for entry in entries:
        total += entry.stat().st_size
        if total > MOST_BYTES and entry != path:
            entry.unlink(missing_ok=True)


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process deleted it
        return 0.0
