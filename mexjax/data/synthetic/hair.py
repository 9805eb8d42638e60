"""Hair: behind the face, beside it and over the forehead."""

from __future__ import annotations

import dataclasses

import numpy as np

from mexjax.data.synthetic.canvas import Canvas, logistic
from mexjax.data.synthetic.identity import Identity

# Each style has the place where it ends (y, u), the distance that it stands out from the head (u),
# and the fall of the hair line towards the temples.
_STYLES = (
    {"end": 0.22, "out": 0.10, "drop": 0.42},  # bowl
    {"end": 1.12, "out": 0.13, "drop": 0.55},  # long
    {"end": -0.02, "out": 0.05, "drop": 0.30},  # cropped
    {"end": 0.16, "out": 0.07, "drop": 0.75},  # parted
)


@dataclasses.dataclass(frozen=True, eq=False)
class Hair:
    """Masks f32[S, S] and colour f32[S, S, 3] of a subject's hair."""

    color: np.ndarray
    back: np.ndarray
    sides: np.ndarray
    front: np.ndarray


def make_hair(canvas: Canvas, identity: Identity, rng: np.random.Generator) -> Hair:
    """Draw the hair; streaks are drawn out along the strands, white noise would look like sand."""
    style = _STYLES[identity.hair_style]
    x, y = canvas.x, canvas.y
    half = float((identity.landmarks[16, 0] - identity.landmarks[0, 0]) / 2)
    top = identity.forehead_y - 0.10
    streaks = 0.075 * canvas.noise(rng, 0.022, 0.30) + 0.08 * canvas.noise(rng, 0.06, 0.6)
    color = (identity.hair.astype(np.float32))[None, None] * (1.05 + 1.3 * streaks)[..., None]

    # The hair is half an ellipse over the head that goes straight down from the temples to the end.
    width = half + style["out"]
    base = 0.05
    up = np.clip((base - y) / (base - top), 0, 1)
    reach = width * np.sqrt(np.maximum(1 - up**2, 0))
    reach = np.where(y < top, -1.0, reach)
    # The lower corners are round.
    low = np.clip((y - (style["end"] - 0.12)) / 0.12, 0, 1)
    reach = reach - 0.10 * low**3
    back = logistic((reach - np.abs(x)) / 0.014) * logistic((style["end"] - y) / 0.014)

    part = identity.parting_x if identity.hair_style == 3 else 0.3 * identity.parting_x
    across = (x - part) / half
    line = identity.hair_line_y + style["drop"] * across**2 + 0.25 * across**6
    if identity.hair_style == 3:
        line = line - 0.10 * np.exp(-0.5 * (across / 0.12) ** 2)
    front = logistic((line - y) / 0.016) * back
    is_long = style["end"] > 0.6
    sides = back * logistic((np.abs(x) - half * 0.96) / 0.014) if is_long else np.zeros_like(back)
    f32 = np.float32
    return Hair(color.astype(f32), back.astype(f32), sides.astype(f32), front.astype(f32))
