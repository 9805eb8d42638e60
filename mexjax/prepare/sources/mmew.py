"""MMEW, micro-expressions (Ben et al., 2022).

Columns and folders are those of the release and of public code.
"""

from __future__ import annotations

from mexjax.prepare.sources.drafts import Draft, Place, padded
from mexjax.prepare.sources.search import RELEASED
from mexjax.prepare.sources.sheet_source import SheetSource
from mexjax.prepare.sources.sheets import Form, as_text
from mexjax.protocol.classes import SYNONYMS, canonical_emotion


def _places(draft: Draft) -> tuple[Place, ...]:
    """Give {emotion}/{clip}, with a subject above or below it in some copies.

    "others" of the sheet is a folder "repression" in the copy that the MEB code reads, and
    "others" in the one that other code reads.
    """
    text = as_text(draft.cells["emotion"]).casefold()
    emotion = canonical_emotion(text) if text else "others"
    names = [text, emotion, *(word for word, same in SYNONYMS.items() if same == emotion)]
    if emotion in ("others", "repression"):
        names += ["others", "repression"]
    names = list(dict.fromkeys(filter(None, names)))
    subject = draft.subject.lstrip("0")
    above = dict.fromkeys((draft.subject, f"S{draft.subject}", subject, f"S{subject}"))
    return (
        *((name, draft.clip) for name in names),
        *((person, name, draft.clip) for person in above for name in names),
        (draft.clip,),
    )


MMEW = SheetSource(
    name="mmew",
    title="MMEW",
    fps=90.0,
    form=Form(
        files=RELEASED["mmew"],
        fields={
            "subject": ("Subject",),
            "clip": ("Filename",),
            "onset": ("OnsetFrame", "Onset"),
            "apex": ("ApexFrame", "Apex"),
            "offset": ("OffsetFrame", "Offset"),
            "emotion": ("Estimated Emotion", "Emotion"),
            "au": ("Action Units", "AU", "AUs"),
        },
    ),
    homes=("Micro_Expression", "MMEW/Micro_Expression", "MMEW_Final/Micro_Expression"),
    places=_places,
    subject=padded(2),
)
