"""One call that finds faces and hides which of four ways is used.

    landmarks   a CSV file of the user's (`mexjax.prepare.landmark_table`)
    mediapipe   MediaPipe's FaceLandmarker, if its model file is there (`.mediapipe_faces`)
    cascade     cascades that OpenCV ships: a box, its eyes and the mean face (`.cascade_faces`)
    precropped  no search: the frame is the face, and the mean face is laid into it
    auto        landmarks if a file is given, else mediapipe if there is a model, else cascade

The way is chosen once, when the finder is made, and never changes from frame to frame; each `Face`
says which it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from mexjax.errors import ConfigError, DataError, unknown_name
from mexjax.prepare.cascade_faces import CascadeFinder
from mexjax.prepare.face_geometry import (
    SOURCES,
    TEMPLATE,
    Face,
    FrameKey,
    align,
    alignment,
    checked,
    template_in_crop,
    to_crop,
)
from mexjax.prepare.landmark_table import LandmarkTable
from mexjax.prepare.mediapipe_faces import (
    MEDIAPIPE_TO_68,
    MIRROR_68,
    MediaPipeFinder,
    find_model,
    model_advice,
    to_68,
)

__all__ = [
    "KINDS",
    "MEDIAPIPE_TO_68",
    "MIRROR_68",
    "SOURCES",
    "TEMPLATE",
    "Detector",
    "Face",
    "Finder",
    "FrameKey",
    "align",
    "alignment",
    "find_model",
    "make_finder",
    "to_68",
    "to_crop",
]

KINDS = ("auto", *SOURCES)


class Finder(Protocol):
    """A function that finds the face in an image.

    Attributes:
      kind: one of `SOURCES`.
      details: files it uses and their sha256, for the record of a preparation.
    """

    @property
    def kind(self) -> str:
        """One of `SOURCES`."""
        ...

    @property
    def details(self) -> Mapping[str, str]:
        """Files it uses and their sha256."""
        ...

    def __call__(self, image: np.ndarray, key: FrameKey) -> Face:
        """Find the face in u8[H, W, 3] (RGB); `key` is (id of the clip, frame number).

        Raises:
          DataError: no face, several of which none is clearly the largest, or one that does not
            lie in the image.
        """
        ...


class Detector(Finder, Protocol):
    """A finder that searches the image."""

    def every_face(self, image: np.ndarray) -> list[Face]:
        """Return all that may be a face in u8[H, W, 3], the likeliest first."""
        ...


class PrecroppedFinder:
    """A finder that takes every frame for a crop around the face."""

    kind = "precropped"
    details: Mapping[str, str] = {}

    def __call__(self, image: np.ndarray, key: FrameKey) -> Face:
        """Lay the mean face into u8[H, W, 3].

        Raises:
          DataError: the image is too small for a face.
        """
        height, width = image.shape[:2]
        return checked(Face(template_in_crop(width, height), self.kind), image.shape, key)


def make_finder(
    kind: str, *, landmarker_model: Path | None = None, landmarks: Path | None = None
) -> Finder:
    """Make a function from images to faces; each thread needs its own.

    Args:
      kind: one of `KINDS` (see the module).
      landmarker_model: MediaPipe's model file; None looks where `mediapipe_faces` says.
      landmarks: the user's table.

    Raises:
      ConfigError: an unknown kind.
      DataError: a file that is needed is not named, missing or damaged.
    """
    if kind not in KINDS:
        raise ConfigError(unknown_name("way of finding faces", kind, KINDS))
    if kind == "landmarks" and landmarks is None:
        raise DataError("--faces=landmarks needs the table: add --landmarks=FILE (CSV).")
    if landmarks is not None and kind in ("landmarks", "auto"):
        return LandmarkTable(Path(landmarks))
    if kind == "precropped":
        return PrecroppedFinder()
    if kind == "cascade":
        return CascadeFinder()
    model = find_model(landmarker_model)
    if model is not None:
        return MediaPipeFinder(model)
    if kind == "mediapipe":
        raise DataError(f"--faces=mediapipe needs a model file. {model_advice()}")
    return CascadeFinder()
