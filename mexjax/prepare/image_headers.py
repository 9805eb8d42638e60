"""Headers of image files: size and kind of samples, read before anything is decoded."""

from __future__ import annotations

import dataclasses
import io
import struct
from pathlib import Path

from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from mexjax.errors import DataError
from mexjax.prepare.regular_files import open_regular
from mexjax.prepare.tiff import STARTS as TIFF_STARTS
from mexjax.prepare.tiff import read_tiff_header
from mexjax.prepare.videos import COPY_AGAIN, check_size

FORMATS = "JPEG, PNG or BMP image, or a TIFF"
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"
# The first bytes of a file decide which reader is used. Pillow's `Image.open` is not used: it
# refuses or warns of a large image before its size can be told.
_READERS: dict[bytes, type[ImageFile]] = {
    PNG: PngImageFile,
    JPEG: JpegImageFile,
    b"BM": BmpImageFile,
}
_PNG_DEPTH_AT = 24  # the byte of its header that holds the bits of a sample
# A header must end within so many bytes. Honest headers have some kilobytes; a hostile one of
# millions of empty segments would cost seconds.
_MAX_HEADER_BYTES = 1 << 20
# Pillow complains about a damaged header by these.
_HEADER_ERRORS = (SyntaxError, IndexError, TypeError, ValueError, OSError, EOFError, struct.error)


@dataclasses.dataclass(frozen=True)
class ImageHeader:
    """The statements of an image file about itself.

    Attributes:
      height: in px.
      width: in px.
      bits: of one sample of one channel; 8 also for fewer.
      has_alpha: pixels have an opacity.
    """

    height: int
    width: int
    bits: int = 8
    has_alpha: bool = False


def image_size(data: bytes, path: Path) -> tuple[int, int]:
    """Return height and width in px that the header of an image states; see `image_header`."""
    header = image_header(data, path)
    return header.height, header.width


def image_header(data: bytes, path: Path) -> ImageHeader:
    """Read the header of a JPEG, PNG, BMP or TIFF.

    Args:
      data: the file's bytes; nothing is decoded.
      path: named in the message.

    Raises:
      DataError: the data are empty, of another format, damaged or cut off within the header, state
        a side below 1 or above `MAX_SIDE_PX`, or are a TIFF of a kind that is not read.
    """
    if not data:
        raise DataError(f"Expected an image, found an empty file: {path}. {COPY_AGAIN}")
    try:
        if data.startswith(TIFF_STARTS):
            tiff = read_tiff_header(io.BytesIO(data))
            header = ImageHeader(tiff.height, tiff.width, max(8, tiff.bits), tiff.has_alpha)
            if tiff.fault:
                raise DataError(
                    f"The TIFF {path} {tiff.fault}. Convert the frames to PNG or to one plain TIFF"
                    " each, all by one rule."
                )
        else:
            reader = next(
                (kind for start, kind in _READERS.items() if data.startswith(start)), None
            )
            if reader is None:
                raise DataError(
                    f"Expected a {FORMATS}, found bytes of another kind in {path}"
                    f" ({data[:8].hex(' ')} ...). {COPY_AGAIN}"
                )
            with reader(io.BytesIO(data[:_MAX_HEADER_BYTES])) as image:
                width, height = image.size
                is_deep = data.startswith(PNG) and data[_PNG_DEPTH_AT] == 16
                has_alpha = image.mode in ("RGBA", "LA") or "transparency" in image.info
                header = ImageHeader(height, width, 16 if is_deep else 8, has_alpha)
    except DataError:
        raise
    except _HEADER_ERRORS as error:
        raise DataError(
            f"The image {path} has no whole header, or one without pixels ({error}). {COPY_AGAIN}"
        ) from None
    check_size(header.height, header.width, path)
    return header


def has_deep_samples(path: Path) -> bool:
    """Tell by the header whether an image has samples of more than 8 bits.

    A damaged header has none: it is reported where the frame is read.

    Raises:
      DataError: the file cannot be read.
    """
    with open_regular(path) as file:
        start = file.read(_PNG_DEPTH_AT + 1)
        if not start.startswith(TIFF_STARTS):
            return start.startswith(PNG) and start[_PNG_DEPTH_AT:] == b"\x10"
        try:
            return read_tiff_header(file).bits > 8
        except _HEADER_ERRORS:
            return False
