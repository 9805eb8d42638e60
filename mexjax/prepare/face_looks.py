"""The first pass over clips: it finds the face of each, and compares those of a subject.

It is made only for ways that search (`cascade`, `mediapipe`); what a user gives is not corrected.
Frames are read again when clips are cropped, but faces of first frames are not searched again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import numpy as np

from mexjax.errors import DataError
from mexjax.prepare.cropping import Cropper, Job, key_frames
from mexjax.prepare.face_check import Sight, Suspect, decide, suspects
from mexjax.prepare.face_geometry import Face, checked
from mexjax.prepare.faces import Detector
from mexjax.prepare.images import read_frames

DETECTORS = ("cascade", "mediapipe")

NUM_FRAMES = 5  # frames at the beginning of a clip that are searched when it is looked at again

Parallel = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]


def look_at_faces(cropper: Cropper, jobs: Sequence[Job], parallel: Parallel) -> list[Sight]:
    """Find the face of each clip, and look again at those that are off their subject's.

    Args:
      cropper: the one that will prepare the clips.
      jobs: all clips of some subjects.
      parallel: does a function for every item, in order.
    """
    looker = Looker(cropper)
    sights = {sight.id: sight for sight in parallel(looker.first, jobs) if sight is not None}
    by_id = {job.id: job for job in jobs}
    doubtful = suspects(list(sights.values()))
    again = parallel(looker.again, [(by_id[each.sight.id], each) for each in doubtful])
    sights |= {sight.id: sight for sight in again}
    return list(sights.values())


class Looker:
    """Functions that may be sent to threads and processes, as a cropper may."""

    def __init__(self, cropper: Cropper) -> None:
        self._cropper = cropper

    def first(self, job: Job) -> Sight | None:
        """Find the face in the first frame of a clip; None where that cannot be read."""
        try:
            frames = job.frames()[:1]
            depth = self._cropper.depth_for(job, frames)
            image = read_frames(frames, is_color=True, depth=depth)[0]
        except Exception:  # the clip is refused, with its reason, when it is cropped
            return None
        setup = (str(job.row["subject"]), image.shape[0], image.shape[1])
        try:
            face = self._cropper.finder()(image, (job.id, frames[0].number))
        except DataError as error:
            return Sight(job.id, setup, None, problem=" ".join(str(error).split()))
        return Sight(job.id, setup, face)

    def again(self, item: tuple[Job, Suspect]) -> Sight:
        """Search the first frames and the key frames of a clip for all that may be a face."""
        job, suspect = item
        try:
            frames = job.frames()
            keys = [*frames[:NUM_FRAMES], *key_frames(frames, int(job.row["apex"]))]
            keys = [*{frame.number: frame for frame in keys}.values()]
            depth = self._cropper.depth_for(job, frames)
            images = read_frames(keys, is_color=True, depth=depth)
        except Exception:  # as above
            return suspect.sight
        found: dict[int, list[Face]] = {}
        for frame, image in zip(keys, images, strict=True):
            faces = cast(Detector, self._cropper.finder()).every_face(image)
            found[frame.number] = [face for face in faces if _fits(face, image)]
        return decide(suspect, found)


def _fits(face: Face, image: np.ndarray) -> bool:
    try:
        checked(face, image.shape, ("", 0))
    except DataError:
        return False
    return True
