"""The parts that layouts share: they draw frames, write spreadsheets and keep the truth."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import openpyxl
import pandas as pd

from mexjax.data.synthetic import Plan, render_clip, truth
from mexjax.prepare.layouts.cast import Take
from mexjax.prepare.layouts.notation import Coded
from mexjax.protocol.classes import canonical_emotion

EXPECTED_COLUMNS = (
    *("dataset", "subject", "clip", "onset", "apex", "offset", "fps", "n_frames", "emotion"),
    *("au", "aus", "aus_unsure", "frame_folder", "num_missing_frames"),
)
_JPEG_QUALITY = 95


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """A release on disk and what is in it.

    Attributes:
      root: folder to give to a reader.
      spreadsheet: its annotations.
      expected: answer of a correct reader, one row a clip in the order of the spreadsheet, with
        the columns `EXPECTED_COLUMNS` of the manifest.
      landmarks: csv of the true landmarks of every annotated frame: clip (subject/clip as in
        `expected`), frame, x0, y0, ..., x67, y67 in px of the frame file; None when it was not
        asked for. No release has it.
    """

    root: Path
    spreadsheet: Path
    expected: pd.DataFrame
    landmarks: Path | None = None


class Release:
    """A release that is written step by step: frames, rows of the truth, spreadsheets."""

    def __init__(
        self, dataset: str, root: Path, plan: Plan, takes: Sequence[Take], *, has_landmarks: bool
    ) -> None:
        self.dataset = dataset
        self.root = root
        self.takes = takes
        self.rng = np.random.default_rng([plan.config.seed, 0x1A])
        self._plan = plan
        self._rows: list[dict[str, object]] = []
        self._landmarks: list[list[object]] | None = [] if has_landmarks else None

    def draw(
        self,
        take: Take,
        folder: str,
        name: Callable[[int], str],
        *,
        before: int = 0,
        after: int = 0,
    ) -> None:
        """Write the frames of a clip as image files, without those that are missing.

        Args:
          take: the clip.
          folder: relative to the root, posix.
          name: file name of a frame number; its ending is the format.
          before: frames before the clip, which belong to the recording only.
          after: frames after the clip, which belong to the recording only.
        """
        place = self.root / folder
        place.mkdir(parents=True, exist_ok=True)
        numbers = [
            n for n in range(take.onset - before, take.offset + after + 1) if n not in take.missing
        ]
        frames = render_clip(self._plan, take.index, [n - take.first for n in numbers])
        for number, frame in zip(numbers, frames, strict=True):
            path = place / name(number)
            # OpenCV's own writer cannot make non-ASCII names on some systems.
            path.write_bytes(_encode(frame, path.suffix))

    def add(
        self,
        take: Take,
        *,
        subject: str,
        clip: str,
        folder: str,
        coded: Coded | None,
        emotion: str | None = None,
    ) -> None:
        """Note the answer of a correct reader for a clip.

        Args:
          take: the clip, with the numbers of the release.
          subject: id within the dataset.
          clip: id within the subject.
          folder: folder of its frames, relative to the root, posix.
          coded: action units; None where the release has none.
          emotion: canonical word; None: that of the take.
        """
        coded = coded or Coded("", ())
        subject_id = f"{self.dataset}/{subject}"
        self._rows.append(
            {
                "dataset": self.dataset,
                "subject": subject_id,
                "clip": clip,
                "onset": take.onset,
                "apex": take.apex,
                "offset": take.offset,
                "fps": self._plan.config.fps,
                "n_frames": take.offset - take.onset + 1,
                "emotion": canonical_emotion(emotion or take.emotion),
                "au": str(coded.cell),
                "aus": [str(au) for au in coded.present],
                "aus_unsure": [str(au) for au in coded.unsure],
                "frame_folder": folder,
                "num_missing_frames": len(take.missing),
            }
        )
        if self._landmarks is None:
            return
        numbers = list(range(take.onset, take.offset + 1))
        landmarks = truth(self._plan, take.index, [n - take.first for n in numbers]).landmarks
        for number, points in zip(numbers, landmarks, strict=True):
            values = [f"{value:.3f}" for value in points.ravel()]
            self._landmarks.append([f"{subject_id}/{clip}", number, *values])

    def finish(self, spreadsheet: str, sheets: Mapping[str, Sequence[Sequence[object]]]) -> Layout:
        """Write the spreadsheet (`save_workbook`), and the landmarks if asked for."""
        save_workbook(self.root / spreadsheet, sheets)
        landmarks = None
        if self._landmarks is not None:
            landmarks = self.root / "landmarks.csv"
            header = ["clip", "frame", *(f"{axis}{k}" for k in range(68) for axis in "xy")]
            with open(landmarks, "w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([header, *self._landmarks])
        expected = pd.DataFrame(self._rows, columns=list(EXPECTED_COLUMNS))
        return Layout(self.root, self.root / spreadsheet, expected, landmarks)


def save_workbook(path: Path, sheets: Mapping[str, Sequence[Sequence[object]]]) -> None:
    """Write sheets of rows of cells as .xlsx; None is an empty cell."""
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(
                [value.item() if isinstance(value, np.generic) else value for value in row]
            )
    book.save(path)


def _encode(frame: np.ndarray, suffix: str) -> bytes:
    """Make the image file of u8[H, W, C], RGB or gray."""
    image = np.ascontiguousarray(frame[..., ::-1])  # one channel stays as it is
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if suffix == ".jpg" else []
    return cv2.imencode(suffix, image, options)[1].tobytes()
