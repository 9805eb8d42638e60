"""The neutral face of one subject: height, albedo, hair and eyes on a canvas, not yet lit."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from mexjax.data.synthetic.canvas import Canvas, logistic, make_canvas, spline
from mexjax.data.synthetic.eyes import make_eye_layer
from mexjax.data.synthetic.hair import make_hair
from mexjax.data.synthetic.identity import Identity
from mexjax.data.synthetic.streams import stream

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
    """Layers of one subject at one resolution. S is the canvas' side, C is 1 or 3.

    Attributes:
      canvas: the grid.
      albedo: f32[S, S, C], head, neck and clothes.
      alpha: f32[S, S, 1], 0 where the background shows.
      normal: f32[S, S, 3], of the height field.
      gloss: f32[S, S, 1], weight of the highlight.
      eyes: f32[S, S, C], eyeballs without lids.
    """

    canvas: Canvas
    albedo: np.ndarray
    alpha: np.ndarray
    normal: np.ndarray
    gloss: np.ndarray
    eyes: np.ndarray


@functools.lru_cache(maxsize=8)
def make_face(identity: Identity, resolution_px: int, is_color: bool) -> Face:
    """Draw the layers of a subject (the last eight are kept)."""
    canvas = make_canvas(resolution_px)
    rng = stream(identity.key[0], "texture", identity.key[1])
    mask = head_mask(canvas, identity)
    skin = _skin(canvas, identity, rng)
    skin = _lips(canvas, identity, skin)
    skin = _brows(canvas, identity, skin, rng)
    hair = make_hair(canvas, identity, rng)

    albedo = np.empty_like(skin)
    albedo[:] = (identity.skin * 0.62).astype(np.float32)  # neck, in the shadow of the jaw
    neck = _neck(canvas, identity)
    albedo = _over(albedo, hair.color, hair.back)
    albedo = _over(albedo, (identity.skin * 0.62).astype(np.float32), neck)
    clothes = _clothes(canvas)
    albedo = _over(albedo, identity.clothes.astype(np.float32), clothes)
    # The hair in front of the shoulders comes first, then the face, then the fringe.
    albedo = _over(albedo, hair.color, hair.sides)
    albedo = _over(albedo, skin, mask)
    albedo = _over(albedo, hair.color, hair.front)
    alpha = 1 - (1 - hair.back) * (1 - neck) * (1 - clothes) * (1 - hair.sides) * (1 - mask)
    gloss = mask * (1 - hair.front)
    eyes = make_eye_layer(canvas, identity)
    if not is_color:
        albedo, eyes = (albedo @ LUMA)[..., None], (eyes @ LUMA)[..., None]
    return Face(
        canvas,
        np.ascontiguousarray(albedo),
        alpha[..., None],
        normals(canvas, identity),
        gloss[..., None],
        np.ascontiguousarray(eyes),
    )


def _over(image: np.ndarray, color: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return image + (color - image) * mask[..., None]


def head_outline(identity: Identity) -> np.ndarray:
    """f64[M, 2]: closed curve through the jaw and over the forehead."""
    jaw = identity.landmarks[:17]
    half, top, base = jaw_half_width(identity), identity.forehead_y, 0.03
    angle = np.linspace(0, np.pi, 14)[1:-1]
    arc = np.stack([half * np.cos(angle), base + (top - base) * np.sin(angle)], axis=1)
    return spline(np.concatenate([jaw, arc]), is_closed=True)


def jaw_half_width(identity: Identity) -> float:
    """Half the width of the face at the ears, u."""
    return float((identity.landmarks[16, 0] - identity.landmarks[0, 0]) / 2)


def head_mask(canvas: Canvas, identity: Identity) -> np.ndarray:
    """f32[S, S]: 1 on the face."""
    return canvas.polygon(head_outline(identity), 0.012)


def normals(canvas: Canvas, identity: Identity) -> np.ndarray:
    """f32[S, S, 3]: unit normals of a head built from an ellipsoid and Gaussian parts."""
    p, x, y = identity.landmarks, canvas.x, canvas.y
    top, chin = identity.forehead_y, p[8, 1]
    a, b = 1.12 * jaw_half_width(identity), 1.10 * (chin - top) / 2
    inside = 1 - (x / a) ** 2 - ((y - (top + chin) / 2) / b) ** 2
    z = 0.85 * np.sqrt(np.maximum(inside, 0.02))

    tip_y, root_y, width = p[30, 1], p[27, 1], identity.nose_width
    down = np.clip((y - root_y) / (tip_y - root_y), 0, 1)
    below = np.exp(-0.5 * (np.maximum(y - tip_y, 0) / 0.06) ** 2)
    z += 0.20 * down * below * np.exp(-0.5 * (x / (0.05 + 0.05 * down)) ** 2)
    z += 0.10 * canvas.blob(0, tip_y, 0.07)
    z += 0.05 * canvas.pair(0.13 * width, p[31, 1] - 0.035, 0.05)

    eye_x = float(p[42:48, 0].mean() - p[36:42, 0].mean()) / 2
    eye_y = float(p[36:48, 1].mean())
    brow_x = float(p[22:27, 0].mean() - p[17:22, 0].mean()) / 2
    z -= 0.075 * canvas.pair(eye_x, eye_y, 0.17, 0.10)
    z += 0.045 * canvas.pair(eye_x, eye_y, 0.10, 0.055)
    z += 0.05 * canvas.pair(brow_x, float(p[17:27, 1].mean()), 0.18, 0.06)
    z += 0.06 * canvas.pair(0.48, 0.36, 0.17, 0.15)

    upper, lower = (p[51, 1] + p[62, 1]) / 2, (p[57, 1] + p[66, 1]) / 2
    z += 0.05 * canvas.blob(0, upper, 0.16, 0.035)
    z += 0.06 * canvas.blob(0, lower, 0.13, 0.04)
    z -= 0.05 * canvas.blob(0, p[57, 1] + 0.05, 0.14, 0.03)
    z += 0.09 * canvas.blob(0, chin - 0.15, 0.15, 0.11)
    z += 0.05 * canvas.blob(0, (upper + lower) / 2, 0.24, 0.16)
    z -= 0.012 * canvas.blob(0, (p[33, 1] + p[51, 1]) / 2, 0.022, 0.05)

    dy, dx = np.gradient(z.astype(np.float32), np.float32(1 / canvas.per_u))
    n = np.stack([-dx, -dy, np.ones_like(dx)], axis=-1)
    return n / np.linalg.norm(n, axis=-1, keepdims=True)


def _skin(canvas: Canvas, identity: Identity, rng: np.random.Generator) -> np.ndarray:
    """f32[S, S, 3]: skin with texture, creases and nostrils; no brows, lips or eyes."""
    p = identity.landmarks
    texture = np.zeros_like(canvas.x)
    for strength, scale in ((0.030, 0.45), (0.020, 0.14), (0.014, 0.06), (0.012, 0.028)):
        texture += strength * canvas.noise(rng, scale)
    grain = canvas.noise(rng, 0.03)  # drawn for every subject, so that streams stay aligned
    tone = 1 + identity.texture * texture

    eye_x = float(p[42:48, 0].mean() - p[36:42, 0].mean()) / 2
    eye_y = float(p[36:48, 1].mean())
    tone *= 1 - 0.16 * np.minimum(canvas.pair(eye_x, eye_y - 0.02, 0.15, 0.085), 1)
    for part, side in ((slice(36, 42), -1), (slice(42, 48), 1)):
        eye = p[part]
        outer, inner = (eye[0], eye[3]) if side < 0 else (eye[3], eye[0])
        middle = eye.mean(axis=0)
        bag = np.stack([outer, middle, inner]) + np.array([(0, 0.06), (0, 0.125), (0, 0.06)])
        tone *= 1 - identity.eye_bag * canvas.stroke(spline(bag, is_closed=False), 0.022)
        lift = 0.055 + 1.12 * float(eye[0, 1] / 2 + eye[3, 1] / 2 - eye[1:3, 1].mean())
        crease = np.stack([outer, middle, inner]) - np.array([(0, 0.02), (0, lift), (0, 0.02)])
        tone *= 1 - identity.lid_crease * canvas.stroke(spline(crease, is_closed=False), 0.012)
        ala = p[31] if side < 0 else p[35]
        corner = p[48] if side < 0 else p[54]
        outwards = [(side * 0.035, -0.05), (side * 0.075, -0.03), (side * 0.085, 0.03)]
        fold = np.stack([ala, (ala + corner) / 2, corner]) + outwards
        tone *= 1 - identity.fold * canvas.stroke(spline(fold, is_closed=False), 0.024)
        x = side * 0.15 * identity.nose_width
        wing = np.array([(x, ala[1] - 0.075), (x * 1.12, ala[1] - 0.035), (x, ala[1] + 0.005)])
        tone *= 1 - 0.30 * canvas.stroke(spline(wing, is_closed=False), 0.012)
        nostril = ((canvas.x - side * 0.068 * identity.nose_width) / 0.030) ** 2
        nostril = nostril + ((canvas.y - (p[32, 1] - 0.012)) / 0.013) ** 2
        tone *= 1 - 0.72 * logistic((1 - np.sqrt(nostril)) * 0.016 / 0.007)
    for x, y, radius, strength in identity.moles:
        tone *= 1 - strength * canvas.blob(x, y, radius)

    jaw = canvas.blob(0, p[57, 1] + 0.08, 0.55, 0.24) - 0.8 * canvas.blob(0, 0.62, 0.9, 0.08)
    tone *= 1 - identity.stubble * np.clip(jaw, 0, 1) * (0.9 + 0.12 * grain)
    skin = tone[..., None] * identity.skin.astype(np.float32)
    flush = np.minimum(canvas.pair(0.45, 0.42, 0.16, 0.13) + canvas.blob(0, p[30, 1], 0.08), 1)
    skin[..., 1:] *= (1 - 0.09 * flush)[..., None]
    return skin


def _lips(canvas: Canvas, identity: Identity, skin: np.ndarray) -> np.ndarray:
    p = identity.landmarks
    mask = canvas.polygon(spline(p[48:60], is_closed=True), 0.010)
    color = skin * np.array([0.86, 0.58, 0.56], np.float32)
    skin = skin + (color - skin) * ((0.35 + 0.55 * identity.lip_redness) * mask)[..., None]
    line = spline(p[[48, 60, 61, 62, 63, 64, 54]], is_closed=False)
    distance, along = canvas.distance(line, 4 * identity.mouth_line)
    width = identity.mouth_line * (0.35 + 0.65 * np.sin(np.pi * along))
    dark = 0.72 * np.exp(-0.5 * (distance / (0.6 * width)) ** 2)
    corners = canvas.blob(p[48, 0], p[48, 1], 0.028) + canvas.blob(p[54, 0], p[54, 1], 0.028)
    return skin * ((1 - dark) * (1 - 0.30 * np.minimum(corners, 1)))[..., None]


def _brows(
    canvas: Canvas, identity: Identity, skin: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    noise = 1 + 0.12 * canvas.noise(rng, 0.022)
    color = (identity.hair * 0.9).astype(np.float32) * noise[..., None]
    for part in (slice(17, 22), slice(26, 21, -1)):  # both from the outer end inwards
        line = spline(identity.landmarks[part], is_closed=False)
        distance, along = canvas.distance(line, 0.13)
        taper = np.interp(along, [0, 1 / 3, 2 / 3, 1], [0.35, 0.9, 1.25, 1.0])
        inside = logistic((identity.brow_thickness * taper - distance) / 0.010)
        skin = skin + (color - skin) * (identity.brow_opacity * inside)[..., None]
    return skin.astype(np.float32)


def _neck(canvas: Canvas, identity: Identity) -> np.ndarray:
    half = 0.62 * jaw_half_width(identity) + 0.06 * np.maximum(canvas.y - 1.25, 0)
    return logistic((half - np.abs(canvas.x)) / 0.012) * logistic((canvas.y - 0.5) / 0.02)


def _clothes(canvas: Canvas) -> np.ndarray:
    edge = 2.28 - 0.82 * np.sqrt(np.maximum(1 - (canvas.x / 1.9) ** 2, 0))
    return logistic((canvas.y - edge) / 0.015)
