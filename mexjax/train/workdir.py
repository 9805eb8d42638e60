"""The folder of a run: its configuration, and the groups of folds that are finished."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mexjax.config import completed, flat, to_json
from mexjax.errors import WorkdirError, quoted
from mexjax.files import atomic, digest, is_file, read_regular, read_sealed, sealed
from mexjax.lock import FolderLock
from mexjax.report.agreement import INDIFFERENT, config_digest

log = logging.getLogger(__name__)


# Everything that a run writes into its folder.
RUN_FOLDERS = ("groups", "checkpoints", "figures")
RUN_FILES = (
    *("config.json", "data.json", "folds.json", "perf.json", "results.json", "run.json"),
    *("predictions.csv", "predictions.npz", "sheet.npz", "features.npz", "report.md"),
)


SWEEP = "sweep.json"  # only the folder of a sweep has it
SIZE = "size.json"  # in the folder of groups: how the folds were cut, and of what run they are
_OF_SIZE = ("per_device", "num_devices")


class Workdir:
    """A run folder that belongs to one configuration, and to one process while it is open."""

    def __init__(self, path: Path, lock: FolderLock | None = None) -> None:
        self.path = path
        self.lock = lock
        self.groups = path / "groups"
        self.checkpoints = path / "checkpoints"

    @classmethod
    def open(cls, path: str | Path, config: ConfigDict, *, is_overwritten: bool) -> Workdir:
        """Makes or reuses the folder, and keeps other processes out until it is closed.

        Raises:
          WorkdirError: it cannot be written, holds other files, is in use by another process, or
            belongs to a run with another configuration (the differing keys are listed).
        """
        if "\0" in str(path):
            raise WorkdirError(f"A folder's name cannot have a NUL in it, found {quoted(path)}.")
        folder = Path(path).expanduser()
        if is_file(folder / SWEEP):
            raise WorkdirError(
                f"{folder} is the folder of a sweep, and a single run has a folder of its own."
                " Choose another with --workdir."
            )
        lock = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FolderLock(folder)
            if is_overwritten:
                _remove_run(folder)
            (folder / "groups").mkdir(exist_ok=True)
            probe = folder / f".writable.{os.getpid()}"
            probe.touch()
            probe.unlink()
            workdir = cls(folder, lock)
            workdir._claim(config)
        except WorkdirError:
            if lock is not None:
                lock.release()
            raise
        except OSError as error:
            if lock is not None:
                lock.release()
            is_finished = is_file(folder / "run.json")
            report = f" mexjax report {folder} prints its results." if is_finished else ""
            raise WorkdirError(
                f"Cannot write to the run folder {folder}: {error.strerror or error}."
                f" Choose another with --workdir.{report}"
            ) from error
        return workdir

    @classmethod
    def of_first_process(cls, path: str | Path) -> Workdir:
        """The folder that the first of several processes has opened and owns."""
        return cls(Path(path).expanduser())

    def close(self) -> None:
        """Lets other processes have the folder."""
        if self.lock is not None:
            self.lock.release()

    def __enter__(self) -> Workdir:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _claim(self, config: ConfigDict) -> None:
        """Makes the folder one of this configuration, or refuses."""
        # A folder in which nothing was computed yet may be claimed by any configuration.
        if not self.holds_results():
            (self.groups / SIZE).unlink(missing_ok=True)
            self.save_config(config)
            return
        saved, mark = self.path / "config.json", self._config_mark()
        before = _read_config(saved)
        is_whole = before is not None and mark in (None, config_digest(before))
        if mark is not None and mark == config_digest(config.to_dict()):
            if not is_whole:
                log.warning("%s is missing or damaged: it is written again.", saved)
                self.save_config(config)
            return
        if before is None:
            raise WorkdirError(
                f"{self.path} has trained folds, but {saved.name}, which tells their configuration,"
                " is missing or damaged. Put it back, choose another folder, for example"
                f" --workdir={self.path}_2, or start anew with --overwrite."
            )
        self._check_same(before, config)
        if not is_whole:
            raise WorkdirError(
                f"{saved} is damaged or was changed: its folds were trained with other keys. Put it"
                f" back, choose another folder, for example --workdir={self.path}_2, or start anew"
                " with --overwrite."
            )

    def _config_mark(self) -> str | None:
        """The digest of the configuration of the folds that are there; None if nothing tells it."""
        begun = read_sealed(self.groups / SIZE, *_OF_SIZE) or {}
        info = read_sealed(self.path / "run.json", "model") or {}
        return begun.get("config") or info.get("digests", {}).get("config.json")

    def inputs_mark(self) -> str | None:
        """The digest of the data of the folds that are there; None if nothing tells it."""
        return (read_sealed(self.groups / SIZE, *_OF_SIZE) or {}).get("inputs")

    def save_config(self, config: ConfigDict) -> None:
        """Writes `config.json`; keys without effect on numbers may differ from those before."""
        with atomic(self.path / "config.json") as file:
            file.write(to_json(config))

    def holds_results(self) -> bool:
        """True if any fold was trained, in part or whole."""
        finished = [self.path / "run.json", self.path / "predictions.npz"]
        steps = self.checkpoints.glob("group_*/[0-9]*")
        # One in the making has a longer name.
        names = (path.name.removesuffix(".safetensors") for path in steps)
        checkpoints = (name for name in names if name.isdecimal())
        return any((self.recorded_groups(), *checkpoints, *filter(Path.exists, finished)))

    def recorded_groups(self) -> list[int]:
        """The numbers of the groups of folds that have a record, rising."""
        names = (re.fullmatch(r"group_([0-9]{3,})\.npz", p.name) for p in self.groups.glob("*"))
        return sorted(int(name[1]) for name in names if name)

    def _check_same(self, config_before: dict[str, Any], config: ConfigDict) -> None:
        before = completed(flat(config_before))
        now = flat(json.loads(to_json(config)))
        differing = [
            f"{key} is {before.get(key, 'absent')!r} there and {now.get(key, 'absent')!r} now"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key) and not key.startswith(INDIFFERENT)
        ]
        if differing:
            text = "; ".join(differing[:8]) + ("; ..." if len(differing) > 8 else "")
            raise WorkdirError(
                f"{self.path} holds a run of another configuration: {text}. Choose another"
                f" folder, for example --workdir={self.path}_2, or start anew with --overwrite."
            )

    def group_file(self, index: int) -> Path:
        """The file that records the finished group `index`."""
        return self.groups / f"group_{index:03d}.npz"

    def checkpoint_folder(self, index: int) -> Path:
        """The folder with the checkpoints of the unfinished group `index`."""
        return self.checkpoints / f"group_{index:03d}"

    def save_arrays(self, path: Path, arrays: dict[str, np.ndarray]) -> str:
        """Writes arrays as one .npz that appears whole, and gives its SHA-256."""
        content, value = _as_npz(arrays)
        with atomic(path, "wb") as file:
            file.write(content)
        return value

    def save_group(self, index: int, record: dict[str, np.ndarray]) -> None:
        """Writes the record of a finished group, and beside it the digest that tells damage."""
        path = self.group_file(index)
        content, value = _as_npz(record)
        with suppress(OSError):  # the next line says why
            path.parent.mkdir(parents=True, exist_ok=True)
        # The digest comes first: a record without one was not written here.
        with atomic(_digest_file(path)) as file:
            file.write(f"{value}  {path.name}\n")
        with atomic(path, "wb") as file:
            file.write(content)

    def load_group(self, index: int) -> dict[str, np.ndarray] | None:
        """The record of a finished group, or None; a damaged file counts as not finished.

        Raises:
          WorkdirError: the file is there and the system does not give it.
        """
        path = self.group_file(index)
        beside = _digest_file(path)
        for place in (path, beside):
            if place.is_dir():
                raise WorkdirError(
                    f"{place} is a folder, but a file with finished folds belongs there. Move it"
                    " away and start the same command again: other finished folds are kept."
                )
        if not path.is_file():
            return None
        try:
            content = read_regular(path)
            expected = beside.read_text("utf-8", "replace").split() if beside.is_file() else [""]
            if [digest(content)] == expected[:1]:
                with np.load(io.BytesIO(content), allow_pickle=False) as file:
                    return {name: file[name] for name in file.files}
        except OSError as error:
            raise WorkdirError(
                f"Cannot read {path}: {error.strerror or error}. It holds finished folds, so it"
                " was left alone; start the same command again when it can be read."
            ) from error
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            pass
        log.warning("%s is damaged: its digest does not fit; its folds are trained again.", path)
        try:
            path.unlink()
        except OSError as error:
            raise WorkdirError(
                f"{path} is damaged and cannot be deleted: {error.strerror or error}. Delete it and"
                " start the same command again: it trains these folds again and keeps the others."
            ) from error
        return None

    def group_size(self, num_devices: int) -> int:
        """Folds per device and group that this run was begun with; 0 if it was not begun.

        Raises:
          WorkdirError: it was begun on another number of devices, so its groups are other ones.
        """
        begun = read_sealed(self.groups / SIZE, *_OF_SIZE)
        if begun is None:
            return self._recorded_size(num_devices)
        if begun["num_devices"] != num_devices:
            raise WorkdirError(
                f"{self.path} was begun on {begun['num_devices']} devices and there are"
                f" {num_devices} now, so its groups of folds do not fit. Run it on"
                f" {begun['num_devices']}, choose another --workdir, or use --overwrite."
            )
        return int(begun["per_device"])

    def _recorded_size(self, num_devices: int) -> int:
        """Folds per device and group as the recorded groups have them; 0 without any."""
        groups = (self.load_group(index) for index in self.recorded_groups())
        width = max((len(group["fold_id"]) for group in groups if group), default=0)
        if width % num_devices:
            raise WorkdirError(
                f"{self.groups / 'size.json'} is missing or damaged, and groups of {width} folds"
                f" do not fit {num_devices} devices. Run it where it was begun, choose another"
                " --workdir, or use --overwrite."
            )
        return width // num_devices

    def save_group_size(self, per_device: int, num_devices: int, **marks: str) -> None:
        """Writes down the groups of folds, which stay the same as long as this folder lives.

        Args:
          per_device: folds of a group on one device.
          num_devices: devices.
          **marks: `config` and `inputs`, digests of the configuration and of the data, for the case
            that their files are damaged.
        """
        with atomic(self.groups / SIZE) as file:
            content = {"per_device": per_device, "num_devices": num_devices, **marks}
            json.dump(sealed(content), file)

    def save_json(self, name: str, value: Any) -> None:
        """Writes a small JSON file."""
        with atomic(self.path / name) as file:
            json.dump(value, file, indent=2, sort_keys=True)
            file.write("\n")


def _read_config(path: Path) -> dict[str, Any] | None:
    """The keys of a `config.json`; None if it is missing or no configuration.

    Raises:
      OSError: the system does not give it.
    """
    try:
        content = json.loads(read_regular(path))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and flat(content) else None


def _as_npz(arrays: dict[str, np.ndarray]) -> tuple[bytes, str]:
    """The bytes of an .npz file, and their SHA-256."""
    memory = io.BytesIO()
    # The stubs take an array for `allow_pickle`, and no array has this name.
    np.savez_compressed(memory, **arrays)  # pyright: ignore[reportArgumentType]
    content = memory.getvalue()
    return content, digest(content)


def _digest_file(path: Path) -> Path:
    """The file beside a record that has its digest, as the command sha256sum writes it."""
    return path.with_name(f"{path.name}.sha256")


def _remove_run(folder: Path) -> None:
    """Deletes the files of a run; a folder that is not a run's is left alone."""
    saved = folder / "config.json"
    config = _read_config(saved) or {}
    seals = (folder / "groups" / SIZE, folder / "data.json", folder / "run.json")
    is_run = {"protocol", "folds", "model"} <= config.keys() or any(map(read_sealed, seals))
    if not is_run and not Workdir(folder).recorded_groups():
        if not saved.is_file():
            return
        raise WorkdirError(
            f"{folder} holds a config.json that is not of a mexjax run, so nothing there was"
            " deleted. Choose another --workdir."
        )
    for name in RUN_FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in RUN_FILES:
        (folder / name).unlink(missing_ok=True)
