"""Frames, number of frames and clock of a video.

The frames that decode and their time stamps count. What a container states may be a guess: a
number of frames made from its duration, or a rate that is only the unit of its clock.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from mexjax.errors import DataError
from mexjax.prepare.regular_files import open_regular
from mexjax.protocol.names import writable

MAX_SIDE_PX = 8192
VIDEO_SUFFIXES = (".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")
MAX_MISCOUNT_FRAMES = 2  # so many frames fewer than stated are met in whole videos: no remark
COPY_AGAIN = "Copy it again from the release."

# Containers begin with these bytes. A play list (text that names other files, or addresses) is none
# of these and must not reach the video library.
_VIDEO_STARTS = (b"\x1a\x45\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"\x30\x26\xb2\x75")
_MP4_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_NUM_STAMPS = 300  # frames whose time stamps are read where they need not be counted
# Rates from here on are units of a clock rather than rates, unless the time stamps agree.
_NOMINAL_FPS = 1000.0
_MAX_FPS = 10_000.0
_SAME_RATE = 0.01
_TICK_MS = 1.01  # WebM and WMV round time stamps to ms
_JITTER = 0.1  # share of the usual time between two frames
_MAX_FAULTY = 0.1  # share of the time stamps that may be missing


@dataclasses.dataclass(frozen=True)
class VideoFacts:
    """The number of frames of a video and its clock.

    Attributes:
      num_frames: as counted, or as the header states.
      is_counted: whether the frames were counted.
      fps: frames per second by the time stamps of its frames; nan where they do not say.
      remarks: clauses about what the container states wrong, and about a clock that varies.
      is_variable: whether the times between frames differ, so that `fps` is their mean.
    """

    num_frames: int
    is_counted: bool
    fps: float
    remarks: tuple[str, ...]
    is_variable: bool = False


def is_video(path: Path) -> bool:
    """Tell whether the file's ending is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def video_facts(path: Path, *, is_counted: bool, limit: int) -> VideoFacts:
    """Read number of frames and clock; what was read of an unchanged file is remembered.

    Args:
      path: the video.
      is_counted: decode the whole file and count; else only its begin is decoded, unless the header
        states no number of frames.
      limit: counting stops behind so many frames.

    Raises:
      DataError: as for `open_video`.
    """
    with open_regular(path) as file:
        size = file.seek(0, 2)
    return _facts(path, is_counted, limit, size, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _facts(path: Path, is_counted: bool, limit: int, size: int, time_ns: int) -> VideoFacts:
    with open_video(path) as video:
        header = _whole(video.get(cv2.CAP_PROP_FRAME_COUNT))
        stated = float(video.get(cv2.CAP_PROP_FPS))
        is_counted = is_counted or header <= 0
        stamps: list[float] = []
        while len(stamps) <= (limit if is_counted else _NUM_STAMPS) and video.grab():
            stamps.append(float(video.get(cv2.CAP_PROP_POS_MSEC)))
    remarks = []
    if is_counted and header > len(stamps) + MAX_MISCOUNT_FRAMES and len(stamps) > 0:
        remarks.append(
            f"{path.name} states {header} frames and holds {len(stamps)} that can be decoded; these"
            " are the whole video. If the file was cut off, copy it again"
        )
    fps, is_variable, clock = _clock(np.array(stamps), stated, path.name)
    if is_variable and not is_counted:  # their mean is that of all frames
        whole = _facts(path, True, limit, size, time_ns)
        fps, clock = whole.fps, list(whole.remarks[-1:])
    count = len(stamps) if is_counted else header
    return VideoFacts(count, is_counted, fps, (*remarks, *clock), is_variable)


def _clock(stamps: np.ndarray, stated: float, name: str) -> tuple[float, bool, list[str]]:
    """Return frames per second, whether they vary, and remarks, from time stamps in ms."""
    steps = np.diff(stamps)
    good = steps[np.isfinite(steps) & (steps > 0)]
    is_stated = 0 < stated < math.inf
    is_clock = len(good) > 0 and len(good) >= (1 - _MAX_FAULTY) * len(steps)
    if not is_clock or 1000 / float(good.mean()) >= _MAX_FPS:
        if is_stated and stated < _NOMINAL_FPS:
            return stated, False, []
        text = f" and its container states {stated:g} frames per second, which is no rate"
        return math.nan, False, [f"{name} has no time stamps that tell{text if is_stated else ''}"]
    fps = 1000 / float(good.mean())
    if np.ptp(good) > max(_TICK_MS, _JITTER * float(np.median(good))):
        text = (
            f"the frames of {name} are {good.min():.4g} to {good.max():.4g} ms apart (variable"
            f" frame rate), so {fps:.4g} frames per second are a mean"
        )
        return round(fps, 3), True, [text]
    if is_stated and abs(fps / stated - 1) <= _SAME_RATE + _TICK_MS / float(good.sum()):
        return stated, False, []  # the stated one is not rounded
    remark = (
        f"{name} states {stated:.4g} frames per second, but the time stamps of its frames say"
        f" {fps:.4g}"
    )
    return round(fps, 3), False, [remark] if is_stated else []


def _whole(number: float) -> int:
    return int(number) if math.isfinite(number) else 0


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
                        f"Frame {number} of the video {path} cannot be decoded. {COPY_AGAIN}"
                    )
                height, width = image.shape[:2]
                check_size(height, width, path)
            pixels = image if is_color else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
            yield channels(pixels, is_color)


@contextmanager
def open_video(path: Path) -> Iterator[cv2.VideoCapture]:
    """Open a video that frames may be grabbed from; it is released at the end.

    Raises:
      DataError: the file is missing, empty, no video by its first bytes, too large, or of an
        unknown codec.
    """
    with open_regular(path) as file:
        start = file.read(16)
    is_container = (
        start.startswith(_VIDEO_STARTS)
        or (start[:4] == b"RIFF" and start[8:12] == b"AVI ")
        or start[4:8] in _MP4_ATOMS
    )
    if not is_container:
        raise DataError(
            f"Expected a video (AVI, MP4, MOV, MKV, WebM, MPEG or WMV), found bytes of another"
            f" kind in {path} ({start[:8].hex(' ') or 'empty'}). {COPY_AGAIN}"
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
        check_size(height, width, path)
        yield video
    finally:
        video.release()


def check_size(height: int, width: int, path: Path) -> None:
    """Refuse a size that no frame has, before anything is decoded.

    Raises:
      DataError: a side is below 1 or above `MAX_SIDE_PX`.
    """
    if not (1 <= height <= MAX_SIDE_PX and 1 <= width <= MAX_SIDE_PX):
        raise DataError(
            f"Expected frames of 1 to {MAX_SIDE_PX} px a side, found {width} x {height} px stated"
            f" in {path}; it was not decoded. Scale it down, or remove the file if it is no frame."
        )


def channels(image: np.ndarray, is_color: bool) -> np.ndarray:
    """Return u8[H, W, 3] RGB from OpenCV's BGR, or u8[H, W, 1]."""
    if is_color:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return image[..., None]
