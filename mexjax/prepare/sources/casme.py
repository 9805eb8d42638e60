"""CASME and CASME II.

Columns, folders and file names are those of the annotation sheets of the releases and of the public
MEB code.
"""

from __future__ import annotations

from mexjax.prepare.sources.drafts import Draft, Place, padded
from mexjax.prepare.sources.search import RELEASED
from mexjax.prepare.sources.sheet_source import SheetSource
from mexjax.prepare.sources.sheets import Form


def _by_subject(draft: Draft) -> tuple[Place, ...]:
    """Give sub01/EP01_1, with the spellings of the subject that copies have."""
    number = draft.subject.lstrip("0") or draft.subject
    names = dict.fromkeys((f"sub{draft.subject}", f"sub{number}", draft.subject, number))
    return tuple((name, draft.clip) for name in names)


CASME = SheetSource(
    name="casme",
    title="CASME",
    fps=60.0,
    form=Form(
        files=RELEASED["casme"],
        fields={
            "subject": ("Subject",),
            "clip": ("Filename",),
            # "Onset" and "Total" of this sheet are durations.
            "onset": ("OnsetF", "OnsetFrame"),
            "apex": ("ApexF1", "ApexF", "ApexFrame"),
            "offset": ("OffsetF", "OffsetFrame"),
            "emotion": ("Emotion", "Estimated Emotion"),
            "au": ("AU", "AUs", "Action Units"),
        },
    ),
    homes=("CASME_raw_selected", "CASME/CASME_raw_selected", "Cropped", "CASME/Cropped"),
    places=_by_subject,
    subject=padded(2),
)

CASME2 = SheetSource(
    name="casme2",
    title="CASME II",
    fps=200.0,
    form=Form(
        files=RELEASED["casme2"],
        fields={
            "subject": ("Subject",),
            "clip": ("Filename",),
            "onset": ("OnsetFrame", "OnsetF", "Onset"),
            "apex": ("ApexFrame", "ApexF", "ApexF1", "Apex"),
            "offset": ("OffsetFrame", "OffsetF", "Offset"),
            "emotion": ("Estimated Emotion", "Emotion"),
            "au": ("Action Units", "AU", "AUs"),
        },
    ),
    homes=(
        "CASME2_RAW_selected",
        "CASME2/CASME2_RAW_selected",
        "CASME2-RAW",
        "Cropped",
        "Cropped_original",
        "CASME2/Cropped_original",
    ),
    places=_by_subject,
    subject=padded(2),
)
