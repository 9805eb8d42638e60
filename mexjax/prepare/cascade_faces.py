"""A face finder without any download: the cascades of Haar features that OpenCV ships.

Three cascades of frontal faces each give boxes; boxes of one place and size are one candidate, with
as many votes as cascades gave one. A fourth cascade looks for both eyes in each candidate: they
tell faces from what only looks like one, and give the size and the turn of the head. Into the eyes
(or, where they are not seen, into the box) the mean face is laid. This is good for a crop, and too
coarse for measuring where a brow is. The measurement that led to this choice is in docs/datasets.md
and comes from `benchmarks/face_boxes.py`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mexjax.errors import DataError
from mexjax.prepare.face_geometry import TEMPLATE, Face, FrameKey, checked, only_face

DETECTOR = "OpenCV's Haar cascades with eyes, 1"
"""Name and version of the method; it changes when the same image gives another box."""


KIND = "cascade"


class Fit(NamedTuple):
    """The eyes in a box of a cascade: their midpoint and outer distance, as fractions of it."""

    middle: float
    line: float
    distance: float


# The medians over rendered faces (frontal) and photographs lie within 0.02 of these.
FACE_CASCADES = {
    "haarcascade_frontalface_alt": Fit(0.502, 0.407, 0.535),
    "haarcascade_frontalface_alt2": Fit(0.502, 0.405, 0.535),
    "haarcascade_frontalface_default": Fit(0.500, 0.405, 0.517),
}
EYE_CASCADE = "haarcascade_eye_tree_eyeglasses"

_WORK_PX = 320  # longer side of the image searched: the cascades' own windows are 20 to 24 px
_PAD = 0.25  # border, as a share of _WORK_PX: a box must lie inside, and crops may cut the forehead
_MIN_FACE = 1 / 8
_STEP, _EYE_STEP = 1.1, 1.05  # factor from one size of the search to the next
_NEIGHBOURS = 3  # boxes that must agree before a cascade gives one
_FEW_NEIGHBOURS = 1  # where a face is known to be, and only its place is asked for
_MIN_VOTES = 2

# Two boxes are one candidate up to these; the first is in outer eye distances.
_SAME_PLACE, _SAME_SIZE = 0.5, 1.6
_ONE_FACE = 0.8  # two candidates nearer than this part of the larger eye distance are one face

_EYE_PX = 80.0  # outer eye distance of the strip that is searched for eyes
_STRIP = (200, 140)  # its width and height; the eyes' midpoint is expected at _STRIP_MIDDLE
_STRIP_MIDDLE = np.array([100.0, 70.0])
_STRIP_OVERLAP = 5  # px by which the two halves reach over the middle
_EYE_SPAN = 0.70  # distance of the centres of the two eye boxes, in outer eye distances
# A pair of eyes is believed up to these differences from the box: size, place, turn.
_EYE_SIZES = (0.70, 1.45)
_EYE_SHIFT, _EYE_TURN_DEG = 0.3, 25.0


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A place that looks like a face.

    Attributes:
      votes: number of cascades that gave it.
      score: sum of their weights.
      middle: f64[2], midpoint of the eyes, px.
      distance: outer eye distance, px.
      turn: angle of the line through the eyes, radians; 0 without eyes.
      has_eyes: whether both eyes were seen; place, size and turn are then theirs.
    """

    votes: int
    score: float
    middle: np.ndarray
    distance: float
    turn: float = 0.0
    has_eyes: bool = False

    def face(self) -> Face:
        """Lay the mean face into this place."""
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        points = self.middle + self.distance * TEMPLATE @ np.array([[cos, sin], [-sin, cos]])
        return Face(points, KIND, 2 * self.has_eyes + (self.votes >= _MIN_VOTES))


class CascadeFinder:
    """A finder that uses OpenCV's cascades.

    Attributes:
      details: "detector", "model" (the files) and "sha256" (of all of them).
    """

    kind = KIND

    def __init__(self, cascades: Sequence[str] = tuple(FACE_CASCADES), *, eyes: bool = True):
        """Load the files.

        Args:
          cascades: keys of `FACE_CASCADES`.
          eyes: whether eyes are looked for.

        Raises:
          DataError: this version of OpenCV came without them.
        """
        names = [*cascades, EYE_CASCADE]
        self._faces = {name: _load(name) for name in cascades}
        self._eyes = _load(EYE_CASCADE) if eyes else None
        content = b"".join(_path(name).read_bytes() for name in names)
        self.details = {
            "detector": DETECTOR,
            "model": ", ".join(f"{name}.xml" for name in names),
            "sha256": hashlib.sha256(content).hexdigest(),
        }

    def __call__(self, image: np.ndarray, key: FrameKey) -> Face:
        """Find the face in u8[H, W, 3] (RGB).

        Raises:
          DataError: no face, several, or one that reaches outside.
        """
        faces = likely(self.candidates(image))
        best = faces[only_face([face.distance**2 for face in faces], key)]
        return checked(best.face(), image.shape, key)

    def every_face(self, image: np.ndarray) -> list[Face]:
        """Return all that may be a face in u8[H, W, 3], the likeliest first."""
        return [place.face() for place in self.candidates(image, neighbours=_FEW_NEIGHBOURS)]

    def candidates(self, image: np.ndarray, *, neighbours: int = _NEIGHBOURS) -> list[Candidate]:
        """Return all that looks like a face in u8[H, W, 3], the likeliest first.

        Args:
          image: RGB.
          neighbours: boxes that must agree before a cascade gives one; fewer give more candidates.
        """
        gray = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
        groups = _grouped(self._boxes(gray, neighbours))
        return [self._with_eyes(gray, group) for group in groups]

    def _boxes(self, gray: np.ndarray, neighbours: int) -> list[tuple[str, float, Candidate]]:
        """Return cascade, weight and place of every box."""
        scale = _WORK_PX / max(gray.shape)
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=way)
        pad, longer = round(_PAD * _WORK_PX), max(small.shape)
        small = cv2.copyMakeBorder(small, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
        least, most = round(_MIN_FACE * longer), round(1.2 * longer)
        out = []
        for name, cascade in self._faces.items():
            boxes, _, weights = cascade.detectMultiScale3(
                small,
                scaleFactor=_STEP,
                minNeighbors=neighbours,
                minSize=(least, least),
                maxSize=(most, most),
                outputRejectLevels=True,
            )
            fit = FACE_CASCADES[name]
            for (x, y, width, height), weight in zip(boxes, np.ravel(weights), strict=True):
                corner = np.array([x - pad + fit.middle * width, y - pad + fit.line * height])
                # The edge of the first pixel is at -0.5.
                middle = corner / scale - 0.5
                place = Candidate(1, float(weight), middle, fit.distance * width / scale)
                out.append((name, float(weight), place))
        return out

    def _with_eyes(self, gray: np.ndarray, face: Candidate) -> Candidate:
        """Return the candidate with place, size and turn of its eyes, if both are seen."""
        if self._eyes is None:
            return face
        scale = _EYE_PX / face.distance
        shift = _STRIP_MIDDLE - scale * face.middle
        matrix = np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])
        way = cv2.INTER_LINEAR if scale > 1 else cv2.INTER_AREA
        strip = cv2.warpAffine(gray, matrix, _STRIP, flags=way, borderMode=cv2.BORDER_REPLICATE)
        half = _STRIP[0] // 2
        centers = []
        for start, stop in ((0, half + _STRIP_OVERLAP), (half - _STRIP_OVERLAP, _STRIP[0])):
            boxes, _, weights = self._eyes.detectMultiScale3(
                np.ascontiguousarray(strip[:, start:stop]),
                scaleFactor=_EYE_STEP,
                minNeighbors=2,
                minSize=(18, 18),
                maxSize=(70, 70),
                outputRejectLevels=True,
            )
            if not len(boxes):
                return face
            x, y, width, height = boxes[int(np.argmax(weights))]
            centers.append((start + x + width / 2 - 0.5, y + height / 2 - 0.5))
        left, right = (np.array(centers) - _STRIP_MIDDLE) / scale + face.middle
        across = right - left
        distance, turn = float(np.hypot(*across)) / _EYE_SPAN, math.atan2(across[1], across[0])
        middle = (left + right) / 2
        low, high = _EYE_SIZES
        is_likely = (
            low < distance / face.distance < high
            and np.hypot(*(middle - face.middle)) < _EYE_SHIFT * face.distance
            and abs(math.degrees(turn)) < _EYE_TURN_DEG
        )
        if not is_likely:
            return face
        return dataclasses.replace(face, middle=middle, distance=distance, turn=turn, has_eyes=True)


def likely(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that are faces, each face once.

    Those with both eyes, if there are any, else those that several cascades gave, else all.
    """
    rest = [face for face in candidates if face.has_eyes and face.votes >= _MIN_VOTES]
    rest = rest or [face for face in candidates if face.votes >= _MIN_VOTES]
    rest = rest or [face for face in candidates if face.has_eyes] or list(candidates)
    faces: list[Candidate] = []
    for face in rest:
        gaps = [
            np.hypot(*(face.middle - other.middle)) / max(face.distance, other.distance)
            for other in faces
        ]
        if all(gap > _ONE_FACE for gap in gaps):
            faces.append(face)
    return faces


def _grouped(boxes: Sequence[tuple[str, float, Candidate]]) -> list[Candidate]:
    """Unite boxes of one place and size; each cascade's strongest box counts, by the median."""
    groups: list[dict[str, Candidate]] = []
    for name, _, box in sorted(boxes, key=lambda item: -item[1]):
        for group in groups:
            first = next(iter(group.values()))
            if _is_same(first, box):
                group.setdefault(name, box)
                break
        else:
            groups.append({name: box})
    out = [
        Candidate(
            votes=len(group),
            score=sum(box.score for box in group.values()),
            middle=np.median([box.middle for box in group.values()], axis=0),
            distance=float(np.median([box.distance for box in group.values()])),
        )
        for group in groups
    ]
    return sorted(out, key=lambda face: (-face.votes, -face.score))


def _is_same(one: Candidate, other: Candidate) -> bool:
    larger = max(one.distance, other.distance)
    is_near = np.hypot(*(one.middle - other.middle)) < _SAME_PLACE * larger
    return bool(is_near and larger < _SAME_SIZE * min(one.distance, other.distance))


def _path(name: str) -> Path:
    return Path(importlib.import_module("cv2.data").haarcascades) / f"{name}.xml"


def _load(name: str) -> cv2.CascadeClassifier:
    path = _path(name)
    if not path.is_file():
        raise DataError(
            f"OpenCV {cv2.__version__} came without its face cascades: there is no {path}. Install"
            " another version of opencv-contrib-python, or give --landmarks=FILE."
        )
    return cv2.CascadeClassifier(str(path))
