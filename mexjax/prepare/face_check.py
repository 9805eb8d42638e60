"""The comparison of a subject's face boxes: a detector that errs in one clip errs alone.

One camera and one chair give the clips of a subject boxes of nearly one place and size. A box that
is far from the usual one is looked for again; what is seen then decides whether it is moved, kept
(the subject moved) or replaced. Squares are f64[3]: x, y of the centre and the side, px.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mexjax.prepare.face_geometry import Face, face_in_square, square_of

LIMIT, MAX_LIMIT = 0.25, 0.35
"""Boxes that differ by more than this part of their size are not the same place.

The second is the most that scattered boxes may raise it to."""

NOTE = "face box "
"""Every remark of this module in a manifest begins with it."""

MIN_CLIPS = 3  # fewer boxes have no usual place
_MAD_FACTOR = 4 * 1.4826  # four standard deviations, if deviations are normal
_MIN_SHARE = 0.5  # of the boxes must be near the usual one
_SAME_PLACE = 0.15
_CONFIRMED = 2  # certainty of a box in which both eyes were seen


@dataclasses.dataclass(frozen=True, eq=False)
class Sight:
    """The face of a clip, as far as it is known.

    Attributes:
      id: id of the clip.
      setup: its subject and the size of its frames; only clips of one setup are compared.
      face: the face in the first frame, or None.
      problem: the reason why there is none.
      before: the face that was found at first, if it was off.
      note: the remark for the manifest, or nothing.
    """

    id: str
    setup: tuple[str, int, int]
    face: Face | None
    problem: str = ""
    before: Face | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Suspect:
    """A clip to look at again.

    Attributes:
      sight: what was seen at first.
      usual: f64[3], the usual square of its setup; None where there is none.
      num_same: clips of its setup whose box lies at the same place as its own.
    """

    sight: Sight
    usual: np.ndarray | None
    num_same: int = 0


def face_notes(notes: str) -> list[str]:
    """Return the remarks of this module among those of a clip in a manifest."""
    return [note for note in notes.split("; ") if note.startswith(NOTE)]


def gap(square: np.ndarray, usual: np.ndarray) -> float:
    """Return how far a square is off another: shift or change of size, in sides of the other."""
    shift = float(np.abs(square[:2] - usual[:2]).max() / usual[2])
    sizes = (square[2], usual[2])
    return max(shift, float(max(sizes) / min(sizes)) - 1)


def usual_square(squares: np.ndarray) -> tuple[np.ndarray | None, float]:
    """Return the usual one of squares f64[N, 3], and the gap beyond which one is off.

    It is the median, None where too few squares lie near it: a subject that moved between clips
    has no usual place. Where boxes scatter, the limit grows a little with their median deviation.
    """
    if len(squares) < MIN_CLIPS:
        return None, LIMIT
    median = np.median(squares, axis=0)
    gaps = np.array([gap(square, median) for square in squares])
    if (gaps <= LIMIT).mean() <= _MIN_SHARE:
        return None, LIMIT
    return median, float(np.clip(_MAD_FACTOR * np.median(gaps), LIMIT, MAX_LIMIT))


def suspects(sights: Sequence[Sight]) -> list[Suspect]:
    """Return the clips whose face is missing, or off the usual place of their setup.

    Where a setup has too few clips for a usual place, those whose eyes were not seen are doubtful.
    """
    out = []
    for members in _setups(sights).values():
        seen = {sight.id: square_of(sight.face) for sight in members if sight.face is not None}
        usual, limit = usual_square(np.array(list(seen.values())).reshape(-1, 3))
        for sight in members:
            is_alone = usual is None and len(seen) < MIN_CLIPS
            is_doubtful = sight.face is None or (is_alone and sight.face.certainty < _CONFIRMED)
            if is_doubtful:
                out.append(Suspect(sight, usual))
            elif usual is not None and gap(seen[sight.id], usual) > limit:
                near = [
                    name
                    for name, square in seen.items()
                    if gap(square, seen[sight.id]) < _SAME_PLACE and name != sight.id
                ]
                out.append(Suspect(sight, usual, len(near)))
    return out


def scattered(sights: Sequence[Sight]) -> dict[str, float]:
    """Return the subjects whose boxes differ by more than `LIMIT` and have no usual place.

    Returns:
      the largest gap between two of a subject's boxes.
    """
    out: dict[str, float] = {}
    for (subject, *_), members in _setups(sights).items():
        squares = [square_of(sight.face) for sight in members if sight.face is not None]
        if usual_square(np.array(squares).reshape(-1, 3))[0] is None:
            gaps = [gap(a, b) for a in squares for b in squares]
            if max(gaps, default=0) > LIMIT:
                out[subject] = max(out.get(subject, 0), *gaps)
    return out


def decide(suspect: Suspect, candidates: Mapping[int, Sequence[Face]]) -> Sight:
    """Settle the face of a clip.

    Args:
      suspect: the clip.
      candidates: by frame number, the first frame first, all that may be a face there, the
        likeliest first.

    Returns:
      the sight with face, the one before and the remark. Without any face near the usual place the
      problem stays a problem; a box is put there blindly only where a wrong one was seen.
    """
    sight, usual, whose = suspect.sight, suspect.usual, "those of the subject"
    if usual is None and sight.face is not None:
        usual, whose = _usual_of_clip(candidates), "those of the clip's other frames"
    if usual is None:
        return sight
    near = [
        (face, number)
        for number, faces in candidates.items()
        for face in faces
        if gap(square_of(face), usual) <= LIMIT
    ]
    # `max` gives the first of equals: the earliest frame, and there the likeliest face.
    best, number = max(near, key=lambda item: item[0].certainty, default=(None, 0))
    if sight.face is None:
        return _newly_found(sight, best, f"near {whose} in frame {number}")
    distance = gap(square_of(sight.face), usual)
    if distance <= LIMIT:
        return sight
    off = f"{NOTE}off {whose} by {distance:.0%}"
    if best is not None and best.certainty >= max(1, sight.face.certainty):
        return _moved(sight, best, f"{off}, found again in frame {number}")
    if suspect.num_same or sight.face.certainty >= _CONFIRMED:
        many = f"{suspect.num_same} other clips have theirs there"
        why = many if suspect.num_same else "both eyes were seen in it"
        return dataclasses.replace(sight, note=f"{off}, kept because {why}")
    if best is not None:
        return _moved(sight, best, f"{off}, found again in frame {number}, though faintly")
    middle = face_in_square(usual, sight.face.source)
    return _moved(sight, middle, f"{off}, replaced by their median")


def _newly_found(sight: Sight, face: Face | None, where: str) -> Sight:
    if face is None or face.certainty == 0:
        return sight
    note = f"{NOTE}found {where}: {_short(sight.problem.removeprefix(f'{sight.id}, '))}"
    return dataclasses.replace(sight, face=face, problem="", note=note)


def _moved(sight: Sight, face: Face, note: str) -> Sight:
    return dataclasses.replace(sight, face=face, before=sight.face, note=note)


def _usual_of_clip(candidates: Mapping[int, Sequence[Face]]) -> np.ndarray | None:
    """Return the usual square of the faces with eyes in some frames of one clip, or None."""
    squares = []
    for faces in candidates.values():
        sure = [face for face in faces if face.certainty >= _CONFIRMED]
        squares += [square_of(sure[0])] if sure else []
    return usual_square(np.array(squares).reshape(-1, 3))[0]


def _setups(sights: Sequence[Sight]) -> dict[tuple[str, int, int], list[Sight]]:
    out: dict[tuple[str, int, int], list[Sight]] = {}
    for sight in sights:
        out.setdefault(sight.setup, []).append(sight)
    return out


def _short(problem: str) -> str:
    """Return the first sentence of a problem, so that a remark stays one part of the notes."""
    return problem.partition(". ")[0].rstrip(".").replace(";", ",")
