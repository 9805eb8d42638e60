"""Key frames chosen anew near the annotated ones: where the face differs most (GAMDSS, Sec. III).

The annotated onset and apex are replaced by the pair of frames within reach of them whose
difference is largest, then the offset by the frame that differs most from that apex. The reach is
a share lambda of the phase: R = floor(lambda (apex - onset)) frames around onset and apex and
floor(lambda (offset - apex)) around the offset. `window` says on which sides:

    inward  a later onset, an earlier apex, an earlier offset (the released code, version 1.0.1)
    eq2     a later onset, an apex on both sides, a later offset (Eq. 2); stays within the clip
    alg1    onset and apex as inward but never the annotated pair, a later offset, never the
            annotated one (Algorithm 1 as printed; its loops start at 1)
    apex    an apex on both sides, onset and offset as annotated (ours): around them the face hardly
            moves, and noise decides

The difference of two frames is the L2 norm over pixels and channels, of

    signed      their difference (the text)
    uint8_wrap  the difference of 8-bit images, where -1 becomes 255 (the released code)
    same_light  their difference after each was scaled to one mean (ours): light that flickers by
                one percent changes more pixels than an expression does

Among equal differences the candidate that is listed first wins.

The norms of all pairs come from one matrix product, |a - b|^2 = |a|^2 + |b|^2 - 2 a b, of integers
that float64 holds exactly: ties are ties.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from mexjax.errors import ConfigError, DataError, unknown_name

WINDOWS = ("inward", "eq2", "alg1", "apex")
DIFFERENCES = ("signed", "uint8_wrap", "same_light")
_BLOCK = 1 << 18  # values of a frame converted to float64 at a time, which bounds the memory


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule by which key frames are chosen anew.

    Attributes:
      window: one of `WINDOWS`.
      lambda_rise: reach around onset and apex as a share of apex - onset, 0 to 1.
      lambda_fall: reach around the offset as a share of offset - apex, 0 to 1.
      difference: one of `DIFFERENCES`.

    Raises:
      ConfigError: an unknown name, or a share that is not from 0 to 1.
    """

    window: str = "inward"
    lambda_rise: float = 0.1
    lambda_fall: float = 0.1
    difference: str = "signed"

    def __post_init__(self) -> None:
        if self.window not in WINDOWS:
            raise ConfigError(unknown_name("window of key frames", self.window, WINDOWS))
        if self.difference not in DIFFERENCES:
            raise ConfigError(unknown_name("difference of frames", self.difference, DIFFERENCES))
        for key in ("lambda_rise", "lambda_fall"):
            value = getattr(self, key)
            if not 0 <= value <= 1:  # NaN too
                raise ConfigError(f"{key} of key frames must be from 0 to 1, found {value!r}.")


def reach(share: float, first: int, last: int) -> int:
    """floor(share * (last - first)), 0 where `last` is before `first`.

    The released code truncates the same product of floats.
    """
    return max(0, int(share * (last - first)))


def pairs(onset: int, apex: int, offset: int, length: int, rule: Rule) -> list[tuple[int, int]]:
    """Candidates for (onset, apex) in the order in which ties are decided.

    Args:
      onset: annotated place of the onset in the clip.
      apex: annotated place of the apex.
      offset: annotated place of the offset.
      length: frames of the clip: no candidate lies outside.
      rule: window and lambda.

    Returns:
      At least one pair; the annotated pair first, where the window has it.
    """
    near = reach(rule.lambda_rise, onset, apex)
    before = [apex - j for j in range(1, near + 1)]
    candidates = [(onset, apex)]
    if rule.window in ("eq2", "apex"):
        onsets = range(onset, onset + (near if rule.window == "eq2" else 0) + 1)
        around = [apex, *(apex + s * j for j in range(1, near + 1) for s in (-1, 1))]
        last = min(length - 1, max(offset, apex))
        candidates += [
            (o, a) for o in onsets for a in around if o < a <= last and (o, a) != (onset, apex)
        ]
        return candidates
    for o in range(onset + 1, onset + near + 1):
        candidates += [(o, apex), *((o, a) for a in before)]
    candidates += [(onset, a) for a in before]
    # A lambda above one half would let the two windows cross.
    candidates = [candidates[0], *(pair for pair in candidates[1:] if pair[0] < pair[1])]
    return candidates[1:] if rule.window == "alg1" and len(candidates) > 1 else candidates


def offsets(apex: int, offset: int, chosen: int, length: int, rule: Rule) -> list[int]:
    """Candidates for the offset in the order in which ties are decided.

    Args:
      apex: annotated place of the apex; it sets the reach together with the offset.
      offset: annotated place of the offset.
      chosen: the new apex, which the new offset must not precede unless the annotated one does.
      length: frames of the clip.
      rule: window and lambda.
    """
    near = 0 if rule.window == "apex" else reach(rule.lambda_fall, apex, offset)
    if rule.window == "inward":
        later = [offset - j for j in range(1, near + 1)]
    else:
        later = [offset + j for j in range(1, near + 1)]
    later = [place for place in later if chosen <= place < length]
    return later if rule.window == "alg1" and later else [offset, *later]


Differences = Callable[[Sequence[int], Sequence[int]], np.ndarray]


def choose(
    differences: Differences, onset: int, apex: int, offset: int, length: int, rule: Rule
) -> tuple[int, int, int]:
    """Choose onset, apex and offset anew, by the differences of frames.

    Args:
      differences: (A places, B places) -> f64[A, B], by how much frame a differs from frame b, or
        any function that grows with it. It is asked for places within reach alone.
      onset: annotated place of the onset.
      apex: annotated place of the apex.
      offset: annotated place of the offset; one before the apex stays.
      length: frames of the clip.
      rule: window and lambda.

    Returns:
      The new places.

    Raises:
      DataError: annotated places outside the clip.
    """
    if not all(0 <= place < length for place in (onset, apex, offset)):
        raise DataError(
            f"Onset {onset}, apex {apex} and offset {offset} must be places in a clip of {length}"
            " frames."
        )
    candidates = pairs(onset, apex, offset, length, rule)
    first, second = (sorted({pair[side] for pair in candidates}) for side in (1, 0))
    between = differences(first, second)
    scores = [between[first.index(a), second.index(o)] for o, a in candidates]
    new_onset, new_apex = candidates[int(np.argmax(scores))]
    later = offsets(apex, offset, new_apex, length, rule)
    return new_onset, new_apex, later[int(np.argmax(differences([new_apex], later)[0]))]


def reselect(
    frames: np.ndarray, onset: int, apex: int, offset: int, rule: Rule
) -> tuple[int, int, int]:
    """`choose` for the frames of a whole clip.

    Args:
      frames: u8[T, H, W, C]; only those within reach are read.
      onset: annotated place of the onset in `frames`.
      apex: annotated place of the apex.
      offset: annotated place of the offset.
      rule: see `Rule`.

    Returns:
      The new places.

    Raises:
      DataError: frames that are not 8-bit, or places outside the clip.
    """

    def differences(first: Sequence[int], second: Sequence[int]) -> np.ndarray:
        return squared_differences(frames[list(first)], frames[list(second)], rule.difference)

    return choose(differences, onset, apex, offset, len(frames), rule)


def squared_differences(a: np.ndarray, b: np.ndarray, difference: str = "signed") -> np.ndarray:
    """The squared L2 norm of each frame of `a` minus each of `b`.

    Args:
      a: u8[A, H, W, C].
      b: u8[B, H, W, C].
      difference: one of `DIFFERENCES`.

    Returns:
      f64[A, B], exact but for `same_light`, which is rounded so that equal frames tie.

    Raises:
      DataError: frames that are not 8-bit.
    """
    if a.dtype != np.uint8 or b.dtype != np.uint8:
        raise DataError(f"Frames must be 8-bit to be compared, found {a.dtype} and {b.dtype}.")
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    blocks = [slice(start, start + _BLOCK) for start in range(0, a.shape[1], _BLOCK)]
    zero = np.zeros((len(a), len(b)))
    if difference == "uint8_wrap":
        return sum((_wrapped_differences(a[:, block], b[:, block]) for block in blocks), zero)
    products = sum((_products(a[:, block], b[:, block]) for block in blocks), zero)
    squares = [sum((_squares(x[:, block]) for block in blocks), np.zeros(len(x))) for x in (a, b)]
    if difference == "signed":
        return squares[0][:, None] + squares[1] - 2 * products
    # Each frame is scaled to mean 128; a black frame stays black.
    gain = [128 / np.maximum(x.mean(axis=1, dtype=np.float64), 1.0) for x in (a, b)]
    lit = (squares[0] * gain[0] ** 2)[:, None] + squares[1] * gain[1] ** 2
    return np.round(lit - 2 * products * gain[0][:, None] * gain[1], 6)


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.astype(np.float64) @ b.astype(np.float64).T


def _squares(a: np.ndarray) -> np.ndarray:
    return np.square(a, dtype=np.float64).sum(axis=1)


def _wrapped_differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squares of differences that wrap modulo 256, which no product of matrices gives."""
    rows = [np.square(x - b, dtype=np.int64).sum(axis=1) for x in a]
    return np.stack(rows).astype(np.float64)
