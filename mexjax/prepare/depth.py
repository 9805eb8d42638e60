"""Samples of more than 8 bits: the range that a release uses becomes one scale for all its frames.

A camera of 10 or 12 bits is stored in files of 16. The range in use is read over all frames of a
release, never from one frame: a scale that changed from frame to frame would add motion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mexjax.errors import DataError

_DEPTHS = (8, 10, 12, 14, 16, 24, 32)  # of cameras and files; a dark release uses less of one

TRANSPARENT = "transparent"  # beside the kinds of samples, such as "8-bit"
PLAIN = frozenset({"8-bit", TRANSPARENT})


@dataclasses.dataclass(frozen=True)
class Depth:
    """The range that samples of more than 8 bits use.

    Attributes:
      bits: number of bits that whole numbers use, one of 8, 10, 12, 14, 16, 24 and 32; 0 where
        there are none.
      white: floating-point sample that is white, 1 or 2^bits - 1; 0 where there are none.
    """

    bits: int = 0
    white: float = 0.0

    def joined(self, other: Depth) -> Depth:
        """Return the range that holds both."""
        return Depth(max(self.bits, other.bits), max(self.white, other.white))

    def words(self) -> str:
        """Return the range in words."""
        parts = [f"{self.bits} bits are used"] if self.bits else []
        parts += [f"white is {self.white:g}"] if self.white else []
        return " and ".join(parts)


def depth_of(samples: np.ndarray, path: Path) -> Depth:
    """Return the range that an image uses.

    Args:
      samples: whole or floating-point numbers of any shape.
      path: named in the message.

    Raises:
      DataError: a sample is negative, infinite or no number.
    """
    if not np.isfinite(samples).all():
        raise DataError(
            f"The image {path} has samples that are infinite or no numbers. Convert it to whole"
            " numbers of 8 or 16 bits."
        )
    least, most = samples.min(), samples.max()
    if least < 0:
        raise DataError(
            f"The image {path} has samples below 0 (the least is {least:g}). Convert the release to"
            " whole numbers of 8 or 16 bits, all frames by one rule."
        )
    is_real = np.issubdtype(samples.dtype, np.floating)
    if is_real and most <= 1:
        return Depth(white=1.0)
    bits = next((bits for bits in _DEPTHS if most < 2**bits), None)
    if bits is None:
        raise DataError(
            f"The image {path} has samples up to {most:g}. Convert the release to whole numbers of"
            " 8 or 16 bits, all frames by one rule."
        )
    return Depth(white=2.0**bits - 1) if is_real else Depth(bits=bits)


def to_8_bits(samples: np.ndarray, depth: Depth) -> np.ndarray:
    """Scale samples to u8 of the same shape; what is above the range becomes 255.

    Whole numbers keep their highest 8 of `depth.bits` bits; floating-point ones are rounded.
    """
    if np.issubdtype(samples.dtype, np.floating):
        return np.rint(np.clip(samples * (255 / depth.white), 0, 255)).astype(np.uint8)
    return np.minimum(samples >> max(0, depth.bits - 8), 255).astype(np.uint8)


def clip_notes(kinds: Iterable[str], depth: Depth) -> tuple[str, ...]:
    """Write the remarks of the manifest about the samples of one clip."""
    kinds = sorted(kinds)
    deep = [kind for kind in kinds if kind not in PLAIN]
    notes = []
    if deep:
        notes.append(f"{' and '.join(deep)} images, {depth.words()}")
    if len([kind for kind in kinds if kind != TRANSPARENT]) > 1:
        notes.append("frames of different depths")
    if TRANSPARENT in kinds:
        notes.append("transparent pixels are black")
    return tuple(notes)
