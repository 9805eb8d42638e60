"""Pixels of one frame, or of the frames of a clip, from image files and videos.

The size that a file states is read before anything is decoded, so that a damaged or hostile
header costs no memory. Formats: JPEG, PNG and BMP (the ones in which the public sets are
released) and the usual video containers. The file's content counts, not its ending: some public
copies hold JPEG files that are called .bmp.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from mexjax.errors import DataError
from mexjax.protocol.names import writable

MAX_SIDE_PX = 8192
# An uncompressed frame has four bytes a pixel and a short header: no honest frame is larger.
MAX_FILE_BYTES = 4 * MAX_SIDE_PX**2 + (1 << 20)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
VIDEO_SUFFIXES = (".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")

_JPEG = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
# The first bytes of a file decide which reader is used. Pillow's `Image.open` is not used: it
# refuses or warns of a large image before its size can be told.
_READERS: dict[bytes, type[ImageFile]] = {
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    _JPEG: JpegImageFile,
    b"BM": BmpImageFile,
}
# A header must end within so many bytes. Honest headers have some kilobytes; a hostile one of
# millions of empty segments would cost seconds.
_MAX_HEADER_BYTES = 1 << 20
# Pillow complains about a damaged header by these.
_HEADER_ERRORS = (SyntaxError, IndexError, TypeError, ValueError, OSError, EOFError, struct.error)
# Containers begin with these bytes. A play list (text that names other files, or addresses) is none
# of these and must not reach the video library.
_VIDEO_STARTS = (b"\x1a\x45\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"\x30\x26\xb2\x75")
_MP4_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


class FrameLike(Protocol):
    """The place of a frame, as a `Frame` of mexjax.prepare.sources has it.

    Attributes:
      number: frame number of the release; in a video the index of the frame, from 0.
      path: image or video file.
    """

    @property
    def number(self) -> int:
        """Frame number of the release, or index in the video."""
        ...

    @property
    def path(self) -> Path:
        """The image or video file."""
        ...


def is_video(path: Path) -> bool:
    """Tell whether the file's ending is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def image_size(data: bytes, path: Path) -> tuple[int, int]:
    """Return height and width in px that the header of a JPEG, PNG or BMP states.

    Args:
      data: the file's bytes; nothing is decoded.
      path: named in the message.

    Raises:
      DataError: the data are empty, of another format, damaged or cut off within the header, or
        state a side below 1 or above `MAX_SIDE_PX`.
    """
    if not data:
        raise DataError(f"Expected an image, found an empty file: {path}. {_COPY_AGAIN}")
    reader = next((kind for start, kind in _READERS.items() if data.startswith(start)), None)
    if reader is None:
        raise DataError(
            f"Expected a JPEG, PNG or BMP image, found bytes of another kind in {path}"
            f" ({data[:8].hex(' ')} ...). {_COPY_AGAIN}"
        )
    try:
        with reader(io.BytesIO(data[:_MAX_HEADER_BYTES])) as image:
            width, height = image.size
    except _HEADER_ERRORS as error:
        raise DataError(
            f"The image {path} has no whole header, or one without pixels ({error}). {_COPY_AGAIN}"
        ) from None
    _check_size(height, width, path)
    return height, width


def read_frame(path: Path, number: int, *, is_color: bool) -> np.ndarray:
    """Read one frame.

    Args:
      path: an image file, or a video. Any path that the file system allows: OpenCV's own reader
        is not used for images, because on some systems it cannot open non-ASCII names.
      number: index of the frame in a video, from 0; not used for an image.
      is_color: RGB, or luma (ITU-R BT.601).

    Returns:
      u8[H, W, C], C = 3 or 1.

    Raises:
      DataError: the file is missing, empty, damaged or too large; the message names it.
    """
    if is_video(path):
        return next(video_frames(path, [number], is_color=is_color))
    data = _read_bytes(path)
    image_size(data, path)
    # Older decoders fill what is missing with gray and say nothing.
    if data.startswith(_JPEG) and data.rfind(_JPEG_END) < 0:
        raise DataError(f"The image {path} is cut off: its end mark is missing. {_COPY_AGAIN}")
    flag = cv2.IMREAD_COLOR if is_color else cv2.IMREAD_GRAYSCALE
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        image = None
    if image is None:
        raise DataError(f"The image {path} is damaged or cut off. {_COPY_AGAIN}")
    return _channels(image, is_color)


def read_frames(frames: Sequence[FrameLike], *, is_color: bool) -> np.ndarray:
    """Read the frames of one clip, in the order of the list.

    Frames of a video are read in one pass from its start: seeking is not exact in many codecs.

    Args:
      frames: at least one; images, or indices in videos.
      is_color: RGB or luma.

    Returns:
      u8[T, H, W, C], C = 3 or 1.

    Raises:
      DataError: as for `read_frame`; or the frames differ in size; or a video ends early.
    """
    if not frames:
        raise DataError("Expected at least one frame to read, found none.")
    out: np.ndarray | None = None
    for place, image in _all_frames(frames, is_color):
        if out is None:
            out = np.empty((len(frames), *image.shape), np.uint8)
            first = frames[place].path
        if image.shape != out.shape[1:]:
            raise DataError(
                f"Expected frames of one size in a clip, found {_size(out[0])} in {first} and"
                f" {_size(image)} in {frames[place].path}. Scale them to one size, or remove the"
                " odd one."
            )
        out[place] = image
    assert out is not None
    return out


def _all_frames(
    frames: Sequence[FrameLike], is_color: bool
) -> Iterator[tuple[int, np.ndarray]]:  # (place in `frames`, u8[H, W, C])
    videos: dict[Path, list[int]] = {}
    for place, frame in enumerate(frames):
        if is_video(frame.path):
            videos.setdefault(frame.path, []).append(place)
        else:
            yield place, read_frame(frame.path, frame.number, is_color=is_color)
    for path, places in videos.items():
        order = sorted(places, key=lambda place: frames[place].number)
        numbers = [frames[place].number for place in order]
        yield from zip(order, video_frames(path, numbers, is_color=is_color), strict=True)


def video_frames(path: Path, numbers: list[int], *, is_color: bool) -> Iterator[np.ndarray]:
    """Read frames of one video from its start on.

    Args:
      path: the video.
      numbers: indices from 0, ascending (one may be repeated).
      is_color: RGB or luma.

    Yields:
      u8[H, W, C] for each index.

    Raises:
      DataError: the video ends early, or a frame cannot be decoded.
    """
    if numbers[0] < 0:
        raise DataError(f"Expected frame numbers from 0 in the video {path}, found {numbers[0]}.")
    with open_video(path) as video:
        read, image = 0, None
        for number in numbers:
            while read <= number:
                if not video.grab():
                    raise DataError(
                        f"The video {path} ends early: it has {read} frames, and numbers up to"
                        f" {numbers[-1]} were asked for (the first is 0). Correct the frame"
                        " numbers, or copy the video again."
                    )
                read, image = read + 1, None
            if image is None:
                is_read, image = video.retrieve()
                if not is_read or image is None:
                    raise DataError(
                        f"Frame {number} of the video {path} cannot be decoded. {_COPY_AGAIN}"
                    )
                height, width = image.shape[:2]
                _check_size(height, width, path)
            pixels = image if is_color else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
            yield _channels(pixels, is_color)


@contextmanager
def open_video(path: Path) -> Iterator[cv2.VideoCapture]:
    """Open a video that frames may be grabbed from; it is released at the end.

    Raises:
      DataError: the file is missing, empty, no video by its first bytes, too large, or of an
        unknown codec.
    """
    start = _read_bytes(path, 16)
    is_container = (
        start.startswith(_VIDEO_STARTS)
        or (start[:4] == b"RIFF" and start[8:12] == b"AVI ")
        or start[4:8] in _MP4_ATOMS
    )
    if not is_container:
        raise DataError(
            f"Expected a video (AVI, MP4, MOV, MKV, WebM, MPEG or WMV), found bytes of another"
            f" kind in {path} ({start[:8].hex(' ') or 'empty'}). {_COPY_AGAIN}"
        )
    if writable(str(path)) != str(path):  # OpenCV would end the process
        raise DataError(
            f"The video {writable(str(path))} has bytes in its name that are no UTF-8. Rename it."
        )
    # The backend is named: another one reads "%" in a path as the pattern of a series of images.
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not video.isOpened():
            raise DataError(
                f"The video {path} cannot be opened: it is damaged, or its codec is not known to"
                " OpenCV. Convert it, for example to MP4 with H.264."
            )
        height = int(video.get(cv2.CAP_PROP_FRAME_HEIGHT))
        width = int(video.get(cv2.CAP_PROP_FRAME_WIDTH))
        _check_size(height, width, path)
        yield video
    finally:
        video.release()


def _read_bytes(path: Path, count: int = -1) -> bytes:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            if count < 0 and size > MAX_FILE_BYTES:
                raise DataError(
                    f"Expected an image of at most {MAX_FILE_BYTES >> 20} MiB, found"
                    f" {size >> 20} MiB in {path}. Is it a video? Give it a video's ending."
                )
            return file.read(count)
    except OSError as error:
        raise DataError(
            f"Cannot read the frame {path}: {error.strerror or error}. Check that the folder is"
            " complete and may be read."
        ) from error


def _check_size(height: int, width: int, path: Path) -> None:
    if not (1 <= height <= MAX_SIDE_PX and 1 <= width <= MAX_SIDE_PX):
        raise DataError(
            f"Expected frames of 1 to {MAX_SIDE_PX} px a side, found {width} x {height} px stated"
            f" in {path}; it was not decoded. Scale it down, or remove the file if it is no frame."
        )


def _channels(image: np.ndarray, is_color: bool) -> np.ndarray:
    """Return u8[H, W, 3] RGB from OpenCV's BGR, or u8[H, W, 1]."""
    if is_color:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return image[..., None]


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]} px"


_COPY_AGAIN = "Copy it again from the release."
