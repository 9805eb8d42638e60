"""Drawing on a canvas whose coordinates are places on the face, with soft edges throughout."""

from __future__ import annotations

import dataclasses
import functools

import cv2
import numpy as np

WINDOW_CENTER = (0.0, 0.377)  # u: middle of the square around eyes, nose tip and mouth corners
WINDOW_SIDE = 2.5  # u: that square enlarged 2.5 times, as FDP and others crop
MARGIN = 0.2  # u on each side, which pose and drift can bring into view
OVERSAMPLING = 2  # canvas pixels for one output pixel


@dataclasses.dataclass(frozen=True, eq=False)
class Canvas:
    """A grid of places on the face.

    Attributes:
      per_u: pixels for one u.
      size: side in pixels.
      x, y: f32[size, size], place of each pixel's centre in u.
    """

    per_u: float
    size: int
    x: np.ndarray
    y: np.ndarray

    @property
    def left(self) -> float:
        """Coordinate x of the left edge, u."""
        return WINDOW_CENTER[0] - WINDOW_SIDE / 2 - MARGIN

    @property
    def top(self) -> float:
        """Coordinate y of the upper edge, u."""
        return WINDOW_CENTER[1] - WINDOW_SIDE / 2 - MARGIN

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Turn places f[..., 2] in u into pixels; (0, 0) is the centre of the first pixel."""
        origin = np.array([self.left, self.top], points.dtype)
        return (points - origin) * points.dtype.type(self.per_u) - points.dtype.type(0.5)

    def blob(self, x: float, y: float, sx: float, sy: float | None = None) -> np.ndarray:
        """f32[size, size]: Gaussian of height 1 and radii `sx`, `sy` at (x, y)."""
        row = np.exp(-0.5 * ((self.x[0] - x) / sx) ** 2)
        column = np.exp(-0.5 * ((self.y[:, 0] - y) / (sy or sx)) ** 2)
        return column[:, None] * row[None]

    def pair(self, x: float, y: float, sx: float, sy: float | None = None) -> np.ndarray:
        """Two blobs at (-x, y) and (x, y)."""
        return self.blob(-x, y, sx, sy) + self.blob(x, y, sx, sy)

    def distance(self, points: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
        """Distance from a polyline and the place along it.

        Args:
          points: f[M, 2], corners of the line, u.
          reach: distance up to which values are exact, u.

        Returns:
          (distance f32[size, size] in u, 9 beyond reach; position f32 of the nearest point
          along the line, 0 at its start and 1 at its end, corners evenly spaced).
        """
        distance = np.full((self.size, self.size), 9.0, np.float32)
        position = np.zeros_like(distance)
        low = np.floor(self.to_pixels(points.min(axis=0) - reach)).astype(int)
        high = np.ceil(self.to_pixels(points.max(axis=0) + reach)).astype(int) + 1
        (c0, r0), (c1, r1) = np.clip(low, 0, self.size), np.clip(high, 0, self.size)
        if c0 >= c1 or r0 >= r1:
            return distance, position
        box = (slice(r0, r1), slice(c0, c1))
        grid = np.stack([self.x[box], self.y[box]], axis=-1)
        best, where = distance[box], position[box]
        num = len(points) - 1
        for i in range(num):
            a = points[i].astype(np.float32)
            along = (points[i + 1] - points[i]).astype(np.float32)
            s = np.clip(((grid - a) @ along) / max(float(along @ along), 1e-12), 0, 1)
            d = np.sqrt(((grid - a - s[..., None] * along) ** 2).sum(axis=-1))
            closer = d < best
            best[closer] = d[closer]
            where[closer] = (i + s[closer]) / num
        return distance, position

    def stroke(self, points: np.ndarray, width: float) -> np.ndarray:
        """f32[size, size]: 1 on a polyline, falling off as a Gaussian of radius `width`."""
        distance, _ = self.distance(points, 4 * width)
        return np.exp(-0.5 * (distance / np.float32(width)) ** 2)

    def polygon(self, points: np.ndarray, blur: float) -> np.ndarray:
        """f32[size, size]: 1 inside a closed polygon f[M, 2], edges blurred by `blur` u."""
        fine = 4
        pixels = (points - (self.left, self.top)) * self.per_u * fine - 0.5
        mask = np.zeros((self.size * fine, self.size * fine), np.uint8)
        cv2.fillPoly(mask, [np.round(pixels * 256).astype(np.int32)], 255, shift=8)
        small = cv2.resize(mask.astype(np.float32), (self.size,) * 2, interpolation=cv2.INTER_AREA)
        return self.blur(small / np.float32(255), blur)

    def blur(self, image: np.ndarray, radius: float) -> np.ndarray:
        """Gaussian blur of radius `radius` u, edges repeated."""
        return cv2.GaussianBlur(image, (0, 0), radius * self.per_u, borderType=cv2.BORDER_REPLICATE)

    def noise(self, rng: np.random.Generator, sx: float, sy: float | None = None) -> np.ndarray:
        """f32[size, size]: smooth noise, mean 0 and deviation 1, of scale `sx`, `sy` u.

        The draw does not depend on the canvas' resolution.
        """
        side = self.size / self.per_u
        cells = [max(2, round(side / s)) for s in (sx, sy or sx)]
        white = rng.standard_normal((cells[1], cells[0]), dtype=np.float32)
        smooth = cv2.resize(white, (self.size,) * 2, interpolation=cv2.INTER_CUBIC)
        return (smooth - smooth.mean()) / smooth.std()


@functools.lru_cache(maxsize=4)
def make_canvas(resolution_px: int) -> Canvas:
    """The canvas from which images of `resolution_px` are sampled."""
    per_u = OVERSAMPLING * resolution_px / WINDOW_SIDE
    size = round((WINDOW_SIDE + 2 * MARGIN) * per_u)
    line = (np.arange(size) + 0.5) / per_u
    x = (line + WINDOW_CENTER[0] - WINDOW_SIDE / 2 - MARGIN).astype(np.float32)
    y = (line + WINDOW_CENTER[1] - WINDOW_SIDE / 2 - MARGIN).astype(np.float32)
    return Canvas(per_u, size, np.tile(x, (size, 1)), np.tile(y[:, None], (1, size)))


def logistic(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow."""
    return 1.0 / (1.0 + np.exp(-np.clip(x, -40.0, 40.0)))


def spline(points: np.ndarray, *, is_closed: bool, steps: int = 6) -> np.ndarray:
    """Catmull-Rom curve through points f[M, 2], `steps` pieces from each to the next."""
    if is_closed:
        p = np.concatenate([points[-1:], points, points[:2]])
    else:
        p = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    p0, p1, p2, p3 = (p[i : len(p) - 3 + i, None] for i in range(4))
    t = (np.arange(steps) / steps)[None, :, None]
    curve = 0.5 * (
        2 * p1
        + (p2 - p0) * t
        + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    curve = curve.reshape(-1, points.shape[1])
    return curve if is_closed else np.concatenate([curve, points[-1:]])
