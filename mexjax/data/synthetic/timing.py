"""The rise and fall of an expression, and the errors of an annotator of its key frames."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Timing:
    """True and annotated key frames of one clip. Frame 0 is the true onset.

    Attributes:
      rise, fall: frames from onset to apex and from apex to offset.
      onset, apex, offset: annotated frames; the onset may be negative, the offset may lie
        after the true one.
    """

    rise: int
    fall: int
    onset: int
    apex: int
    offset: int

    @property
    def num_frames(self) -> int:
        """Frames from the true onset to the true offset, both counted."""
        return self.rise + self.fall + 1


def draw(
    rng: np.random.Generator,
    *,
    fps: float,
    rise_s: float,
    rise_cv: float,
    long_probability: float = 0.0,
    annotation_error: float = 0.0,
    offset_error_factor: float = 1.0,
) -> Timing:
    """Draw durations (log-normal rise, fall 1.2 to 2 times as long) and the annotator's error.

    The same random numbers are used whatever the values, so that two datasets that differ only
    in `annotation_error` show the same clips.

    Args:
      rng: stream of the clip.
      fps: frames per second.
      rise_s: median rise in seconds.
      rise_cv: standard deviation of the rise's logarithm.
      long_probability: share of clips four times as long.
      annotation_error: standard deviation of the annotated frames, fraction of the rise.
      offset_error_factor: factor on the error of the offset.
    """
    duration = rise_s * math.exp(rise_cv * rng.standard_normal())
    fall_ratio = rng.uniform(1.2, 2.0)
    if rng.random() < long_probability:
        duration *= 4.0
    rise = max(2, round(duration * fps))
    fall = max(rise + 1, round(duration * fall_ratio * fps))
    misses = annotation_error * rise * rng.standard_normal(3) * (1.0, 1.0, offset_error_factor)
    last, margin = rise + fall, rise // 2
    onset = min(max(round(misses[0]), -margin), rise - 1)
    apex = min(max(round(rise + misses[1]), onset + 1), last - 1)
    offset = min(max(round(last + misses[2]), apex + 1), last + margin)
    return Timing(rise, fall, onset, apex, offset)


def intensity(frames: np.ndarray, timing: Timing, spikiness: float) -> np.ndarray:
    """Relative intensity of an expression: 0 at onset and offset, 1 at the apex.

    Args:
      frames: f64[...], frame numbers, fractions allowed (a lagging action unit).
      timing: true durations.
      spikiness: exponent k of the rising raised cosine; the fall uses 0.75 k.

    Returns:
      f64[...] in [0, 1]; 0 outside the expression.
    """
    t = np.clip(np.asarray(frames, float), 0.0, timing.rise + timing.fall)
    up = (0.5 - 0.5 * np.cos(np.pi * t / timing.rise)) ** spikiness
    down = (0.5 + 0.5 * np.cos(np.pi * (t - timing.rise) / timing.fall)) ** (0.75 * spikiness)
    return np.where(t <= timing.rise, up, down)


def sample_frames(first: int, last: int, num_frames: int) -> Sequence[int]:
    """`num_frames` frame numbers spread evenly from `first` to `last`, both included."""
    return [int(f) for f in np.round(np.linspace(first, last, num_frames))]
