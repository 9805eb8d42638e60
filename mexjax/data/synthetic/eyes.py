"""Eyeballs, and the lids that open and close over them."""

from __future__ import annotations

import dataclasses

import numpy as np

from mexjax.data.synthetic.au_table import TABLE
from mexjax.data.synthetic.canvas import Canvas, logistic
from mexjax.data.synthetic.emotions import AUS
from mexjax.data.synthetic.identity import Identity

LID_EDGE = 0.011  # u: softness of the lid's edge
LASH_WIDTH = 0.016  # u: width of the lash line
_RAISE = np.array([TABLE[au].lids for au in AUS])  # u at intensity 1: upper, lower
_SCLERA = np.array([0.90, 0.87, 0.85])


@dataclasses.dataclass(frozen=True)
class Eye:
    """The frame of one eye; all lengths are in u.

    Attributes:
      center: f64[2], middle of the two corners.
      axis: f64[2], unit vector from the left to the right corner in the image.
      half_width: half the distance of the corners.
      upper, lower: height of the open lids above and below the axis.
    """

    center: np.ndarray
    axis: np.ndarray
    half_width: float
    upper: float
    lower: float

    def local(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turn places into (distance along the axis / half width, distance below the axis in u)."""
        dx, dy = x - self.center[0], y - self.center[1]
        along = (dx * self.axis[0] + dy * self.axis[1]) / self.half_width
        return along, dy * self.axis[0] - dx * self.axis[1]

    def lid_curve(self, along: np.ndarray) -> np.ndarray:
        """Shape of an open lid: 1 in the middle, 0 at the corners, blunter than a parabola."""
        q = np.maximum(0.0, 1.0 - along**2)
        return 0.35 * np.sqrt(q) + 0.65 * q


def find_eyes(identity: Identity) -> tuple[Eye, Eye]:
    """The eyes at the left and at the right of the image."""
    eyes = []
    for points in (identity.landmarks[36:42], identity.landmarks[42:48]):
        center = (points[0] + points[3]) / 2
        span = points[3] - points[0]
        length = float(np.hypot(*span))
        axis = span / length
        below = (points - center) @ np.array([-axis[1], axis[0]])
        upper = 1.12 * max(-float(below[1:3].mean()), 0.035)
        lower = 1.12 * max(float(below[4:6].mean()), 0.02)
        eyes.append(Eye(center, axis, length / 2, upper, lower))
    return eyes[0], eyes[1]


def lids_at(
    eye: Eye, weights: np.ndarray, blink: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Heights of the lids when action units and a blink move them.

    Args:
      eye: the eye.
      weights: f64[T, 12], intensity of each unit on this side.
      blink: f64[T], 0 open to 1 shut.

    Returns:
      (upper above the axis, lower below it), f64[T], u; the upper never passes the lower.
    """
    raised = weights @ _RAISE
    lower = np.maximum(eye.lower - raised[:, 1], -0.4 * eye.upper)
    upper = np.maximum(eye.upper + raised[:, 0], 0.1 * eye.upper)
    upper = upper * (1.0 - blink) - 0.85 * blink * lower
    return np.maximum(upper, -lower), lower


def make_eye_layer(canvas: Canvas, identity: Identity) -> np.ndarray:
    """f32[S, S, 3]: sclera, iris with a dark limbus, pupil; lids are laid over it later."""
    layer = np.empty((canvas.size, canvas.size, 3), np.float32)
    layer[:] = 0.92 * _SCLERA
    for eye in find_eyes(identity):
        x, y = canvas.x - eye.center[0], canvas.y - eye.center[1]
        near = np.hypot(x, y) < 0.3
        r = np.hypot(x, y)[near]
        color = layer[near]
        # The eyeball is round: its sides are darker.
        color *= (1 - 0.35 * np.clip(np.abs(x[near]) / eye.half_width, 0, 1) ** 2)[:, None]
        iris = logistic((identity.iris_radius - r) / 0.006)[:, None]
        color += (identity.iris - color) * iris
        limbus = np.exp(-0.5 * ((r - identity.iris_radius) / 0.010) ** 2)[:, None]
        color *= 1 - 0.55 * limbus
        pupil = logistic((0.42 * identity.iris_radius - r) / 0.006)[:, None]
        color *= 1 - 0.92 * pupil
        layer[near] = color
    return layer


def aperture(
    eye: Eye, x: np.ndarray, y: np.ndarray, upper: np.ndarray, lower: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The share of the eyeball that shows, and the shadows of lid and lashes.

    Args:
      eye: the eye.
      x: f32[T, H, W], coordinate x of the pixels' places, u.
      y: f32[T, H, W], coordinate y.
      upper: f[T], height of the upper lid from `lids_at`, u.
      lower: f[T], height of the lower lid.

    Returns:
      (open, shadow, lash), f[T, H, W]: share of the eyeball seen; brightness of the eyeball under
      the upper lid's shadow; brightness of skin and eye along the lash line.
    """
    along, below = eye.local(x, y)
    curve = eye.lid_curve(along)
    top, bottom = -upper[:, None, None] * curve, lower[:, None, None] * curve
    corner = logistic((1.0 - np.abs(along)) * (eye.half_width / LID_EDGE))
    is_open = logistic((below - top) / LID_EDGE) * logistic((bottom - below) / LID_EDGE) * corner
    shadow = 1.0 - 0.35 * np.exp(-0.5 * ((below - top) / 0.03) ** 2)
    lash = 1.0 - 0.61 * np.exp(-0.5 * ((below - top) / LASH_WIDTH) ** 2) * corner
    return is_open, shadow, lash
