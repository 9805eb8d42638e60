"""The geometry of a face: its 68 points, the mean face, and the one rule that cuts out the crop.

Pixel coordinates are x to the right and y down, and (0, 0) is the centre of the first pixel, as in
OpenCV. The points are numbered as in iBUG 300-W and dlib, the image's left side first.

The crop is a square of 1.95 times the distance of the outer eye corners (36, 45), turned so that
they are level; its centre lies 0.42 of that distance below their midpoint, so that brows and chin
just fit. One crop serves all frames of a clip: a crop that followed the face would cancel motion,
or add some.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np

from mexjax.data.synthetic.identity import template
from mexjax.errors import DataError

TEMPLATE = template()  # f64[68, 2]; unit: outer eye distance; origin: between the eyes
SOURCES = ("mediapipe", "landmarks", "precropped", "cascade")
CROP_SIDE = 1.95
CROP_DOWN = 0.42

_MIN_EYE_DISTANCE_PX = 8.0  # below it an eye is two pixels: no motion can be seen
_OVERHANG = 0.02  # share of the longer side by which extrapolated jaw points may lie outside
_MAX_OVERSAMPLING = 8
_OUTER_EYES = [36, 45]

FrameKey = tuple[str, int]  # id of the clip (`subject/clip`), frame number of the release


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
    """A face in one frame.

    Attributes:
      landmarks: f64[68, 2], px of the original frame.
      source: the way they were found: one of `SOURCES`, or "boxes" where a user's table has boxes.
        With the sources of `mexjax.data.manifest.MEAN_FACE` the mean face was laid into a box: it
        is right to some percent of the face, and blind to expression.
      certainty: 3 for measured points; for a box 2 if both eyes were seen in it, and 1 more if
        several cascades gave it.
    """

    landmarks: np.ndarray
    source: str
    certainty: int = 3


def place_template(eyes_mid: Sequence[float], distance: float) -> np.ndarray:
    """Place the mean face upright, by midpoint (x, y) and distance of the eyes, px: f64[68, 2]."""
    return np.asarray(eyes_mid, float) + TEMPLATE * distance


def template_in_crop(width: float, height: float) -> np.ndarray:
    """Return the mean face, stretched to the sides of an image that is the crop: f64[68, 2]."""
    unit = (TEMPLATE - (0.0, CROP_DOWN)) / CROP_SIDE + 0.5
    return unit * (width, height) - 0.5


def square_of(face: Face) -> np.ndarray:
    """Return centre and side of the crop's square, f64[3] (x, y, side), px of the frame."""
    left, right = np.asarray(face.landmarks, float)[_OUTER_EYES]
    across = right - left
    down = np.array([-across[1], across[0]])
    return np.array([*((left + right) / 2 + CROP_DOWN * down), CROP_SIDE * np.hypot(*across)])


def face_in_square(square: np.ndarray, source: str) -> Face:
    """Lay the mean face, upright, so that its crop has this centre and side (x, y, side)."""
    distance = square[2] / CROP_SIDE
    eyes = (square[0], square[1] - CROP_DOWN * distance)
    return Face(place_template(eyes, distance), source, certainty=0)


def checked(face: Face, shape: Sequence[int], key: FrameKey) -> Face:
    """Return `face` if it can be a face in an image of `shape` (H, W, ...).

    Raises:
      DataError: points that are not numbers, lie outside the image, are mirrored, or too close.
    """
    points, where = face.landmarks, f"{key[0]}, frame {key[1]}"
    if points.shape != (68, 2) or not np.isfinite(points).all():
        raise DataError(f"{where}: expected 68 landmarks x, y, found {_describe(points)}.")
    height, width = shape[:2]
    over = _OVERHANG * max(height, width)
    low, high = points.min(axis=0), points.max(axis=0)
    if (low < -0.5 - over).any() or high[0] > width - 0.5 + over or high[1] > height - 0.5 + over:
        raise DataError(
            f"{where}: the face reaches from ({low[0]:.0f}, {low[1]:.0f}) to ({high[0]:.0f},"
            f" {high[1]:.0f}), outside the image of {width}x{height} px. Landmarks must be pixels"
            " of the frame as the release has it; if it cuts the face, leave the clip out."
        )
    across = points[45] - points[36]
    if np.hypot(*across) < _MIN_EYE_DISTANCE_PX:
        raise DataError(
            f"{where}: the outer eye corners are {np.hypot(*across):.1f} px apart, at least"
            f" {_MIN_EYE_DISTANCE_PX:.0f} are needed. Use frames of a higher resolution."
        )
    if across[0] <= 0:
        raise DataError(
            f"{where}: point 36 (outer corner of the eye at the image's left) lies right of point"
            " 45. Give the points in iBUG order, counted from 0, and frames that are upright."
        )
    return face


def _describe(points: np.ndarray) -> str:
    bad = int((~np.isfinite(points)).sum())
    return f"{bad} values that are not numbers" if bad else f"an array of shape {points.shape}"


def only_face(areas: Sequence[float], key: FrameKey) -> int:
    """Choose the face that is meant: the one at least twice as large as any other.

    Returns:
      its place in `areas`.

    Raises:
      DataError: no face, or none that is clearly the largest.
    """
    where = f"{key[0]}, frame {key[1]}"
    if not len(areas):
        raise DataError(
            f"{where}: no face was found. Give landmarks with --landmarks=FILE, or"
            " --faces=precropped if the frames show nothing but the face."
        )
    order = np.argsort(areas)[::-1]
    if len(areas) > 1 and areas[order[0]] < 2 * areas[order[1]]:
        raise DataError(
            f"{where}: {len(areas)} faces were found and none is clearly the largest. Say which"
            " one with --landmarks=FILE (columns clip, frame, x, y, w, h)."
        )
    return int(order[0])


def alignment(face: Face, *, size_px: int) -> np.ndarray:
    """Return the matrix from pixels of the original frame to pixels of the square crop.

    A `precropped` frame is the crop: all of it is kept, and each side is scaled to the square's by
    a factor of its own, as the released code of TSFmicro and GAMDSS reads cropped folders. Any
    other face gives a similarity.

    Args:
      face: as found in the first frame of the clip.
      size_px: side of the crop.

    Returns:
      f64[2, 3], to be applied to (x, y, 1).
    """
    points = np.asarray(face.landmarks, float)
    if face.source == "precropped":
        target = template_in_crop(size_px, size_px)
        (ax, bx), (ay, by) = (np.polyfit(points[:, i], target[:, i], 1) for i in range(2))
        return np.array([[ax, 0.0, bx], [0.0, ay, by]])
    left, right = points[_OUTER_EYES]
    across = right - left
    distance = np.hypot(*across)
    along = across / distance
    down = np.array([-along[1], along[0]])
    center = (left + right) / 2 + CROP_DOWN * distance * down
    turn = np.stack([along, down]) * (size_px / (CROP_SIDE * distance))
    shift = size_px / 2 - 0.5 - turn @ center
    return np.concatenate([turn, shift[:, None]], axis=1)


def to_crop(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Map points f[..., 2] in px of the original to px of the crop, f64[..., 2]."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def align(frames: np.ndarray, matrix: np.ndarray, *, size_px: int) -> np.ndarray:
    """Cut the same square out of every frame; what lies outside repeats the edge.

    A frame that shrinks is sampled several times for each pixel of the crop and averaged: plain
    bilinear sampling would skip pixels, and what it skips flickers when the face moves.

    Args:
      frames: u8[T, H, W, C], C = 3 or 1.
      matrix: from `alignment`.
      size_px: side of the crop.

    Returns:
      u8[T, size_px, size_px, C].
    """
    scale = math.sqrt(abs(np.linalg.det(matrix[:, :2])))
    times = min(max(1, math.ceil(1 / scale - 0.05)), _MAX_OVERSAMPLING)
    fine = matrix * times
    fine[:, 2] += (times - 1) / 2
    out = np.empty((len(frames), size_px, size_px, frames.shape[3]), np.uint8)
    for frame, into in zip(frames, out, strict=True):
        cut = cv2.warpAffine(
            frame,
            fine,
            (size_px * times, size_px * times),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        if times > 1:
            cut = cv2.resize(cut, (size_px, size_px), interpolation=cv2.INTER_AREA)
        into[:] = cut.reshape(into.shape)
    return out
