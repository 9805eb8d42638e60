"""Ground truth of a clip, known because it was made: intensities, landmarks, flow, key frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mexjax.data.synthetic import action_units, distractors, eyes
from mexjax.data.synthetic.canvas import WINDOW_CENTER, WINDOW_SIDE
from mexjax.data.synthetic.emotions import AUS
from mexjax.data.synthetic.frames import frame_weights, image_grid
from mexjax.data.synthetic.identity import Identity
from mexjax.data.synthetic.plan import Clip, Plan, unit_weights

_TOLERANCE_U = 2e-5  # 0.002 pixels of a 224 pixel image
_MAX_STEPS = 60
_LIDS = ((37, 38, 40, 41), (43, 44, 46, 47))
_CORNERS = (36, 39, 42, 45)


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """Ground truth of T frames of one clip.

    Attributes:
      frames: i64[T], frame numbers; 0 is the true onset.
      intensity: f32[T, 12], mean of both sides, order of `AUS`; spurious units included, the
        constant rest expression not.
      rest: f32[12], the rest expression.
      landmarks: f32[T, 68, 2], x and y in output pixels; (0, 0) is the first pixel's centre.
      onset, apex, offset: true key frames.
    """

    frames: np.ndarray
    intensity: np.ndarray
    rest: np.ndarray
    landmarks: np.ndarray
    onset: int
    apex: int
    offset: int


def truth(
    plan: Plan,
    index: int,
    frames: Sequence[int],
    *,
    resolution_px: int | None = None,
    without_distractors: bool = False,
) -> Truth:
    """The ground truth of some frames of clip `index`; the arguments are those of `render_clip`."""
    clip = plan.clips[index]
    numbers = np.asarray(frames, int)
    size = resolution_px or plan.config.resolution_px
    intensity = unit_weights(clip, numbers, plan.config.spikiness).mean(axis=2)
    if without_distractors and clip.spurious is not None:
        intensity[:, action_units.INDEX[clip.spurious]] = 0
    return Truth(
        frames=numbers,
        intensity=intensity.astype(np.float32),
        rest=clip.rest.astype(np.float32),
        landmarks=_landmarks(plan, clip, numbers, size, without_distractors),
        onset=0,
        apex=clip.timing.rise,
        offset=clip.timing.num_frames - 1,
    )


def flow(
    plan: Plan,
    index: int,
    frame: int,
    *,
    resolution_px: int | None = None,
    without_distractors: bool = False,
) -> np.ndarray:
    """Exact optical flow of the skin from the true onset to `frame`.

    Where the eye is open the value is that of the skin which the lid would be; the eyeball
    follows the head only.

    Returns:
      f32[H, W, 2]: displacement x, y in output pixels of what lies at each pixel of the onset.
    """
    clip = plan.clips[index]
    size = resolution_px or plan.config.resolution_px
    identity = plan.identities[clip.subject]
    motion = distractors.still(clip.motion) if without_distractors else clip.motion
    numbers = np.array([0, frame])
    weights = frame_weights(plan, clip, numbers, without_distractors)
    moved = distractors.at_frames(motion, numbers, plan.config.seed, clip.index)
    rest = distractors.rest_pose(motion)
    start = image_grid(size).astype(float)
    start_shift = _displacement(clip, identity, weights[:1], rest.to_face(start))
    material = moved.to_face(start)[:1] - start_shift
    later = _select(moved, slice(1, 2))
    end = _solve(clip, identity, weights[1:], material, later, rest)
    per_px = size / WINDOW_SIDE
    return ((end[0] - start) * per_px).reshape(size, size, 2).astype(np.float32)


def _select(moved: distractors.FrameMotion, part: slice) -> distractors.FrameMotion:
    return distractors.FrameMotion(
        moved.matrix[part], moved.shift[part], moved.blink[part], moved.gain[part]
    )


def _displacement(
    clip: Clip, identity: Identity, weights: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """f64[T, P, 2]: displacement that frame t shows at places f64[T, P, 2] of the rest pose."""
    total = np.zeros_like(places)
    flat = places.reshape(-1, 2)
    for a, s in np.argwhere((clip.peak > 0) | (clip.rest[:, None] > 0)):
        field = action_units.displacement(identity, AUS[a], action_units.SIDES[s], flat)
        total += weights[:, a, s, None, None] * field.reshape(places.shape)
    return total


def _solve(
    clip: Clip,
    identity: Identity,
    weights: np.ndarray,
    material: np.ndarray,
    moved: distractors.FrameMotion,
    rest: distractors.FrameMotion,
) -> np.ndarray:
    """Places f64[T, P, 2] in the image, u, of the skin points `material` f64[T, P, 2].

    The frame at x shows the material `to_face(x) - D(x)`; x is found by fixed-point steps, each
    half of the way, which also converge where the strongest expressions are steep.
    """
    place = moved.to_image(material)
    for _ in range(_MAX_STEPS):
        shift = _displacement(clip, identity, weights, rest.to_face(place))
        better = 0.5 * place + 0.5 * moved.to_image(material + shift)
        change = np.abs(better - place).max()
        place = better
        if change < _TOLERANCE_U:
            break
    return place


def _landmarks(
    plan: Plan, clip: Clip, frames: np.ndarray, size: int, without_distractors: bool
) -> np.ndarray:
    identity = plan.identities[clip.subject]
    motion = distractors.still(clip.motion) if without_distractors else clip.motion
    weights = frame_weights(plan, clip, frames, without_distractors)
    moved = distractors.at_frames(motion, frames, plan.config.seed, clip.index)
    material = np.repeat(identity.landmarks[None], len(frames), axis=0)
    place = _solve(clip, identity, weights, material, moved, distractors.rest_pose(motion))

    # Lids slide over the eyeball: their points come from the lids' heights, not from the skin.
    on_face = material.copy()
    for side, eye in enumerate(eyes.find_eyes(identity)):
        upper, lower = eyes.lids_at(eye, weights[:, :, side], moved.blink)
        down = np.array([-eye.axis[1], eye.axis[0]])
        for k in _LIDS[side]:
            along, below = eye.local(*identity.landmarks[k])
            height = (-upper if below < 0 else lower) * eye.lid_curve(along)
            on_face[:, k] = eye.center + along * eye.half_width * eye.axis + height[:, None] * down
    lids = [*_CORNERS, *_LIDS[0], *_LIDS[1]]
    place[:, lids] = moved.to_image(on_face[:, lids])
    corner = np.array(WINDOW_CENTER) - WINDOW_SIDE / 2
    return ((place - corner) * (size / WINDOW_SIDE) - 0.5).astype(np.float32)
