"""Rules that choose the frames of a clip that a model sees: all of the papers and their code.

`rule` is one of

    linspace      floor(j (T - 1) / (n - 1)): first and last frame included. The sampler of the
                  public CD6ME benchmark library (np.linspace cut to integers), used by AC4AU.
    floor_stride  floor(j T / n): only the first frame is sure. What AC4AU's figure shows.
    stride        j floor(T / n): FDP as released (data.py); up to 1 - 1/n of a clip is not seen.
    segment       floor((j + offset) T / n): one frame from each of n equal segments, all at the
                  same place in it. FDP's paper: the offset is drawn in training; 0.5 is the centre.

j = 0 ... n - 1. A clip of fewer than n frames gives all its frames and then its last again
(AC4AU, section 4), or is refused, as the released codes of FDP (there in silence) and of the
benchmark do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mexjax.errors import ConfigError, DataError, unknown_name

SHORT = ("replicate", "refuse")


def _linspace(length: int, num: int, offset: float) -> np.ndarray:
    # Integers are exact: np.linspace may land a rounding error below a whole number.
    return np.arange(num) * (length - 1) // max(num - 1, 1)


def _floor_stride(length: int, num: int, offset: float) -> np.ndarray:
    return np.arange(num) * length // num


def _stride(length: int, num: int, offset: float) -> np.ndarray:
    return np.arange(num) * (length // num)


def _segment(length: int, num: int, offset: float) -> np.ndarray:
    j = np.arange(num)
    places = np.floor((j + offset) * length / num).astype(np.int64)
    # An offset just below 1 may be rounded into the next segment.
    return np.minimum(places, ((j + 1) * length - 1) // num)


RULES: dict[str, Callable[[int, int, float], np.ndarray]] = {
    "linspace": _linspace,
    "floor_stride": _floor_stride,
    "stride": _stride,
    "segment": _segment,
}


def sample_indices(
    length: int, num: int, *, rule: str = "linspace", offset: float = 0.5, short: str = "replicate"
) -> np.ndarray:
    """Places of `num` frames in a clip of `length` frames.

    Args:
      length: frames of the clip, T.
      num: number of frames to choose, n.
      rule: a key of `RULES` (see the module).
      offset: place in each segment, in [0, 1); only `segment` reads it.
      short: treatment of a clip with T < n: `replicate` its last frame, or `refuse` it.

    Returns:
      i64[n], never falling, each in [0, T).

    Raises:
      ConfigError: an unknown rule, an offset outside [0, 1), or `num` below 1.
      DataError: no frame, or fewer than `num` and `short` is `refuse`.
    """
    if rule not in RULES:
        raise ConfigError(unknown_name("sampling rule", rule, RULES))
    if short not in SHORT:
        raise ConfigError(unknown_name("treatment of short clips", short, SHORT))
    if num < 1:
        raise ConfigError(f"The number of frames to sample must be at least 1, found {num}.")
    if not 0 <= offset < 1:
        raise ConfigError(f"The offset in a segment must be in [0, 1), found {offset}.")
    if length < 1:
        raise DataError("There is no frame to sample from.")
    if length >= num:
        return RULES[rule](length, num, offset).astype(np.int64)
    if short == "refuse":
        raise DataError(
            f"The clip has {length} frames and {num} are wanted. Leave it out, ask for fewer, or"
            " let the last frame be repeated (short='replicate')."
        )
    return np.minimum(np.arange(num), length - 1)


def nearest_frame(numbers: np.ndarray, wanted: int) -> int:
    """Place of the stored frame whose number is nearest to `wanted`; the earlier of two.

    Args:
      numbers: i64[T], rising frame numbers.
      wanted: frame number of the release, perhaps one of those missing.

    Raises:
      DataError: no frame.
    """
    if not len(numbers):
        raise DataError("There is no frame to choose from.")
    return int(np.abs(np.asarray(numbers, np.int64) - wanted).argmin())
