"""The reader `csv` of a user's own clips, by a table, and what it shares with `folder`.

Clips are folders of images or video files. The frames of a video are numbered from 0.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mexjax.errors import DataError, listed
from mexjax.prepare.sources import search
from mexjax.prepare.sources.base import Frame, Reading, Source
from mexjax.prepare.sources.clips import finish
from mexjax.prepare.sources.drafts import Draft, make_drafts, report_words
from mexjax.prepare.sources.folders import (
    VIDEO_SUFFIXES,
    Folders,
    check_relative,
    frames_of,
    is_clip,
    is_video,
    video_clock,
)
from mexjax.prepare.sources.losses import Loss
from mexjax.prepare.sources.sheet_source import check_root
from mexjax.prepare.sources.sheets import Form, as_real, as_text, numbered, row_name
from mexjax.prepare.sources.unread_columns import lines_of_unread_columns

DEFAULT_FPS = 30.0  # that of a webcam, used where neither the table nor the video says
UNKNOWN_SUBJECT = "unknown"
_MAX_PLACES = 5000  # folders that are looked through for clips that no row names
_MAX_EXAMPLES = 5

FIELDS = {
    "subject": ("subject", "sub", "subject id", "person", "participant"),
    "clip": ("clip", "filename", "file name", "material", "video", "name"),
    "path": ("path", "folder", "file", "frame folder"),
    "onset": ("onset", "onset frame", "onsetf"),
    "apex": ("apex", "apex frame", "apexf", "apexf1"),
    "offset": ("offset", "offset frame", "offsetf"),
    "emotion": ("emotion", "estimated emotion", "label", "class"),
    "au": ("au", "aus", "action units"),
    "fps": ("fps", "frame rate", "frames per second"),
}
ALL_FIELDS = frozenset(FIELDS)


class OwnTable:
    """The source `csv`: a table (.csv or .xlsx) of clips.

    Columns, whose headers may differ in case, blanks and punctuation: subject and one of clip and
    path are needed; onset, apex, offset, emotion, au and fps are not. `path` is relative to the
    root and leads to a folder of images or a video; without it the clip is looked for as
    {subject}/{clip} and as {clip}. Without onset and offset a clip is all its frames. Action units
    are a text such as 4+7 in the column au, or 0 and 1 in columns AU1, AU2 and so on.
    """

    name = "csv"
    title = "your table"
    fps = math.nan
    form = Form(files=(), fields=FIELDS, optional=ALL_FIELDS - {"subject"})

    def read(self, root: Path, *, spreadsheet: Path | None = None) -> Reading:
        """Read the release; see `Source.read`."""
        root = check_root(root, self.title)
        sheet, problems = search.get(root, spreadsheet, self.form, self.title, is_beside=False)
        cells = sheet.cells.copy()
        problems += lines_of_unread_columns(cells, FIELDS, sheet.path.name)
        if not {"clip", "path"} & set(cells.columns):
            raise DataError(
                f"{sheet.path} has neither a column clip nor a column path; it has"
                f" {', '.join(map(str, cells.columns))}."
            )
        if "path" not in cells:
            cells["path"] = ""
        texts = {number: as_text(row["path"]) for number, row in numbered(cells).items()}
        places = {
            number: check_relative(text, f"{row_name(number).capitalize()} of {sheet.path.name}")
            for number, text in texts.items()
            if text
        }
        # A clip without a name is called as its folder or video.
        stems = {number: Path(parts[-1]) for number, parts in places.items()}
        named = cells["clip"].map(as_text) if "clip" in cells else cells["path"].map(lambda _: "")
        cells["clip"] = [
            text or stem(stems.get(number)) for number, text in zip(cells.index, named, strict=True)
        ]
        gather_units(cells, problems)
        folders = Folders()
        drafts = make_drafts(cells, problems)
        paths = [_find(root, draft, places.get(draft.index), folders, problems) for draft in drafts]
        rows = numbered(cells)
        for draft, path in zip(drafts, paths, strict=True):
            complete(draft, path, rows[draft.index], folders, problems)
        reading = finish_own(self, drafts, problems, root, paths, folders)
        unlisted = _unlisted(root, paths, sheet.path.name, folders)
        return dataclasses.replace(reading, problems=(*reading.problems, *unlisted))

    def frames(self, root: Path, row: Mapping[str, Any]) -> list[Frame]:
        """List the frames of a row; see `Source.frames`."""
        return frames_of(Path(root), row)


def gather_units(cells: pd.DataFrame, problems: list[str]) -> None:
    """Write the text of units from columns AU1, AU2, ... of 0 and 1; in place.

    A column `au` counts before them. Where a cell is neither 0 nor 1, the units are unknown.
    """
    columns = {
        int(match[1]): name
        for name in cells.columns
        if (match := re.fullmatch("au0*([1-9][0-9]?)", str(name)))
    }
    if not columns or "au" in cells:
        return
    texts = []
    for number, row in numbered(cells).items():
        values = {unit: _flag(row[name]) for unit, name in columns.items()}
        others = [f"AU{unit} {text!r}" for unit, text in values.items() if text not in ("0", "1")]
        if others and any(values.values()):
            problems.append(
                f"{row_name(number)}: expected 0 or 1 in the columns of action units, found"
                f" {', '.join(others[:3])}; its units are unknown, and protocol.task=au leaves the"
                " clip out."
            )
        present = [str(unit) for unit, text in sorted(values.items()) if text == "1"]
        texts.append("" if others else "+".join(present) or "0")
    cells["au"] = texts
    units = ", ".join(f"AU{unit}" for unit in sorted(columns))
    problems.append(
        f"Action units were read from the columns {units}. Any other unit counts as absent, so"
        " train no other with protocol.units."
    )


def _flag(cell: object) -> str:
    """Return "0" and "1" also for 0.0 and 1.0, TRUE and FALSE, and any other text as it is."""
    text, value = as_text(cell), as_real(cell)
    text = {"true": "1", "false": "0"}.get(text.casefold(), text)
    return str(int(value)) if value in (0, 1) else text


def _find(
    root: Path,
    draft: Draft,
    parts: tuple[str, ...] | None,
    folders: Folders,
    problems: list[str],
) -> Path | None:
    """Find a clip where the table says, or where its name says, and tell of several such places."""
    if parts is not None:
        draft.places = (parts,)
    else:
        names = [draft.clip, *(draft.clip + suffix for suffix in VIDEO_SUFFIXES)]
        draft.places = (*((draft.subject, name) for name in names), *((name,) for name in names))
    places = [folders.descend(root, place) for place in draft.places]
    paths = [path for path in dict.fromkeys(places) if path is not None and is_clip(path)]
    if len(paths) > 1:
        names = [path.relative_to(root).as_posix() for path in paths]
        problems.append(
            f"{draft.name}: its frames may be {listed(names)}; {names[0]} was read. A column path"
            " in the table says which."
        )
    return paths[0] if paths else None


def _unlisted(root: Path, paths: Sequence[Path | None], table: str, folders: Folders) -> list[Loss]:
    """Tell of clips that lie as those of the table do, and that no row names."""
    used = {path for path in paths if path is not None and path.is_relative_to(root)}
    above = {parent for path in used for parent in path.parents}
    others: list[Path] = []
    for depth in sorted({len(path.relative_to(root).parts) for path in used}):
        places = [root]
        for _ in range(depth - 1):
            places = [sub for place in places for sub in folders.subfolders(place)]
            if len(places) > _MAX_PLACES:
                return []  # the root holds more than clips
        clips = [path for place in places for path in folders.clips(place)]
        others += [path for path in clips if path not in used and path not in above]
    others = [path for path in others if is_video(path) or folders.has_images(path)]
    if not others:
        return []
    names = [path.relative_to(root).as_posix() for path in others]
    line = (
        f"{len(names)} clips below {root} are in no row of {table} and left out:"
        f" {listed(names, _MAX_EXAMPLES)}. Add rows for them if they belong to it."
    )
    return [Loss(line, "clips that are in no row of the table", len(names))]


def complete(
    draft: Draft,
    path: Path | None,
    row: Mapping[str, object],
    folders: Folders,
    problems: list[str],
) -> None:
    """Fill in what the table leaves open: first and last frame, frames per second."""
    # Headers of videos guess; a last frame that nobody annotated must be one that exists.
    is_counted = not as_text(draft.cells["offset"])
    fps, is_variable = math.nan, False
    try:
        frames = folders.frames(path, is_counted=is_counted) if path is not None else []
        numbers = [frame.number for frame in frames]
        if path is not None and is_video(path):
            fps, is_variable = video_clock(path, is_counted=is_counted)
    except DataError:
        numbers = []  # reported where the clip is made
    for field, place in (("onset", 0), ("offset", -1)):
        if numbers and not as_text(draft.cells[field]):
            draft.cells[field] = numbers[place]
    text = as_text(row.get("fps"))
    if is_variable and not text:
        draft.notes.append("variable frame rate: fps is a mean")
    draft.fps = as_real(text) if text else fps
    if not 0 < draft.fps < 1e5:
        if text:
            problems.append(f"{draft.name}: {text!r} is no number of frames per second.")
        draft.fps = DEFAULT_FPS
        draft.notes.append(f"frames per second unknown: {DEFAULT_FPS:g} assumed")


def finish_own(
    source: Source,
    drafts: list[Draft],
    problems: list[str],
    root: Path,
    paths: list[Path | None],
    folders: Folders,
) -> Reading:
    """Report what was assumed of clips and how emotions were read, and make the table."""
    report_words(drafts, problems)
    assumed = sum(any("assumed" in note for note in draft.notes) for draft in drafts)
    if assumed:
        problems.append(
            f"The frames per second of {assumed} of {len(drafts)} clips are unknown and taken as"
            f" {DEFAULT_FPS:g}; a column fps in the table sets them."
        )
    return finish(source, drafts, problems, root=root, paths=paths, folders=folders)


def stem(path: Path | None) -> str:
    """Make the name of a clip from that of its folder or video."""
    if path is None:
        return ""
    return path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name
