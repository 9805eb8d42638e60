"""Captions on pictures that are arrays of pixels: contact sheets, strips of frames."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_SIZE_PX = 12
_PLACE = (4, 2)  # x and y of the text's upper left corner
_INK, _EDGE = (255, 255, 255), (0, 0, 0)


def caption(image: np.ndarray, text: str) -> None:
    """Write a line at the top of a picture, in place, white with a dark edge.

    Args:
      image: u8[H, W, 3] RGB; what does not fit is cut off.
      text: any characters; those that the font lacks appear as boxes.
    """
    picture = Image.fromarray(np.ascontiguousarray(image))
    ImageDraw.Draw(picture).text(
        _PLACE, text, fill=_INK, font=_font(), stroke_width=1, stroke_fill=_EDGE
    )
    image[...] = np.asarray(picture)


@functools.lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that Pillow carries, so that no font of the machine matters."""
    return ImageFont.load_default(_SIZE_PX)
