"""Faces by MediaPipe's FaceLandmarker: 478 points of a face mesh, brought to iBUG's 68.

The package holds no model. `face_landmarker.task` (a few MB) is published by Google with the
documentation of MediaPipe's Face Landmarker, under "Models" (bundle FaceLandmarker, float 16). It
is looked for, in this order: as given (`--landmarker-model`), in the environment variable
MEXJAX_LANDMARKER, at ~/.cache/mexjax/face_landmarker.task. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mexjax.errors import DataError
from mexjax.plotting import import_matplotlib
from mexjax.prepare.face_geometry import Face, FrameKey, checked, only_face

MODEL_VARIABLE = "MEXJAX_LANDMARKER"
MODEL_NAME = "face_landmarker.task"

_MAX_FACES = 4

# Each of the 68 points is one mesh point, or the mean of two. Where published tables
# (mediapipe2dlib, IDFR_Pipeline, facefusion) disagree, mostly at the jaw, whose mesh outline is not
# dlib's, the choice is the one that is symmetric in the canonical face model.
MEDIAPIPE_TO_68: tuple[tuple[int, ...], ...] = (
    # 0-16: jaw
    (127,), (234,), (93,), (132, 58), (58, 172), (136,), (150,), (176,), (152,),
    (400,), (379,), (365,), (397, 288), (361, 288), (323,), (454,), (356,),
    # 17-26: brows
    (70,), (63,), (105,), (66,), (107,), (336,), (296,), (334,), (293,), (300,),
    # 27-35: nose
    (168, 6), (197, 195), (5,), (4,), (98,), (97,), (2,), (326,), (327,),
    # 36-47: eyes
    (33,), (160,), (158,), (133,), (153,), (144,), (362,), (385,), (387,), (263,), (373,), (380,),
    # 48-59: outer lips
    (61,), (39,), (37,), (0,), (267,), (269,), (291,), (321,), (314,), (17,), (84,), (91,),
    # 60-67: inner lips
    (78,), (82,), (13,), (312,), (308,), (317,), (14,), (87,),
)  # fmt: skip
# Point i of a mirrored image is point MIRROR_68[i] of the image.
MIRROR_68: tuple[int, ...] = (
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65,
)  # fmt: skip

_FIRST = [entry[0] for entry in MEDIAPIPE_TO_68]
_LAST = [entry[-1] for entry in MEDIAPIPE_TO_68]


def to_68(points: np.ndarray) -> np.ndarray:
    """Turn mesh points f[..., 478, D] (468 without irises will do) into iBUG's, f64[..., 68, D]."""
    points = np.asarray(points, float)
    return (points[..., _FIRST, :] + points[..., _LAST, :]) / 2


def find_model(given: Path | None = None) -> Path | None:
    """Find the model file: `given`, that of the environment variable, the cached one, or None.

    Raises:
      DataError: a file was named and is not there.
    """
    candidates = [(given, "--landmarker-model"), (os.environ.get(MODEL_VARIABLE), MODEL_VARIABLE)]
    for path, by in candidates:
        if path:
            if not Path(path).is_file():
                raise DataError(f"{by} names {path}, which is not a file. {model_advice()}")
            return Path(path)
    default = Path.home() / ".cache" / "mexjax" / MODEL_NAME
    return default if default.is_file() else None


def model_advice() -> str:
    """Tell how a user gets the model file."""
    return (
        f"Download {MODEL_NAME} from Google's documentation of the MediaPipe Face Landmarker"
        " (its section on models, bundle FaceLandmarker, float 16), and put it at"
        f" ~/.cache/mexjax/{MODEL_NAME}, or name it with --landmarker-model=FILE or the"
        f" environment variable {MODEL_VARIABLE}."
    )


class MediaPipeFinder:
    """A finder that uses a FaceLandmarker.

    Attributes:
      details: "model": its path; "sha256": hash of the file.
    """

    kind = "mediapipe"

    def __init__(self, model: Path) -> None:
        """Load a model file.

        Raises:
          DataError: it cannot be read, or is not a model of this task.
        """
        try:
            content = model.read_bytes()
        except OSError as error:
            raise DataError(f"Cannot read {model}: {error.strerror}. {model_advice()}") from error
        self.details = {"model": str(model), "sha256": hashlib.sha256(content).hexdigest()}
        self._lock = threading.Lock()
        import_matplotlib()  # MediaPipe imports pyplot
        # It is imported here because that takes a second and only this finder needs it.
        import mediapipe
        from mediapipe.tasks.python import vision
        from mediapipe.tasks.python.core.base_options import BaseOptions

        self._mediapipe = mediapipe
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=content),
            # Images are taken one at a time: smoothing over a video would change what is measured.
            running_mode=vision.RunningMode.IMAGE,
            num_faces=_MAX_FACES,
        )
        try:
            self._landmarker = vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            raise DataError(
                f"{model} is not a model of MediaPipe's Face Landmarker ({error}). {model_advice()}"
            ) from error

    def __call__(self, image: np.ndarray, key: FrameKey) -> Face:
        """Find the face in u8[H, W, 3] (RGB).

        Raises:
          DataError: no face, several, or one that reaches outside.
        """
        points = choose(self._detect(image), image.shape, key)
        return checked(Face(to_68(points), self.kind), image.shape, key)

    def every_face(self, image: np.ndarray) -> list[Face]:
        """Return all faces in u8[H, W, 3]."""
        meshes = _in_pixels(self._detect(image), image.shape)
        return [Face(to_68(mesh), self.kind) for mesh in meshes]

    def _detect(self, image: np.ndarray) -> Sequence[Sequence[Any]]:
        data = np.ascontiguousarray(image)
        packed = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=data)
        with self._lock:
            return self._landmarker.detect(packed).face_landmarks


def choose(faces: Sequence[Sequence[Any]], shape: Sequence[int], key: FrameKey) -> np.ndarray:
    """Return the mesh of the one face that is meant, in pixels.

    Args:
      faces: for each face its points, with x and y as fractions of the image's width and height.
      shape: H, W, ... of the image.
      key: clip and frame, for messages.

    Returns:
      f64[478, 2].

    Raises:
      DataError: no face, or none that is clearly the largest.
    """
    meshes = _in_pixels(faces, shape)
    areas = [float(np.prod(np.ptp(mesh, axis=0))) for mesh in meshes]
    return meshes[only_face(areas, key)]


def _in_pixels(faces: Sequence[Sequence[Any]], shape: Sequence[int]) -> list[np.ndarray]:
    height, width = shape[:2]
    meshes = [np.array([(point.x, point.y) for point in face]) for face in faces]
    return [mesh * (width, height) - 0.5 for mesh in meshes]
