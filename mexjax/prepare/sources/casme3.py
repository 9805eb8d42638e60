"""CAS(ME)3, micro-expressions of parts A and C (Li et al., IEEE TPAMI 45(3), 2023).

Columns are those of the public annotation sheets, folders those of the release and of the public
MEB code.
"""

from __future__ import annotations

from mexjax.prepare.sources.drafts import Draft, Place, padded
from mexjax.prepare.sources.search import RELEASED
from mexjax.prepare.sources.sheet_source import SheetSource
from mexjax.prepare.sources.sheets import Form, Sheet, as_text


def _name_clips(sheet: Sheet, drafts: list[Draft], problems: list[str]) -> None:
    """Tell the expressions of one video apart: a, a2, a3 in the order of the sheet.

    The rule is MEB's: the number goes on while letter and subject are those of the row before.
    """
    before, count = ("", ""), 1
    for draft in drafts:
        draft.video = draft.clip.lower()
        key = (draft.subject.casefold(), draft.video)
        count = count + 1 if key == before else 1
        draft.clip = draft.video if count == 1 else f"{draft.video}{count}"
        before = key


def _places_a(draft: Draft) -> tuple[Place, ...]:
    """Give copied clips (a2/color), the whole video (a/color), and a folder named by the onset.

    These are colour frames only; the depth maps lie in a folder beside them.
    """
    names = list(dict.fromkeys((draft.clip, draft.video)))
    onset = as_text(draft.cells["onset"])
    return (
        *((draft.subject, name, "color") for name in names),
        (f"{draft.subject}_{draft.video}_{onset}",),
        *((draft.subject, name) for name in names),
    )


def _places_c(draft: Draft) -> tuple[Place, ...]:
    number = draft.subject.lstrip("0") or draft.subject
    names = list(dict.fromkeys((draft.subject, number, f"spNO.{number}")))
    return (
        *((name, draft.clip, "color") for name in names),
        *((name, draft.clip) for name in names),
    )


CASME3A = SheetSource(
    name="casme3a",
    title="CAS(ME)3 part A",
    fps=30.0,
    form=Form(
        files=RELEASED["casme3a"],
        fields={
            "subject": ("Subject",),
            "clip": ("Filename",),
            "onset": ("Onset",),
            "apex": ("Apex",),
            "offset": ("Offset",),
            "emotion": ("emotion", "Estimated Emotion"),
            "au": ("AU", "AUs"),
        },
    ),
    homes=("ME_A", "CASME3/ME_A", "Part_A_ME_clip/frame", "ME_A_cropped", "CASME3/ME_A_cropped"),
    places=_places_a,
    is_trimmed=False,
    quirk=_name_clips,
)

CASME3C = SheetSource(
    name="casme3c",
    title="CAS(ME)3 part C",
    fps=30.0,
    form=Form(
        files=RELEASED["casme3c"],
        fields={
            "subject": ("sub", "Subject"),
            "clip": ("count", "Filename"),
            "onset": ("onset",),
            "apex": ("apex",),
            "offset": ("offset",),
            "emotion": ("emotion",),
            "au": ("au", "AUs"),
        },
        optional=frozenset({"apex"}),
    ),
    homes=("ME_C", "CASME3/ME_C", "ME_C_cropped", "CASME3/ME_C_cropped"),
    places=_places_c,
    subject=padded(2),
    is_trimmed=False,
)
