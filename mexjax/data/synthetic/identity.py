"""A subject: the places of its 68 landmarks, its looks and the habits of its muscles."""

from __future__ import annotations

import dataclasses
import functools
import json
from importlib import resources

import numpy as np

from mexjax.data.synthetic.emotions import AUS
from mexjax.data.synthetic.streams import stream

SKIN_RAMP = np.array(
    [
        (0.97, 0.82, 0.73),
        (0.92, 0.75, 0.63),
        (0.84, 0.65, 0.51),
        (0.70, 0.51, 0.39),
        (0.52, 0.36, 0.27),
        (0.38, 0.26, 0.20),
    ]
)
HAIR_COLORS = np.array(
    [
        (0.06, 0.05, 0.05),
        (0.13, 0.09, 0.07),
        (0.25, 0.16, 0.10),
        (0.42, 0.28, 0.16),
        (0.60, 0.47, 0.30),
        (0.55, 0.55, 0.55),
    ]
)
IRIS_COLORS = np.array(
    [(0.30, 0.18, 0.10), (0.42, 0.32, 0.16), (0.38, 0.50, 0.60), (0.30, 0.44, 0.30)]
)
IRIS_SHARES = (0.50, 0.25, 0.15, 0.10)
MOUTH_Y = 0.785
_MOUTH_CORNERS = [48, 54, 60, 64]


@functools.cache
def template() -> np.ndarray:
    """f64[68, 2]: mean face in iBUG order, unit the outer eye distance, x right, y down.

    It is the MediaPipe canonical face model (Apache-2.0, Google), seen from the front.
    """
    text = (
        resources.files("mexjax.data.synthetic")
        .joinpath("template.json")
        .read_text(encoding="utf-8")
    )
    points = np.array(json.loads(text)["points"], float)
    points.setflags(write=False)
    return points


@dataclasses.dataclass(frozen=True, eq=False)
class Identity:
    """One subject. Colours are RGB in [0, 1], lengths in u.

    Attributes:
      key: (dataset seed, index of the subject): seeds the skin's texture.
      landmarks: f64[68, 2], neutral face, iBUG order.
      nose_width: factor against the template.
      skin_position: 0 (light) to 5 (dark) on `SKIN_RAMP`.
      skin, hair, iris, clothes: f64[3].
      iris_radius, brow_thickness, brow_opacity, lip_redness: lengths in u, shares from 0 to 1.
      fold, eye_bag, lid_crease, texture, stubble, mouth_line: strength of each feature.
      forehead_y, hair_line_y, hair_style, parting_x: shape of forehead and hair.
      moles: f64[M, 4]: x, y, radius, strength.
      au_gain, au_asymmetry, au_rotation: f64[12], how this subject shows each action unit:
        gain, share moved from one side to the other, angle in radians.
    """

    key: tuple[int, int]
    landmarks: np.ndarray
    nose_width: float
    skin_position: float
    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    clothes: np.ndarray
    iris_radius: float
    brow_thickness: float
    brow_opacity: float
    lip_redness: float
    fold: float
    eye_bag: float
    lid_crease: float
    texture: float
    stubble: float
    mouth_line: float
    forehead_y: float
    hair_line_y: float
    hair_style: int
    parting_x: float
    moles: np.ndarray
    au_gain: np.ndarray
    au_asymmetry: np.ndarray
    au_rotation: np.ndarray


def draw_identity(seed: int, index: int, habit: float = 1.0) -> Identity:
    """Draw subject `index` of dataset `seed`; nothing in it depends on any label.

    Args:
      seed: seed of the dataset.
      index: number of the subject.
      habit: factor on the spread of `au_gain`, `au_asymmetry` and `au_rotation`.
    """
    rng = stream(seed, "identity", index)
    landmarks, nose_width = _draw_landmarks(rng)
    position = rng.uniform(0, 5)
    skin = np.array([np.interp(position, np.arange(6), SKIN_RAMP[:, c]) for c in range(3)])
    hair = HAIR_COLORS[rng.integers(3 if position > 2.5 else 6)] * rng.uniform(0.8, 1.15)
    iris = IRIS_COLORS[rng.choice(4, p=IRIS_SHARES)] * rng.uniform(0.85, 1.15)
    num_moles = int(rng.integers(0, 9))
    moles = np.stack(
        [
            rng.uniform(-0.6, 0.6, num_moles),
            rng.uniform(-0.4, 1.1, num_moles),
            rng.uniform(0.010, 0.020, num_moles),
            rng.uniform(0.15, 0.5, num_moles),
        ],
        axis=1,
    )
    has_stubble = rng.random() < 0.35
    num_aus = len(AUS)
    return Identity(
        key=(seed, index),
        landmarks=landmarks,
        nose_width=nose_width,
        skin_position=position,
        skin=skin,
        hair=hair,
        iris=iris,
        clothes=rng.uniform(0.1, 0.75, 3),
        iris_radius=rng.uniform(0.062, 0.072),
        brow_thickness=rng.uniform(0.024, 0.05),
        brow_opacity=rng.uniform(0.55, 0.95),
        lip_redness=rng.uniform(0.35, 1),
        fold=rng.uniform(0.02, 0.14),
        eye_bag=rng.uniform(0.02, 0.12),
        lid_crease=rng.uniform(0.05, 0.3),
        texture=rng.uniform(0.6, 1.6),
        stubble=rng.uniform(0, 0.28) * has_stubble,
        mouth_line=rng.uniform(0.014, 0.026),
        forehead_y=rng.uniform(-0.98, -0.80),
        hair_line_y=rng.uniform(-0.74, -0.52),
        hair_style=int(rng.integers(4)),
        parting_x=rng.uniform(-0.4, 0.4),
        moles=moles,
        au_gain=np.clip(np.exp(habit * rng.normal(0, 0.18, num_aus)), 0.6, 1.6),
        au_asymmetry=np.clip(habit * rng.normal(0, 0.12, num_aus), -0.35, 0.35),
        au_rotation=habit * rng.normal(0, 0.14, num_aus),
    )


def _draw_landmarks(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """(landmarks f64[68, 2], width factor of the nose): the template, changed part by part."""

    def normal(mean: float, std: float) -> float:
        # Draws are cut at 2.5 standard deviations: rarer ones make no face.
        return mean + std * float(np.clip(rng.standard_normal(), -2.5, 2.5))

    p = template().copy()
    p[:17, 0] *= normal(1, 0.055)
    below = p[:17, 1] > 0.2
    p[:17, 1] = np.where(below, 0.2 + (p[:17, 1] - 0.2) * normal(1, 0.04), p[:17, 1])
    p[4:13, 0] *= 1 + normal(0, 0.05) * np.sin(np.pi * np.arange(9) / 8)

    opening, width, tilt = rng.uniform(1.25, 1.95), normal(1, 0.06), normal(0, 0.05)
    for part, side in ((slice(36, 42), 1), (slice(42, 48), -1)):
        mean = p[part].mean(axis=0)
        d = p[part] - mean
        p[part] = mean + np.stack([d[:, 0] * width, d[:, 1] * opening + side * tilt * d[:, 0]], 1)

    lift, slope = normal(-0.035, 0.028), normal(0, 0.12)
    arch, width = normal(1, 0.35), normal(1, 0.04)
    for part, side in ((slice(17, 22), 1), (slice(22, 27), -1)):
        x, y = p[part].T
        chord = y[0] + (y[-1] - y[0]) * (x - x[0]) / (x[-1] - x[0])
        y = chord + arch * (y - chord) + lift + side * slope * (x - x.mean())
        p[part] = np.stack([x * width, y], axis=1)

    length, nose_width = normal(1, 0.06), normal(1.08, 0.12)
    p[27:36, 1] *= length
    p[31:36, 0] *= nose_width

    width, height, shut = normal(1.06, 0.09), rng.uniform(0.8, 1.5), rng.uniform(0.1, 0.5)
    p[48:, 0] *= width
    p[48:, 1] = MOUTH_Y + (p[48:, 1] - MOUTH_Y) * height
    p[60:, 1] = MOUTH_Y + (p[60:, 1] - MOUTH_Y) * shut
    p[48:, 1] += normal(0, 0.03) + 0.3 * (length - 1)
    p[_MOUTH_CORNERS, 1] += normal(0, 0.018)

    p[p[:, 0] < 0, 1] += 0.5 * normal(0, 0.012)
    return p, nose_width
