"""Pixels of one frame, or of the frames of a clip, from image files and videos.

The size that a file states is read before anything is decoded, so that a damaged or hostile
header costs no memory. Formats: JPEG, PNG, BMP and TIFF (the first three are those in which the
public sets are released, the last one that of many cameras) and the usual video containers. The
file's content counts, not its ending: some public copies hold JPEG files that are called .bmp.

Samples of more than 8 bits are scaled by the `Depth` of their release.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from mexjax.errors import DataError
from mexjax.prepare.depth import TRANSPARENT, Depth, depth_of, to_8_bits
from mexjax.prepare.image_headers import (
    JPEG,
    PNG,
    ImageHeader,
    has_deep_samples,
    image_header,
    image_size,
)
from mexjax.prepare.regular_files import open_regular
from mexjax.prepare.videos import (
    COPY_AGAIN,
    MAX_SIDE_PX,
    VIDEO_SUFFIXES,
    channels,
    is_video,
    video_frames,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_FILE_BYTES",
    "MAX_SIDE_PX",
    "VIDEO_SUFFIXES",
    "FrameLike",
    "ImageHeader",
    "image_header",
    "image_size",
    "is_video",
    "range_of",
    "range_of_frames",
    "read_frame",
    "read_frames",
    "video_frames",
]

# An uncompressed frame has four bytes a pixel and a short header: no honest frame is larger.
MAX_FILE_BYTES = 4 * MAX_SIDE_PX**2 + (1 << 20)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")

_JPEG_END = b"\xff\xd9"


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


def range_of(path: Path) -> Depth:
    """Return the range of samples that an image uses where they have more than 8 bits.

    An image of 8 bits is not read beyond its header.

    Raises:
      DataError: the file is missing, damaged, too large, or has samples that are no brightness.
    """
    if not has_deep_samples(path):
        return Depth()
    data = _read_bytes(path)
    image_header(data, path)
    return depth_of(_colors(_decode(data, cv2.IMREAD_UNCHANGED, path)), path)


def read_frame(
    path: Path,
    number: int,
    *,
    is_color: bool,
    depth: Depth | None = None,
    kinds: set[str] | None = None,
) -> np.ndarray:
    """Read one frame.

    Transparent pixels are laid on black.

    Args:
      path: an image file, or a video. Any path that the file system allows: OpenCV's own reader
        is not used for images, because on some systems it cannot open non-ASCII names.
      number: index of the frame in a video, from 0; not used for an image.
      is_color: RGB, or luma (ITU-R BT.601).
      depth: range of the release for samples of more than 8 bits; None: that of this frame, which
        is not that of the frame beside it.
      kinds: the kind of the image's samples is added, such as "8-bit", and "transparent" where a
        pixel is.

    Returns:
      u8[H, W, C], C = 3 or 1.

    Raises:
      DataError: the file is missing, empty, damaged or too large; the message names it.
    """
    if is_video(path):
        return next(video_frames(path, [number], is_color=is_color))
    data = _read_bytes(path)
    header = image_header(data, path)
    kinds = set() if kinds is None else kinds
    kinds.add(f"{header.bits}-bit")
    # Older decoders fill what is missing with gray and say nothing.
    if data.startswith(JPEG) and data.rfind(_JPEG_END) < 0:
        raise DataError(f"The image {path} is cut off: its end mark is missing. {COPY_AGAIN}")
    if header.bits > 8 or header.has_alpha:
        image = _rarer(data, header, depth, path, kinds)
        if image is not None:
            return channels(
                image if is_color else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), is_color
            )
    flag = cv2.IMREAD_COLOR if is_color else cv2.IMREAD_GRAYSCALE
    return channels(_decode(data, flag, path), is_color)


def _rarer(
    data: bytes, header: ImageHeader, depth: Depth | None, path: Path, kinds: set[str]
) -> np.ndarray | None:
    """Return u8[H, W, 3], BGR, of an image with deep samples or an opacity.

    None stands for an image of 8 bits that is opaque everywhere, and so is none of these.
    """
    samples = _decode(data, cv2.IMREAD_UNCHANGED, path)
    colors, opacity = _colors(samples), None
    if header.has_alpha and samples.ndim == 3 and samples.shape[2] == 4:
        is_whole = np.issubdtype(samples.dtype, np.integer)
        opacity = samples[..., 3:] / (np.iinfo(samples.dtype).max if is_whole else 1)
        opacity = None if (opacity >= 1).all() else opacity
    if header.bits > 8:
        use = depth_of(colors, path)
        if depth is not None and depth != depth.joined(use):
            raise DataError(
                f"The image {path} uses a larger range than the release did when it was looked"
                f" through ({use.words()}), so it has changed. Run the same command again."
            )
        colors = to_8_bits(colors, use if depth is None else depth)
    elif opacity is None:
        return None
    if opacity is not None:
        kinds.add(TRANSPARENT)
        # OpenCV has laid those of a TIFF of 8 bits on black already.
        if data.startswith(PNG) or header.bits > 8:
            colors = np.rint(colors * opacity).astype(np.uint8)
    return cv2.cvtColor(colors, cv2.COLOR_GRAY2BGR) if colors.ndim == 2 else colors


def _colors(samples: np.ndarray) -> np.ndarray:
    """Return the channels that are colours: [H, W] or [H, W, 3]."""
    return np.ascontiguousarray(samples[..., :3]) if samples.ndim == 3 else samples


def _decode(data: bytes, flag: int, path: Path) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        image = None
    if image is None:
        raise DataError(f"The image {path} is damaged or cut off. {COPY_AGAIN}")
    return image


def read_frames(
    frames: Sequence[FrameLike], *, is_color: bool, depth: Depth | None = None
) -> np.ndarray:
    """Read the frames of one clip, in the order of the list.

    Frames of a video are read in one pass from its start: seeking is not exact in many codecs.

    Args:
      frames: at least one; images, or indices in videos.
      is_color: RGB or luma.
      depth: range of the release for samples of more than 8 bits; None: that of these frames.

    Returns:
      u8[T, H, W, C], C = 3 or 1.

    Raises:
      DataError: as for `read_frame`; or the frames differ in size; or a video ends early.
    """
    if not frames:
        raise DataError("Expected at least one frame to read, found none.")
    if depth is None:
        depth = range_of_frames(frames)
    out: np.ndarray | None = None
    for place, image in _all_frames(frames, is_color, depth):
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


def range_of_frames(frames: Iterable[FrameLike]) -> Depth:
    """Return the range that all these frames together use; see `range_of`.

    Raises:
      DataError: one of the frames cannot be read.
    """
    depth = Depth()
    for path in dict.fromkeys(frame.path for frame in frames):
        if not is_video(path):
            depth = depth.joined(range_of(path))
    return depth


def _all_frames(
    frames: Sequence[FrameLike], is_color: bool, depth: Depth
) -> Iterator[tuple[int, np.ndarray]]:  # (place in `frames`, u8[H, W, C])
    videos: dict[Path, list[int]] = {}
    for place, frame in enumerate(frames):
        if is_video(frame.path):
            videos.setdefault(frame.path, []).append(place)
        else:
            yield place, read_frame(frame.path, frame.number, is_color=is_color, depth=depth)
    for path, places in videos.items():
        order = sorted(places, key=lambda place: frames[place].number)
        numbers = [frames[place].number for place in order]
        yield from zip(order, video_frames(path, numbers, is_color=is_color), strict=True)


def _read_bytes(path: Path) -> bytes:
    with open_regular(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        if size > MAX_FILE_BYTES:
            raise DataError(
                f"Expected an image of at most {MAX_FILE_BYTES >> 20} MiB, found"
                f" {size >> 20} MiB in {path}. Is it a video? Give it a video's ending."
            )
        return file.read()


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]} px"
