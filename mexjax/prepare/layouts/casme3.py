"""CAS(ME)3, parts A and C.

Columns and folders are those of public annotation files and of the public MEB code.
"""

from __future__ import annotations

from mexjax.errors import ConfigError
from mexjax.prepare.layouts import notation
from mexjax.prepare.layouts.base import Layout, Release

_LETTERS = "abcdefghijklm"
# Readers know this slip of the release's sheet: the video's onset is a thousand too large.
_SLIP_SUBJECT, _SLIP_LETTER, _SLIP_ONSET, _RIGHT_ONSET = "spNO.216", "d", 3647, 2647
_A_WORDS = {"happiness": "happy", "sadness": "sad"}
_A_STYLES = (notation.right_last, notation.with_lips, notation.number, notation.sided)
_C_STYLES = (notation.comma_number, notation.wide_comma, notation.commas, notation.comma_unsure)


def write_casme3a(release: Release) -> Layout:
    """Write part A: one video has several expressions, and a letter for a name.

    The clips of a video are told apart by a number from 2 on, as in MEB: a, a2, b. One video is
    in the sheet with an upper-case letter, one with an onset that is a slip of the keyboard.
    Frames of depth lie beside those of colour, and two empty sheets behind the annotations.
    """
    rows: list[list[object]] = [
        ["Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion"]
    ]
    last: dict[int, int] = {}
    for i, original in enumerate(release.takes):
        video, nth = divmod(original.number, 2)
        is_slip = original.subject == release.takes[-1].subject
        subject = _SLIP_SUBJECT if is_slip else f"spNO.{original.subject + 1}"
        letters = _LETTERS[_LETTERS.index(_SLIP_LETTER) :] if is_slip else _LETTERS
        if video >= len(letters):
            raise ConfigError(
                f"Part A of CAS(ME)3 has at most {len(letters)} videos a subject; write more"
                " subjects, or fewer clips."
            )
        is_slip = is_slip and original.number == 0
        # The first frame may have the number 0 in this release.
        start = int(release.rng.integers(0, 9)) if nth == 0 else last[original.subject] + 9
        take = original.starting(_RIGHT_ONSET if is_slip else start)
        last[take.subject] = take.offset
        letter = letters[video]
        clip = letter if nth == 0 else f"{letter}{nth + 1}"
        name = letter.upper() if i == _first_of_last_video(release) else letter
        folder = f"ME_A/{subject}/{letter}/color"
        release.draw(take, folder, "{}.jpg".format, after=3)
        depth = release.root / f"ME_A/{subject}/{letter}/depth"
        depth.mkdir(exist_ok=True)
        (depth / f"{take.onset}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        coded = _A_STYLES[i % len(_A_STYLES)](take.aus)
        word = _A_WORDS.get(take.emotion, take.emotion)
        if word == "others" and i % 2:
            word = "Others"
        rows.append(
            [
                *(subject, name, _SLIP_ONSET if is_slip else take.onset),
                *(take.apex, take.offset),
                *(coded.cell, notation.objective_class(take.aus), word),
            ]
        )
        release.add(take, subject=subject, clip=clip, folder=folder, coded=coded)
    return release.finish(
        "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx", {"label": rows, "Sheet2": [], "Sheet3": []}
    )


def _first_of_last_video(release: Release) -> int:
    """Return the row whose video has only one clip, or the last row."""
    ids = [(take.subject, take.number // 2) for take in release.takes]
    alone = [i for i, name in enumerate(ids) if ids.count(name) == 1]
    return alone[-1] if alone else len(ids) - 1


def write_casme3c(release: Release) -> Layout:
    """Write part C (mock crime): no apex, commas of both kinds, numbers as AU cells."""
    rows: list[list[object]] = [["sub", "count", "onset", "offset", "au", "emotion"]]
    for i, original in enumerate(release.takes):
        take = original.starting(int(release.rng.integers(200, 4000)))
        subject, clip = f"{take.subject + 1:02d}", str(take.number + 1)
        folder = f"ME_C/{subject}/{clip}/color"
        release.draw(take, folder, "{}.jpg".format)
        coded = _C_STYLES[i % len(_C_STYLES)](take.aus)
        rows.append(
            [
                *(take.subject + 1, take.number + 1, take.onset, take.offset),
                *(coded.cell, take.emotion),
            ]
        )
        release.add(take, subject=subject, clip=clip, folder=folder, coded=coded)
    return release.finish("CAS(ME)3_part_C_ME.xlsx", {"mockCrimeME": rows})
