"""4DME, gray micro clips (Li et al., IEEE TAFFC 14(4), 2023).

Columns are those of the release and of the public MEB code.
"""

from __future__ import annotations

import re

from mexjax.errors import DataError
from mexjax.prepare.sources.drafts import Draft, Place
from mexjax.prepare.sources.search import RELEASED
from mexjax.prepare.sources.sheet_source import SheetSource
from mexjax.prepare.sources.sheets import Form, Sheet, as_text
from mexjax.protocol.action_units import parse_aus


def _places(draft: Draft) -> tuple[Place, ...]:
    return ((draft.subject, draft.clip), (draft.clip,))


def _settle_units(sheet: Sheet, drafts: list[Draft], problems: list[str]) -> None:
    """Report where the two notations of the sheet, a text and 0/1 columns, differ.

    Where the text is empty and every column says 0, the coder saw no unit.
    """
    columns = {
        int(match[1]): name
        for name in sheet.cells.columns
        if (match := re.fullmatch("au([0-9]{1,2})", str(name)))
    }
    if not columns:
        return
    for draft in drafts:
        try:
            aus = parse_aus(draft.cells["au"])
        except DataError:
            continue  # reported where the clip is made
        row = sheet.cells.loc[draft.index]
        if not as_text(draft.cells["au"]) and all(as_text(row[n]) == "0" for n in columns.values()):
            draft.cells["au"] = "0"
        marked = {au for au, name in columns.items() if as_text(row[name]) == "1"}
        # The columns of the release count held units, "(k)", as present.
        coded = {*aus.present, *aus.unsure, *aus.static} & set(columns)
        if marked != coded and marked != coded - set(aus.static):
            problems.append(
                f"{draft.name}: the units {as_text(draft.cells['au'])!r} and the columns"
                f" {', '.join(f'AU{au}' for au in sorted(marked)) or '(none)'} differ; the text is"
                " used."
            )


FOURD = SheetSource(
    name="fourd",
    title="4DME",
    fps=60.0,
    form=Form(
        files=RELEASED["fourd"],
        fields={
            "subject": ("sub_ID", "Subject"),
            "clip": ("fold_name", "Filename"),
            "onset": ("Onset",),
            "apex": ("Apex",),
            "offset": ("Offset",),
            "emotion": ("Emotion",),
            "au": ("AUs", "AU"),
        },
    ),
    homes=(
        "gray_micro",
        "4DMicro/gray_micro",
        "gray_micro_crop",
        "4DMicro/gray_micro_crop",
    ),
    places=_places,
    quirk=_settle_units,
)
