"""The image patches that show each action unit, by the landmarks in them (Micro-AU CLIP)."""

from __future__ import annotations

import numpy as np

from mexjax.data.clip_frames import ClipFrames
from mexjax.data.sampling import nearest_frame
from mexjax.errors import ConfigError, DataError, unknown_name

# Landmarks (iBUG, from 0) that show each action unit: Micro-AU CLIP, Table I. Only if they are
# counted from 0, 48 and 54 are the corners of the mouth and 19 to 24 are symmetric; 38, 41, 44, 47
# are printed like this and are not symmetric.
AU_LANDMARKS: dict[int, tuple[int, ...]] = {
    1: (19, 20, 21, 22, 23, 24),
    2: (19, 20, 21, 22, 23, 24),
    4: (19, 20, 21, 22, 23, 24),
    7: (38, 41, 44, 47),
    12: (48, 54),
    14: (55, 59, 60, 64),
    15: (48, 54),
    17: (7, 8, 9, 57),
}
MAX_AU_LANDMARKS = 6


def landmark_tokens(
    clip: ClipFrames,
    *,
    aus: tuple[int, ...] = (1, 2, 4, 7, 12, 14, 15, 17),
    grid: int = 7,
) -> np.ndarray:
    """i32[A, 6]: for each action unit the patches in which its landmarks lie, then -1.

    The patches are those of a `grid` x `grid` division of the crop, counted row by row from 0
    without a class token. A patch with two landmarks counts twice. The landmarks are those of the
    frame nearest to the apex, which is not magnified.
    """
    for au in aus:
        if au not in AU_LANDMARKS:
            raise ConfigError(unknown_name("action unit", str(au), map(str, AU_LANDMARKS)))
    if grid < 1:
        raise ConfigError(f"grid must be at least 1, found {grid}.")
    if not len(clip.landmarks):
        raise DataError(f"Clip {clip.id} has no landmarks. Prepare the dataset again.")
    points = clip.landmarks[nearest_frame(clip.landmark_frames, clip.apex)]
    # Coordinates count from the centre of the first pixel, patches from its edge.
    tokens = point_tokens(points + 0.5, clip.frames.shape[1:3], grid)
    out = np.full((len(aus), MAX_AU_LANDMARKS), -1, np.int32)
    for row, au in enumerate(aus):
        out[row, : len(AU_LANDMARKS[au])] = tokens[list(AU_LANDMARKS[au])]
    return out


def point_tokens(points: np.ndarray, size: tuple[int, ...], grid: int = 7) -> np.ndarray:
    """Patches in which points lie: row = floor(y grid / H), column = floor(x grid / W), clamped.

    Micro-AU CLIP, Eq. 1, prints x for the rows: on a square image that would transpose the face.

    Args:
      points: f[..., 2], x and y from the edge of the image.
      size: H, W.
      grid: patches a side.

    Returns:
      i32[...]: row * grid + column.
    """
    place = np.asarray(points, float) * grid / (size[1], size[0])
    column, row = np.moveaxis(np.clip(np.floor(place), 0, grid - 1), -1, 0)
    return (row * grid + column).astype(np.int32)
