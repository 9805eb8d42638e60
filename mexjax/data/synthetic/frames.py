"""Pixels of any frames of a plan's clips; a frame is the same whichever others are drawn."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import cv2
import numpy as np

from mexjax.data.synthetic import action_units, distractors, eyes, jpeg
from mexjax.data.synthetic.canvas import WINDOW_CENTER, WINDOW_SIDE, Canvas
from mexjax.data.synthetic.emotions import AUS
from mexjax.data.synthetic.face import make_face
from mexjax.data.synthetic.identity import Identity
from mexjax.data.synthetic.light import light
from mexjax.data.synthetic.plan import Clip, Plan, unit_weights

# This many pixels of all frames are drawn at once, which bounds the memory of large clips.
_CHUNK_PIXELS = 1 << 20


def render_clip(
    plan: Plan,
    index: int,
    frames: Sequence[int] | np.ndarray,
    *,
    resolution_px: int | None = None,
    is_color: bool | None = None,
    without_distractors: bool = False,
) -> np.ndarray:
    """Draw some frames of one clip.

    Args:
      plan: from `make_plan`.
      index: number of the clip in `plan.clips`.
      frames: frame numbers in any order; 0 is the true onset, numbers before it and after the
        true offset show the neutral face.
      resolution_px: side of the image; the plan's when None.
      is_color: RGB or luma; the plan's when None.
      without_distractors: leave out drift, jitter, blinks, flicker, noise, compression and
        spurious units; pose and rest expression stay, they do not change in time.

    Returns:
      u8[T, H, W, C], T = len(frames), C = 3 or 1. No other frame is drawn.
    """
    config, clip = plan.config, plan.clips[index]
    size = resolution_px or config.resolution_px
    color = config.is_color if is_color is None else is_color
    out = np.empty((len(frames), size, size, 3 if color else 1), np.uint8)
    if not len(frames):
        return out
    identity = plan.identities[clip.subject]
    face = make_face(identity, size, color)
    skin, eyeballs = light(face, clip.scene)
    motion = distractors.still(clip.motion) if without_distractors else clip.motion
    points = image_grid(size)
    rest = distractors.rest_pose(motion).to_face(points)[0]
    weights = frame_weights(plan, clip, np.asarray(frames), without_distractors)
    active, displacements, shadings = _fields(clip, identity, rest)
    shadings *= np.float32(config.shading)
    step = max(1, _CHUNK_PIXELS // (size * size))
    for start in range(0, len(frames), step):
        part = slice(start, min(start + step, len(frames)))
        numbers = list(frames[part])
        w = weights[part][:, active[:, 0], active[:, 1]].astype(np.float32)
        moved = distractors.at_frames(motion, numbers, config.seed, clip.index)
        places = moved.to_face(points)
        shift = (w @ displacements).reshape(len(numbers), -1, 2)
        image = _sample(face.canvas, skin, places - shift, size)
        image *= (1 + w @ shadings).reshape(len(numbers), size, size, 1)
        lids = [
            (eye, *eyes.lids_at(eye, weights[part][:, :, side], moved.blink))
            for side, eye in enumerate(eyes.find_eyes(identity))
        ]
        _open_eyes(image, face.canvas, eyeballs, places, rest, motion.gaze, lids)
        image *= 255 * moved.gain.astype(np.float32)[:, None, None, None]
        if not without_distractors:
            shape = image.shape[1:]
            image += distractors.sensor_noise(
                config.noise_levels, numbers, config.seed, clip.index, shape
            )
        image = np.clip(np.round(image), 0, 255)
        if config.jpeg_quality and not without_distractors:
            image = np.clip(np.round(jpeg.compress(image, config.jpeg_quality)), 0, 255)
        out[part] = image.astype(np.uint8)
    return out


@functools.lru_cache(maxsize=8)
def image_grid(size: int) -> np.ndarray:
    """f32[H*W, 2]: place in the image of each pixel's centre, u, row by row."""
    line = (np.arange(size) + 0.5) * (WINDOW_SIDE / size) - WINDOW_SIDE / 2
    x, y = np.meshgrid(line + WINDOW_CENTER[0], line + WINDOW_CENTER[1])
    grid = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    grid.setflags(write=False)
    return grid


def frame_weights(
    plan: Plan, clip: Clip, frames: np.ndarray, without_distractors: bool = False
) -> np.ndarray:
    """f64[T, 12, 2]: intensity of each unit and side, rest expression included."""
    weights = unit_weights(clip, frames, plan.config.spikiness)
    if without_distractors and clip.spurious is not None:
        weights[:, action_units.INDEX[clip.spurious]] = 0
    return weights + clip.rest[None, :, None]


def _fields(
    clip: Clip, identity: Identity, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The units that act in a clip and their fields at places f32[P, 2].

    The fields stay where the rest pose puts them: the head's drift moves them by less than a
    tenth of a pixel.

    Returns:
      (active i[M, 2]: unit and side; displacements f32[M, P * 2]; shadings f32[M, P]).
    """
    active = np.argwhere((clip.peak > 0) | (clip.rest[:, None] > 0))
    displacements = np.empty((len(active), places.size), np.float32)
    shadings = np.empty((len(active), len(places)), np.float32)
    for row, (a, s) in enumerate(active):
        au, side = AUS[a], action_units.SIDES[s]
        displacements[row] = action_units.displacement(identity, au, side, places).ravel()
        shadings[row] = action_units.shading(identity, au, side, places)
    return active, displacements, shadings


def _sample(canvas: Canvas, image: np.ndarray, places: np.ndarray, size: int) -> np.ndarray:
    """f32[T, H, W, C]: the canvas at places f32[T, H*W, 2], bilinear, one call for all frames."""
    pixels = canvas.to_pixels(places)
    count = len(places)
    out = np.empty((count, size, size, image.shape[2]), np.float32)
    # OpenCV addresses at most 32767 rows.
    step = max(1, 32000 // size)
    for start in range(0, count, step):
        block = pixels[start : start + step].reshape(-1, size, 2)
        values = cv2.remap(image, block, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        out[start : start + step] = values.reshape(-1, size, size, image.shape[2])
    return out


def _open_eyes(
    image: np.ndarray,
    canvas: Canvas,
    eyeballs: np.ndarray,
    places: np.ndarray,
    rest: np.ndarray,
    gaze: np.ndarray,
    lids: Sequence[tuple[eyes.Eye, np.ndarray, np.ndarray]],
) -> None:
    """Lay the eyeballs into `image` f32[T, H, W, C], in place, as far as the lids are open.

    Eyeballs and lid corners follow the head only, so lids slide over the iris. `lids` holds each
    eye with the heights f[T] of its upper and lower lid.
    """
    size = image.shape[1]
    grid = places.reshape(len(places), size, size, 2)
    rest_grid = rest.reshape(size, size, 2)
    for eye, upper, lower in lids:
        along, below = eye.local(rest_grid[..., 0], rest_grid[..., 1])
        near = (np.abs(along) < 1.35) & (np.abs(below) < 0.30)
        rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
        if not len(rows):
            continue
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        here = grid[:, box[0], box[1]]
        shape = here.shape[:3]
        is_open, shadow, lash = eyes.aperture(
            eye, here[..., 0], here[..., 1], upper.astype(np.float32), lower.astype(np.float32)
        )
        pixels = canvas.to_pixels(here - gaze.astype(np.float32))
        ball = cv2.remap(
            eyeballs,
            pixels.reshape(-1, shape[2], 2),
            None,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ).reshape(*shape, image.shape[3])
        is_open, shadow, lash = (a[..., None] for a in (is_open, shadow, lash))
        patch = image[:, box[0], box[1]]
        patch += (ball * shadow - patch) * is_open
        patch *= lash
