"""SAMM, micro-movements (Davison et al., 2018).

Columns and folders are those of the release and of public code.
"""

from __future__ import annotations

from mexjax.prepare.sources.drafts import Draft, Place, padded
from mexjax.prepare.sources.search import RELEASED
from mexjax.prepare.sources.sheet_source import SheetSource
from mexjax.prepare.sources.sheets import Form


def _places(draft: Draft) -> tuple[Place, ...]:
    number = draft.subject.lstrip("0") or draft.subject
    names = dict.fromkeys((draft.subject, number.zfill(2), number))
    return tuple((name, draft.clip) for name in names)


SAMM = SheetSource(
    name="samm",
    title="SAMM",
    fps=200.0,
    form=Form(
        files=RELEASED["samm"],
        fields={
            "subject": ("Subject",),
            "clip": ("Filename",),
            "onset": ("Onset Frame", "Onset"),
            "apex": ("Apex Frame", "Apex"),
            "offset": ("Offset Frame", "Offset"),
            "emotion": ("Estimated Emotion", "Emotion"),
            "au": ("Action Units", "AU", "AUs"),
        },
    ),
    homes=("SAMM", "SAMM/SAMM", "SAMM_CROP", "SAMM/SAMM_CROP"),
    places=_places,
    subject=padded(3),
)
