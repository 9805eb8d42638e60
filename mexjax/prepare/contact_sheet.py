"""The contact sheet of a preparation shows whether faces were found and whether anything moves.

Each clip has a row: the first frame of the release with landmarks and crop drawn in, the stored
crop of that frame with its landmarks, the stored crop nearest to the apex, and four times the
difference between the two. Clips whose face box was off those of their subject come first, with
the box that was not used in another colour.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from mexjax.data.captions import caption
from mexjax.data.clip_frames import ClipFrames
from mexjax.data.records import clip_id, load_clip
from mexjax.errors import DataError
from mexjax.prepare.cropping import Cropper, Job
from mexjax.prepare.face_check import face_notes
from mexjax.prepare.face_geometry import to_crop
from mexjax.prepare.images import read_frames

ROW_PX = 224
DIFFERENCE_GAIN = 4
MAX_DOUBTFUL = 16  # rows of clips whose box was off, beside the others
_POINT, _BOX, _BEFORE = (255, 220, 0), (0, 220, 120), (255, 40, 40)


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
    root: Path,
    manifest: pd.DataFrame,
    jobs: Sequence[Job],
    cropper: Cropper,
    *,
    count: int = 8,
    crops: Mapping[str, Mapping[str, Any]] | None = None,
) -> np.ndarray:
    """Draw `count` clips of a prepared dataset beside their originals.

    Args:
      root: folder of the prepared dataset.
      manifest: its clips.
      jobs: the clips as they are in the releases; more than those of the manifest do not matter.
      cropper: the one that prepared them.
      count: rows of the picture, besides those of clips whose face box was off.
      crops: descriptions of clips by id, as shards have them. Where one is missing, or of an older
        version, the face is searched again.

    Returns:
      u8[rows * 224, width, 3], RGB.

    Raises:
      DataError: a chosen clip cannot be read any more.
    """
    by_id = {job.id: job for job in jobs}
    table = manifest.to_dict("records")
    rows = []
    doubtful = [i for i, row in enumerate(table) if face_notes(row["notes"])]
    chosen = [*doubtful[:MAX_DOUBTFUL], *choose(manifest, count)]
    for i in dict.fromkeys(chosen):
        name = clip_id(table[i])
        clip = load_clip(root, table[i], nearest=(table[i]["onset"], table[i]["apex"]))
        drawn = _drawn(clip, by_id[name], cropper, (crops or {}).get(name, {}))
        rows.append(_row(clip, drawn, cropper.settings.size_px, is_marked=i in doubtful))
    if not rows:
        raise DataError("The manifest has no rows, so there is no picture of them.")
    width = max(row.shape[1] for row in rows)
    return np.concatenate(
        [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    )


@dataclasses.dataclass(frozen=True)
class _Drawn:
    """The first frame of a clip, u8[H, W, 3], its landmarks in it, and the two matrices."""

    image: np.ndarray
    points: np.ndarray
    matrix: np.ndarray
    before: np.ndarray | None


def _drawn(clip: ClipFrames, job: Job, cropper: Cropper, crop: Mapping[str, Any]) -> _Drawn:
    frames = job.frames()
    if "matrix" not in crop:
        located = cropper.locate(job, frames)
        face = located.faces[0]
        assert face is not None
        return _Drawn(located.images[0], face.landmarks, located.matrix, located.matrix_before)
    matrix = np.array(crop["matrix"])
    before = crop["matrix_before"]
    points = to_crop(clip.landmarks[0], cv2.invertAffineTransform(matrix))
    image = read_frames(frames[:1], is_color=True, depth=cropper.depth_for(job, frames))[0]
    return _Drawn(image, points, matrix, None if before is None else np.array(before))


def _row(clip: ClipFrames, drawn: _Drawn, size_px: int, *, is_marked: bool) -> np.ndarray:
    first, strongest = (_rgb(clip.frames[i]) for i in (0, -1))
    change = np.abs(strongest.astype(np.int16) - first)
    onset = _enlarge(first)
    _dots(onset, clip.landmarks[0] * (ROW_PX / size_px))
    tiles = [
        _original(drawn, size_px),
        onset,
        _enlarge(strongest),
        _enlarge(np.minimum(DIFFERENCE_GAIN * change, 255).astype(np.uint8)),
    ]
    if is_marked:
        for tile in tiles:
            cv2.rectangle(tile, (0, 0), (tile.shape[1] - 1, ROW_PX - 1), _BEFORE, 3)
    caption(tiles[0], f"{clip.id}, frame {clip.numbers[0]}{', see summary.md' * is_marked}")
    caption(tiles[1], f"crop of the onset, {clip.numbers[0]}")
    caption(tiles[2], f"crop of the apex, {clip.numbers[-1]}")
    caption(tiles[3], f"their difference x {DIFFERENCE_GAIN}")
    return np.concatenate(tiles, axis=1)


def _original(drawn: _Drawn, size_px: int) -> np.ndarray:
    image = drawn.image
    scale = ROW_PX / image.shape[0]
    width = max(1, round(image.shape[1] * scale))
    image = cv2.resize(image, (width, ROW_PX), interpolation=cv2.INTER_AREA)
    for matrix, color in ((drawn.before, _BEFORE), (drawn.matrix, _BOX)):
        if matrix is not None:
            corners = np.array([[0, 0], [size_px, 0], [size_px, size_px], [0, size_px]], float)
            box = to_crop(corners, cv2.invertAffineTransform(matrix)) * scale
            cv2.polylines(image, [np.rint(box).astype(np.int32)], True, color)
    _dots(image, drawn.points * scale)
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
