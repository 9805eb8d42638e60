"""Fingerprints of clips: what a record was made from, so that changed files are noticed.

The content of every file counts and its times do not: copying a release to another disk changes
all of them, and an image that was exported again may keep its name and its size.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mexjax.errors import DataError
from mexjax.files import file_digest

if TYPE_CHECKING:
    from mexjax.prepare.cropping import Job
    from mexjax.prepare.sources.base import Frame

# These columns of the manifest decide what is stored of a clip.
_STORED = ("onset", "apex", "offset", "frame_folder")
_MARK = "content-"  # fingerprints of older versions begin otherwise and know sizes only


class Fingerprint(NamedTuple):
    """What a clip is made from.

    Attributes:
      inputs: hash of its annotation, the list of its frames and the content of their files.
      content: hash of its frames alone, whatever they and the clip are called.
    """

    inputs: str
    content: str


_NOTHING = Fingerprint("", "")


def fingerprint(job: Job, frames: Sequence[Frame] | None = None) -> Fingerprint:
    """Hash what a clip is made from.

    Args:
      job: the clip.
      frames: its frames, where they were listed already.

    Returns:
      the hashes; "" where the frames cannot be listed or read.
    """
    try:
        frames = job.frames() if frames is None else frames
        digests = {path: _digest(path) for path in {frame.path for frame in frames}}
    except (DataError, OSError):
        return _NOTHING
    parts = [str(job.row.get(column, "")) for column in _STORED]
    entries = [(frame.number, frame.path.name, digests[frame.path]) for frame in frames]
    # A number tells frames of a video apart, and says nothing more where each has its own file.
    is_video = len(digests) < len(frames)
    images = [[digests[f.path], f.number] if is_video else digests[f.path] for f in frames]
    return Fingerprint(_MARK + _hash([job.id, parts, entries]), _hash(images))


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def is_outdated(text: str) -> bool:
    """Tell whether a fingerprint is of an older version, which did not read the files."""
    return not text.startswith(_MARK)


def _digest(path: Path) -> str:
    about = os.stat(path)
    return _remembered(path, about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino)


@functools.lru_cache(maxsize=256)
def _remembered(path: Path, *about: int) -> str:
    """The digest of a file; a video of several clips is read once while it stays as it is."""
    return file_digest(path)
