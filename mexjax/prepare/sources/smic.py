"""SMIC-HS (Li et al., FG 2013; folders: the release and public code).

The release has no spreadsheet. People share one that the MEB authors made; without it the table
is read from the folders, whose names say all but the apex.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mexjax.errors import DataError
from mexjax.prepare.sources import search
from mexjax.prepare.sources.base import Frame, Reading
from mexjax.prepare.sources.drafts import ORIGIN, Draft, Place
from mexjax.prepare.sources.folders import Folders
from mexjax.prepare.sources.losses import Loss
from mexjax.prepare.sources.search import RELEASED
from mexjax.prepare.sources.sheet_source import SheetSource, check_root
from mexjax.prepare.sources.sheets import Form, Sheet
from mexjax.protocol.names import fold

EMOTIONS = ("negative", "positive", "surprise")
HOMES = (
    "HS",
    "SMIC/HS",
    "SMIC_all_raw/HS",
    "SMIC_all_cropped/HS",
    "SMIC/SMIC_all_cropped/HS",
)


def _subject(text: str) -> str:
    """Spell s1, s01 and 1 as s1."""
    digits = text.casefold().removeprefix("s")
    return f"s{int(digits)}" if digits.isdecimal() else text


def _places(draft: Draft) -> tuple[Place, ...]:
    emotion = str(draft.cells["emotion"]).strip().casefold()
    names = (draft.subject, f"s{draft.subject[1:].zfill(2)}")
    return tuple((name, "micro", emotion, draft.clip) for name in dict.fromkeys(names))


_SHEET = SheetSource(
    name="smic",
    title="SMIC-HS",
    fps=100.0,
    form=Form(
        files=RELEASED["smic"],
        fields={
            "subject": ("subject", "sub"),
            "clip": ("material", "Filename", "clip"),
            "onset": ("onset", "OnsetF"),
            "apex": ("apex", "ApexF"),
            "offset": ("offset", "OffsetF"),
            "emotion": ("emotion",),
        },
        optional=frozenset({"apex"}),
    ),
    homes=HOMES,
    places=_places,
    subject=_subject,
)


class Smic:
    """Reader of SMIC-HS, with or without a table."""

    name, title, fps = _SHEET.name, _SHEET.title, _SHEET.fps

    def read(self, root: Path, *, spreadsheet: Path | None = None) -> Reading:
        """Read the release; without a spreadsheet a clip is what is in its folder."""
        root = check_root(root, self.title)
        if spreadsheet is not None:
            return _SHEET.read(root, spreadsheet=spreadsheet)
        sheet, problems = search.find(root, _SHEET.form, self.title)
        if sheet is None:
            sheet = _from_folders(root, problems)
        return _SHEET.read_sheet(root, sheet, problems)

    def frames(self, root: Path, row: Mapping[str, Any]) -> list[Frame]:
        """List the frames of a row; see `Source.frames`."""
        return _SHEET.frames(root, row)


def _from_folders(root: Path, problems: list[str]) -> Sheet:
    """Make the table from {subject}/micro/{emotion}/{clip} and the numbers of the files."""
    folders = Folders()
    homes = [folders.descend(root, home.split("/")) for home in HOMES] + [root]
    for home in filter(None, homes):
        rows = []
        for subject in folders.subfolders(home):
            micro = folders.descend(subject, ("micro",))
            emotions = folders.subfolders(micro) if micro is not None else []
            for folder in emotions:
                if fold(folder.name) not in EMOTIONS:
                    line = f"{folder}: no folder of {', '.join(EMOTIONS)}, left out."
                    problems.append(Loss(line, "folders that are of no emotion"))
            for emotion in EMOTIONS:
                places = [folder for folder in emotions if fold(folder.name) == emotion]
                for clip in (clip for place in places for clip in folders.subfolders(place)):
                    numbers = [frame.number for frame in folders.frames(clip)]
                    if not numbers:
                        problems.append(Loss(f"{clip}: no images, left out.", "empty folders"))
                        continue
                    origin = clip.relative_to(home).as_posix()
                    rows.append((subject.name, clip.name, emotion, numbers[0], numbers[-1], origin))
        if rows:
            problems.append("No spreadsheet: emotions and ranges were read from the folders.")
            columns = ["subject", "clip", "emotion", "onset", "offset", ORIGIN]
            return Sheet(home, pd.DataFrame(rows, columns=columns, dtype=object))
    raise DataError(
        f"No clips of SMIC-HS in {root}. Expected folders such as HS/s1/micro/positive/s1_po_01"
        f" with images, and by choice a table {_SHEET.form.files[0]}; found"
        f" {', '.join(path.name for path in folders.subfolders(root)[:12]) or 'no folder'}."
    )
