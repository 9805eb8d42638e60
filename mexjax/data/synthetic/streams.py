"""One independent random stream for each (dataset seed, purpose, index)."""

from __future__ import annotations

import numpy as np

from mexjax.errors import unknown_name

PURPOSES = {"plan": 1, "identity": 2, "texture": 3, "clip": 4, "scene": 5, "motion": 6, "frame": 7}

# Frames may be asked for before the onset (negative numbers); a seed word must not be negative.
_FRAME_SHIFT = 1 << 20


def stream(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """The generator of one thing: never shared, so nothing depends on what else is drawn.

    Args:
      seed: seed of the dataset, not negative.
      purpose: a key of `PURPOSES`.
      *index: numbers that tell apart the things of one purpose (clip, frame); a frame may be
        negative down to -2**20.

    Returns:
      A PCG64 generator seeded by `numpy.random.SeedSequence` of all of these.

    Raises:
      KeyError: an unknown purpose.
    """
    if purpose not in PURPOSES:
        raise KeyError(unknown_name("stream purpose", purpose, PURPOSES))
    words = [seed, PURPOSES[purpose], *(int(i) + _FRAME_SHIFT for i in index)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
