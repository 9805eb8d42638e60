"""Action units on one subject's face: fields of displacement and of shading."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from mexjax.data.synthetic.au_table import TABLE
from mexjax.data.synthetic.emotions import AUS
from mexjax.data.synthetic.identity import Identity, template

INDEX = {au: i for i, au in enumerate(AUS)}
SIDES = (-1, 1)  # image left, image right
ONE_SIDED = (2, 6, 10, 12, 14, 15)

# The mirror image of each left landmark that the table uses.
_MIRROR = {17: 26, 18: 25, 19: 24, 20: 23, 21: 22, 31: 35, 48: 54, 49: 53, 50: 52, 51: 51}
_MIRROR |= {57: 57, 58: 56, 59: 55, 60: 64, 61: 63, 66: 66}


def main_unit(aus: Sequence[int]) -> int:
    """The unit of a set that moves most: the one an annotator times."""
    return max(aus, key=lambda au: TABLE[au].size)


def place(identity: Identity, points: np.ndarray) -> np.ndarray:
    """Template places f64[M, 2] on this subject's face: moved as the four nearest landmarks are.

    Weights are 1 / (distance^2 + 0.01).
    """
    base = template()
    squared = ((points[:, None] - base[None]) ** 2).sum(axis=2)
    nearest = np.argsort(squared, axis=1)[:, :4]
    weights = 1.0 / (np.take_along_axis(squared, nearest, axis=1) + 0.01)
    offsets = (identity.landmarks - base)[nearest]
    return points + (weights[:, :, None] * offsets).sum(1) / weights.sum(1)[:, None]


@functools.lru_cache(maxsize=4096)
def anchors(identity: Identity, au: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(centres f64[M, 2], displacements f64[M, 2]) of one unit on one side of this face."""
    free, vectors = [], []
    angle = identity.au_rotation[INDEX[au]]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mirror = np.array([1.0 if side < 0 else -1.0, 1.0])
    for point, vector in TABLE[au].anchors:
        if isinstance(point, int):
            free.append(identity.landmarks[point if side < 0 else _MIRROR[point]])
        else:
            free.append(place(identity, (np.array(point) * mirror)[None])[0])
        vectors.append(turn @ np.array(vector) * mirror)
    return np.array(free), np.array(vectors)


def _half(points: np.ndarray, side: int) -> np.ndarray:
    """f[P]: 1 on the side's half of the face, 0 on the other, smooth over 0.03 u."""
    return 1.0 / (1.0 + np.exp(np.clip(-side * points[:, 0] / 0.03, -60, 60)))


def displacement(identity: Identity, au: int, side: int, points: np.ndarray) -> np.ndarray:
    """Displacement in u of the skin at intensity 1.

    The anchors' vectors are interpolated with Gaussian weights and fall off with the distance
    from the nearest anchor, so neighbouring anchors do not add up.

    Args:
      identity: the subject.
      au: number of the unit, a key of `TABLE`.
      side: -1 image left, 1 image right.
      points: f[P, 2], canonical places.

    Returns:
      f[P, 2] in the dtype of `points`.
    """
    centres, vectors = (a.astype(points.dtype) for a in anchors(identity, au, side))
    # The two columns are added one by one: numpy sums an axis of length two ten times slower.
    squared = (points[:, 0] - centres[:, :1]) ** 2 + (points[:, 1] - centres[:, 1:]) ** 2
    gaussians = np.exp(squared * points.dtype.type(-0.5 / TABLE[au].radius ** 2))
    fall_off = gaussians.max(axis=0) * _half(points, side) / (gaussians.sum(axis=0) + 1e-9)
    return (gaussians.T @ vectors) * fall_off[:, None].astype(points.dtype)


def shading(identity: Identity, au: int, side: int, points: np.ndarray) -> np.ndarray:
    """Wrinkles and bulges: relative change f[P] of brightness at intensity 1.

    The arguments are those of `displacement`.
    """
    total = np.zeros(len(points), points.dtype)
    lines, blobs = _marks(identity, au, side)
    for ends, amplitude, width in lines:
        squared = _squared_distance(points, *ends.astype(points.dtype))
        total += amplitude * np.exp(squared * points.dtype.type(-0.5 / width**2))
        total -= 0.5 * amplitude * np.exp(squared * points.dtype.type(-0.5 / (2.2 * width) ** 2))
    for centre, radius, amplitude in blobs:
        x, y = centre.astype(points.dtype)
        squared = (points[:, 0] - x) ** 2 + (points[:, 1] - y) ** 2
        total += amplitude * np.exp(squared * points.dtype.type(-0.5 / radius**2))
    return total * _half(points, side).astype(points.dtype)


@functools.lru_cache(maxsize=4096)
def _marks(
    identity: Identity, au: int, side: int
) -> tuple[list[tuple[np.ndarray, float, float]], list[tuple[np.ndarray, float, float]]]:
    """(lines: ends f64[2, 2], amplitude, width; blobs: centre f64[2], radius, amplitude)."""
    mirror = np.array([1.0 if side < 0 else -1.0, 1.0])
    unit = TABLE[au]
    lines = [
        (place(identity, np.array([start, end]) * mirror), amplitude, width)
        for start, end, amplitude, width in unit.lines
    ]
    blobs = [
        (place(identity, (np.array(centre) * mirror)[None])[0], radius, amplitude)
        for centre, radius, amplitude in unit.blobs
    ]
    return lines, blobs


def _squared_distance(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """f[P]: squared distance of points f[P, 2] from the segment a-b."""
    x, y = points[:, 0] - a[0], points[:, 1] - a[1]
    dx, dy = b - a
    s = np.clip((x * dx + y * dy) / (dx * dx + dy * dy), 0.0, 1.0)
    return (x - s * dx) ** 2 + (y - s * dy) ** 2
