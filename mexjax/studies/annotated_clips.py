"""Clips with all their frames and annotations, of prepared datasets and of the embedded one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mexjax.data import keyframes, synthetic
from mexjax.data.view_frames import key_places
from mexjax.errors import DataError

Places = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class AnnotatedClip:
    """One clip.

    Attributes:
      dataset, subject, name: names of the dataset, of the subject and of the clip.
      fps: frames per second.
      frames: u8[T, H, W, C].
      places: annotated onset, apex and offset in `frames`.
      numbers: frame numbers, rising; missing frames leave gaps.
      truth: true onset, apex and offset as frame numbers, where known; they may lie outside.
    """

    dataset: str
    subject: str
    name: str
    fps: float
    frames: np.ndarray
    places: Places
    numbers: tuple[int, ...]
    truth: Places | None = None

    def only(self, places: Sequence[int]) -> AnnotatedClip:
        """A clip that has the frames at `places` alone, in this order."""
        numbers = tuple(self.numbers[place] for place in places)
        return dataclasses.replace(self, frames=self.frames[list(places)].copy(), numbers=numbers)


def prepared_clips(roots: Sequence[Path], count: int = 0) -> tuple[int, Iterator[AnnotatedClip]]:
    """Count the clips below prepared folders, and read them.

    Args:
      roots: folders that `python -m mexjax.prepare` wrote.
      count: at most so many of each dataset, spread over it; 0: all.

    Returns:
      The number of clips, and an iterator that reads one after the other.

    Raises:
      DataError: a folder was not prepared, or a clip cannot be read.
    """
    from mexjax.data import records  # it takes a second to import
    from mexjax.data.manifest import COLUMNS, read_manifest

    jobs = []
    for root in roots:
        if not (root / records.MANIFEST).is_file():
            raise DataError(
                f"{root} has no {records.MANIFEST}: expected a folder that python -m"
                " mexjax.prepare wrote and finished."
            )
        table = read_manifest(root / records.MANIFEST, required=COLUMNS)
        for _, part in table.groupby("dataset", sort=False):
            jobs += [(root, row) for row in _spread(part.to_dict("records"), count)]

    def read() -> Iterator[AnnotatedClip]:
        for root, row in jobs:
            clip = records.load_clip(root, row)
            yield AnnotatedClip(
                dataset=str(row["dataset"]),
                subject=str(row["subject"]),
                name=str(row["clip"]),
                fps=float(clip.fps),
                frames=clip.frames,
                places=key_places(clip),
                numbers=tuple(clip.numbers.tolist()),
            )

    return len(jobs), read()


def embedded_clips(
    preset: str, seed: int, count: int = 0, *, reach: float = 0.2
) -> tuple[int, Iterator[AnnotatedClip]]:
    """Count clips of the embedded dataset, and draw them; their true key frames are known.

    Args:
      preset: a key of `mexjax.data.synthetic.PRESETS`.
      seed: seed of the dataset.
      count: at most so many clips; 0: all.
      reach: frames go on after the annotated offset by this share of the fall.

    Returns:
      The number of clips, and an iterator that draws one after the other.

    Raises:
      ConfigError: an unknown preset.
    """
    plan = synthetic.make_plan(synthetic.preset(preset, seed=seed))
    clips = _spread(list(plan.clips), count)

    def draw() -> Iterator[AnnotatedClip]:
        for clip in clips:
            when = clip.timing
            last = when.offset + keyframes.reach(reach, when.apex, when.offset)
            numbers = range(when.onset, last + 1)
            yield AnnotatedClip(
                dataset=plan.config.name,
                subject=f"{clip.subject + 1:02d}",
                name=clip.name,
                fps=plan.config.fps,
                frames=synthetic.render_clip(plan, clip.index, numbers),
                places=_from(when.onset, (when.onset, when.apex, when.offset)),
                truth=(0, when.rise, when.num_frames - 1),
                numbers=tuple(numbers),
            )

    return len(clips), draw()


def _from(first: int, frames: Places) -> Places:
    return frames[0] - first, frames[1] - first, frames[2] - first


def _spread(items: list, count: int) -> list:
    """`count` items, evenly spread; all items if there are no more or `count` is 0."""
    if not 0 < count < len(items):
        return items
    return [items[i * len(items) // count] for i in range(count)]
