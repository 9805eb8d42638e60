"""Readers of a user's own clips: a folder a class (`folder`), or a table of the clips (`csv`).

Clips are folders of images or video files. The frames of a video are numbered from 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mexjax.errors import DataError
from mexjax.prepare.sources import search
from mexjax.prepare.sources.base import Frame, Reading, Source
from mexjax.prepare.sources.clips import finish
from mexjax.prepare.sources.drafts import Draft, make_drafts
from mexjax.prepare.sources.folders import (
    VIDEO_SUFFIXES,
    Folders,
    check_part,
    check_relative,
    frames_of,
    is_clip,
    video_fps,
)
from mexjax.prepare.sources.losses import Loss
from mexjax.prepare.sources.sheet_source import check_root
from mexjax.prepare.sources.sheets import (
    Form,
    Sheet,
    as_real,
    as_text,
    numbered,
    row_name,
)
from mexjax.protocol.classes import canonical_emotion
from mexjax.protocol.names import fold, tidy

DEFAULT_FPS = 30.0  # that of a webcam, used where neither the table nor the video says
UNKNOWN_SUBJECT = "unknown"

_FIELDS = {
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
_ALL = frozenset(_FIELDS)


class OwnTable:
    """The source `csv`: a table (.csv or .xlsx) of clips.

    Columns, whose headers may differ in case, blanks and punctuation: subject and one of clip and
    path are needed; onset, apex, offset, emotion, au and fps are not. `path` is relative to the
    root and leads to a folder of images or a video; without it the clip is looked for as
    {subject}/{clip} and as {clip}. Without onset and offset a clip is all its frames.
    """

    name = "csv"
    title = "your table"
    fps = math.nan
    form = Form(files=(), fields=_FIELDS, optional=_ALL - {"subject"})

    def read(self, root: Path, *, spreadsheet: Path | None = None) -> Reading:
        """Read the release; see `Source.read`."""
        root = check_root(root, self.title)
        sheet, problems = search.get(root, spreadsheet, self.form, self.title, is_beside=False)
        cells = sheet.cells.copy()
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
            text or _stem(stems.get(number))
            for number, text in zip(cells.index, named, strict=True)
        ]
        folders = Folders()
        drafts = make_drafts(cells, problems)
        paths = [_find(root, draft, places.get(draft.index), folders) for draft in drafts]
        rows = numbered(cells)
        for draft, path in zip(drafts, paths, strict=True):
            _complete(draft, path, rows[draft.index], folders, problems)
        return _finish(self, drafts, problems, root, paths, folders)

    def frames(self, root: Path, row: Mapping[str, Any]) -> list[Frame]:
        """List the frames of a row; see `Source.frames`."""
        return frames_of(Path(root), row)


class ClassFolders:
    """The source `folder`: {emotion}/{clip}, the clip being a folder of images or a video.

    A table (.csv or .xlsx) in the root may add, by clip: subject, onset, apex, offset, au, fps.
    Where a name occurs in several classes, the table writes {emotion}/{clip} or has a column
    emotion.
    Without subjects all clips are those of one unknown person, because names that are guessed
    could put one person on both sides of a split.
    """

    name = "folder"
    title = "folders of classes"
    fps = math.nan
    form = Form(files=(), fields=_FIELDS, optional=_ALL - {"clip"})

    def read(self, root: Path, *, spreadsheet: Path | None = None) -> Reading:
        """Read the folders, and the table if there is one."""
        root = check_root(root, self.title)
        if spreadsheet is not None:
            sheet, problems = search.get(root, spreadsheet, self.form, self.title)
        else:
            sheet, problems = search.find(root, self.form, self.title, is_beside=False)
        folders = Folders()
        classes = {emotion: folders.clips(emotion) for emotion in folders.subfolders(root)}
        rows = _rows_by_clip(sheet, classes, problems)
        drafts: list[Draft] = []
        paths: list[Path | None] = []
        for emotion, clips in classes.items():
            if not clips:
                problems.append(
                    f"{emotion}: no clips in this folder; expected folders of images, or videos."
                )
            for path in clips:
                clip = _stem(path)
                number, row = rows.pop((emotion.name, fold(clip)), (0, {}))
                draft = _draft(number, clip, row)
                draft.cells["emotion"] = emotion.name
                _complete(draft, path, row, folders, problems)
                drafts.append(draft)
                paths.append(path)
        for number, row in rows.values():
            emotion_name, clip = _emotion_and_clip(row)
            draft = _draft(number, clip, row)
            draft.places = ((emotion_name or "*", clip),)
            _complete(draft, None, row, folders, problems)
            drafts.append(draft)
            paths.append(None)
        if not drafts:
            raise DataError(
                f"No clips in {root}. Expected a folder for each emotion, and in it a folder of"
                f" images or a video ({', '.join(VIDEO_SUFFIXES)}) for each clip."
            )
        unknown = sum(draft.subject == UNKNOWN_SUBJECT for draft in drafts)
        if unknown:
            problems.append(
                f"The subjects of {unknown} of {len(drafts)} clips are unknown; splits by subject"
                " need a table with the columns clip and subject in the root."
            )
        return _finish(self, drafts, problems, root, paths, folders)

    def frames(self, root: Path, row: Mapping[str, Any]) -> list[Frame]:
        """List the frames of a row; see `Source.frames`."""
        return frames_of(Path(root), row)


def _rows_by_clip(
    sheet: Sheet | None, classes: Mapping[Path, Sequence[Path]], problems: list[str]
) -> dict[tuple[str, str], tuple[int, Mapping[str, object]]]:
    """Map (name of the class folder, clip in lower case) to (row number, row).

    A row of a clip that is in no folder has the emotion it names, if any, for a folder.

    Raises:
      DataError: a row fits clips of several folders, which may be of different people.
    """
    holders: dict[str, list[str]] = {}
    for emotion, paths in classes.items():
        for clip in dict.fromkeys(fold(_stem(path)) for path in paths):
            holders.setdefault(clip, []).append(emotion.name)
    rows: dict[tuple[str, str], tuple[int, Mapping[str, object]]] = {}
    if sheet is None:
        return rows
    for number, row in numbered(sheet.cells).items():
        emotion, clip = _emotion_and_clip(row)
        fitting = _fitting(holders.get(fold(clip), []), emotion)
        if len(fitting) > 1:
            names = ", ".join(f"{name}/{clip}" for name in fitting)
            raise DataError(
                f"{sheet.path}, {row_name(number)}: {as_text(row['clip'])!r} should name one clip,"
                f" but there are {names}. Write it with its folder, as {fitting[0]}/{clip}."
            )
        key = (fitting[0] if fitting else fold(emotion), fold(clip))
        if not clip or key in rows:
            line = f"{row_name(number)}: {'a second ' + clip if clip else 'no clip'}, left out."
            problems.append(Loss(line, "rows without a clip, or of a clip that has one"))
            continue
        rows[key] = (number, row)
    return rows


def _emotion_and_clip(row: Mapping[str, object]) -> tuple[str, str]:
    """Read class folder ("" where the row names none) and clip; "fear/001.avi" names both."""
    parts = Path(as_text(row["clip"]).replace("\\", "/")).parts
    emotion = parts[-2] if len(parts) > 1 else as_text(row.get("emotion"))
    return emotion, _stem(Path(parts[-1])) if parts else ""


def _fitting(names: Sequence[str], emotion: str) -> list[str]:
    """List the folders that an emotion may mean: so spelled, else in any case, else synonyms.

    An empty emotion may mean any of them.
    """
    if not emotion:
        return list(names)
    for spell in (str, fold, canonical_emotion):
        fitting = [name for name in names if spell(name) == spell(emotion)]
        if fitting:
            return fitting
    return []


def _draft(number: int, clip: str, row: Mapping[str, object]) -> Draft:
    typed = (as_text(row.get("subject")) or UNKNOWN_SUBJECT, clip)
    subject, clip = map(tidy, typed)
    check_part(subject, f"{row_name(number).capitalize()} of the table")
    cells = {name: row.get(name) for name in ("onset", "apex", "offset", "emotion", "au")}
    return Draft(number, subject, clip, cells, video=clip, typed=typed)


def _find(root: Path, draft: Draft, parts: tuple[str, ...] | None, folders: Folders) -> Path | None:
    """Find a clip where the table says, or where its name says."""
    if parts is not None:
        draft.places = (parts,)
    else:
        names = [draft.clip, *(draft.clip + suffix for suffix in VIDEO_SUFFIXES)]
        draft.places = (*((draft.subject, name) for name in names), *((name,) for name in names))
    for place in draft.places:
        path = folders.descend(root, place)
        if path is not None and is_clip(path):
            return path
    return None


def _complete(
    draft: Draft,
    path: Path | None,
    row: Mapping[str, object],
    folders: Folders,
    problems: list[str],
) -> None:
    """Fill in what the table leaves open: first and last frame, frames per second."""
    # Headers of videos guess; a last frame that nobody annotated must be one that exists.
    is_counted = not as_text(draft.cells["offset"])
    try:
        frames = folders.frames(path, is_counted=is_counted) if path is not None else []
        numbers = [frame.number for frame in frames]
        fps = video_fps(path) if path is not None and path.is_file() else math.nan
    except DataError:
        numbers, fps = [], math.nan  # reported where the clip is made
    for field, place in (("onset", 0), ("offset", -1)):
        if numbers and not as_text(draft.cells[field]):
            draft.cells[field] = numbers[place]
    text = as_text(row.get("fps"))
    draft.fps = as_real(text) if text else fps
    if not 0 < draft.fps < 1e5:
        if text:
            problems.append(f"{draft.name}: {text!r} is no number of frames per second.")
        draft.fps = DEFAULT_FPS
        draft.notes.append(f"frames per second unknown: {DEFAULT_FPS:g} assumed")


def _finish(
    source: Source,
    drafts: list[Draft],
    problems: list[str],
    root: Path,
    paths: list[Path | None],
    folders: Folders,
) -> Reading:
    assumed = sum(any("assumed" in note for note in draft.notes) for draft in drafts)
    if assumed:
        problems.append(
            f"The frames per second of {assumed} of {len(drafts)} clips are unknown and taken as"
            f" {DEFAULT_FPS:g}; a column fps in the table sets them."
        )
    return finish(source, drafts, problems, root=root, paths=paths, folders=folders)


def _stem(path: Path | None) -> str:
    """Make the name of a clip from that of its folder or video."""
    if path is None:
        return ""
    return path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name
