"""The contact sheet of a preparation shows whether faces were found and whether anything moves.

Each clip has a row: the first frame of the release with landmarks and crop drawn in, the stored
crop of that frame with its landmarks, the stored crop nearest to the apex, and four times the
difference between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from mexjax.data.captions import caption
from mexjax.data.clip_frames import ClipFrames
from mexjax.data.records import clip_id, load_clip
from mexjax.errors import DataError
from mexjax.prepare.cropping import Cropper, Job, Located

ROW_PX = 224
DIFFERENCE_GAIN = 4
_POINT, _BOX = (255, 220, 0), (0, 220, 120)


def choose(manifest: pd.DataFrame, count: int) -> list[int]:
    """Choose rows: every dataset in turn, and each time the subject that has the fewest rows."""
    rows: list[int] = []
    subjects, datasets = manifest["subject"].tolist(), manifest["dataset"].tolist()
    while len(rows) < min(count, len(manifest)):
        past_datasets = [datasets[i] for i in rows]
        past_subjects = [subjects[i] for i in rows]
        left = set(range(len(manifest))) - set(rows)
        rows.append(
            min(
                left,
                key=lambda i: (
                    past_datasets.count(datasets[i]),
                    past_subjects.count(subjects[i]),
                    i,
                ),
            )
        )
    return rows


def contact_sheet(
    root: Path, manifest: pd.DataFrame, jobs: Sequence[Job], cropper: Cropper, *, count: int = 8
) -> np.ndarray:
    """Draw `count` clips of a prepared dataset beside their originals.

    Args:
      root: folder of the prepared dataset.
      manifest: its clips.
      jobs: the clips as they are in the releases; more than those of the manifest do not matter.
      cropper: the one that prepared them.
      count: rows of the picture.

    Returns:
      u8[rows * 224, width, 3], RGB.

    Raises:
      DataError: a chosen clip cannot be read any more.
    """
    by_id = {job.id: job for job in jobs}
    table = manifest.to_dict("records")
    rows = []
    for i in choose(manifest, count):
        job = by_id[clip_id(table[i])]
        located = cropper.locate(job, job.frames())
        clip = load_clip(root, table[i], nearest=(table[i]["onset"], table[i]["apex"]))
        rows.append(_row(clip, located, cropper.settings.size_px))
    if not rows:
        raise DataError("The manifest has no rows, so there is no picture of them.")
    width = max(row.shape[1] for row in rows)
    return np.concatenate(
        [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    )


def _row(clip: ClipFrames, located: Located, size_px: int) -> np.ndarray:
    first, strongest = (_rgb(clip.frames[i]) for i in (0, -1))
    change = np.abs(strongest.astype(np.int16) - first)
    onset = _enlarge(first)
    _dots(onset, clip.landmarks[0] * (ROW_PX / size_px))
    tiles = [
        _original(located, size_px),
        onset,
        _enlarge(strongest),
        _enlarge(np.minimum(DIFFERENCE_GAIN * change, 255).astype(np.uint8)),
    ]
    caption(tiles[0], f"{clip.id}, frame {clip.numbers[0]}")
    caption(tiles[1], f"crop of the onset, {clip.numbers[0]}")
    caption(tiles[2], f"crop of the apex, {clip.numbers[-1]}")
    caption(tiles[3], f"their difference x {DIFFERENCE_GAIN}")
    return np.concatenate(tiles, axis=1)


def _original(located: Located, size_px: int) -> np.ndarray:
    image, face = located.images[0], located.faces[0]
    assert face is not None
    scale = ROW_PX / image.shape[0]
    width = max(1, round(image.shape[1] * scale))
    image = cv2.resize(image, (width, ROW_PX), interpolation=cv2.INTER_AREA)
    to_original = cv2.invertAffineTransform(located.matrix)
    corners = np.array([[0, 0], [size_px, 0], [size_px, size_px], [0, size_px]], float)
    box = (corners @ to_original[:, :2].T + to_original[:, 2]) * scale
    cv2.polylines(image, [np.rint(box).astype(np.int32)], True, _BOX)
    _dots(image, face.landmarks * scale)
    return image


def _dots(image: np.ndarray, points: np.ndarray) -> None:
    for x, y in np.rint(points).astype(int).tolist():
        cv2.circle(image, (x, y), 1, _POINT, cv2.FILLED)


def _rgb(frame: np.ndarray) -> np.ndarray:
    return np.repeat(frame, 3 // frame.shape[-1], axis=-1)


def _enlarge(image: np.ndarray) -> np.ndarray:
    shrinks = image.shape[0] > ROW_PX
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image), (ROW_PX, ROW_PX), interpolation=method)
