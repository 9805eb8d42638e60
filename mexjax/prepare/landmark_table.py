"""Landmarks that the user brings: one CSV file for any number of clips."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mexjax.errors import DataError
from mexjax.prepare.face_geometry import (
    CROP_DOWN,
    CROP_SIDE,
    Face,
    FrameKey,
    checked,
    place_template,
)
from mexjax.prepare.sources.texts import decode, find_separator
from mexjax.protocol.names import tidy

POINT_COLUMNS = [f"{axis}{i}" for i in range(68) for axis in "xy"]
BOX_COLUMNS = ["x", "y", "w", "h"]
_FORM = (
    "Expected a CSV file with the columns clip, frame, x0, y0, ... x67, y67 (iBUG points counted"
    " from 0, pixels of the frame) or clip, frame, x, y, w, h (the square to cut out)."
)


def _count_columns(rows: Sequence[Sequence[object]]) -> int:
    """Score rows by the number of known columns that one of them names."""
    known = {"clip", "frame", *POINT_COLUMNS, *BOX_COLUMNS}
    return max(
        (len(known & {str(cell).strip().lower() for cell in row}) for row in rows), default=0
    )


class LandmarkTable:
    """A finder that looks up faces in a CSV file.

    Columns: `clip` (`subject/clip`, with or without the dataset in front), `frame` (number as in
    the release; empty: every frame of the clip that has no row of its own), and either x0, y0, ...
    x67, y67 or a box x, y, w, h. The box is the square to cut out: the mean face is laid into it
    (a box that is not square stands for the square of its longer side with the same centre). Rows
    without the dataset serve the clips of one dataset; threads may share a table.

    Attributes:
      details: "landmarks": path; "sha256": hash of the file.
    """

    kind = "landmarks"

    def __init__(self, path: Path) -> None:
        """Read and check the whole file.

        Raises:
          DataError: it cannot be read, lacks columns, or has rows that are not numbers or double.
        """
        try:
            data = path.read_bytes()
            text, self._remarks = decode(data, path)
            text, separator = find_separator(text, _count_columns)
            decimal = "." if separator == "," else ","  # a point is read below, too
            table = pd.read_csv(
                io.StringIO(text), sep=separator, decimal=decimal, dtype={"clip": str}
            )
            digest = hashlib.sha256(data).hexdigest()
        except DataError as error:
            raise DataError(f"{error} {_FORM}") from error
        except OSError as error:
            raise DataError(f"Cannot read {path}: {error.strerror}. {_FORM}") from error
        except (ValueError, LookupError) as error:  # the parser, or an empty file
            raise DataError(f"{path} is not a table ({error}). {_FORM}") from error
        self._path, self.details = path, {"landmarks": str(path), "sha256": digest}
        table.columns = [str(name).strip().lower() for name in table.columns]
        columns = POINT_COLUMNS if "x0" in table.columns else BOX_COLUMNS
        missing = [name for name in ["clip", "frame", *columns] if name not in table.columns]
        if missing:
            names = ", ".join(missing[:6]) + (", ..." if len(missing) > 6 else "")
            raise DataError(f"{path} lacks the columns {names}. {_FORM}")
        self._source = "boxes" if columns == BOX_COLUMNS else self.kind
        values = self._numbers(table, columns)
        frames = self._frames(pd.Series(table["frame"]))
        if columns == BOX_COLUMNS:
            self._points = _from_boxes(values)
        else:
            self._points = values.reshape(-1, 68, 2)
        clips = [tidy(clip) for clip in table["clip"].fillna("").astype(str)]
        self._places: dict[str, dict[int | None, int]] = {}
        self._answered: dict[str, str] = {}  # clip without a dataset -> id that it served
        for row, (clip, frame) in enumerate(zip(clips, frames, strict=True)):
            of_clip = self._places.setdefault(clip, {})
            if not clip or frame in of_clip:
                what = f"a second row for {clip}, frame {frame}" if clip else "no clip"
                raise DataError(f"{path}, line {row + 2}: {what}. {_FORM}")
            of_clip[frame] = row

    def _numbers(self, table: pd.DataFrame, columns: list[str]) -> np.ndarray:
        values = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(float)
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            row, column = bad[0]
            raise DataError(
                f"{self._path}, line {row + 2}: {columns[column]} is"
                f" {str(table[columns[column]].iloc[row])!r}, expected a number. {_FORM}"
            )
        return values

    def _frames(self, column: pd.Series) -> list[int | None]:
        numbers = np.asarray(pd.to_numeric(column, errors="coerce"), float)
        out: list[int | None] = []
        for row, (text, number) in enumerate(zip(column, numbers, strict=True)):
            is_empty = bool(pd.isna(text)) or not str(text).strip()
            if not is_empty and (not np.isfinite(number) or number != int(number)):
                raise DataError(
                    f"{self._path}, line {row + 2}: frame is {text!r}, expected a whole number or"
                    f" nothing. {_FORM}"
                )
            out.append(None if is_empty else int(number))
        return out

    def __call__(self, image: np.ndarray, key: FrameKey) -> Face:
        """Look up the face of a frame; `image` [H, W, ...] is only used for its size.

        Raises:
          DataError: the file has no row for the frame, or one whose face reaches outside; or its
            rows without a dataset have served another dataset's clip of the same name.
        """
        clip, frame = key
        of_clip = self._places.get(clip) or self._of_bare(clip)
        if not of_clip:
            clips = ", ".join(list(self._places)[:3])
            raise DataError(
                f"{self._path} has no row for clip {clip}; it begins with {clips or 'nothing'}."
                " Write clip as subject/clip, spelled as in the manifest."
                f"{''.join(f' {line}' for line in self._remarks)}"
            )
        row = of_clip.get(frame, of_clip.get(None))
        if row is None:
            frames = ", ".join(map(str, sorted(f for f in of_clip if f is not None)[:8]))
            raise DataError(
                f"{self._path} has no row for frame {frame} of clip {clip}, only for {frames}. Add"
                " it, or leave one row's frame empty to use it for the whole clip."
            )
        return checked(Face(self._points[row].copy(), self._source), image.shape, key)

    def _of_bare(self, clip: str) -> dict[int | None, int] | None:
        """Return frame -> row for a clip that the file names without its dataset, or None."""
        bare = clip.partition("/")[2]
        of_clip = self._places.get(bare)
        if of_clip is None:
            return None
        # This one call is atomic for str keys: when threads ask at once, one comes first.
        owner = self._answered.setdefault(bare, clip)
        if owner != clip:
            raise DataError(
                f"{self._path}: the rows of clip {bare} name no dataset and fit both {owner} and"
                f" {clip}, two people. Write clip as dataset/subject/clip in this file, here"
                f" {owner} or {clip}."
            )
        return of_clip


def _from_boxes(boxes: np.ndarray) -> np.ndarray:
    """Lay the mean face so that its crop is the box x, y, w, h: f64[N, 4] -> f64[N, 68, 2]."""
    corner, sides = boxes[:, :2], boxes[:, 2:]
    distance = sides.max(axis=1) / CROP_SIDE
    # x and y are edges as detectors give them; coordinates here count from pixel centres.
    middle = corner + sides / 2 - 0.5
    middle[:, 1] -= CROP_DOWN * distance
    return np.stack([place_template(m, d) for m, d in zip(middle, distance, strict=True)]).reshape(
        -1, 68, 2
    )
