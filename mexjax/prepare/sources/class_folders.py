"""The reader `folder` of a user's own clips: names of folders say subject and emotion."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mexjax.errors import DataError, listed
from mexjax.prepare.sources import search
from mexjax.prepare.sources.base import Frame, Reading
from mexjax.prepare.sources.drafts import Draft, place_name
from mexjax.prepare.sources.folder_layout import (
    Layout,
    clips_below,
    guess_layout,
    loose_lines,
    parse_layout,
    stray_line,
)
from mexjax.prepare.sources.folders import VIDEO_SUFFIXES, Folders, check_part, frames_of
from mexjax.prepare.sources.losses import Loss
from mexjax.prepare.sources.own import (
    ALL_FIELDS,
    FIELDS,
    UNKNOWN_SUBJECT,
    complete,
    finish_own,
    gather_units,
    stem,
)
from mexjax.prepare.sources.sheet_source import check_root
from mexjax.prepare.sources.sheets import Form, Sheet, as_text, numbered, row_name
from mexjax.prepare.sources.unread_columns import lines_of_unread_columns
from mexjax.protocol.classes import canonical_emotion
from mexjax.protocol.names import fold, tidy

_Row = tuple[int, Mapping[str, object]]  # row number and cells
_SPELLINGS: tuple[Callable[[str], str], ...] = (str, fold, canonical_emotion)


@dataclasses.dataclass(frozen=True)
class _Clip:
    """A clip of the layout.

    Attributes:
      path: its folder or video.
      parents: names of the folders on the way.
      words: subject, emotion and clip, as far as names tell them.
    """

    path: Path
    parents: tuple[str, ...]
    words: Mapping[str, str]

    @property
    def place(self) -> str:
        """The way to the clip, for messages."""
        return "/".join((*self.parents, self.words["clip"]))


class ClassFolders:
    """The source `folder`: folders named after emotions, or after subjects and emotions.

    The layout is `emotion/clip`, `subject/emotion/clip` or another one, see
    `mexjax.prepare.sources.folder_layout`; the clip is a folder of images or a video. A table (.csv
    or .xlsx) in the root may add, by clip: subject, onset, apex, offset, au, fps. Where a name
    occurs in several folders, the table writes {emotion}/{clip} or has a column emotion.
    Without subjects all clips are those of one unknown person, because names that are guessed
    could put one person on both sides of a split.

    Args:
      layout: its text; "": guessed from the depth of the clips, and said.
    """

    name = "folder"
    title = "folders of classes"
    fps = math.nan
    form = Form(files=(), fields=FIELDS, optional=ALL_FIELDS - {"clip"})

    def __init__(self, layout: str = "") -> None:
        self.layout = parse_layout(layout) if layout else None

    def read(self, root: Path, *, spreadsheet: Path | None = None) -> Reading:
        """Read the folders, and the table if there is one."""
        root = check_root(root, self.title)
        if spreadsheet is not None:
            sheet, problems = search.get(root, spreadsheet, self.form, self.title)
        else:
            sheet, problems = search.find(root, self.form, self.title, is_beside=False)
        hint = ""
        if sheet is not None:
            problems += lines_of_unread_columns(sheet.cells, FIELDS, sheet.path.name)
            gather_units(sheet.cells, problems)
        else:
            hint = _hint_of_tables(root, self.form, self.title)
            problems += [hint] if hint else []
        folders = Folders()
        if self.layout is not None:
            layout, told = self.layout, f"The folders were read as {self.layout.text}."
        else:
            text, told = guess_layout(root, folders)
            layout = parse_layout(text)
        clips = _enumerate(root, layout, folders, problems)
        places = {(*clip.parents, clip.path.name) for clip in clips}
        strays = stray_line(layout.text, clips_below(root, folders), places)
        rows, others = _match_rows(sheet, clips, layout, problems)
        drafts: list[Draft] = []
        paths: list[Path | None] = []
        for index, clip in enumerate(clips):
            number, row = rows.get(index, (0, {}))
            origin = "" if number else "/".join((*clip.parents, clip.path.name))
            subject = clip.words.get("subject", "")
            draft = _draft(number, clip.words["clip"], row, subject, origin)
            if "emotion" in clip.words:
                draft.cells["emotion"] = clip.words["emotion"]
            complete(draft, clip.path, row, folders, problems)
            drafts.append(draft)
            paths.append(clip.path)
        for number, row in others:
            draft = _draft_elsewhere(number, row, layout)
            complete(draft, None, row, folders, problems)
            drafts.append(draft)
            paths.append(None)
        if not clips and not any(as_text(row.get("offset")) for _, row in others):
            # With ranges it may be a release that was put away.
            if others and sheet is not None:
                hint = (
                    f"{sheet.path.name} lists {len(others)} clips: if it has their subjects and"
                    " emotions, say --dataset=csv."
                )
            raise DataError(
                f"No clips in {root}. Expected a folder for each emotion, and in it a folder of"
                f" images or a video ({', '.join(VIDEO_SUFFIXES)}) for each clip. {strays}"
                f" {hint}".rstrip()
            )
        unknown = sum(draft.subject == UNKNOWN_SUBJECT for draft in drafts)
        if unknown:
            problems.append(
                f"The subjects of {unknown} of {len(drafts)} clips are unknown; splits by subject"
                " need a table with the columns clip and subject in the root, or a layout with the"
                " subject in it, such as --layout=subject/emotion/clip."
            )
        problems[:0] = filter(None, (told, strays))
        problems += loose_lines(root, places, folders, layout.text)
        return finish_own(self, drafts, problems, root, paths, folders)

    def frames(self, root: Path, row: Mapping[str, Any]) -> list[Frame]:
        """List the frames of a row; see `Source.frames`."""
        return frames_of(Path(root), row)


def _hint_of_tables(root: Path, form: Form, title: str) -> str:
    """Say that a table lies there and was not read, and which command reads it; "" without one."""
    paths = search.list_files(root)
    if not paths:
        return ""
    try:
        search.read(paths[0], form, title)
        why = "its name is that of a release"
    except DataError as error:
        why = str(error).removeprefix(f"{paths[0]} ")
    return (
        f"Not read: {listed([path.name for path in paths])} ({why[:200].rstrip('. ')}). If a table"
        " lists the clips with their subjects and emotions, say --dataset=csv; with"
        " --dataset=folder it needs a column clip."
    )


def _enumerate(root: Path, layout: Layout, folders: Folders, problems: list[str]) -> list[_Clip]:
    """List the clips that lie as the layout says, in natural order of their places."""
    places: list[tuple[Path, tuple[str, ...]]] = [(root, ())]
    for _ in layout.levels[:-1]:
        places = [
            (sub, (*names, sub.name)) for path, names in places for sub in folders.subfolders(path)
        ]
    clips = []
    for folder, parents in places:
        paths = folders.clips(folder)
        if not paths:
            problems.append(
                f"{folder}: no clips in this folder; expected folders of images, or videos."
            )
        for path in paths:
            words = layout.read((*parents, stem(path)))
            if words is not None and not all(map(tidy, words.values())):
                line = f"{str(path)!a}: a name in it has no letter that is seen; left out."
                problems.append(Loss(line, "clips whose names have no letter that is seen"))
            elif words is not None:
                clips.append(_Clip(path, parents, words))
            elif not folders.subfolders(path):
                line = f"{path}: its name does not fit the layout {layout.text}; left out."
                problems.append(Loss(line, "clips whose names do not fit the layout"))
    return clips


def _match_rows(
    sheet: Sheet | None, clips: Sequence[_Clip], layout: Layout, problems: list[str]
) -> tuple[dict[int, _Row], list[_Row]]:
    """Find the clip of each row of the table.

    Returns:
      row by index of the clip, and rows of clips that are in no folder.

    Raises:
      DataError: a row fits clips of several folders, which may be of different people.
    """
    by_name: dict[str, list[int]] = {}
    for index, clip in enumerate(clips):
        by_name.setdefault(fold(clip.words["clip"]), []).append(index)
    rows: dict[int, _Row] = {}
    others: dict[tuple[str, str, str], _Row] = {}
    if sheet is None:
        return {}, []
    for number, row in numbered(sheet.cells).items():
        parents, name = _place_of(row)
        fitting = _fitting(clips, by_name.get(fold(name), []), parents, row, layout)
        if len(fitting) > 1:
            places = [clips[index].place for index in fitting]
            raise DataError(
                f"{sheet.path}, {row_name(number)}: {as_text(row['clip'])!r} should name one clip,"
                f" but there are {', '.join(places)}. Write it with its folder, as {places[0]}."
            )
        emotion = parents[-1] if parents else as_text(row.get("emotion"))
        subject = as_text(row.get("subject")) if layout.has_subject else ""
        key = (fold(subject), fold(emotion), fold(name))
        is_second = fitting[0] in rows if fitting else key in others
        if not name or is_second:
            line = f"{row_name(number)}: {'a second ' + name if name else 'no clip'}, left out."
            problems.append(Loss(line, "rows without a clip, or of a clip that has one"))
        elif fitting:
            rows[fitting[0]] = (number, row)
        else:
            others[key] = (number, row)
    return rows, list(others.values())


def _place_of(row: Mapping[str, object]) -> tuple[tuple[str, ...], str]:
    """Read the folders and the name of a clip; "fear/001.avi" names both."""
    parts = Path(as_text(row["clip"]).replace("\\", "/")).parts
    return parts[:-1], stem(Path(parts[-1])) if parts else ""


def _fitting(
    clips: Sequence[_Clip],
    indices: Sequence[int],
    parents: Sequence[str],
    row: Mapping[str, object],
    layout: Layout,
) -> list[int]:
    """List the clips of one name that a row may mean.

    Folders that are named must be theirs: so spelled, else in any case, else by synonyms. Without
    folders the emotion of the row must be, and in any case its subject, where folders tell them.
    """
    fitting = list(indices)
    if parents:
        fitting = _alike(fitting, lambda i: clips[i].parents, tuple(parents))
    elif "emotion" in layout.text and as_text(row.get("emotion")):
        emotion = (as_text(row.get("emotion")),)
        fitting = _alike(fitting, lambda i: (clips[i].words["emotion"],), emotion)
    subject = fold(as_text(row.get("subject")))
    if layout.has_subject and subject:
        fitting = [i for i in fitting if fold(clips[i].words["subject"]) == subject]
    return fitting


def _alike(
    indices: Sequence[int], names: Callable[[int], tuple[str, ...]], target: tuple[str, ...]
) -> list[int]:
    """Those whose last names are the target's, in the first spelling that any has."""
    for spell in _SPELLINGS:
        alike = [
            i
            for i in indices
            if all(
                spell(a) == spell(b)
                for a, b in zip(reversed(names(i)), reversed(target), strict=False)
            )
        ]
        if alike:
            return alike
    return []


def _draft_elsewhere(number: int, row: Mapping[str, object], layout: Layout) -> Draft:
    """Make the draft of a row whose clip is in no folder, with the place where it should be."""
    parents, name = _place_of(row)
    draft = _draft(number, name, row, "")
    emotion = parents[-1] if parents else as_text(row.get("emotion"))
    words = {"subject": as_text(row.get("subject")), "emotion": emotion}
    draft.places = (
        (*(words.get(level, "") or "*" for level in layout.text.split("/")[:-1]), name),
    )
    return draft


def _draft(
    number: int, clip: str, row: Mapping[str, object], subject: str, origin: str = ""
) -> Draft:
    named = as_text(row.get("subject"))
    if not subject and named:  # whatever a folder is called can be its subject's name
        check_part(tidy(named), place_name(number))
    typed = (subject or named or UNKNOWN_SUBJECT, clip)
    subject, clip = map(tidy, typed)
    cells = {name: row.get(name) for name in ("onset", "apex", "offset", "emotion", "au")}
    return Draft(number, subject, clip, cells, video=clip, typed=typed, origin=origin)
