"""From rows of a spreadsheet and folders of frames to the table of clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mexjax.data import manifest
from mexjax.errors import DataError
from mexjax.prepare.sources import counts
from mexjax.prepare.sources.base import Frame, Reading
from mexjax.prepare.sources.drafts import Draft, number_repeats, unite_subjects
from mexjax.prepare.sources.folders import Folders, check_inside, check_part, is_clip
from mexjax.prepare.sources.sheets import as_number, as_text
from mexjax.protocol.action_units import ParsedAus, parse_aus
from mexjax.protocol.classes import canonical_emotion

NO_APEX = "no annotated apex: midpoint"
SHORT_FRAMES = 8  # below what most models sample
_MAX_GUESSED_HOMES = 300


@dataclasses.dataclass
class _Range:
    """Annotated frames of a clip; None where the cell is empty or cannot be read."""

    onset: int | None
    apex: int | None
    offset: int | None

    @property
    def is_usable(self) -> bool:
        return self.onset is not None and self.offset is not None and self.onset <= self.offset

    @property
    def length(self) -> int:
        return self.offset - self.onset + 1


def finish(
    dataset: str,
    fps: float,
    drafts: list[Draft],
    problems: list[str],
    *,
    root: Path,
    homes: Sequence[str] = (),
    is_trimmed: bool = False,
    paths: Sequence[Path | None] | None = None,
    folders: Folders | None = None,
) -> Reading:
    """Find the frames, settle key frames, units and emotions, and make the table.

    Args:
      dataset: name for the table.
      fps: of clips that do not say their own.
      drafts: rows, after `correct` has been applied.
      problems: what was met so far; lines are added.
      root: folder of the dataset.
      homes: sub-folders of `root` below which the release keeps its clips, in order of preference.
      is_trimmed: each folder holds the frames of one clip and no others, so that its files can
        tell a range that the spreadsheet has wrong.
      paths: folder (or video) of each draft where it is known already.
      folders: listings to share.
    """
    folders = folders or Folders()
    unite_subjects(drafts, problems)
    number_repeats(drafts, problems)
    if paths is None:
        paths = locate(root, homes, drafts, folders)
    rows = []
    for draft, path in zip(drafts, paths, strict=True):
        if path is not None:
            check_inside(path, [root, *(root / home for home in homes)], draft.name)
        row = _row(dataset, fps, draft, path, root, is_trimmed, folders, problems)
        if row is not None:
            rows.append(row)
    table = manifest.make_table(rows, manifest.BASE | manifest.READING)
    short = table[table["n_frames"] < SHORT_FRAMES]
    if len(short):
        names = [f"{s}/{c}" for s, c in zip(short["subject"], short["clip"], strict=True)]
        problems.append(
            f"Clips of fewer than {SHORT_FRAMES} frames ({len(short)}): {', '.join(names)}."
        )
    problems += counts.check_counts(table)
    return Reading(table, tuple(problems))


def locate(
    root: Path, homes: Sequence[str], drafts: Sequence[Draft], folders: Folders
) -> list[Path | None]:
    """The folder of each draft, all below one home, so that raw and cropped are never mixed.

    The first home with at least half of the clips is taken, else the one with most of them.
    """
    for draft in drafts:
        for part in (part for place in draft.places for part in place):
            check_part(part.removesuffix("*"), f"Row {draft.index} of the spreadsheet")
    bases = [folders.descend(root, home.split("/")) for home in homes] + [root]
    best = _best([base for base in bases if base is not None], drafts, folders)
    if not any(best):
        # The release unpacked under another name: look one and two folders down.
        first = folders.subfolders(root)
        second = [
            sub for folder in first[:_MAX_GUESSED_HOMES] for sub in folders.subfolders(folder)
        ]
        best = _best([*first, *second][:_MAX_GUESSED_HOMES], drafts, folders)
    return best or [None] * len(drafts)


def _best(bases: Sequence[Path], drafts: Sequence[Draft], folders: Folders) -> list[Path | None]:
    best: list[Path | None] = [None] * len(drafts)
    for base in bases:
        paths = [_place(base, draft, folders) for draft in drafts]
        found = sum(path is not None for path in paths)
        if 2 * found >= len(drafts) > 0:
            return paths
        if found > sum(path is not None for path in best):
            best = paths
    return best


def _place(base: Path, draft: Draft, folders: Folders) -> Path | None:
    """The first place of a clip that has frames, else the first that exists."""
    existing = [folders.descend(base, place) for place in draft.places]
    existing = [path for path in existing if path is not None and is_clip(path)]
    for path in existing:
        try:
            if folders.frames(path):
                return path
        except DataError:
            return path  # to be said where the row is made
    return existing[0] if existing else None


def _row(
    dataset: str,
    fps: float,
    draft: Draft,
    path: Path | None,
    root: Path,
    is_trimmed: bool,
    folders: Folders,
    problems: list[str],
) -> dict[str, Any] | None:
    """One row of the table; None (and a problem) where not even a range of frames is known."""
    frames: list[Frame] = []
    if path is not None:
        try:
            frames = folders.frames(path)
            if not frames:
                problems.append(f"{draft.name}: {path} holds no images.")
        except DataError as error:
            problems.append(f"{draft.name}: {error}")
    elif draft.places:
        shown = " or ".join("/".join(place) for place in draft.places[:3])
        problems.append(f"{draft.name}: no frame folder; expected {shown} below {root}.")
    when = _Range(*(_number(draft, field, problems) for field in ("onset", "apex", "offset")))
    numbers = [frame.number for frame in frames]
    if is_trimmed and numbers:
        _fit_to_files(draft, when, numbers, problems)
    if when.onset is None or when.offset is None:
        problems.append(f"{draft.name}: no onset or no offset, left out.")
        return None
    if not when.is_usable:
        problems.append(
            f"{draft.name}: the offset {when.offset} is before the onset {when.onset}, so the clip"
            " has no frames. Correct the row."
        )
    _fill_apex(draft, when, problems)
    present = [number for number in numbers if when.onset <= number <= when.offset]
    missing = max(0, when.length - len(present))
    if numbers:
        _report_files(draft, when, numbers, present, is_trimmed, problems)
    aus = _units(draft, problems)
    return {
        "dataset": dataset,
        "subject": f"{dataset}/{draft.subject}",
        "clip": draft.clip,
        "onset": when.onset,
        "apex": when.apex,
        "offset": when.offset,
        "fps": fps if draft.fps is None else draft.fps,
        "n_frames": when.length,
        "emotion": _emotion(draft, problems),
        "au": as_text(draft.cells["au"]),
        "aus": [str(au) for au in aus.present],
        "aus_unsure": [str(au) for au in aus.unsure],
        "landmark_source": "",
        "notes": "; ".join(draft.notes),
        "frame_folder": path.relative_to(root).as_posix() if present else "",
        "num_missing_frames": missing,
    }


def _number(draft: Draft, field: str, problems: list[str]) -> int | None:
    try:
        return as_number(draft.cells[field])
    except DataError as error:
        problems.append(f"{draft.name}: {field}: {error}")
        return None


def _fit_to_files(draft: Draft, when: _Range, numbers: Sequence[int], problems: list[str]) -> None:
    """Correct a range that contradicts the files of a folder that holds this clip alone."""
    first, last = numbers[0], numbers[-1]
    said = " to ".join("(none)" if n is None else str(n) for n in (when.onset, when.offset))
    if when.is_usable:
        if len(numbers) == when.length == last - first + 1 and first != when.onset:
            # Annotated in the numbering of the whole video (met in copies of MMEW) or the reverse.
            shift = first - when.onset
            when.onset, when.offset = first, last
            when.apex = None if when.apex is None else when.apex + shift
            note = f"frame numbers moved by {shift:+d}: the files are {first} to {last}, not {said}"
        elif any(when.onset <= number <= when.offset for number in numbers):
            return
        else:
            when.onset, when.offset = first, last
            note = f"range taken from the files, {first} to {last}: the spreadsheet has {said}"
    else:
        if when.onset is None or not first <= when.onset <= last:
            when.onset = first
        when.offset = last
        note = f"range taken from the files, {first} to {last}: the spreadsheet has {said}"
    draft.notes.append(note)
    problems.append(f"{draft.name}: {note}.")


def _fill_apex(draft: Draft, when: _Range, problems: list[str]) -> None:
    """A missing apex, or one outside of the clip, becomes floor((onset + offset) / 2)."""
    middle = (when.onset + when.offset) // 2
    if when.apex is None:
        draft.notes.append(NO_APEX)
        when.apex = middle
    elif when.is_usable and not when.onset <= when.apex <= when.offset:
        note = f"annotated apex {when.apex} is outside of {when.onset} to {when.offset}: midpoint"
        draft.notes.append(note)
        problems.append(f"{draft.name}: {note} {middle}.")
        when.apex = middle


def _report_files(
    draft: Draft,
    when: _Range,
    numbers: Sequence[int],
    present: Sequence[int],
    is_trimmed: bool,
    problems: list[str],
) -> None:
    said = f"{when.onset} to {when.offset}"
    if not present and when.is_usable:
        problems.append(
            f"{draft.name}: its folder has none of the frames {said}; it has {len(numbers)}, from"
            f" {numbers[0]} to {numbers[-1]}."
        )
    elif when.is_usable and len(present) < when.length:
        absent = when.length - len(present)
        have = set(present)
        some = [n for n in range(when.onset, min(when.offset, when.onset + 100_000) + 1)]
        some = [n for n in some if n not in have][:8]
        shown = ", ".join(map(str, some)) + (", ..." if absent > len(some) else "")
        problems.append(f"{draft.name}: {absent} of {when.length} frames are missing: {shown}.")
    if is_trimmed and present and len(numbers) > len(present):
        problems.append(
            f"{draft.name}: {len(numbers) - len(present)} images are outside of {said} and unused."
        )


def _units(draft: Draft, problems: list[str]) -> ParsedAus:
    """Units of the row; none (and a problem) where the cell cannot be read, as with "12 or 14"."""
    try:
        return parse_aus(draft.cells["au"])
    except DataError as error:
        problems.append(f"{draft.name}: {error} The clip has no units until the cell is corrected.")
        draft.notes.append("action units could not be read")
        return ParsedAus()


def _emotion(draft: Draft, problems: list[str]) -> str:
    """The emotion, lower case and in one spelling; compounds (4DME) stay joined by "+"."""
    cell = draft.cells["emotion"]
    parts = [canonical_emotion(part) for part in as_text(cell).split("+") if part.strip()]
    if not parts and cell is not None:
        problems.append(f"{draft.name}: no emotion.")
    return "+".join(parts)
