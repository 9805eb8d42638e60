"""The interface of all readers: they give a table of clips, problems, and frame files."""

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
      number: its number in the release, from the file's name; for a video the index of the frame
        in it, from 0.
      path: the image file, or the video file.
    """

    number: int
    path: Path


@dataclasses.dataclass(frozen=True)
class Reading:
    """The answer of a reader.

    Attributes:
      table: one row a clip in the order of the spreadsheet, with the columns `BASE` and `READING`
        of `mexjax.data.manifest`.
      problems: one line for everything that is missing, was corrected or could not be read.
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

    @property
    def name(self) -> str:
        """Name in the tables."""
        ...

    @property
    def title(self) -> str:
        """Name as published."""
        ...

    @property
    def fps(self) -> float:
        """Frames per second, or nan."""
        ...

    def read(self, root: Path, *, spreadsheet: Path | None = None) -> Reading:
        """Read the annotations and look for the frames of every clip.

        A clip whose frames are absent keeps its row, with `frame_folder` "" and a problem.

        Args:
          root: folder of the dataset as it was unpacked.
          spreadsheet: the annotations; None: they are looked for below `root`.

        Raises:
          DataError: the folder does not exist, there is no spreadsheet or more than one, columns
            are missing, or a cell would lead out of `root`.
        """
        ...

    def frames(self, root: Path, row: Mapping[str, Any]) -> list[Frame]:
        """List the frames of a row, from onset to offset, that exist, by number.

        Raises:
          DataError: there is none.
        """
        ...
