"""Changes that mean nothing: motion of the head, blinks, light, sensor noise, compression."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mexjax.data.synthetic.config import SyntheticConfig
from mexjax.data.synthetic.streams import stream

_PATH_FREQUENCIES = np.array([0.5, 1.0, 2.0])  # cycles in one clip


@dataclasses.dataclass(frozen=True, eq=False)
class Motion:
    """Everything in one clip that moves without meaning; drawn independently of the label.

    Attributes:
      num_frames: frames from true onset to true offset: the period of the drift.
      pose: f64[4], rest translation x, y (u), rotation (rad), log scale.
      drift_size: f64[4], size of the drift in the same units.
      weights, phases: f64[4, 3] of the sinusoids of each drift.
      jitter: alignment error of each frame, u.
      blink: (centre, width, depth), frames and fraction; depth 0 for none.
      flicker: (amplitude, radians per frame, phase).
      gaze: f64[2], u.
    """

    num_frames: int
    pose: np.ndarray
    drift_size: np.ndarray
    weights: np.ndarray
    phases: np.ndarray
    jitter: float
    blink: tuple[float, float, float]
    flicker: tuple[float, float, float]
    gaze: np.ndarray


def draw_motion(config: SyntheticConfig, clip: int, num_frames: int) -> Motion:
    """The distractors of clip `clip`, whose expression lasts `num_frames` frames."""
    rng = stream(config.seed, "motion", clip)
    spread = np.array(
        [config.pose_u, config.pose_u, np.deg2rad(config.pose_deg), config.pose_scale]
    )
    pose = spread * rng.standard_normal(4)
    share = rng.uniform(0.3, 1.7)
    drift = np.array(
        [
            config.head_drift_u,
            config.head_drift_u,
            np.deg2rad(config.rotation_drift_deg),
            config.scale_drift,
        ]
    )
    weights = rng.standard_normal((4, 3)) / (_PATH_FREQUENCIES + 0.5)
    phases = rng.uniform(0, 2 * np.pi, (4, 3))
    is_blinking = rng.random() < config.blink_probability
    blink = (
        rng.uniform(-0.1, 1.1) * num_frames,
        rng.uniform(0.09, 0.18) * num_frames,
        rng.uniform(0.3, 1.0) * is_blinking,
    )
    turn = 2 * np.pi * rng.uniform(1, 8) / config.fps
    return Motion(
        num_frames=num_frames,
        pose=pose,
        drift_size=share * drift,
        weights=weights,
        phases=phases,
        jitter=config.jitter_u,
        blink=blink,
        flicker=(config.flicker, turn, rng.uniform(0, 2 * np.pi)),
        gaze=rng.normal(0, 0.012, 2),
    )


def still(motion: Motion) -> Motion:
    """The same rest pose and gaze, and nothing that changes in time."""
    return dataclasses.replace(
        motion,
        drift_size=np.zeros(4),
        jitter=0.0,
        blink=(*motion.blink[:2], 0.0),
        flicker=(0.0, *motion.flicker[1:]),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class FrameMotion:
    """`Motion` at T frames.

    Attributes:
      matrix: f64[T, 2, 2], face to image: rotation and scale about the middle of the eyes.
      shift: f64[T, 2], translation, u.
      blink: f64[T], 0 open to 1 shut.
      gain: f64[T], brightness.
    """

    matrix: np.ndarray
    shift: np.ndarray
    blink: np.ndarray
    gain: np.ndarray

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Turn places on the face f[T, P, 2] into places in the image f[T, P, 2]; both in u."""
        return np.einsum("tij,tpj->tpi", self.matrix, points) + self.shift[:, None]

    def to_face(self, points: np.ndarray) -> np.ndarray:
        """Turn image places f[P, 2] or f[T, P, 2] into places on the face f[T, P, 2]; in u."""
        dtype = points.dtype
        points = points if points.ndim == 3 else points[None]
        m = np.linalg.inv(self.matrix).astype(dtype)[:, None]
        moved = points - self.shift[:, None].astype(dtype)
        x, y = moved[..., 0], moved[..., 1]
        return np.stack(
            [m[..., 0, 0] * x + m[..., 0, 1] * y, m[..., 1, 0] * x + m[..., 1, 1] * y], axis=-1
        )


def at_frames(
    motion: Motion, frames: Sequence[int] | np.ndarray, seed: int, clip: int
) -> FrameMotion:
    """The motion at frames given by number; each frame's random part has its own stream."""
    t = np.asarray(frames, float)
    turns = 2 * np.pi * _PATH_FREQUENCIES * t[:, None, None] / motion.num_frames
    path = motion.weights * (np.sin(turns + motion.phases) - np.sin(motion.phases))
    state = motion.pose + motion.drift_size * path.sum(axis=2)
    private = np.array([stream(seed, "frame", clip, f).standard_normal(3) for f in frames])
    state[:, :2] += motion.jitter * private[:, :2]
    cos, sin = np.cos(state[:, 2]), np.sin(state[:, 2])
    matrix = np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], axis=1)
    center, width, depth = motion.blink
    size, turn, phase = motion.flicker
    return FrameMotion(
        matrix=matrix * np.exp(state[:, 3])[:, None, None],
        shift=state[:, :2],
        blink=depth * np.exp(-0.5 * ((t - center) / width) ** 2),
        gain=1 + size * (np.sin(turn * t + phase) + 0.5 * private[:, 2]),
    )


def rest_pose(motion: Motion) -> FrameMotion:
    """The rest pose as one frame."""
    return at_frames(dataclasses.replace(still(motion), jitter=0.0), [0], 0, 0)


def sensor_noise(
    levels: float, frames: Sequence[int], seed: int, clip: int, shape: tuple[int, ...]
) -> np.ndarray:
    """f32[T, *shape]: noise of standard deviation `levels`, each frame from its own stream."""
    noise = np.empty((len(frames), *shape), np.float32)
    for row, frame in zip(noise, frames, strict=True):
        rng = stream(seed, "frame", clip, frame, 1)
        rng.standard_normal(out=row, dtype=np.float32)
    noise *= np.float32(levels)
    return noise
