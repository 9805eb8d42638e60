"""Headers of TIFF files: the size and kind of the samples, read before anything is decoded.

A TIFF may hold nearly anything. The kinds that OpenCV was seen to read right are accepted, and any
other is refused with its name: some are decoded to wrong pixels without an error.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping
from typing import BinaryIO

STARTS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # BYTE, SHORT, LONG, LONG8
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA, _FORMAT = (
    256,
    257,
    258,
    262,
    277,
    284,
    338,
    339,
)
_DEFAULTS = {_BITS: (1,), _SAMPLES: (1,), _PLANAR: (1,), _FORMAT: (1,), _EXTRA: ()}
_MAX_VALUES = 16  # of one entry; samples a pixel are few
_FORMATS = {1: "unsigned", 2: "signed", 3: "float"}
_ACCEPTED = {
    "unsigned": (1, 4, 8, 10, 12, 14, 16, 32),
    "signed": (16, 32),
    "float": (32, 64),
}
_WHITE_IS_ZERO = 0
_MAX_PHOTOMETRIC = 6  # gray, RGB, palette, mask, CMYK, YCbCr


@dataclasses.dataclass(frozen=True)
class TiffHeader:
    """The first page of a TIFF.

    Attributes:
      height: in px.
      width: in px.
      bits: of one sample.
      kind: "unsigned", "signed" or "float".
      has_alpha: a channel of opacity follows the colours.
      fault: what OpenCV cannot read right of it, as a clause; "" for nothing.
    """

    height: int
    width: int
    bits: int
    kind: str
    has_alpha: bool
    fault: str


def read_tiff_header(file: BinaryIO) -> TiffHeader:
    """Read the header of a TIFF or BigTIFF from its start; a few hundred bytes are read.

    Raises:
      ValueError: it is damaged, cut off, or has no pixels.
      struct.error: it is cut off.
    """
    file.seek(0)
    start = file.read(16)
    order = "<" if start[:2] == b"II" else ">"
    (version,) = struct.unpack_from(order + "H", start, 2)
    is_big = version == 43
    (place,) = struct.unpack_from(order + ("Q" if is_big else "I"), start, 8 if is_big else 4)
    entries, has_more = _read_entries(file, place, order, is_big)
    height, width = _one(entries, _HEIGHT), _one(entries, _WIDTH)
    bits, photometric = entries.get(_BITS, (1,)), _one(entries, _PHOTOMETRIC)
    samples, number = _one(entries, _SAMPLES), _one(entries, _FORMAT)
    kind = _FORMATS.get(number, "")
    faults = {
        "has several pages, and a frame is one": has_more,
        "has samples of different depths": len(set(bits)) > 1,
        f"has samples of {bits[0]} bits ({kind or f'format {number}'})": bits[0]
        not in _ACCEPTED.get(kind, ()),
        "keeps its colours in planes": samples > 1 and _one(entries, _PLANAR) != 1,
        f"has {samples} samples a pixel": not 1 <= samples <= 4,
        f"has colours of another kind ({photometric})": not 0 <= photometric <= _MAX_PHOTOMETRIC,
        "is a negative (white is zero)": photometric == _WHITE_IS_ZERO and bits[0] > 8,
        "has 32 bits for each colour": samples > 1 and bits[0] == 32 and kind != "float",
    }
    fault = next((text for text, is_so in faults.items() if is_so), "")
    return TiffHeader(height, width, bits[0], kind, bool(entries.get(_EXTRA, ())), fault)


def _read_entries(
    file: BinaryIO, place: int, order: str, is_big: bool
) -> tuple[dict[int, tuple[int, ...]], bool]:
    """Read the entries of a page that are numbers, and tell whether another page follows."""
    size, entry, inline = (8, 20, 8) if is_big else (2, 12, 4)
    file.seek(place)
    (count,) = struct.unpack(order + ("Q" if is_big else "H"), file.read(size))
    if count > 4096:
        raise ValueError(f"{count} entries")
    block = file.read(count * entry)
    after = file.read(inline)
    (following,) = struct.unpack(order + ("Q" if is_big else "I"), after)
    entries = dict(_DEFAULTS)
    for at in range(0, count * entry, entry):
        tag, code = struct.unpack_from(order + "HH", block, at)
        (num_values,) = struct.unpack_from(order + ("Q" if is_big else "I"), block, at + 4)
        if code not in _TYPES or not 0 < num_values <= _MAX_VALUES:
            continue
        layout = f"{order}{num_values}{_TYPES[code]}"
        at_value = at + entry - inline
        data = block[at_value : at_value + inline]
        if struct.calcsize(layout) > inline:
            (elsewhere,) = struct.unpack(order + ("Q" if is_big else "I"), data)
            file.seek(elsewhere)
            data = file.read(struct.calcsize(layout))
        entries[tag] = struct.unpack_from(layout, data)
    return entries, following != 0


def _one(entries: Mapping[int, tuple[int, ...]], tag: int) -> int:
    if not entries.get(tag):
        raise ValueError(f"entry {tag} is missing")
    return entries[tag][0]
