"""A face finder without any download: the cascade of local binary patterns that scikit-image ships.

It gives a box; the mean face is laid into it. That is coarse: on 60 embedded faces of 160 px the
eyes' midpoint was off by 5 % of the box's height and 4 % of its width (standard deviation), their
distance by 12 %. This is good enough for a crop and too coarse for measuring where a brow is.
"""

from __future__ import annotations

import cv2
import numpy as np

from mexjax.prepare.face_geometry import Face, FrameKey, checked, only_face, place_template

# These are fractions of the box. Measured with the settings below they are 0.39, 0.51, 0.61 on the
# embedded faces and 0.34, 0.52, 0.66 on the photograph of a person (frontal, smiling) that
# scikit-image ships.
EYE_LINE = 0.38
EYE_CENTER = 0.51
EYE_DISTANCE = 0.62

_WORK_PX = 320  # longer side of the image searched: the cascade's own window is 24 px
_PAD = 0.25  # border, as a share of _WORK_PX: a box must lie inside, and crops may cut the forehead
_MIN_FACE = 1 / 8
_SAME_FACE = 0.2  # two boxes that share more than this part of the smaller one are one face


class CascadeFinder:
    """A finder that uses scikit-image's cascade."""

    kind = "cascade"

    def __init__(self) -> None:
        from skimage.data import lbp_frontal_face_cascade_filename
        from skimage.feature import Cascade

        self.details = {"model": "lbpcascade_frontalface_opencv.xml of scikit-image"}
        self._cascade = Cascade(lbp_frontal_face_cascade_filename())

    def __call__(self, image: np.ndarray, key: FrameKey) -> Face:
        """Find the face in u8[H, W, 3] (RGB).

        Raises:
          DataError: no face, several, or one that reaches outside.
        """
        boxes = merge(self._boxes(image))
        x, y, width, height = boxes[only_face([box[2] * box[3] for box in boxes], key)]
        eyes = (x + EYE_CENTER * width, y + EYE_LINE * height)
        return checked(
            Face(place_template(eyes, EYE_DISTANCE * width), self.kind), image.shape, key
        )

    def _boxes(self, image: np.ndarray) -> np.ndarray:
        """Return x, y, width, height (px) of everything that looks like a face: f64[M, 4]."""
        gray = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
        scale = _WORK_PX / max(gray.shape)
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=way)
        pad, longer = round(_PAD * _WORK_PX), max(gray.shape)
        gray = cv2.copyMakeBorder(gray, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
        least, most = round(_MIN_FACE * longer), round(1.2 * longer)
        detections = self._cascade.detect_multi_scale(
            gray,
            scale_factor=1.05,
            step_ratio=1,
            min_size=(least, least),
            max_size=(most, most),
            min_neighbor_number=3,
            intersection_score_threshold=0.3,
        )
        names = ("c", "r", "width", "height")
        boxes = np.array([[box[name] for name in names] for box in detections], float).reshape(
            -1, 4
        )
        boxes[:, :2] -= pad
        # The edge of the first pixel is at -0.5.
        return boxes / scale - (0.5, 0.5, 0.0, 0.0)


def merge(boxes: np.ndarray) -> np.ndarray:
    """Merge boxes until each face has one: f64[M, 4] (x, y, width, height) -> f64[M', 4].

    Boxes that overlap a larger one are the same face; those centred in its middle half are averaged
    with it, weighted by area, which on the embedded faces is nearer than the largest alone.
    """
    left = boxes[np.argsort(boxes[:, 2] * boxes[:, 3], kind="stable")[::-1]]
    merged = []
    while len(left):
        largest = left[0]
        is_same = _overlap(largest, left) > _SAME_FACE
        off = np.abs(left[:, :2] + left[:, 2:] / 2 - (largest[:2] + largest[2:] / 2))
        is_near = is_same & (off < largest[2:] / 2).all(axis=1)
        weights = left[is_near, 2] * left[is_near, 3]
        merged.append((left[is_near] * weights[:, None]).sum(axis=0) / weights.sum())
        left = left[~is_same]
    return np.array(merged).reshape(-1, 4)


def _overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the area shared with `box`, as a fraction of the smaller of the two: f64[M]."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    return shared / np.minimum(box[2] * box[3], others[:, 2] * others[:, 3])
