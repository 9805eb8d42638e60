"""Readers of datasets that have one spreadsheet with a header and one folder a clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mexjax.errors import DataError
from mexjax.prepare.sources import cd6me, search, sheets
from mexjax.prepare.sources.base import Frame, Reading
from mexjax.prepare.sources.clips import finish
from mexjax.prepare.sources.corrections import correct
from mexjax.prepare.sources.drafts import Draft, Place, make_drafts
from mexjax.prepare.sources.folders import frames_of


def _no_quirk(sheet: sheets.Sheet, drafts: list[Draft], problems: list[str]) -> None:
    """Leave everything as it is."""


@dataclasses.dataclass(frozen=True)
class SheetSource:
    """A `Source` described by data and a few small functions.

    Attributes:
      name: name in the tables.
      title: name as published.
      fps: frames per second of the cameras.
      form: its spreadsheet.
      homes: sub-folders of the root in which releases keep the clips, raw ones first; the root
        itself is tried last, so that it can also be given directly (for cropped frames, say).
      places: folders of a home in which the frames of a row may be, the likeliest first.
      subject: spelling of a subject from its cell.
      clip: spelling of a clip from its cell.
      is_trimmed: a folder holds one clip and nothing else.
      quirk: whatever else this dataset needs, done in place before corrections.
    """

    name: str
    title: str
    fps: float
    form: sheets.Form
    homes: tuple[str, ...]
    places: Callable[[Draft], tuple[Place, ...]]
    subject: Callable[[str], str] = str
    clip: Callable[[str], str] = str
    is_trimmed: bool = True
    quirk: Callable[[sheets.Sheet, list[Draft], list[str]], None] = _no_quirk

    def read(self, root: Path, *, spreadsheet: Path | None = None) -> Reading:
        """Read the release; see `Source.read`."""
        root = check_root(root, self.title)
        sheet, problems = search.get(root, spreadsheet, self.form, self.title)
        return self.read_sheet(root, sheet, problems)

    def read_sheet(self, root: Path, sheet: sheets.Sheet, problems: list[str]) -> Reading:
        """Read a release as `read` does, from cells that are in memory."""
        drafts = make_drafts(sheet.cells, problems, subject=self.subject, clip=self.clip)
        self.quirk(sheet, drafts, problems)
        # Copies of a release name folders by what its sheet prints, or by the corrected value.
        printed = [self.places(draft) for draft in drafts]
        correct(self.name, drafts, problems)
        cd6me.apply(self.name, sheet.cells, drafts, problems)
        for draft, places in zip(drafts, printed, strict=True):
            draft.places = tuple(dict.fromkeys((*self.places(draft), *places)))
        return finish(
            self,
            drafts,
            problems,
            root=root,
            homes=self.homes,
            is_trimmed=self.is_trimmed,
        )

    def frames(self, root: Path, row: Mapping[str, Any]) -> list[Frame]:
        """List the frames of a row; see `Source.frames`."""
        return frames_of(Path(root), row, self.homes)


def check_root(root: Path, title: str) -> Path:
    """Return the folder as a path.

    Raises:
      DataError: there is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(
            f"There is no folder {root} for {title}. Give the folder of the unpacked dataset as"
            " --root."
        )
    return root
