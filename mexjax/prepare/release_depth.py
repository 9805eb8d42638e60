"""The range of samples that each release uses, what was made with it before, and remarks about it.

Files of 8 bits, which nearly all releases have, are read only to their header for this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mexjax.errors import DataError, listed
from mexjax.prepare.cropping import Job
from mexjax.prepare.depth import PLAIN, TRANSPARENT, Depth
from mexjax.prepare.images import is_video, range_of
from mexjax.prepare.shards import Shard

Made = tuple[Shard, dict[str, Any]]  # with its description
_MAX_EXAMPLES = 8


def range_of_clip(job: Job) -> Depth:
    """Return the range that the frames of a clip use; a faulty one is reported when it is read."""
    depth = Depth()
    try:
        paths = dict.fromkeys(frame.path for frame in job.frames())
    except DataError:
        return depth
    for path in (path for path in paths if not is_video(path)):
        try:
            depth = depth.joined(range_of(path))
        except DataError:
            continue
    return depth


def depths_of(
    jobs: Sequence[Job], ranges: Iterable[Depth], done: Iterable[Made]
) -> dict[tuple[str, str], Depth]:
    """Join the ranges of clips to that of each release.

    Args:
      jobs: all clips.
      ranges: the range of each.
      done: finished shards; they say what was used for clips whose frames have been put away.

    Returns:
      The range of each `Job.release`.
    """
    depths: dict[tuple[str, str], Depth] = {}
    for job, depth in zip(jobs, ranges, strict=True):
        depths[job.release] = depths.get(job.release, Depth()).joined(depth)
    for job, depth in _recorded(done):
        if not job.row["frame_folder"]:
            depths[job.release] = depths[job.release].joined(depth)
    return depths


def recorded_depths(done: Iterable[Made]) -> dict[tuple[str, str], Depth]:
    """Return the range of each release as finished shards have it."""
    depths: dict[tuple[str, str], Depth] = {}
    for job, depth in _recorded(done):
        depths[job.release] = depths.get(job.release, Depth()).joined(depth)
    return depths


def outdated(made: Made, depths: Mapping[tuple[str, str], Depth]) -> bool:
    """Tell whether a shard had another range, and its frames are there to make it anew."""
    return any(
        depth not in (Depth(), depths[job.release]) and job.row["frame_folder"]
        for job, depth in _recorded([made])
    )


def remarks(done: Iterable[Made]) -> list[str]:
    """Write a line for each dataset with deep samples, mixed kinds or transparent pixels."""
    deep: dict[str, list[dict[str, Any]]] = {}
    mixed, transparent = [], []
    for shard, description in done:
        datasets = {job.id: str(job.row["dataset"]) for job in shard.jobs}
        for clip in description["clips"]:
            kinds = set(clip.get("kinds", ()))
            if kinds - PLAIN:
                deep.setdefault(datasets[clip["id"]], []).append(clip)
            if len(kinds - {TRANSPARENT}) > 1:
                mixed.append(f"{clip['id']} ({', '.join(sorted(kinds - {TRANSPARENT}))})")
            if TRANSPARENT in kinds:
                transparent.append(clip["id"])
    lines = []
    for dataset, clips in deep.items():
        words = sorted({Depth(clip["bits"], clip["white"]).words() for clip in clips})
        lines.append(
            f"{dataset}: {_count(len(clips))} of images with more than 8 bits a sample"
            f" ({', '.join(sorted({k for clip in clips for k in set(clip['kinds']) - PLAIN}))})."
            f" The range in use was read over the whole release: {'; '.join(words)}."
        )
        if len(words) > 1:
            lines.append(
                f"{dataset}: its clips were prepared with different ranges, and the frames of some"
                " are not there any more to prepare them anew, so brightness differs between them."
            )
    if mixed:
        lines.append(f"Frames of one clip have different depths: {listed(mixed, _MAX_EXAMPLES)}.")
    if transparent:
        lines.append(f"Transparent pixels are black now: {listed(transparent, _MAX_EXAMPLES)}.")
    return lines


def _recorded(done: Iterable[Made]) -> list[tuple[Job, Depth]]:
    pairs = []
    for shard, description in done:
        jobs = {job.id: job for job in shard.jobs}
        for clip in description["clips"]:
            depth = Depth(int(clip.get("bits", 0)), float(clip.get("white", 0)))
            pairs.append((jobs[clip["id"]], depth))
    return pairs


def _count(number: int) -> str:
    return f"{number} clip{'' if number == 1 else 's'}"
