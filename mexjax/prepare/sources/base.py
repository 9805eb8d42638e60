"""What every reader of a dataset gives: a table of clips, the problems it met, and frame files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pandas as pd


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame of a clip.

    Attributes:
      number: as in the release (the last run of digits in the file's name); for a video the index
        of the frame in it, from 0.
      path: the image file, or the video file.
    """

    number: int
    path: Path


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a reader found.

    Attributes:
      table: one row a clip in the order of the spreadsheet, with the columns `BASE` and `READING`
        of `mexjax.data.manifest`.
      problems: one line each: what is missing, was corrected or could not be read.
    """

    table: pd.DataFrame
    problems: tuple[str, ...]


class Source(Protocol):
    """A reader of one dataset as it is released.

    Attributes:
      name: name in the tables, such as "casme2".
      title: name as published, such as "CASME II".
      fps: frames per second of the cameras; nan where each clip says its own.
    """

    name: str
    title: str
    fps: float

    def read(self, root: Path, *, spreadsheet: Path | None = None) -> Reading:
        """Read the annotations and look for the frames of every clip.

        A clip whose frames are absent keeps its row, with `frame_folder` "" and a problem.

        Args:
          root: folder of the dataset as it was unpacked.
          spreadsheet: the annotations; looked for below `root` when None.

        Raises:
          DataError: no such folder, no or several spreadsheets, columns that are missing, or a
            cell that would lead out of `root`.
        """
        ...

    def frames(self, root: Path, row: Mapping[str, Any]) -> list[Frame]:
        """The frames of a row from onset to offset that exist, by number.

        Raises:
          DataError: there is none.
        """
        ...
