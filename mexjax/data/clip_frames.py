"""The aligned frames of one clip in memory, from which the views are computed."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class ClipFrames:
    """The stored frames of one clip, cut out around the face.

    Attributes:
      id: `<dataset>/<subject>/<clip>`.
      frames: u8[T, H, W, C], C is 3 (RGB) or 1 (luma).
      numbers: i64[T], frame numbers of the release, rising; missing frames leave gaps.
      onset, apex, offset: annotated frame numbers.
      fps: frames per second.
      landmarks: f32[K, 68, 2], x and y in pixels of `frames`; (0, 0) is the first pixel's centre.
      landmark_frames: i64[K], frame number of each set of landmarks.
    """

    id: str
    frames: np.ndarray
    numbers: np.ndarray
    onset: int
    apex: int
    offset: int
    fps: float
    landmarks: np.ndarray
    landmark_frames: np.ndarray
