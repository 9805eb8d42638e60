"""The frame numbers that the names of images hold.

A name may hold several groups of digits: `EP02_01f_224_0001`, `frame_0001_224x224`. The one that
tells the images of a folder apart is the frame number. Where several do, the one that counts
without a gap is; where that leaves more than one reading, the folder is refused with both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mexjax.errors import DataError

_WORDS = ("onset", "apex", "offset")
_MAX_NAMES = 3
_MAX_DIGITS = 18  # a hash of hundreds of digits is no frame number

Shape = tuple[str, ...]  # the texts between the groups of digits


def number_images(images: Sequence[Path], folder: Path) -> tuple[dict[int, Path], list[Path]]:
    """Map frame numbers to images.

    Args:
      images: in the order in which they are numbered from 1 where no name holds a digit. Images
        that are called onset, apex and offset are in this order, by time.
      folder: named in messages.

    Returns:
      The images by number, and those left out because they alone have no number.

    Raises:
      DataError: two images have one number, or the names may be read in two ways.
    """
    key_frames = _key_frames(images)
    if key_frames:
        return dict(enumerate(key_frames, start=1)), []
    numbered = [image for image in images if _digits(image)]
    if not numbered:
        return dict(enumerate(images, start=1)), []
    by_shape: dict[Shape, list[Path]] = {}
    for image in numbered:
        by_shape.setdefault(_shape(image), []).append(image)
    shapes = sorted(by_shape, key=lambda shape: -len(by_shape[shape]))
    places = {
        shape: _place(by_shape[shape], folder) for shape in shapes if len(by_shape[shape]) > 1
    }
    for shape in shapes:
        if shape not in places:  # one image alone: read as those that begin like it, if there are
            alike = (
                place
                for other, place in places.items()
                if place < len(shape) - 1 and other[: place + 1] == shape[: place + 1]
            )
            places[shape] = next(alike, len(shape) - 2)
    by_number: dict[int, Path] = {}
    for image in numbered:
        number = _number(image, places[_shape(image)])
        if number in by_number:
            raise DataError(
                f"{folder} has two images with the frame number {number}:"
                f" {by_number[number].name} and {image.name}. Keep one set of frames in the folder."
            )
        by_number[number] = image
    return by_number, [image for image in images if not _digits(image)]


def order_remark(images: Sequence[Path], by_number: Mapping[int, Path]) -> str:
    """Return a clause about numbers that no name holds; "" where names hold them.

    Args:
      images: the images in the order of their names.
      by_number: as `number_images` returns them.
    """
    if len(images) < 2 or (any(map(_digits, images)) and not _key_frames(images)):
        return ""
    names = [by_number[number].name for number in sorted(by_number)]
    shown = ", ".join(names) if len(names) <= _MAX_NAMES else f"{names[0]} to {names[-1]}"
    return f"no image has a frame number, so they were numbered from 1 in this order: {shown}"


def _key_frames(images: Sequence[Path]) -> list[Path]:
    """Return images that are called onset, apex and offset, or two of them, by time; else none."""
    if not 2 <= len(images) <= len(_WORDS) or len({tuple(_digits(image)) for image in images}) > 1:
        return []
    words = [re.findall("|".join(_WORDS), image.stem.casefold()) for image in images]
    if any(len(each) != 1 for each in words) or len({each[0] for each in words}) < len(images):
        return []
    order = {each[0]: image for each, image in zip(words, images, strict=True)}
    return [order[word] for word in _WORDS if word in order]


def _place(images: Sequence[Path], folder: Path) -> int:
    """Return which group of digits counts the images, all of one shape; the last if none does."""
    readings: dict[tuple[int, ...], int] = {}
    for place in range(len(_digits(images[0]))):
        numbers = tuple(_number(image, place) for image in images)
        if len(set(numbers)) == len(images):
            readings[numbers] = place
    gapless = {
        numbers: place
        for numbers, place in readings.items()
        if max(numbers) - min(numbers) == len(numbers) - 1
    }
    readings = gapless or readings
    if len(readings) > 1:
        ways = [f"{min(numbers)} to {max(numbers)}" for numbers in readings]
        raise DataError(
            f"The frame numbers of {folder} may be {' or '.join(ways)}, as {images[0].name} has"
            " several groups of digits that tell its images apart. Rename the images so that one"
            " group does."
        )
    return next(iter(readings.values()), len(_digits(images[0])) - 1)


def _digits(image: Path) -> list[str]:
    return re.findall("[0-9]+", image.stem)


def _shape(image: Path) -> Shape:
    return tuple(re.split("[0-9]+", image.stem.casefold()))


def _number(image: Path, place: int) -> int:
    return int(_digits(image)[place][-_MAX_DIGITS:])
