"""SAMM, with the columns, folders and oddities that public code reads (MEB, GA-ME)."""

from __future__ import annotations

import dataclasses

from mexjax.errors import ConfigError
from mexjax.prepare.layouts import notation
from mexjax.prepare.layouts.base import Layout, Release

_STYLES = (notation.graded, notation.spaced, notation.number, notation.plain)
# One row has an "or" among the units, one an apex that lies after the offset.
_UNDECIDED, _MISPLACED = 2, 3
_NO_SUCH_SUBJECT = (8, 27, 29)
_SUBJECTS = tuple(f"{n:03d}" for n in range(6, 38) if n not in _NO_SUCH_SUBJECT)
# Thirteen lines come before the header of the release; the words are ours.
_TEXT = (
    "Synthetic faces in the layout of the SAMM micro-movement release",
    None,
    "These are not recordings of people; all of it was drawn by a program.",
    "Frames are numbered as in the long recording.",
    "Action units: A to E is the intensity, L and R the side.",
    None,
    "Subject: three digits, kept as text.",
    "Filename: subject, video, number of the movement.",
    "Onset, Apex, Offset Frame: first, strongest and last frame; an empty apex is unknown.",
    "Duration: in frames, both ends counted.",
    "Micro: 1/2 where the movement is shorter than half a second.",
    "Objective Classes: by action units only.",
    None,
)


def write_samm(release: Release) -> Layout:
    """Write SAMM: text above the header, "or" among action units, capital letters.

    One apex is empty and one lies after its offset, as in the release; a reader must put the
    midpoint there.
    """
    if max(take.subject for take in release.takes) >= len(_SUBJECTS):
        raise ConfigError(f"SAMM has {len(_SUBJECTS)} subjects; write fewer.")
    rows: list[list[object]] = [[line] for line in _TEXT]
    rows.append(
        [
            *("Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame"),
            *("Offset Frame", "Duration", "Micro", "Action Units", "Estimated Emotion"),
            *("Objective Classes", "Notes"),
        ]
    )
    num_others = 0
    for i, original in enumerate(release.takes):
        # Numbers have five digits; the first clip passes a change in their leading zeros.
        take = original.starting(9_990 if i == 0 else int(release.rng.integers(90, 9_000)))
        subject = _SUBJECTS[take.subject]
        clip = f"{subject}_{take.number // 3 + 1}_{take.number % 3 + 1}"
        folder = f"SAMM/{subject}/{clip}"
        release.draw(take, folder, lambda n, subject=subject: f"{subject}_{n:05d}.jpg")
        style = notation.either if i == _UNDECIDED else _STYLES[i % len(_STYLES)]
        coded = style(take.aus)
        emotion = take.emotion.capitalize()
        if emotion == "Others":
            num_others += 1
            emotion = "Other" if num_others % 2 else "Others"
        length = take.offset - take.onset + 1
        apex = take.apex if take.has_apex else None
        if i == _MISPLACED:
            apex = take.offset + 40
            take = dataclasses.replace(take, apex=(take.onset + take.offset) // 2)
        rows.append(
            [
                *(subject, clip, take.number // 3 + 1, take.onset),
                *(apex, take.offset),
                *(length, "1/2" if length < 100 else "1", coded.cell, emotion),
                *(notation.objective_class(take.aus), "blink" if i % 4 == 0 else None),
            ]
        )
        release.add(take, subject=subject, clip=clip, folder=folder, coded=coded)
    return release.finish("SAMM_Micro_FACS_Codes_v2.xlsx", {"MICRO ONLY": rows})
