"""The work of every core when a dataset is prepared: it makes a record from a clip of the release.

The face is found once, in the first frame of the clip, and every frame is cropped by the same
matrix: a crop that followed the face would move with it and hide or add motion. Frames are read,
warped and compressed one at a time, so a clip needs the memory of one frame and of its PNG files,
however long it is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mexjax.data import records
from mexjax.errors import DataError
from mexjax.prepare.depth import PLAIN, Depth, clip_notes
from mexjax.prepare.face_check import LIMIT, NOTE, Sight, gap
from mexjax.prepare.face_geometry import square_of
from mexjax.prepare.faces import Face, Finder, align, alignment, make_finder, to_crop
from mexjax.prepare.fingerprints import fingerprint
from mexjax.prepare.images import (
    is_video,
    range_of_frames,
    read_frame,
    read_frames,
    video_frames,
)
from mexjax.prepare.sources import get_source
from mexjax.prepare.sources.base import Frame

COLORS = ("auto", "gray", "rgb")
# These ways of finding a face only look something up, so one finder serves all threads. A detector
# keeps state between calls, so every thread has its own.
_LOOKUPS = ("landmarks", "precropped")
_NO_DEPTH = Depth()


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that decide, with the clip, the bytes of a record.

    Attributes:
      size_px: side of the square crop.
      color: "gray" and "rgb" for every clip, or "auto": gray where the first frame is (its three
        channels are equal), as in SAMM and 4DME.
      faces: how faces are found, see `mexjax.prepare.faces.make_finder`.
      landmarker_model: model file of MediaPipe.
      landmarks: table with a face for each frame.
    """

    size_px: int = 256
    color: str = "auto"
    faces: str = "auto"
    landmarker_model: Path | None = None
    landmarks: Path | None = None


@dataclasses.dataclass(frozen=True)
class Job:
    """A clip to prepare: the name of its source, the root of the release, and its row."""

    source: str
    root: Path
    row: Mapping[Any, Any]

    @property
    def id(self) -> str:
        """The id of the clip, `subject/clip`."""
        return records.clip_id(self.row)

    @property
    def release(self) -> tuple[str, str]:
        """The source and root: clips that share them are of one release."""
        return self.source, str(self.root)

    def frames(self) -> list[Frame]:
        """List the frames that exist, in time order.

        Raises:
          DataError: there is none.
        """
        return list(get_source(self.source).frames(self.root, self.row))


@dataclasses.dataclass(frozen=True)
class Crop:
    """A prepared clip.

    Attributes:
      id: id of the clip.
      record: see `mexjax.data.records`.
      sha256: hash of the record.
      num_stored: number of frames in it.
      landmark_source: how its face was found.
      notes: remarks for the manifest.
      inputs: fingerprint of what it was made from.
      content: fingerprint of its frames alone.
      matrix: f64[2, 3], px of the original to px of the crop.
      matrix_before: the same for the box that was off and is not used, or None.
      kinds: kinds of samples of its images, such as "8-bit".
      depth: range that scaled those of more than 8 bits.
    """

    id: str
    record: bytes
    sha256: str
    num_stored: int
    landmark_source: str
    notes: tuple[str, ...]
    inputs: str
    content: str
    matrix: np.ndarray
    matrix_before: np.ndarray | None = None
    kinds: tuple[str, ...] = ()
    depth: Depth = _NO_DEPTH


@dataclasses.dataclass(frozen=True)
class Failure:
    """A clip that could not be prepared.

    Attributes:
      id: id of the clip.
      problem: the reason, in one line.
      inputs: fingerprint of its files.
    """

    id: str
    problem: str
    inputs: str = ""


@dataclasses.dataclass(frozen=True)
class Located:
    """The faces of a clip.

    Attributes:
      images: u8[K, H, W, 3], the first frame, the one nearest to the apex and the last one.
      numbers: K frame numbers.
      faces: the face of each; None where there is none. The first is always there.
      matrix: f64[2, 3], px of the original to px of the crop.
      notes: remarks for the manifest.
      matrix_before: the same for the box that was off, or None.
    """

    images: np.ndarray
    numbers: list[int]
    faces: list[Face | None]
    matrix: np.ndarray
    notes: tuple[str, ...]
    matrix_before: np.ndarray | None = None


class Cropper:
    """A preparer of clips; many threads may call it, and it may be sent to other processes.

    Attributes:
      settings: what decides the bytes of a record.
      depths: range of the samples of each `Job.release`; that of a clip of another one is read from
        the clip alone.
      sights: by id, the faces that are known already (see `mexjax.prepare.face_looks`).
    """

    def __init__(self, settings: Settings, sights: Mapping[str, Sight] | None = None) -> None:
        self.settings, self.sights = settings, dict(sights or {})
        self.depths: Mapping[tuple[str, str], Depth] = {}
        self._start()

    def _start(self) -> None:
        self._local, self._lock = threading.local(), threading.Lock()
        self._first: Finder | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings, "depths": self.depths, "sights": self.sights}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.settings, self.depths = state["settings"], state["depths"]
        self.sights = state["sights"]
        self._start()

    def __call__(self, job: Job) -> Crop | Failure:
        """Prepare one clip; whatever is wrong with it is returned, so that others go on."""
        try:
            return self.crop(job)
        except DataError as error:
            problem = _one_line(error)
        except Exception as error:  # a library failed on this clip: the others must go on
            problem = _one_line(f"{type(error).__name__}: {error}")
        return Failure(job.id, problem, fingerprint(job).inputs)

    def crop(self, job: Job) -> Crop:
        """Prepare one clip.

        Raises:
          DataError: no frames, a damaged or differing frame, or no face in the first one.
        """
        frames = job.frames()
        depth = self.depth_for(job, frames)
        located = self.locate(job, frames, depth)
        size = self.settings.size_px
        is_color = self.settings.color == "rgb" or (
            self.settings.color == "auto" and not _is_gray(located.images[0])
        )
        pngs = []
        kinds: set[str] = set()
        for frame, image in _read_one_by_one(frames, is_color, depth, kinds):
            if image.shape[:2] != located.images.shape[1:3]:
                raise DataError(
                    f"{frame.path} is {image.shape[1]}x{image.shape[0]} px and the first frame of"
                    f" the clip {located.images.shape[2]}x{located.images.shape[1]}. Copy the clip"
                    " again from the release, or delete the odd frames."
                )
            pngs.append(records.encode_frame(align(image[None], located.matrix, size_px=size)[0]))
        places = [i for i, face in enumerate(located.faces) if face is not None]
        faces = [face for face in located.faces if face is not None]
        record = records.pack(
            job.id,
            pngs,
            [frame.number for frame in frames],
            np.stack([to_crop(face.landmarks, located.matrix) for face in faces]),
            [located.numbers[i] for i in places],
        )
        made_from = fingerprint(job, frames)
        return Crop(
            id=job.id,
            record=record,
            sha256=hashlib.sha256(record).hexdigest(),
            num_stored=len(frames),
            landmark_source=faces[0].source,
            notes=(*located.notes, *clip_notes(kinds, depth)),
            inputs=made_from.inputs,
            content=made_from.content,
            kinds=tuple(sorted(kinds)),
            depth=depth if kinds - PLAIN else Depth(),
            matrix=located.matrix,
            matrix_before=located.matrix_before,
        )

    def depth_for(self, job: Job, frames: Sequence[Frame]) -> Depth:
        """The range of samples of a clip's release, or, where that is unknown, of its frames."""
        depth = self.depths.get(job.release)
        return range_of_frames(frames) if depth is None else depth

    def locate(self, job: Job, frames: Sequence[Frame], depth: Depth | None = None) -> Located:
        """Find the face in the first frame, and again near the apex and at the end.

        Args:
          job: the clip.
          frames: its frames.
          depth: range of their samples, where it was read already.

        Raises:
          DataError: frames that cannot be read, or no face in the first one.
        """
        keys = key_frames(frames, int(job.row["apex"]))
        depth = self.depth_for(job, frames) if depth is None else depth
        images = read_frames(keys, is_color=True, depth=depth)
        find = self.finder()
        sight = self.sights.get(job.id)
        if sight is not None and sight.face is None:
            raise DataError(sight.problem)
        first = find(images[0], (job.id, keys[0].number)) if sight is None else sight.face
        assert first is not None
        notes = [sight.note] if sight is not None and sight.note else []
        faces: list[Face | None] = [first]
        for frame, image in zip(keys[1:], images[1:], strict=True):
            try:
                faces.append(_near(first, find(image, (job.id, frame.number))))
            except DataError as error:
                faces.append(None)
                notes.append(f"no landmarks at frame {frame.number}: {_one_line(error)}")
        size = self.settings.size_px
        before = None if sight is None or sight.before is None else sight.before
        return Located(
            images,
            [frame.number for frame in keys],
            faces,
            matrix=alignment(first, size_px=size),
            notes=tuple(notes),
            matrix_before=None if before is None else alignment(before, size_px=size),
        )

    def first_finder(self) -> Finder:
        """Return the finder that the settings lead to; its `kind` says which way "auto" goes.

        Raises:
          DataError: a file that it needs is not named, missing or damaged.
        """
        with self._lock:  # a table of landmarks can have a hundred thousand rows: read it once
            if self._first is None:
                self._first = self._make_finder()
            return self._first

    def finder(self) -> Finder:
        """Return the finder of this thread."""
        first = self.first_finder()
        if first.kind in _LOOKUPS:
            return first
        if not hasattr(self._local, "finder"):
            self._local.finder = self._make_finder()
        return self._local.finder

    def _make_finder(self) -> Finder:
        settings = self.settings
        return make_finder(
            settings.faces,
            landmarker_model=settings.landmarker_model,
            landmarks=settings.landmarks,
        )


def key_frames(frames: Sequence[Frame], apex: int) -> list[Frame]:
    """Return the first frame, the one nearest to the apex and the last one, each once."""
    nearest = min(range(len(frames)), key=lambda i: abs(frames[i].number - apex))
    return [frames[i] for i in sorted({0, nearest, len(frames) - 1})]


def _read_one_by_one(
    frames: Sequence[Frame], is_color: bool, depth: Depth, kinds: set[str]
) -> Iterator[tuple[Frame, np.ndarray]]:
    """Yield each frame with its pixels, u8[H, W, C]; a video is read in one pass."""
    if not is_video(frames[0].path):
        for frame in frames:
            yield (
                frame,
                read_frame(frame.path, frame.number, is_color=is_color, depth=depth, kinds=kinds),
            )
        return
    numbers = [frame.number for frame in frames]
    images = video_frames(frames[0].path, numbers, is_color=is_color)
    yield from zip(frames, images, strict=True)


def _near(first: Face, later: Face) -> Face:
    """Return the face of a later frame, if its box can be that of the first.

    Raises:
      DataError: the detector gave a box somewhere else. Measured points are always believed.
    """
    if later.source == "cascade" and (off := gap(square_of(later), square_of(first))) > LIMIT:
        raise DataError(f"{NOTE}off that of the first frame by {off:.0%}")
    return later


def _is_gray(image: np.ndarray) -> bool:
    return bool((image == image[..., :1]).all())


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
