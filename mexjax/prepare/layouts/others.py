"""4DME, MMEW and SMIC-HS.

Columns and folders are those that public code reads; the table of SMIC is that of MEB.
"""

from __future__ import annotations

from mexjax.data.synthetic import AUS
from mexjax.prepare.layouts import notation
from mexjax.prepare.layouts.base import Layout, Release, save_workbook

_FOURD_STYLES = (notation.prefixed, notation.with_blink, notation.sided, notation.plain)
_FOURD_WORDS = ("Positive", "Negative", "Surprise", "Repression", "Others")
_FOURD_COLUMNS = (*AUS, 13, 24, 45)
_MMEW_STYLES = (notation.plain, notation.number, notation.sided, notation.with_unsure)
_MMEW_NUMBERS = {"happiness": 1, "surprise": 2, "anger": 3, "disgust": 4, "fear": 5, "sadness": 6}


def write_fourd(release: Release) -> Layout:
    """Write 4DME: static units "(k)", compound emotions, and a column for each unit.

    A second workbook of a similar name holds what subjects said they felt.
    """
    units = [f"AU{au}" for au in _FOURD_COLUMNS]
    rows: list[list[object]] = [
        [
            *("sub_ID", "fold", "fold_name", "Onset", "Apex", "Offset", "eye blink"),
            *("AUs", *units, "Emotion", *_FOURD_WORDS),
        ]
    ]
    extras: list[list[object]] = [["sub_ID", "fold_name", "self-report emotion", "video emotion"]]
    num_held = 0
    for i, original in enumerate(release.takes):
        take = original.starting(int(release.rng.integers(1, 120)))
        subject = f"S{take.subject + 1:02d}"
        clip = f"{subject}_1st_{take.number + 1:03d}_01_1"
        folder = f"gray_micro/{subject}/{clip}"
        release.draw(take, folder, "{}.jpg".format)
        if take.held is None:
            coded = _FOURD_STYLES[i % len(_FOURD_STYLES)](take.aus)
        else:
            style = notation.held_between if num_held % 2 else notation.held
            coded, num_held = style(take.aus, take.held), num_held + 1
        # The columns count a static unit as if it were shown.
        counted = {*coded.present, take.held}
        words = [word.capitalize() for word in take.emotion.split("+")]
        rows.append(
            [
                *(subject, take.subject + 1, clip, take.onset, take.apex, take.offset),
                *(int(45 in counted), coded.cell, *(int(au in counted) for au in _FOURD_COLUMNS)),
                *("+".join(words), *(int(word in words) for word in _FOURD_WORDS)),
            ]
        )
        extras.append([subject, clip, words[0], words[-1]])
        release.add(take, subject=subject, clip=clip, folder=folder, coded=coded)
    save_workbook(release.root / "4DME_Labelling_Micro_extras_release v1.xlsx", {"Sheet1": extras})
    return release.finish("4DME_Labelling_Micro_release v1.xlsx", {"Sheet1": rows})


def write_mmew(release: Release) -> Layout:
    """Write MMEW: frames count from 1; each emotion has a folder, "others" in repression.

    Copies differ in that folder's name; the sheet says "others" in all.
    """
    rows: list[list[object]] = [
        [
            *("Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame"),
            *("Action Units", "Estimated Emotion", "remarks"),
        ]
    ]
    per_kind: dict[tuple[int, str], int] = {}
    for i, original in enumerate(release.takes):
        take = original.starting(1)
        kind = (take.subject, take.emotion)
        per_kind[kind] = per_kind.get(kind, 0) + 1
        number = _MMEW_NUMBERS.get(take.emotion, 7)
        clip = f"S{take.subject + 1:02d}-{number:02d}-{per_kind[kind]:03d}"
        folder = "repression" if take.emotion == "others" else take.emotion
        folder = f"Micro_Expression/{folder}/{clip}"
        release.draw(take, folder, "{}.jpg".format)
        coded = _MMEW_STYLES[i % len(_MMEW_STYLES)](take.aus)
        rows.append(
            [
                *(take.subject + 1, clip, take.onset, take.apex, take.offset),
                *(coded.cell, take.emotion, "glasses" if i == 2 else None),
            ]
        )
        release.add(take, subject=f"{take.subject + 1:02d}", clip=clip, folder=folder, coded=coded)
    return release.finish("MMEW_Micro_Exp.xlsx", {"Sheet1": rows})


def write_smic(release: Release) -> Layout:
    """Write SMIC-HS: no apex, no action units, bitmaps; row numbers are the first column."""
    rows: list[list[object]] = [[None, "subject", "material", "emotion", "onset", "offset"]]
    per_kind: dict[tuple[int, str], int] = {}
    for i, original in enumerate(release.takes):
        take = original.starting(int(release.rng.integers(90, 30_000)))
        kind = (take.subject, take.emotion)
        per_kind[kind] = per_kind.get(kind, 0) + 1
        subject = f"s{take.subject + 1}"
        short = {"positive": "po", "negative": "ne", "surprise": "sur"}[take.emotion]
        clip = f"{subject}_{short}_{per_kind[kind]:02d}"
        folder = f"HS/{subject}/micro/{take.emotion}/{clip}"
        release.draw(take, folder, lambda n: f"image{n:06d}.bmp")
        if i == 0:
            (release.root / folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
        rows.append([i, subject, clip, take.emotion, take.onset, take.offset])
        release.add(take, subject=subject, clip=clip, folder=folder, coded=None)
    return release.finish("smic.xlsx", {"Sheet1": rows})
