"""Light and background of one clip."""

from __future__ import annotations

import dataclasses

import numpy as np

from mexjax.data.synthetic.canvas import WINDOW_CENTER
from mexjax.data.synthetic.face import LUMA, Face
from mexjax.data.synthetic.streams import stream


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """Light and background, drawn once a clip and independent of its label.

    Attributes:
      direction: f64[3], unit vector to the light (x right, y down, z to the camera).
      ambient: share of the light that comes from everywhere.
      slope: f64[2], relative change of the light per u.
      gain: overall brightness.
      background: f64[3], RGB.
      background_slope: f64[2], change of the background per u.
    """

    direction: np.ndarray
    ambient: float
    slope: np.ndarray
    gain: float
    background: np.ndarray
    background_slope: np.ndarray


def draw_scene(seed: int, clip: int) -> Scene:
    """The scene of clip `clip` of dataset `seed`."""
    rng = stream(seed, "scene", clip)
    azimuth, elevation = rng.uniform(-0.6, 0.6), rng.uniform(0.15, 0.8)
    direction = np.array(
        [
            np.sin(azimuth) * np.cos(elevation),
            -np.sin(elevation),
            np.cos(azimuth) * np.cos(elevation),
        ]
    )
    ambient = rng.uniform(0.45, 0.65)
    slope = np.array([rng.normal(0, 0.08), rng.normal(0, 0.06)])
    gain = rng.uniform(0.85, 1.12)
    background = rng.uniform(0.2, 0.8) + rng.uniform(-0.1, 0.1, 3)
    return Scene(direction, ambient, slope, gain, background, rng.normal(0, 0.12, 2))


def light(face: Face, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Light a face.

    Lambert's law with an ambient part, and a Blinn highlight on the skin.

    Returns:
      (skin, eyes): f32[S, S, C] in [0, 1] before clipping; skin includes the background.
    """
    f32 = np.float32
    half = scene.direction + np.array([0.0, 0.0, 1.0])
    half /= np.linalg.norm(half)
    facing = face.normal @ scene.direction.astype(f32)
    shade = f32(scene.ambient) + f32((1 - scene.ambient) * 1.15) * np.maximum(facing, 0)
    highlight = f32(0.07) * np.maximum(face.normal @ half.astype(f32), 0) ** 22
    x = face.canvas.x[0] - f32(WINDOW_CENTER[0])
    y = face.canvas.y[:, 0] - f32(WINDOW_CENTER[1])
    across = 1 + f32(scene.slope[0]) * x[None] + f32(scene.slope[1]) * y[:, None]
    field = (across * f32(scene.gain))[..., None]
    slope = scene.background_slope.astype(f32)
    gradient = slope[0] * x[None] + slope[1] * y[:, None]
    behind = np.clip(scene.background.astype(f32) + gradient[..., None], 0.03, 0.97)
    if face.albedo.shape[-1] == 1:
        behind = (behind @ LUMA)[..., None]
    front = (face.albedo * shade[..., None] + highlight[..., None] * face.gloss) * field
    skin = behind + (front - behind) * face.alpha
    eyes = face.eyes * (0.35 + 0.65 * shade[..., None]) * field
    return skin, eyes
