"""Options of a preparation, and its outcome."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mexjax.errors import ConfigError, DataError, unknown_name
from mexjax.prepare.cropping import COLORS, Failure, Job, Settings
from mexjax.prepare.faces import KINDS
from mexjax.protocol.names import writable

MIN_SIZE_PX, MAX_SIZE_PX = 16, 2048


@dataclasses.dataclass(frozen=True)
class Input:
    """One release.

    Attributes:
      name: name of its reader, `mexjax.prepare.sources`.
      root: folder with its frames.
      spreadsheet: its annotation; None: looked for under `root`.
      layout: meaning of the names of folders, for a user's own ones; "": guessed.
    """

    name: str
    root: Path
    spreadsheet: Path | None = None
    layout: str = ""


@dataclasses.dataclass(frozen=True)
class Options:
    """The releases to prepare, and the way to do it.

    Attributes:
      inputs: the releases.
      out: folder to write.
      settings: what decides the bytes of a record.
      clips_per_shard: clips of one file on disk.
      num_workers: processes; 0 for threads.
    """

    inputs: tuple[Input, ...]
    out: Path
    settings: Settings = dataclasses.field(default_factory=Settings)
    clips_per_shard: int = 16
    num_workers: int = 0

    def check(self) -> None:
        """Raise ConfigError for values that nothing can be prepared with."""
        settings = self.settings
        if not self.inputs:
            raise ConfigError("No dataset was named. Give --dataset=NAME --root=FOLDER.")
        if settings.color not in COLORS:
            raise ConfigError(unknown_name("--color", settings.color, COLORS))
        if settings.faces not in KINDS:
            raise ConfigError(unknown_name("--faces", settings.faces, KINDS))
        if not MIN_SIZE_PX <= settings.size_px <= MAX_SIZE_PX:
            raise ConfigError(
                f"--size_px must be from {MIN_SIZE_PX} to {MAX_SIZE_PX}, found {settings.size_px}."
            )
        if self.clips_per_shard < 1:
            raise ConfigError(f"--clips-per-shard must be 1 or more, found {self.clips_per_shard}.")
        if self.num_workers < 0:
            raise ConfigError(f"--workers must be 0 or more, found {self.num_workers}.")
        for path in (settings.landmarks, settings.landmarker_model):
            if path is not None and not path.is_file():
                raise DataError(f"There is no file {path} (looked from {Path.cwd()}).")
        if writable(str(self.out.absolute())) != str(self.out.absolute()):
            raise ConfigError(
                f"--out={writable(str(self.out.absolute()))} has bytes in its name that are no"
                " UTF-8, which the library of the shards cannot open. Choose another folder."
            )
        for release in self.inputs:
            if self.out.resolve().is_relative_to(release.root.resolve()):
                raise ConfigError(
                    f"--out={self.out} is inside the release {release.root}, where what is written"
                    " would be read as data. Choose a folder elsewhere."
                )


@dataclasses.dataclass(frozen=True)
class Found:
    """The clips that the readers found.

    Attributes:
      table: manifest columns, one row a clip, all datasets one after the other.
      jobs: the same clips.
      problems: remarks of the readers, one line each.
    """

    table: pd.DataFrame
    jobs: tuple[Job, ...]
    problems: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A prepared dataset.

    Attributes:
      found: the clips that the readers found.
      parameters: what decided the bytes of the records, and is compared when a run goes on.
      manifest: the clips that were prepared, as written.
      failed: the clips that were not.
      num_kept: number of shards that were finished before.
      redone: reasons why shards were made again, one line each.
      scattered: subjects whose face boxes have no usual place, with their largest gap.
      num_frames: frames prepared by this call.
      seconds: time that it took.
    """

    found: Found
    parameters: Mapping[str, Any]
    manifest: pd.DataFrame
    failed: tuple[Failure, ...]
    num_kept: int
    redone: tuple[str, ...]
    scattered: Mapping[str, float]
    num_frames: int
    seconds: float
