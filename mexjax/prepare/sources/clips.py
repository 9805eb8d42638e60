"""The table of clips, made from rows of a spreadsheet and folders of frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mexjax.data import manifest
from mexjax.errors import DataError, listed
from mexjax.prepare.sources import counts
from mexjax.prepare.sources.base import Frame, Reading, Source
from mexjax.prepare.sources.drafts import (
    Draft,
    number_repeats,
    place_name,
    report_spellings,
    report_uncoded,
    report_units,
    unite_subjects,
)
from mexjax.prepare.sources.folders import (
    Folders,
    check_inside,
    check_part,
    contents,
    is_clip,
    not_found,
)
from mexjax.prepare.sources.losses import Loss, Risk
from mexjax.prepare.sources.sheets import NOTHING, as_number, as_text
from mexjax.protocol.action_units import ParsedAus, parse_aus
from mexjax.protocol.classes import canonical_emotion
from mexjax.protocol.names import tidy, writable

NO_APEX = "no annotated apex: midpoint"
SHORT_FRAMES = 8  # most models sample at least so many
_MAX_GUESSED_HOMES = 300
_MAX_NAMES, _MAX_LINES = 5, 20  # of clips with the same frames


@dataclasses.dataclass(frozen=True)
class _Range:
    """Frames of a clip, both ends counted; it is not usable where the offset comes first."""

    onset: int
    apex: int | None
    offset: int

    @property
    def is_usable(self) -> bool:
        return self.onset <= self.offset

    @property
    def length(self) -> int:
        return self.offset - self.onset + 1


@dataclasses.dataclass(frozen=True)
class _Annotation:
    """Frame numbers of a row; None where the cell is empty or cannot be read."""

    onset: int | None
    apex: int | None
    offset: int | None

    def as_range(self) -> _Range | None:
        if self.onset is None or self.offset is None:
            return None
        return _Range(self.onset, self.apex, self.offset)


def finish(
    source: Source,
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
      source: the reader; its `fps` is that of clips that do not say their own.
      drafts: rows, after `correct` has been applied.
      problems: lines about the rows so far; more are added.
      root: folder of the dataset.
      homes: sub-folders of `root` below which the release keeps its clips, in order of preference.
      is_trimmed: each folder holds the frames of one clip and no others, so that its files can
        tell a range that the spreadsheet has wrong.
      paths: folder (or video) of each draft, where it is known already.
      folders: listings that are shared.
    """
    folders = folders or Folders()
    report_spellings(drafts, problems)
    report_uncoded(drafts, problems)
    unite_subjects(drafts, problems)
    number_repeats(drafts, problems)
    if paths is None:
        paths = locate(root, homes, drafts, folders)
    rows = []
    for draft, path in zip(drafts, paths, strict=True):
        if path is not None:
            check_inside(path, [root, *(root / home for home in homes)], draft.name)
        row = _row(source, draft, path, root, is_trimmed, folders, problems)
        if row is not None:
            rows.append(row)
    table = manifest.make_table(rows, manifest.BASE | manifest.READING)
    short = table[table["n_frames"] < SHORT_FRAMES]
    if len(short):
        names = [f"{s}/{c}" for s, c in zip(short["subject"], short["clip"], strict=True)]
        problems.append(
            f"Clips of fewer than {SHORT_FRAMES} frames ({len(short)}): {', '.join(names)}."
        )
    problems += map(Risk, folders.alike())
    problems += _shared_frames(table)
    report_units(drafts, problems)
    problems += counts.check_counts(table)
    return Reading(table, tuple(problems))


def _shared_frames(table: pd.DataFrame) -> list[str]:
    """Write a line for frames that are several clips, because rows call them differently."""
    lines = []
    present = table[table["frame_folder"] != ""]
    for _, rows in present.groupby(["frame_folder", "onset", "offset"]):
        if len(rows) == 1:
            continue
        folder, onset, offset = (
            next(iter(rows[name])) for name in ("frame_folder", "onset", "offset")
        )
        names = [f"{s}/{c}" for s, c in zip(rows["subject"], rows["clip"], strict=True)]
        faults = [
            fault
            for column, fault in (
                ("subject", " They are of several subjects, so splits test on what they train on."),
                ("emotion", " Their emotions differ."),
            )
            if len(set(rows[column])) > 1
        ]
        line = (
            f"{len(names)} clips have the same frames ({folder}, {onset} to {offset}):"
            f" {listed(names, _MAX_NAMES)}.{''.join(faults)} Leave one row for them."
        )
        lines.append(Risk(line) if faults else line)
    if len(lines) > _MAX_LINES:
        lines[_MAX_LINES:] = [f"{len(lines) - _MAX_LINES} more groups of clips share their frames."]
    return lines


def locate(
    root: Path, homes: Sequence[str], drafts: Sequence[Draft], folders: Folders
) -> list[Path | None]:
    """Find the folder of each draft, all below one home, so that raw and cropped never mix.

    The first home with at least half of the clips is taken, else the one with most of them.
    """
    for draft in drafts:
        for part in (part for place in draft.places for part in place):
            check_part(part.removesuffix("*"), place_name(draft.index, draft.origin))
    bases = [folders.descend(root, home.split("/")) for home in homes] + [root]
    best = _best([base for base in bases if base is not None], drafts, folders)
    if not any(best):
        # The release may be unpacked under another name: look one and two folders down.
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
        count = sum(path is not None for path in paths)
        if 2 * count >= len(drafts) > 0:
            return paths
        if count > sum(path is not None for path in best):
            best = paths
    return best


def _place(base: Path, draft: Draft, folders: Folders) -> Path | None:
    """Return the first place of a clip that has frames, else the first that exists."""
    existing = [folders.descend(base, place) for place in draft.places]
    existing = [path for path in existing if path is not None and is_clip(path)]
    for path in existing:
        try:
            if folders.frames(path):
                return path
        except DataError:
            return path  # the problem is reported where the row is made
    return existing[0] if existing else None


def _row(
    source: Source,
    draft: Draft,
    path: Path | None,
    root: Path,
    is_trimmed: bool,
    folders: Folders,
    problems: list[str],
) -> dict[str, Any] | None:
    """Make a row of the table; None (and a problem) where not even a range of frames is known."""
    annotation = _Annotation(
        *(_number(draft, field, problems) for field in ("onset", "apex", "offset"))
    )
    frames: list[Frame] = []
    fault = ""
    if path is not None:
        # The header of a video guesses; a last frame that nobody annotated must be one that exists.
        is_counted = annotation.offset is None
        try:
            frames = folders.frames(path, is_counted=is_counted)
        except DataError as error:
            fault = str(error)
        problems += [f"{draft.name}: {remark}." for remark in folders.take_remarks(path)]
        if not frames and not fault:
            fault = f"{path} {contents(path)}."
    elif draft.places:
        fault = not_found(draft.places, root)
    numbers = [frame.number for frame in frames]
    if is_trimmed and numbers:
        when = _fit_to_files(draft, annotation, numbers, problems)
    else:
        when = annotation.as_range()
    if when is None:
        why = f": {fault}" if fault else "."
        line = f"{draft.name}: no onset or no offset, left out{why}"
        problems.append(Loss(line, "rows without a range of frames"))
        return None
    if fault:
        problems.append(f"{draft.name}: {fault}")
    if not when.is_usable:
        problems.append(
            f"{draft.name}: the offset {when.offset} is before the onset {when.onset}, so the clip"
            " has no frames. Correct the row."
        )
    apex = _apex(draft, when, problems)
    present = [number for number in numbers if when.onset <= number <= when.offset]
    missing = max(0, when.length - len(present))
    if numbers:
        _report_files(draft, when, numbers, present, is_trimmed, problems)
    aus = _units(draft, problems)
    return {
        "dataset": source.name,
        "subject": f"{source.name}/{draft.subject}",
        "clip": draft.clip,
        "onset": when.onset,
        "apex": apex,
        "offset": when.offset,
        "fps": source.fps if draft.fps is None else draft.fps,
        "n_frames": when.length,
        "emotion": _emotion(draft, problems),
        "au": as_text(draft.cells["au"]),
        "aus": [str(au) for au in aus.present],
        "aus_unsure": [str(au) for au in aus.unsure],
        "landmark_source": "",
        "notes": "; ".join(draft.notes),
        "frame_folder": (
            writable(path.relative_to(root).as_posix()) if path is not None and present else ""
        ),
        "num_missing_frames": missing,
    }


def _number(draft: Draft, field: str, problems: list[str]) -> int | None:
    try:
        return as_number(draft.cells[field])
    except DataError as error:
        problems.append(f"{draft.name}: {field}: {error}")
        return None


def _fit_to_files(
    draft: Draft, annotation: _Annotation, numbers: Sequence[int], problems: list[str]
) -> _Range:
    """Correct a range that contradicts the files of a folder that holds this clip alone."""
    first, last = numbers[0], numbers[-1]
    ends = (annotation.onset, annotation.offset)
    sheet = " to ".join("(none)" if n is None else str(n) for n in ends)
    note = f"range taken from the files, {first} to {last}: the spreadsheet has {sheet}"
    when = annotation.as_range()
    if when is not None and when.is_usable:
        if len(numbers) == when.length == last - first + 1 and first != when.onset:
            # The row counts in the whole video (met in copies of MMEW), or the files do.
            shift = first - when.onset
            when = _Range(first, None if when.apex is None else when.apex + shift, last)
            note = (
                f"frame numbers moved by {shift:+d}: the files are {first} to {last}, not {sheet}"
            )
        elif any(when.onset <= number <= when.offset for number in numbers):
            return when
        else:
            when = _Range(first, when.apex, last)
    else:
        onset = annotation.onset
        if onset is None or not first <= onset <= last:
            onset = first
        when = _Range(onset, annotation.apex, last)
    draft.notes.append(note)
    problems.append(f"{draft.name}: {note}.")
    return when


def _apex(draft: Draft, when: _Range, problems: list[str]) -> int:
    """Return the apex; floor((onset + offset) / 2) where it is missing or outside of the clip."""
    middle = (when.onset + when.offset) // 2
    if when.apex is None:
        draft.notes.append(NO_APEX)
        return middle
    if when.is_usable and not when.onset <= when.apex <= when.offset:
        note = f"annotated apex {when.apex} is outside of {when.onset} to {when.offset}: midpoint"
        draft.notes.append(note)
        problems.append(f"{draft.name}: {note} {middle}.")
        return middle
    return when.apex


def _report_files(
    draft: Draft,
    when: _Range,
    numbers: Sequence[int],
    present: Sequence[int],
    is_trimmed: bool,
    problems: list[str],
) -> None:
    span = f"{when.onset} to {when.offset}"
    if not present and when.is_usable:
        problems.append(
            f"{draft.name}: its folder has none of the frames {span}; it has {len(numbers)}, from"
            f" {numbers[0]} to {numbers[-1]}."
        )
    elif when.is_usable and len(present) < when.length:
        absent = when.length - len(present)
        have = set(present)
        some = [n for n in range(when.onset, min(when.offset, when.onset + 100_000) + 1)]
        some = [n for n in some if n not in have][:8]
        text = ", ".join(map(str, some)) + (", ..." if absent > len(some) else "")
        problems.append(f"{draft.name}: {absent} of {when.length} frames are missing: {text}.")
    if is_trimmed and present and len(numbers) > len(present):
        problems.append(
            f"{draft.name}: {len(numbers) - len(present)} images are outside of {span} and unused."
        )


def _units(draft: Draft, problems: list[str]) -> ParsedAus:
    """Read the units of the row; none (and a problem) where the cell is such as "12 or 14"."""
    try:
        return parse_aus(draft.cells["au"])
    except DataError as error:
        if draft.doubtful:
            names = ", ".join(map(str, draft.doubtful))
            problems.append(
                f"{draft.name}: the action units {as_text(draft.cells['au'])!r} are doubtful. CD6ME"
                f" counts {names}, and so does protocol.is_unsure_present; without it"
                " protocol.task=au leaves the clip out."
            )
            draft.notes.append(f"alternative units: {names} are doubtful, as CD6ME has it")
            return ParsedAus(unsure=draft.doubtful)
        problems.append(
            Loss(
                f"{draft.name}: {error} Until the cell is corrected its units are unknown, and"
                " protocol.task=au leaves the clip out.",
                "clips whose action units cannot be read",
            )
        )
        draft.notes.append("action units could not be read")
        return ParsedAus()


def _emotion(draft: Draft, problems: list[str]) -> str:
    """Read the emotion, lower case and in one spelling; compounds (4DME) stay joined by "+"."""
    cell = draft.cells["emotion"]
    text = tidy(as_text(cell))
    parts = [canonical_emotion(part) for part in text.split("+") if text.casefold() not in NOTHING]
    parts = [part for part in parts if part]
    if not parts and cell is not None:
        problems.append(f"{draft.name}: no emotion.")
    return "+".join(parts)
