"""CAS(ME)2, the micro-expressions in its long videos (Qu et al., IEEE TAFFC 9(4), 2018).

Its workbook has three tables without headers: the annotations; for each subject number its
folder ("s15"); for each stimulus, as clips are named after it ("anger1"), its code in folder names
("0401"). These facts are from public spotting code for this dataset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mexjax.errors import DataError
from mexjax.prepare.sources import search, sheets
from mexjax.prepare.sources.base import Frame, Reading
from mexjax.prepare.sources.drafts import Draft, Place
from mexjax.prepare.sources.folders import frames_of
from mexjax.prepare.sources.losses import Loss
from mexjax.prepare.sources.search import RELEASED
from mexjax.prepare.sources.sheet_source import SheetSource, check_root
from mexjax.prepare.sources.sheets import Form, Sheet, as_text, plain
from mexjax.prepare.sources.table_files import read_tables

TITLE = "CAS(ME)2"
HOMES = ("rawpic", "CAS(ME)2/rawpic", "selectedpic", "cropped", "CAS(ME)2/cropped")
_COLUMNS = ("subject", "clip", "onset", "apex", "offset", "au", "emotion", "kind")
_MICRO = ("microexpression", "micro")
_MACRO = ("macroexpression", "macro")
_RULES = ("rule1", "rule2")  # in the names of the two other tables
_FORM = Form(
    files=RELEASED["casme_sq"],
    fields={name: (name,) for name in _COLUMNS},
)


class CasmeSquared:
    """Reader of CAS(ME)2; macro-expressions are left out, and counted in the problems."""

    name = "casme_sq"
    title = TITLE
    fps = 30.0

    def read(self, root: Path, *, spreadsheet: Path | None = None) -> Reading:
        """Read the release; see `Source.read`."""
        root = check_root(root, TITLE)
        sheet, problems = search.get(root, spreadsheet, _FORM, TITLE, reader=_read_workbook)
        kinds = [plain(cell) for cell in sheet.cells["kind"]]
        for (number, row), kind in zip(sheets.numbered(sheet.cells).items(), kinds, strict=True):
            if kind not in (*_MICRO, *_MACRO):
                text = ", ".join(filter(None, map(as_text, row.values())))[:120]
                line = f"{sheets.row_name(number)}: neither micro- nor macro-expression, left out:"
                problems.append(Loss(f"{line} {text}", "rows of no kind of expression"))
        num_macro = sum(kind in _MACRO for kind in kinds)
        if num_macro:
            line = f"{num_macro} macro-expressions were left out."
            problems.append(Loss(line, "macro-expressions", num_macro))
        micro = Sheet(sheet.path, sheet.cells.loc[[kind in _MICRO for kind in kinds]])
        folders, codes = _naming_rules(sheet.path)
        source = SheetSource(
            name=self.name,
            title=TITLE,
            fps=self.fps,
            form=_FORM,
            homes=HOMES,
            places=lambda draft: _places(draft, codes),
            subject=lambda text: folders.get(text, f"s{text}" if text.isdecimal() else text),
            is_trimmed=False,
        )
        return source.read_sheet(root, micro, problems)

    def frames(self, root: Path, row: Mapping[str, Any]) -> list[Frame]:
        """List the frames of a row; see `Source.frames`."""
        return frames_of(Path(root), row, HOMES)


def _places(draft: Draft, codes: Mapping[str, str]) -> tuple[Place, ...]:
    """Give s15/15_0101disgustingteeth; the words behind the code are in no table."""
    stimulus = draft.clip.split("_")[0].casefold()
    number = draft.subject.casefold().removeprefix("s")
    code = codes.get(stimulus, "")
    places = [(draft.subject, f"{number}_{code}*")] if code else []
    return (*places, (draft.subject, draft.clip), (draft.subject, stimulus))


def _read_workbook(path: Path) -> Sheet:
    """Read the tables that tell micro- from macro-expressions."""
    parts: dict[str, pd.DataFrame] = {}
    others: dict[str, int] = {}
    tables = read_tables(path, _count_kinds)
    remarks = list(tables.remarks)
    for name, rows in tables.rows.items():
        cells = {}
        for number, row in enumerate(rows, start=1):
            if any(as_text(cell) for cell in row):
                cells[number] = [*row, *[None] * len(_COLUMNS)][: len(_COLUMNS)]
        table = pd.DataFrame(
            cells.values(), index=list(cells), columns=list(_COLUMNS), dtype=object
        )
        is_known = [plain(cell) in (*_MICRO, *_MACRO) for cell in table["kind"]]
        if any(is_known):
            if not is_known[0] and not _is_number(table["onset"].iloc[0]):
                # Somebody named the columns of this copy.
                texts = ", ".join(filter(None, map(as_text, table.iloc[0])))
                remarks.append(
                    f"{path.name}, table {name}: row {table.index[0]} was taken for the names of"
                    f" the columns: {texts[:80]!r}."
                )
                table = table.iloc[1:]
            parts[name] = table
        elif cells and not any(rule in plain(name) for rule in _RULES):
            others[name] = len(cells)
    if parts:
        return sheets.join(path, parts, others, remarks)
    raise DataError(
        f"{path} is not the workbook of {TITLE}: no table in it has micro-expression or"
        f" macro-expression in its column {len(_COLUMNS)}. Expected {_FORM.files[0]} with the"
        f" columns {', '.join(_COLUMNS)}, which have no header."
    )


def _count_kinds(rows: Sequence[Sequence[object]]) -> int:
    place = _COLUMNS.index("kind")
    return sum(plain(row[place]) in (*_MICRO, *_MACRO) for row in rows if len(row) > place)


def _naming_rules(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Read subject number -> folder, and stimulus (as in clip names, lower case) -> code."""
    folders: dict[str, str] = {}
    codes: dict[str, str] = {}
    for name, rows in read_tables(path, _count_kinds).rows.items():
        for row in rows:
            texts = [as_text(cell) for cell in row] + [""] * 3
            if _RULES[0] in plain(name) and texts[2].isdecimal() and texts[1]:
                folders[texts[2]] = texts[1]
            if _RULES[1] in plain(name) and texts[0].isdecimal() and texts[1]:
                codes[texts[1].casefold()] = texts[0].zfill(4)
    return folders, codes


def _is_number(cell: object) -> bool:
    try:
        return sheets.as_number(cell) is not None
    except DataError:
        return False
