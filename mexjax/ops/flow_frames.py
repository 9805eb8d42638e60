"""Optical flow as further frames of a clip of key frames: motion measured, not subtracted.

After onset, apex and offset come the flow from the onset to the apex (rise) and from the offset to
the apex (fall), each as three channels in 8 bits: u to the right, v down, and their magnitude. With
one channel a frame (gray clips) every channel is a frame of its own, so that a clip stays one
array, whose frames are cropped, shifted and mirrored together. GAMDSS names flow as a feature and
neither the algorithm nor its form; this is our reading.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from mexjax.ops import flow as optical

NUM_IMAGES = 3  # frames before the flow
CHANNELS = ("u", "v", "magnitude")
# This flow fills the range, in px of an image of 224: facial motion is slower, and a step of 8 bits
# is then a thirtieth of a pixel.
RANGE_PX = 4.0
_ZERO, _STEPS = 128, 127  # code of no motion for u and v, and codes on either side of it


def num_frames(channels: int) -> int:
    """The number of frames of a clip with flow, for 1 or 3 channels a frame."""
    return NUM_IMAGES + 2 * len(CHANNELS) // channels


def with_flow(clips: np.ndarray, method: str = "dis", num_workers: int = 2) -> np.ndarray:
    """Add the flow of rise and fall to clips of key frames.

    Args:
      clips: u8[N,3,S,S,C]: onset, apex, offset; C is 1 or 3.
      method: a key of `mexjax.ops.flow.METHODS`.
      num_workers: threads. The result does not depend on it.

    Returns:
      u8[N,3+6/C,S,S,C].

    Raises:
      ConfigError: an unknown method.
      ValueError: frames smaller than the methods' least size.
    """
    n, _, height, width, channels = clips.shape
    added = num_frames(channels) - NUM_IMAGES
    flows = np.empty((n, added, height, width, channels), np.uint8)

    def compute(i: int) -> None:
        luma = [_luma(frame) for frame in clips[i, :NUM_IMAGES]]
        onset, apex, offset = luma
        pair = [encode(optical.dense_flow(first, apex, method=method)) for first in (onset, offset)]
        if channels == 1:  # frames of one channel: u, v, magnitude of the rise, then of the fall
            pair = np.concatenate([flow.transpose(2, 0, 1)[..., None] for flow in pair])
        flows[i] = pair

    with ThreadPoolExecutor(num_workers) as pool:
        list(pool.map(compute, range(n)))
    return np.concatenate([clips, flows], axis=1)


def _luma(frame: np.ndarray) -> np.ndarray:
    """The luma u8[H,W] of a frame u8[H,W,C]."""
    return frame[..., 0] if frame.shape[-1] == 1 else cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


def encode(flow: np.ndarray) -> np.ndarray:
    """A flow f32[S,S,2] in pixels as codes u8[S,S,3]; no motion is (128, 128, 0)."""
    share = flow / (RANGE_PX * flow.shape[1] / 224)
    signed = _ZERO + np.round(_STEPS * np.clip(share, -1, 1))
    size = np.round(255 * np.clip(optical.magnitude(share), 0, 1))
    return np.concatenate([signed, size[..., None]], axis=-1).astype(np.uint8)


def decode(frames: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rise and fall from the frames that `with_flow` added.

    Args:
      frames: f32[B,6/C,H,W,C] in [0, 1]: codes over 255.

    Returns:
      f32[B,H,W,3] twice: u and v in [-1, 1], magnitude in [0, 1], shares of `RANGE_PX`.
    """
    if frames.shape[-1] == 1:
        b, t, height, width, _ = frames.shape
        frames = frames.reshape(b, 2, t // 2, height, width).transpose(0, 1, 3, 4, 2)
    signed = (255.0 * frames[..., :2] - _ZERO) / _STEPS
    both = jnp.concatenate([signed, frames[..., 2:]], axis=-1)
    return both[:, 0], both[:, 1]


def mirror(clips: jax.Array) -> jax.Array:
    """Mirror clips f32[...,T,H,W,C] in [0, 1]: motion to the right becomes motion to the left."""
    channels = clips.shape[-1]
    is_u = np.zeros((clips.shape[-4], 1, 1, channels), bool)
    is_u[NUM_IMAGES :: len(CHANNELS) // channels, ..., 0] = True
    clips = clips[..., ::-1, :]
    return jnp.where(is_u, 2 * _ZERO / 255.0 - clips, clips)
