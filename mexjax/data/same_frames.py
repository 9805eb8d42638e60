"""Clips with the same frames: a file that was copied, or rows of a table that mean one clip.

Preparation compares the content of their files and notes it in the manifest. Training on both is
harmless where their labels are one; two labels contradict each other, and two subjects put the
frames on both sides of a split.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mexjax.errors import listed

SAME_FRAMES = "same frames as "  # begin of a note in the manifest
_PLACE = ("frame_folder", "onset", "offset")
_MAX_LINES = 20
_MAX_NAMES = 5  # clips of a line


def lines_of_same_frames(
    table: pd.DataFrame, labels: np.ndarray | None = None, *, are_copies: bool = False
) -> list[str]:
    """Return a line for each group of clips with the same frames that differ otherwise.

    Args:
      table: N rows with the columns subject, clip, emotion and notes; without notes (the embedded
        datasets) nothing is known.
      labels: [N, ...], what training takes for right; None: the emotions.
      are_copies: True: groups whose frames are the very same files are left out; the readers of
        releases tell of them.
    """
    if "notes" not in table:
        return []
    names = [f"{s}/{c}" for s, c in zip(table["subject"], table["clip"], strict=True)]
    rows = {name: row for row, name in enumerate(names)}
    places = list(range(len(names)))  # of each row the first row of its group
    for row, notes in enumerate(table["notes"]):
        for note in str(notes).split("; "):
            other = rows.get(note.removeprefix(SAME_FRAMES)) if SAME_FRAMES in note else None
            if other is not None:
                place = min(places[row], places[other])
                places = [place if p in (places[row], places[other]) else p for p in places]
    groups: dict[int, list[int]] = {}
    for row, place in enumerate(places):
        groups.setdefault(place, []).append(row)
    emotions = table["emotion"].tolist()
    truths = emotions if labels is None else [np.asarray(label).tolist() for label in labels]
    lines = []
    for members in groups.values():
        if are_copies and len({tuple(table[n].iloc[row] for n in _PLACE) for row in members}) == 1:
            continue
        faults = []
        if any(truths[row] != truths[members[0]] for row in members):
            faults.append("Their labels differ, and training takes each for right.")
        if len({table["subject"].iloc[row] for row in members}) > 1:
            faults.append("They are of several subjects, so splits test on what they train on.")
        if faults:
            texts = [f"{names[row]} ({emotions[row] or 'no emotion'})" for row in members]
            lines.append(
                f"{len(members)} clips have the same frames: {listed(texts, _MAX_NAMES)}."
                f" {' '.join(faults)} Leave one of them in the release, and prepare again."
            )
    if len(lines) > _MAX_LINES:
        lines[_MAX_LINES:] = [f"{len(lines) - _MAX_LINES} more groups of clips are such."]
    return lines
